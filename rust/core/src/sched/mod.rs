//! A tree of capacities: a cost is held at a node and at each of its ancestors, all or nothing.
//!
//! # Algorithm
//!
//! Each node has a limit and the sum of what is held at it and below. A request of a cost at a node *fits* if at every
//! node of the path from there to the root the cost is at most what the limit leaves over. One lock guards the whole
//! tree, so a path is charged in one step and nobody ever sees half of it.
//!
//! A request that does not fit waits in the line of its node. Whatever frees capacity (a release, a grant that was
//! not collected) or changes who stands first (a waiter that was dropped) *dispatches* in the same step: it goes
//! through the first waiter of every line, oldest first, and grants each that fits; the next in that line then takes
//! its turn by its own age. A grant is a hand-off: the path is charged under the lock, on behalf of a future that has
//! yet to hear of it, so no newcomer can snatch it. If that future is dropped instead of polled, the grant is annulled
//! and dispatched anew.
//!
//! A cost above a limit on its path would wait for ever and fails at once. A cost of 0 holds nothing and waits for
//! nobody.
//!
//! # Fairness
//!
//! Within a node: strictly first come, first served by first poll; only the first in the line is ever considered, so a
//! large cost is not passed by smaller ones behind it. Among nodes, the order is by age for now, and age is not a
//! share: a node that asks more often gets more. Nor is it a reservation: a large cost that does not fit is passed by
//! smaller ones of *other* nodes as long as these keep fitting, without bound. Weights, and a bound on how often one
//! may be passed, belong to a scheduler of shares (hierarchical start-time fair queueing), which can take the place of
//! `State::dispatch` without any other change.
//!
//! # Invariants
//!
//! After every operation:
//!
//! 1. at each node, held is the sum of the live permits and uncollected grants at it and below, and at most the limit;
//! 2. no first waiter of a line fits: nothing is left unused that somebody could have (work conserving), and no wake-up
//!    is lost;
//! 3. a waiter that fits the limits of its path is granted once everything is released.
//!
//! # Cost
//!
//! With `d` the depth of the node: taking and giving back without contention is O(d), under one lock and with no
//! allocation. A dispatch looks once at each node that has waiters, oldest first, until nothing is left at the root:
//! O(1) for each that the root holds back, O(its depth) for the others, and the logarithm of their number more for
//! finding each. So a release is O(d) if nobody waits or if one grant fills the root, and grows with the number of
//! nodes that have waiters, never with the number of waiters. Memory is proportional to the nodes and the live waiters;
//! a node lives as long as its tree.

mod acquire;
mod error;
mod permit;
mod state;
mod tree;

pub use acquire::Acquire;
pub use error::AboveLimit;
pub use permit::Permit;
pub use tree::{NodeId, Tree};
