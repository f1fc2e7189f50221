//! `Buffer` and `Queue`: the buffer of [`headrace_core::buffer`] for Python.
//!
//! `get()` and `put()` of a queue are native awaitables: an operation that need not wait finishes in its first step, without
//! the event loop. A thread that has to wait [blocks](crate::runtime::blocking_wait).
//!
//! Items in priority order are compared by `<`, or by `<` of their keys, which runs Python code. The core never does so under
//! its lock. A key is computed once, before the push, and is stored beside its item in a tuple.
//!
//! | file | contents |
//! |---|---|
//! | [`buffer`] | `PyBuffer` |
//! | [`queue`] | `PyQueue` and its errors |
//! | [`queue_ops`] | the awaitables of a queue: `get()`, `put()`, `join()` |
//! | [`ops`] | operations shared by both: checks, blocking get and put, traversal |
//! | [`order`] | parameters `order` and `overflow`, comparison of items |
//! | [`put`] | a push that waits for space, and a refused item |

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
