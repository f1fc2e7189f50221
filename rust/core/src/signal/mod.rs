//! One value for all waiters.
//!
//! # Algorithm
//!
//! One lock guards a wait queue and at most one *retained* value. A [`publish`](Signal::publish) that finds waiters
//! notifies all of them. They form a *batch*, which owns the value until each member has taken it (all get the same
//! [`Arc`](std::sync::Arc)) or was dropped. A publish that finds no waiter retains the value, in place of an older one,
//! for the next [`wait`](Signal::wait), which consumes it. A *sticky* value is retained in either case, and no wait
//! consumes it: it serves every wait until [`reset`](Signal::reset) or until another sticky value replaces it. Until
//! then, values that are not sticky are dropped.
//!
//! Cancellation cannot lose a value. If every member of a batch was dropped before it took the value, the effect is the
//! same as if they had never waited: the first waiter in the queue gets the value, and if there is none it is retained.
//! It is discarded only if a later value was retained in the meantime, or if `reset` was called.
//!
//! # Fairness
//!
//! One publish wakes all current waiters, in the order of their first polls. A new wait cannot overtake a queued one,
//! because no future waits while a value is retained.
//!
//! # Invariants
//!
//! After every operation: a value is retained only if the queue is empty; a stopped signal has an empty queue and no
//! retained value; a batch exists only while a member has still to collect, and each notified waiter is a member of
//! exactly one batch.
//!
//! # Cost
//!
//! Publishing costs O(1) plus the waiters that it wakes, and allocates only if the value is to be shared. Everything
//! else is O(1), except `stop`, which wakes all waiters. Memory: the retained value, one value per batch that was not
//! collected yet (never more than notified waiters), and the waiters.

#[allow(clippy::module_inception)] // One noun, one file: the type `Signal` lives in `signal.rs`.
mod signal;
mod wait;

pub use self::signal::Signal;
pub use wait::{Stopped, Wait};
