//! One value to everybody who waits for it.
//!
//! # Algorithm
//!
//! One lock guards a line of waiters and at most one *kept* value. A [`publish`](Signal::publish) that finds waiters
//! notifies all of them: they form a *batch*, which owns the value until each of its members has taken it (all get the
//! same [`Arc`](std::sync::Arc)) or was dropped. A publish that finds nobody keeps the value, in place of an older one,
//! for the next [`wait`](Signal::wait), which consumes it. A *sticky* value is kept in either case, and consumed by
//! nobody: it serves every wait until [`reset`](Signal::reset) or until another sticky one takes its place, and
//! meanwhile a value that is not sticky is dropped.
//!
//! A value cannot be lost to cancellation. If every member of a batch was dropped before it took the value, things go
//! on as if they had never waited: the first in the line gets it, and if there is none it is kept. Only if a later
//! value was kept in the meantime, or a `reset` came, is it discarded, as it would have been then.
//!
//! # Fairness
//!
//! Waiters of one moment are woken in the order of their first polls, all by one publish. A newcomer cannot overtake
//! one who waits, because nobody waits while a value is kept.
//!
//! # Invariants
//!
//! After every operation: a value is kept only if the line is empty; stopped, the line is empty and nothing is kept; a
//! batch exists only as long as a member is to come for it, and each notified waiter is a member of exactly one.
//!
//! # Cost
//!
//! Publishing costs O(1) plus the waiters that it wakes, and allocates only if somebody is to share the value;
//! everything else is O(1), but for `stop`, which wakes everybody. What is held: the kept value, one value per batch
//! that has not been collected yet (never more of them than notified waiters), and the waiters.

#[allow(clippy::module_inception)] // One noun, one file: the type `Signal` lives in `signal.rs`.
mod signal;
mod wait;

pub use self::signal::Signal;
pub use wait::{Place, Stopped, Wait};
