//! The part of headrace that does not depend on Python: futures for any executor.
//!
//! | module | provides |
//! |---|---|
//! | [`buffer`] | a queue, bounded or not, from any thread to any thread |
//! | [`signal`] | one value for all waiters |
//! | [`capacity`] | a tree of capacities: a cost is held at a node and at each of its ancestors |
//! | [`journal`] | a file that says which calls have begun and how they ended |
//! | [`worker`] | the handshake and the frames between a driver and a worker process, and the lease of a host |
//! | [`sync`] | the parts that the others share: the lock, wait queues and deferred wake-ups |
//!
//! One thread uses a journal, and `worker` has no lock. In every other module three rules hold. Each operation takes one lock, and takes
//! it once if it need not wait. No value or waker of the caller is dropped, cloned, compared or woken under the lock: collect, unlock, then act. A future that is
//! dropped before completion leaves its wait queue, and hands on any promise that it has not collected.

#![forbid(unsafe_code)]

pub mod buffer;
pub mod capacity;
#[cfg(not(loom))]
pub mod journal;
pub mod signal;
pub mod sync;
pub mod worker;

pub use buffer::Buffer;
pub use capacity::Tree;
pub use signal::Signal;
