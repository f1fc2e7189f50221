//! A queue with an end, bounded or not, from any thread to any thread.
//!
//! # Algorithm
//!
//! One lock guards the items and two lines of waiters: getters, who found no item, and putters, who found no room.
//! A put that leaves an item over notifies the first getter; a get that leaves room notifies the first putter. A
//! notification is a promise of *an* item or of *a* slot, kept by counting: the item stays in the buffer until the
//! very poll that delivers it, and a putter's item stays in its future until the very poll that stores it. Between the
//! two, nothing is in flight that a dropped future could take with it.
//!
//! # Fairness
//!
//! First come, first served, by first poll. With `n` getters notified, `n` items are spoken for, and whoever comes
//! anew takes one only if there are more than that; the same holds for slots. So a waiter that was notified always
//! finds what it was promised, however late its executor polls it, and it never goes back into the line. What is
//! promised is a place in the order of service, not a particular item: whoever takes, takes the next by the buffer's
//! [`Order`].
//!
//! A future that is dropped while it waits leaves the line. One that is dropped after it was notified hands the promise
//! on to the first in the line, or to whoever comes next. One that can neither be woken nor dropped, because its
//! executor is gone, has its [`Place`] given up for it.
//!
//! # Order
//!
//! First in, first out; last in, first out; or sorted by a [`Rank`], and then first in, first out among equals.
//! Comparing two items is the caller's code and must not run under the lock. So a sorted buffer compares when an item
//! comes in, and never when one goes out: a put looks at one item, unlocks, compares, locks again and goes on from
//! there (`sorted.rs` tells how what others did in between is taken into account). A putter that waited searches when
//! it was promised its slot, which it keeps meanwhile.
//!
//! # Overflow
//!
//! An item that finds the buffer full waits, or is refused, or is dropped, or takes the place of the oldest one
//! ([`Overflow`]). Only in the first case is there ever a line of putters.
//!
//! # Endings
//!
//! [`finish`](Buffer::finish) is the producers' end: what is in the buffer is still delivered. Putters get their items
//! back at once, getters learn of the end when the last item was *taken*, not when it was promised: a getter that was
//! promised it may yet be dropped, and then another one is to have it. [`close`](Buffer::close) is the consumers' end:
//! what is left goes to the caller. Every item thus ends in exactly one place: with a getter, with the caller of
//! `close`, in the error or the future of its own put, in the count of those that an overflow dropped, or in a buffer
//! that nobody has dropped yet.
//!
//! # Being done
//!
//! An item that was taken is not done with until somebody says so: [`task_done`](Buffer::task_done) counts down what
//! every accepted item counts up, and [`join`](Buffer::join) waits for zero. Who does not care never asks.
//!
//! # Invariants
//!
//! After every operation, with *waiting* and *notified* counted per line:
//!
//! 1. open or finished: `notified getters <= items`, and a getter waits only if they are equal;
//! 2. open: `items + notified putters <= maxsize`, and a putter waits only if they are equal;
//! 3. finished and empty, or closed: no getter waits; finished or closed: no putter waits.
//!
//! The second halves of 1 and 2 say that no wake-up is lost. `State::settle` is the only place that restores them.
//!
//! # Cost
//!
//! Every operation is O(1) whatever the number of items and waiters, except the one that ends the waits of all of them,
//! and a put into a sorted buffer: it makes O(log n) comparisons, and if the buffer is full and drops its oldest, that
//! one is searched for in O(n).
//! One lock, and no allocation but that of the queue of items as it grows and of the lines as they grow. The buffer
//! holds at most `maxsize` items, each waiting putter holds its own; the queue's memory stays at its high-water mark.

#[allow(clippy::module_inception)] // One noun, one file: the type `Buffer` lives in `buffer.rs`.
mod buffer;
mod error;
mod get;
mod items;
mod join;
mod order;
mod place;
mod put;
mod sorted;

pub use self::buffer::{Buffer, Statistics};
pub use error::{Ended, PutError, TryGetError};
pub use get::Get;
pub use join::Join;
pub use order::{Fault, Order, Overflow, Rank};
pub use place::Place;
pub use put::Put;
