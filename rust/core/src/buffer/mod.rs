//! A queue with an end, bounded or not, from any thread to any thread.
//!
//! # Algorithm
//!
//! One lock guards the items and two wait queues: getters, which found no item, and putters, which found no space.
//! A put that leaves a spare item notifies the first getter; a get that frees a slot notifies the first putter. A
//! notification is a promise of *an* item or of *a* slot, kept by counting. The item stays in the buffer until the poll
//! that delivers it, and a putter's item stays in its future until the poll that stores it. Between the two, no item is
//! in flight that a dropped future could lose.
//!
//! # Fairness
//!
//! First in, first out, by first poll. With `n` getters notified, `n` items are promised, and a new getter takes one
//! only if there are more. The same holds for slots. So a notified waiter always finds its item or slot, however late
//! its executor polls it, and it never rejoins the queue. The promise is a position in the order of service, not a
//! particular item: each getter takes the next item by the buffer's [`Order`].
//!
//! A future that is dropped while it waits leaves the queue. If it is dropped after its notification, the promise goes
//! to the first waiter in the queue, or else to the next caller. A future that can neither be woken nor dropped, because
//! its executor is gone, can be removed through its [`QueuePosition`](crate::sync::QueuePosition).
//!
//! # Order
//!
//! First in, first out; last in, first out; or sorted by a [`Rank`], and first in, first out among equals.
//! Comparing two items runs the caller's code, which must not run under the lock. So a sorted buffer compares when an
//! item is put, and never when one is taken: a put selects one item, unlocks, compares, locks again and continues from
//! there (`priority_queue.rs` explains how it accounts for changes in between). A putter that waited searches after it
//! was promised a slot, and keeps the slot meanwhile.
//!
//! # Overflow
//!
//! An item that is put into a full buffer waits, is refused, is dropped, or replaces the oldest item ([`Overflow`]).
//! Only in the first case does the queue of putters ever contain a waiter.
//!
//! # Endings
//!
//! [`finish`](Buffer::finish) ends the producers' side: the items in the buffer are still delivered. Putters get their
//! items back at once. Getters see the end when the last item was *taken*, not when it was promised: the getter that was
//! promised it may be dropped, and then another getter must receive it. [`close`](Buffer::close) ends the consumers'
//! side: it returns the remaining items. Every item thus ends in exactly one of these: a getter, the caller of `close`,
//! the error or the future of its own put, the count of items dropped by an overflow, or a buffer that still exists.
//!
//! # Join
//!
//! A taken item counts as unfinished until the caller reports it as processed. Every accepted item raises the count,
//! [`task_done`](Buffer::task_done) lowers it, and [`join`](Buffer::join) waits for zero. Using it is optional.
//!
//! # Invariants
//!
//! After every operation, with *waiting* and *notified* counted per queue:
//!
//! 1. open or finished: `notified getters <= items`, and a getter waits only if they are equal;
//! 2. open: `items + notified putters <= maxsize`, and a putter waits only if they are equal;
//! 3. finished and empty, or closed: no getter waits; finished or closed: no putter waits.
//!
//! The second halves of 1 and 2 mean that no wake-up is lost. Only `State::settle` restores them.
//!
//! # Cost
//!
//! Every operation is O(1) in the number of items and waiters, with two exceptions. Ending all waits is linear in the
//! waiters. A put into a sorted buffer makes O(log n) comparisons, and if it drops the oldest item, it searches for that
//! item in O(n). One lock is taken, and only the growth of the item queue and of the wait queues allocates. The buffer
//! holds at most `maxsize` items, and each waiting putter holds its own; the memory stays at its high-water mark.

#[allow(clippy::module_inception)] // One noun, one file: the type `Buffer` lives in `buffer.rs`.
mod buffer;
mod error;
mod get;
mod items;
mod join;
mod order;
mod priority_queue;
mod put;
mod queue;
mod statistics;

pub use self::buffer::Buffer;
pub use error::{Ended, PutError, TryGetError};
pub use get::Get;
pub use join::Join;
pub use order::{Fault, Order, Overflow, Rank};
pub use put::Put;
pub use queue::Queue;
pub use statistics::Statistics;
