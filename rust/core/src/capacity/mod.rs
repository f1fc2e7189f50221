//! A tree of capacities, shared fairly: a cost is held at a node and at each of its ancestors, all or nothing.
//!
//! ```text
//!                 all: 10 slots, 60 calls a minute
//!                /                                \
//!     batch: weight 1                   people: weight 4, 8 slots
//!                                          /             \
//!                                      search           chat
//! ```
//!
//! Any node can be asked. An ask of a cost (so much of each resource) at `chat` is granted when `chat`, `people` and `all`
//! each have that much left of what they limit; then it is taken from all three in one step, and a [`Permit`] holds it.
//! What cannot be granted at once waits in the line of its node. There are three kinds of resource: *slots* are held and come
//! back, a *rate* comes back with time, a *budget* never does.
//!
//! The question is who is next. This page says how it is answered; [`Tree`] says how to use it.
//!
//! # Shares: hierarchical start-time fair queueing of hold time
//!
//! What a child uses up of its parent is cost x hold: four slots for a second are as much as one for four. So this is what is
//! shared, by weight, at each node between its children (the line of the node itself is one more child, of weight 1).
//!
//! Each child has a *tag*: what it was charged so far, over its weight. To find who is next, descend from the root, each time to
//! the child with the least tag of those that are eligible, of equals to the one that was served longest ago; at the end stands
//! a line, and in it the first waiter (`dispatch.rs`). To charge, add to the tag at each level of the path (`fair_queue.rs`)
//!
//! ```text
//! hold x cost / limit / weight
//! ```
//!
//! The hold is not known at the grant. It is *estimated* there (by a moving average of the node's holds), *corrected* at the
//! release, and a permit that outlives what it was charged for is charged for another such stretch, by the first dispatch
//! after that. Estimates thus decide only how far shares may stray for a while, not where they settle.
//!
//! The greatest tag by which something was granted at a node is its *virtual time*, which never falls. A child is *eligible* while
//! it has a waiter that everything below the parent lets through: not one that the child's own limit, a pause or a missing quota
//! holds back. When it becomes eligible again its tag is *lifted* to the virtual time, so that it cannot save up what it could not
//! have used; but not if nothing was granted at the node meanwhile, for then it could have used nothing more. (One who asks for
//! the next only after it was granted the last is away at each grant.) A permit remembers when it was charged; what is corrected
//! downward from before a lift is dropped, or it would be savings. Where only one child uses anything, nothing is charged, and any
//! lead from an earlier competition is forgotten.
//!
//! With several resources a child is charged for its largest share of a limit, as in dominant resource fairness; but only of
//! resources that another child of the same node uses too, and that somebody had to wait for. Who has all of what nobody
//! else wants takes nothing from anybody: charging for it would starve its siblings of what is scarce. Quota counts by
//! what it is worth in time: what the whole rate brings in so many nanoseconds.
//!
//! # Lines
//!
//! Within a line the order is by the moment of coming, less so much for each step of priority ([`Settings::ageing`]): first
//! come first served of equals, and whoever waits long enough passes any priority without ever being sorted anew (`wait_queue.rs`,
//! `run_list.rs`).
//! The first eight of a line are *offered*: a later one of them may be granted while an earlier one lacks slots or a budget. At a rate
//! the order is strict (below).
//!
//! # Large costs: passes and reservations
//!
//! This is of slots and budgets. Smaller work may pass a waiter that was next and did not fit [`Settings::passes`] times. A pass is a grant that takes
//! of something which that waiter lacks, from the moment at which it was next on, wherever else it is held up. After that,
//! what frees of the resource that it lacks, at the node where it lacks it, is *reserved* for it (`reservation.rs`); other nodes and
//! resources go on. If then something else turns out to be missing, that is reserved too.
//!
//! To hold one thing and wait for another is how deadlocks begin. Hence reservations are ordered by age: a waiter with
//! reservations may draw on what younger ones reserved. The oldest is kept waiting by what is really held alone, and that is
//! released some time; so each is the oldest some time, and is granted. A waiter that is held up by a pause, by a limit below
//! its cost or by quota keeps nothing reserved meanwhile.
//!
//! # Rates
//!
//! A rate is the generic cell rate algorithm in whole numbers (`rate.rs`): exact moments, no polling, no drift. Who lacks
//! quota alone, and comes first by the order above, has the *turn* at that rate (`rate_queue.rs`): a timer is set to the moment at which
//! its quota is there, and until then nobody else gets any of this rate. A turn is a reservation of quota and of nothing else:
//! slots stay free for others, and no pass is counted. If slots are missing when the moment has come, the turn goes on.
//!
//! So the order at a rate is strict, where for slots passing is allowed within bounds. A smaller cost that passes would delay the larger
//! one by exactly the time in which the rate brings that cost, so passing saves nothing in sum and needs a bound of its own. Waiting
//! wastes nothing: a cost is at most the burst, so it is granted before the rate is full. And the moment of a grant is known from the costs
//! that are before it.
//!
//! Strict means by the order of this page. In its own line a waiter of a higher priority takes the turn from the one that has it
//! (`take_precedence`), as it comes before that for slots, and as any other it is passed by ageing in the end. Between nodes a turn is not taken away: what a node
//! is due is decided when the turn is given.
//!
//! The price of keeping no slots for who waits for quota: one who needs both, where both are always contended, may find the one
//! there when the other is not, again and again. Therefore misses are counted, too (`starvation.rs`): whoever comes first and sees others take
//! slots that it could have had, but for quota, [`Settings::passes`] times, keeps its turn from then on until it is granted, also while
//! it lacks slots, which are kept for it then as for one that was passed. That bounds the wait of who comes first.
//!
//! It is the same with two rates: the turn at one may always be another's when the turn at the other is free. A turn that is lost in this way
//! is a miss, too. Of the turns that are kept, that at a fast rate begins only when the slowest is about to be ready: earlier, others
//! may have what the fast one brings back in time. Slots are kept only once all quota is there.
//!
//! A child that quota holds back falls behind its siblings in tags, which it is owed; but by twice of what they may differ by in any case at
//! most. Beyond that all who wait for quota move on with the virtual time, together, so that they share it by weight; and who comes to wait
//! there starts level with them (`lag.rs`). So nobody's wait for quota grows with the age of the tree, and what somebody could
//! not have for lack of quota is not taken from others' slots later.
//!
//! Settling an estimate upward makes debt. Settling it downward gives back no more than time has not brought since: the least debt there
//! has been since the grant (`low_water_marks.rs`). That makes the past what it would have been, had the truth been known: no window admits
//! more for it than the rate, whatever is settled when; and no more could be given back. Where grants are even, without a burst, each
//! comes when the debt is paid, so what is given back after the next one is nothing.
//!
//! Nobody has to poll. Each loop or thread with waiters has an [`Alarm`], whose deadline is the earliest of the whole tree, and
//! whichever comes first serves all.
//!
//! # Gates
//!
//! A dispatch must not look at everybody. Each node counts, by resource, what those who are offered below it need, and is *shut*
//! while the least of it is above what is left (`eligibility.rs`). A shut node is not eligible, so neither it nor anything below it is looked at;
//! a full root ends the search at once. Gates are refreshed along the path of whatever changed. What a look costs beyond the path of
//! the grant are waiters that do not fit although smaller ones do, and each of them is passed, and seen, a bounded number of times.
//! Who waits at a rate is not passed, so there may be any number of them while others get on that need slots alone. Children all of
//! whose waiters need the same rates are kept apart, and while somebody has the turn at one of these only the first of them is looked at
//! (`ready_children.rs`).
//!
//! While nobody waits anywhere there is no order to respect: an ask that fits is charged to the books and goes, with no tag moved and,
//! but for one in sixteen, no clock read (`uncontended.rs`). The first waiter to come has everything that was taken in this way charged from then on.
//!
//! # Hand-off
//!
//! One lock guards the tree. Whoever makes room grants, in the same step and on behalf of futures that have yet to hear of it, so no
//! newcomer can snatch it; wakers are called after the lock. A grant that is never collected, because its future was dropped or
//! [given up](Place::give_up), is annulled: slots, quota and budget are as if it had never been.
//!
//! # Invariants
//!
//! After every operation (`invariants.rs` verifies them from scratch):
//!
//! 1. At each node, held is the sum of live permits and uncollected grants there and below; never above the limit, unless that was
//!    lowered meanwhile or a budget was settled upward.
//! 2. No offered waiter fits what is free and not reserved to others: nothing is left unused, and no wake-up is lost. (Time is another's
//!    operation: [`Tree::tick`].)
//! 3. With everything released and all quotas ready, each waiter that fits the limits of its path is granted.
//! 4. Every waiter is answered exactly once.
//! 5. First come first served within equal node, cost and priority; of waiters of one node that need rates alone, whatever they cost, by
//!    the order of the line.
//! 6. For siblings f and g that are eligible all the time, what they received per weight differs by at most
//!    `(D + 1) (c_f / w_f + c_g / w_g)`, with D the parent's limit and c the largest cost x hold. One that quota holds back meanwhile
//!    is behind by about twice that at most, with c the mean.
//! 7. A rate admits in any window of length t at most `burst + rate x t`, what was settled upward aside, and, where somebody has
//!    to wait for it, [`Settings::lateness`] as it says.
//! 8. The same operations at the same times make the same grants.
//!
//! # Cost
//!
//! With `d` the depth: alone, O(d) under one lock each way, without allocation. Contended, O(d x log children) for each grant, of which only those
//! rounds are played that change anything (`tournament_tree.rs`), and O(log waiters)
//! for each place in a line, which is O(1) where priorities are few. Memory is that of the live nodes, permits and waiters: of a waiter
//! less than 300 bytes, its future included, if it asks for one resource; a cost of several is shared by all its copies.
//!
//! # Sources, and what was not taken
//!
//! * Goyal, Vin and Cheng, *Start-time fair queuing*, 1997: tags, virtual time as the start tag in service, and hierarchy. It
//!   needs no knowledge of how fast the server is, which weighted fair queueing does.
//! * Jin, Chase and Kaur, *Interposed proportional sharing for a storage service utility*, 2004: the same with D requests in service at
//!   once, SFQ(D), and its bound. They charge each request by a cost that is known before; hold times are not, hence the
//!   corrections here.
//! * Ghodsi et al., *Dominant resource fairness*, 2011: the largest share, with several resources. They choose by what is held at the
//!   moment, which gives two children of equal weight equal *concurrency*: who runs long tasks then receives more.
//! * Bhattacharya et al., *Hierarchical scheduling for diverse datacenter workloads*, 2013: that this starves subtrees when shares of
//!   all resources are added up along a hierarchy.
//! * Deficit round robin is cheaper, but serves in bursts of a quantum, which must be as large as the largest cost x hold: an idle
//!   branch that wakes would wait for all the others' quanta. Lottery scheduling is fair only in the long run. First come first served is a
//!   share for whoever asks most: in simulations of four groups of unequal weights and holds Jain's index was 0.42, with round robin 0.58, with
//!   least held first 0.94, and with this 1.00.

mod acquire;
mod amount;
mod clock;
mod config;
mod cost;
mod error;
mod index;
#[cfg(any(test, debug_assertions))]
mod invariants;
mod model;
mod permit;
mod policy;
mod queue_position;
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
pub use cost::{Cost, Resource};
pub use error::{AcquireError, AmountError, CostError, NodeError, PermitError};
pub use model::ids::{AlarmId, NodeId, OwnerId, PermitId};
pub use permit::Permit;
pub use queue_position::Place;
pub use request::Ask;
pub use snapshot::{ResourceUsage, Snapshot, Usage};
pub use timer::Alarm;
pub use tree::{MAX_DEPTH, Tree};
