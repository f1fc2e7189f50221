//! `Queue`: the buffer by the names of `asyncio.Queue`, and for threads too.
//!
//! Its `get` and `put` are native awaitables, which find a ready queue ready without a loop. A
//! thread that has to wait [sleeps](crate::runtime::blocking_wait).
//!
//! | file | what it holds |
//! |---|---|
//! | [`queue`] | the queue, and what its errors are |
//! | [`asking`] | what of it is awaited: for the errand of a [`get`] or of a [`put`] |
//! | [`join`] | the wait until all is done |

mod asking;
mod get;
mod join;
mod put;
#[expect(clippy::module_inception, reason = "one noun, one file")]
mod queue;

use pyo3::prelude::*;

use crate::coroutine::Native;
use crate::coroutine::operation::Ready;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<queue::Queue>()?;
    let py = module.py();
    Native::<asking::Asking<get::Taking>>::register(py)?;
    Native::<asking::Asking<put::Storing>>::register(py)?;
    Native::<Ready<join::Join>>::register(py)
}
