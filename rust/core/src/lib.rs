//! The part of headrace that knows no Python: futures that any executor can poll.
//!
//! | room | what it gives |
//! |---|---|
//! | [`buffer`] | a queue, bounded or not, from any thread to any thread |
//! | [`signal`] | one value to everybody who waits for it |
//! | [`capacity`] | a tree of capacities: a cost is held at a node and at each of its ancestors |
//! | [`sync`] | what the rooms stand on: the lock, the lines of waiters, the wake-ups to come |
//!
//! Three rules hold in every room. Each operation takes one lock, once in the ready case. Nothing of the caller's
//! (values, wakers) is dropped, cloned, compared or woken under it: collect, unlock, then act. A future that is
//! dropped before it was ready gives up its place and hands on what it had been promised.

#![forbid(unsafe_code)]

pub mod buffer;
pub mod capacity;
pub mod signal;
pub mod sync;

pub use buffer::Buffer;
pub use capacity::Tree;
pub use signal::Signal;
