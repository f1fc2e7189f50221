//! The parts that every primitive shares: the lock, the wait queues, and the wake-ups that follow an unlock.
//!
//! The lock and the atomics come from `std`, or from `loom` under `--cfg loom`, where the models in `tests/loom_*.rs`
//! explore every interleaving. [`Arc`] is `std`'s in both cases: `self: &Arc<Self>` needs that type, and no wake-up
//! depends on a reference count.
//!
//! A primitive of this crate is a struct behind a [`Mutex`], with futures that hold a [`Key`] into one of its
//! [`WaitList`]s. Each of its operations has the same four steps:
//!
//! 1. lock, and decide;
//! 2. if any future waits, *settle*: restore the invariant by notifying the waiters that the change concerns. This
//!    moves their wakers into a [`WakeList`] and does not wake them;
//! 3. unlock;
//! 4. drop and wake.
//!
//! The last two must run in this order. A waker may run its task inline, the task may call back into the same
//! primitive, and a value's `Drop` may run any code. Under the lock, each of these would be a deadlock.
//!
//! For the same reason a waker is cloned outside the lock, so a future that has to wait locks twice. It must decide
//! again the second time. Otherwise this race is possible:
//!
//! 1. a getter finds no item, and unlocks to clone its waker;
//! 2. a putter stores an item; the queue is empty, so it wakes no getter;
//! 3. the getter locks, joins the queue, and waits for an item that is already there.

mod int_hasher;
mod mutex;
mod queue_position;
mod slab;
mod wait_list;
mod wake_list;

#[cfg(loom)]
pub use loom::sync::atomic;
#[cfg(not(loom))]
pub use std::sync::atomic;

pub use std::sync::Arc;

pub use int_hasher::{BuildIntHasher, IntHasher};
pub use mutex::{Mutex, MutexGuard};
pub use queue_position::{QueuePosition, QueuedFuture, WaitQueues};
pub use slab::{Key, Slab};
pub use wait_list::{Left, WaitList};
pub use wake_list::WakeList;
