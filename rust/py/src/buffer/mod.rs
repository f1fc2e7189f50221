//! The Python classes `Buffer` and `Queue`, over [`headrace_core::buffer`]. Buffer sources and sinks use them too.
//!
//! `get()` and `put()` of a queue are native awaitables: an operation that need not wait finishes in its first step, without
//! the event loop. A thread that has to wait [blocks](crate::runtime::blocking_wait).
//!
//! Items in priority order are compared by `<`, or by `<` of their keys, which runs Python code; the core never compares under its
//! lock. A key is computed once, before the push, and stored with its item in a tuple.
//!
//! | file | contents |
//! |---|---|
//! | [`buffer`] | `PyBuffer` |
//! | [`queue`] | `PyQueue` and its errors |
//! | [`queue_ops`] | the awaitables of a queue: `get()`, `put()`, `join()` |
//! | [`ops`] | operations shared by both: checks, blocking get and put, traversal |
//! | [`order`] | parameters `order` and `overflow`, comparison of items |
//! | [`put`] | `PendingPut`: a push that waits for space, also of a sink; returns a refused item |

#[expect(clippy::module_inception, reason = "one noun, one file")]
mod buffer;
mod ops;
mod order;
mod put;
mod queue;
mod queue_ops;

use pyo3::prelude::*;

pub(crate) use buffer::PyBuffer;
pub(crate) use put::PendingPut;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyBuffer>()?;
    module.add_class::<queue::PyQueue>()?;
    queue_ops::register(module.py())
}
