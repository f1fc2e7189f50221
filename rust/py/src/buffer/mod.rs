//! The buffer between producers and consumers, as Python sees it.
//!
//! In a buffer in order of priority, comparing runs Python code. The core never does so under its
//! lock, see [`headrace_core::buffer`]; here is only how two items are compared: by `<`, or by `<`
//! of what `key` made of them. A key is computed once, before the push, and travels beside its item
//! in a tuple.
//!
//! | file | what it holds |
//! |---|---|
//! | [`buffer`] | the buffer |
//! | [`order`] | what it is told by name, and how two items are compared |
//! | [`put`] | a push that waits for room, and why an item was not accepted |
//! | [`get_sync`] | taking in a thread that waits |
//! | [`queue`] | the buffer by the names of `asyncio.Queue` |
//! | [`queue_ops`] | its awaitables, for [`queue_get`] and [`queue_put`] |
//! | [`queue_join`] | the wait until all items are processed |

#[expect(clippy::module_inception, reason = "one noun, one file")]
mod buffer;
mod get_sync;
mod order;
mod put;
mod queue;
mod queue_get;
mod queue_join;
mod queue_ops;
mod queue_put;

use pyo3::prelude::*;

use crate::coroutine::Native;
use crate::coroutine::operation::Ready;

pub(crate) use buffer::Buffer;
pub(crate) use put::Putting;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Buffer>()?;
    module.add_class::<queue::Queue>()?;
    let py = module.py();
    Native::<queue_ops::Asking<queue_get::Taking>>::register(py)?;
    Native::<queue_ops::Asking<queue_put::Storing>>::register(py)?;
    Native::<Ready<queue_join::Join>>::register(py)
}
