//! A tree of capacities that is shared fairly. A cost is held at a node and at each of its ancestors, all or nothing.
//!
//! ```text
//!                 all: 10 slots, 60 calls a minute
//!                /                                \
//!     batch: weight 1                   people: weight 4, 8 slots
//!                                          /             \
//!                                      search           chat
//! ```
//!
//! A request names a node and a cost, which is an amount of one or more resources. A request at `chat` is granted when `chat`,
//! `people` and `all` each have enough left of the resources that they limit. The cost is then taken from all three in one step,
//! and a [`Permit`] holds it. A request that cannot be granted at once becomes a *waiter* in the wait queue of its node.
//!
//! There are three kinds of resource. *Slots* are held and come back with the release. A *rate* refills with time. A *budget*
//! is never refilled.
//!
//! This page explains which waiter is granted next; [`Tree`] explains the interface.
//!
//! | directory | contents |
//! |---|---|
//! | `policy/` | decisions: which request is granted, in which order, at which charge |
//! | `model/` | records of nodes, resources, permits and waiters, and the walks over them |
//! | `index/` | data structures |
//!
//! `policy` imports `model`, which imports `index`, and never the other way.
//!
//! # Shares: hierarchical start-time fair queueing of hold time
//!
//! The service that a child receives from its parent is cost x hold time: four slots for a second equal one slot for four. Each
//! node shares this service by weight between its children. Its own wait queue is one more child, of weight 1.
//!
//! Each child has a *tag*: its charges so far, divided by its weight. The search for the next waiter descends from the root. At
//! each node it picks the eligible child with the least tag; of equal tags, the child that was served longest ago. It ends at a
//! wait queue and picks its first waiter (`policy/dispatch.rs`). A charge adds to the tag at each level of the path
//! (`policy/fair_queue.rs`):
//!
//! ```text
//! hold x cost / limit / weight
//! ```
//!
//! The hold time is unknown at the grant. It is *estimated* there, by a moving average of the node's hold times, and *corrected*
//! at the release. A permit that outlives its charge is charged for another such stretch by the first dispatch after that.
//! Estimates therefore affect how far shares may stray for a while, but not where they settle.
//!
//! The *virtual time* of a node is the greatest start tag of any grant there; it never falls. A child is *eligible* while it has
//! a waiter that nothing below the parent holds back: no limit of the child, no pause and no missing quota. When a child becomes
//! eligible again, its tag is *lifted* to the virtual time, so it cannot save up service that it could not have used.
//!
//! * A child is not lifted if nothing was granted at the node meanwhile, because it could have used nothing more. This is the
//!   case of a client that submits its next request only after the last grant, and so is absent at each grant.
//! * A permit records when it was charged. A downward correction of a charge from before a lift is dropped, as it would be savings.
//! * Where only one child uses anything, nothing is charged, and any lead from an earlier competition ends.
//!
//! With several resources a child is charged for its largest share of a limit, as in dominant resource fairness. Only *contended*
//! resources count: those that another child of the same node uses too, and for which some waiter had to wait. A child that
//! takes all of an uncontended resource takes nothing from its siblings; a charge for it would starve the child of the contended
//! ones. Quota counts by the time in which the whole rate brings it.
//!
//! # Floors
//!
//! A child may have a *floor*, a guaranteed minimum of slots. While it holds fewer and has a waiter that fits, that waiter precedes
//! those of its siblings at the next grant. An idle floor is lent. A grant below a floor is charged as all others, so a child
//! receives its share or its floor, whichever is more, and its siblings share the rest by weight. Waiters with a reservation
//! precede the floors, and the order at a rate is that of the shares (`policy/floor.rs`).
//!
//! # Wait queues
//!
//! The order in a wait queue is by arrival time, minus [`Settings::ageing`] for each step of priority. Equal priorities are
//! served in FIFO order, and a waiter that waits long enough passes any priority without ever being sorted again
//! (`model/wait_queue.rs`, `index/run_list.rs`).
//!
//! A request that is made *in front* ([`AcquireRequest::front`]) precedes all others of its queue. The task pool uses it for a call that
//! was rejected, which keeps its place.
//!
//! The first eight waiters of a queue are *offered*: a later one of them may be granted while an earlier one lacks slots or a
//! budget. At a rate the order is strict (below).
//!
//! # Large costs: passes and reservations
//!
//! This section is about slots and budgets. Smaller requests may *pass* a waiter that was next and did not fit, up to
//! [`Settings::passes`] times. A pass is a grant that takes of a resource which the waiter lacks, from the moment at which the
//! waiter was next, even while something else also holds it up. After the last pass, capacity that becomes free of the resource
//! it lacks, at the node where it lacks it, is *reserved* for it (`policy/reservation.rs`): each slots or budget resource that
//! it lacks, so that it does not pay for them one after the other. Nodes and resources that it does not lack are unaffected.
//!
//! Holding one resource while waiting for another can deadlock. Reservations are therefore ordered by age: a waiter with
//! reservations may use capacity that is reserved for younger ones. Only permits delay the oldest, and they are released
//! eventually. Each waiter becomes the oldest eventually, and is granted. A waiter that is held up by a pause, by a cooldown, by a
//! limit below its cost or by quota has no reservations meanwhile.
//!
//! # Rates
//!
//! A rate is the generic cell rate algorithm in whole numbers (`model/rate.rs`): exact times, no polling, no drift. A waiter that
//! lacks only quota, and is first by the order above, becomes the *head* of that rate's queue (`policy/rate_queue.rs`). A timer
//! is set to the moment at which its quota is ready, and until then no other waiter gets any of this rate. The head reserves
//! quota and nothing else: slots stay free for others, and no pass is counted. If slots are missing when the moment has come,
//! the next waiter becomes the head.
//!
//! The order at a rate is strict, while for slots passing is allowed within bounds. A smaller cost that passes would delay the
//! larger one by exactly the time in which the rate brings that cost. Passing would save nothing in sum, and would need a bound
//! of its own. Waiting wastes nothing: a cost is at most the burst, so it is granted before the rate is full. And the time of a
//! grant follows from the costs before it.
//!
//! Strict means by the order of this page. In its own queue a waiter of a higher priority replaces the head
//! (`take_precedence`), as it would precede it for slots, and is itself passed by ageing in the end. Between nodes the shares
//! decide when the head is chosen. A node that requests again after its last grant, before any other one, counts as queued at that
//! moment: it replaces the head if its tag is lower (`return_before_heads`). Its tag rises with each grant, so this delays a head by
//! no more than the shares do. No other node replaces a head. Where a rate brings the quota of several grants in one iteration of an
//! event loop, they go to the requests that are queued. There the weights hold only for clients that queue as many.
//!
//! Because no slots are reserved during a wait for quota, a waiter that needs both may repeatedly find one of them while the
//! other is taken. Such misses are counted too (`policy/starvation.rs`). A waiter that is first [`Settings::passes`] times, and
//! sees others take slots that it lacked only quota to use, stays the head from then on until it is granted. It stays so even
//! while it lacks slots, which are then reserved for it as after the last pass. This bounds the wait of the first waiter.
//!
//! Two rates behave the same way: each may have another head whenever the other is free. A head position lost in this way is a
//! miss, too. A waiter that stays the head keeps a fast rate only from shortly before its slowest rate is ready; earlier, others
//! may use quota that the fast rate brings back in time. Slots are reserved only once all quota is ready.
//!
//! A child that quota holds back lags behind its siblings in tags, and will be compensated for it. The lag is bounded by twice
//! the amount by which two siblings may differ in any case. Beyond that, all children that wait for quota advance with the
//! virtual time together, so they share the quota by weight; a child that starts to wait there starts level with them
//! (`policy/lag.rs`). The wait for quota therefore does not grow with the age of the tree, and a past lack of quota does not
//! cost the others their slots later.
//!
//! Settling an estimate upward makes debt. Settling it downward gives back at most the least debt since the grant, because time
//! has brought the rest already (`model/low_water_marks.rs`). The result is the past as it would have been with the true amount:
//! no window admits more than the rate allows, in whichever order permits are settled, and no larger refund is possible. Where
//! grants are even, without a burst, each is made when the debt is paid, so nothing is given back after the next one.
//!
//! There is no polling. Each event loop or thread with waiters has an [`Alarm`], whose deadline is the earliest of the whole
//! tree. The first alarm to fire serves all waiters.
//!
//! # Cooldown
//!
//! A service that rejects calls is not called for a while: [`Tree::cool_down`] closes a node, or one resource of it, until a
//! deadline, and then ramps it up. Its waiters keep their places, and nothing else waits for them. `policy/cooldown.rs`
//! explains the ramp and its bound.
//!
//! A node may have a *breaker*, which [`Tree::report`] feeds as it does adaptive limits. After too many failures it starts such a
//! cooldown by itself, and a few probes decide about its end (`policy/breaker.rs`).
//!
//! # Eligibility
//!
//! A dispatch must not visit every waiter. Each node counts, by resource, the demand of the waiters that are offered below it. It
//! is *blocked* while the least demand exceeds the amount left (`policy/eligibility.rs`). A blocked node is not eligible, so
//! neither it nor its subtree is searched; a full root ends the search at once. Eligibility is refreshed along the path of each
//! change.
//!
//! Beyond the path of the grant, a search visits waiters that do not fit although smaller ones do. Each of them is passed, and
//! visited, a bounded number of times. Waiters at a rate are not passed, so any number of them may wait while others are granted
//! slots alone. Children whose waiters all need the same rates are therefore indexed separately, and while one of these rates
//! has a head, only the first such child is visited (`index/ready_children.rs`).
//!
//! While the whole tree has no waiter and no ramp there is no order to respect. A request that fits is counted and granted without moving a
//! tag, and the clock is read for one grant in sixteen (`policy/uncontended.rs`). When the first waiter arrives, all permits
//! granted in this way are charged from then on.
//!
//! # Adaptive limits
//!
//! [`Limit::Adaptive`] is a number of slots that follows the outcomes of work, which [`Tree::report`] takes. [`adaptive`] explains how. A new
//! limit is applied as by [`Tree::resize`]: lowering it revokes nothing. A cost above the current limit, but not above the maximum,
//! raises it, as it could wait for ever otherwise.
//!
//! [`Limit::AutoRate`] is a rate that follows them in the same way, and the limits that a server states in its answers, which
//! [`Tree::report_stated`] takes. [`auto_rate`] explains how.
//!
//! # Hand-off
//!
//! One lock guards the tree. An operation that frees capacity also grants it, in the same step, to futures that have not been
//! polled yet, so a newcomer cannot take it first. Wakers are called after unlocking. A grant that is never collected, because
//! its future was dropped or gave up its [position](crate::sync::QueuePosition), is annulled: slots, quota and budget are as
//! if it had never been made.
//!
//! # Invariants
//!
//! After every operation (`invariants.rs` verifies them from scratch):
//!
//! 1. At each node, the amount held is the sum of live permits and uncollected grants there and below. It never exceeds the
//!    limit, unless the limit was lowered meanwhile or a budget was settled upward.
//! 2. No offered waiter fits the capacity that is free and not reserved for others: no capacity is left unused, and no wake-up is
//!    lost. (The passing of time is a separate operation: [`Tree::tick`].)
//! 3. With everything released and all quotas ready, each waiter that fits the limits of its path is granted.
//! 4. Every waiter is answered exactly once.
//! 5. Waiters with equal node, cost and priority are served in FIFO order. Waiters of one node that need only rates are served in
//!    queue order, whatever their cost.
//! 6. For siblings f and g that are eligible all the time, the service received per weight differs by at most
//!    `(D + 1) (c_f / w_f + c_g / w_g)`, where D is the parent's limit and c the largest cost x hold. A sibling that quota holds
//!    back meanwhile lags by at most about twice that, where c is the mean.
//! 7. In any window of length t a rate admits at most `burst + rate x t`, apart from upward settlements and, where a waiter has
//!    to wait for it, [`Settings::lateness`].
//! 8. The same operations at the same times make the same grants.
//! 9. Of the waiters that have no reservation and need slots but no rate: if one that fits is below a child that holds less than its
//!    floor, it is granted before any waiter of the siblings that hold theirs.
//!
//! # Cost
//!
//! With `d` the depth: an uncontended request and release cost O(d) under one lock each, without allocation. A contended grant
//! costs O(d x log children), of which only the matches that change anything are played again (`index/tournament_tree.rs`), and
//! O(log waiters) in a wait queue, or O(1) where few priorities are in use. Memory is that of the live nodes, permits and
//! waiters. A waiter that requests one resource takes less than 300 bytes, its future included; a cost of several resources is
//! shared by all its copies.
//!
//! # Sources, and alternatives that were rejected
//!
//! * Goyal, Vin and Cheng, *Start-time fair queuing*, 1997: tags, virtual time as the start tag in service, and hierarchy. Unlike
//!   weighted fair queueing, it does not need to know how fast the server is.
//! * Jin, Chase and Kaur, *Interposed proportional sharing for a storage service utility*, 2004: the same with D requests in
//!   service at once, SFQ(D), and its bound. They charge each request by a cost that is known before; hold times are not, hence
//!   the corrections here.
//! * Ghodsi et al., *Dominant resource fairness*, 2011: the largest share, with several resources. They choose by the amounts
//!   held at the moment, which gives two children of equal weight equal *concurrency*: the child with longer tasks then receives
//!   more.
//! * Bhattacharya et al., *Hierarchical scheduling for diverse datacenter workloads*, 2013: this starves subtrees when shares of
//!   all resources are added up along a hierarchy.
//! * Deficit round robin is cheaper, but serves in bursts of a quantum, which must be as large as the largest cost x hold. An idle
//!   branch that becomes active would wait for the quanta of all others.
//! * Lottery scheduling is fair only in the long run.
//! * First come, first served favours the client with the most requests. In simulations of four groups of unequal weights and
//!   hold times, Jain's index was 0.42; with round robin 0.58, with least held first 0.94, and with this 1.00.

mod acquire;
mod amount;
mod clock;
mod config;
mod cost;
mod error;
#[cfg(any(test, debug_assertions))]
mod floor_invariants;
mod index;
#[cfg(any(test, debug_assertions))]
mod invariants;
mod listing;
mod model;
mod permit;
mod policy;
mod reconfigure;
mod request;
mod snapshot;
mod stats;
mod timer;
mod tree;

pub use acquire::{Acquire, Resume};
pub use amount::{Amount, Weight};
pub use clock::{Clock, ManualClock, Monotonic, Time};
pub use config::{Limit, NodeOptions, Settings};
pub use cost::{Cost, ResourceId};
pub use error::{AcquireError, AmountError, CostError, NodeError, PermitError};
pub use listing::{HeldOff, Holder, WaitingRequest};
pub use model::breaker::{BreakerOptions, Trip};
pub use model::ids::{AlarmId, NodeId, OwnerId, PermitId};
pub use permit::Permit;
pub use policy::adaptive;
pub use policy::auto_rate;
pub use request::AcquireRequest;
pub use snapshot::{BreakerState, BreakerUsage, Cooldown, ResourceUsage, Snapshot, Usage};
pub use timer::Alarm;
pub use tree::{MAX_DEPTH, Tree};
