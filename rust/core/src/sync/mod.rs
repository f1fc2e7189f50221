//! What the rooms stand on: the lock, the lines of waiters, and the wake-ups to be made after it.
//!
//! The lock and the atomics come from `std` in life and from `loom` under `--cfg loom`, where the models in
//! `tests/loom_*.rs` try every interleaving. [`Arc`] is `std`'s in both: `self: &Arc<Self>` needs the real one, and no
//! wake-up depends on a reference count.
//!
//! A primitive of this crate is a struct behind a [`Mutex`] and futures that hold a [`Key`] into one of its
//! [`WaitList`]s. Each of its operations has the same four steps:
//!
//! 1. lock, and decide;
//! 2. if somebody waits, *settle*: restore the room's invariant by notifying those whom the change concerns. That
//!    moves their wakers into a [`WakeList`], it does not wake them;
//! 3. unlock;
//! 4. drop and wake.
//!
//! The order of the last two is the point. A waker may run its task inline, the task may call straight back into the
//! same primitive, and a value's `Drop` may do anything at all; under the lock each of these would be a deadlock.
//!
//! For the same reason a waker is cloned outside the lock, and a future that has to wait locks twice. It must decide
//! anew the second time, or this could happen:
//!
//! 1. a getter finds no item, and unlocks to clone its waker;
//! 2. a putter stores an item; nobody stands in the line, so it wakes nobody;
//! 3. the getter locks, joins the line, and waits for an item that is already there.

mod mutex;
mod slab;
mod wait_list;
mod wake_list;

#[cfg(loom)]
pub use loom::sync::atomic;
#[cfg(not(loom))]
pub use std::sync::atomic;

pub use std::sync::Arc;

pub use mutex::{Mutex, MutexGuard};
pub use slab::{Key, Slab};
pub use wait_list::{Left, WaitList};
pub use wake_list::WakeList;
