//! `Queue`: the buffer by the names of `asyncio.Queue`, and for threads too.
//!
//! Its `get` and `put` are native awaitables, which find a ready queue ready without a loop. A
//! thread that has to wait [sleeps](crate::thread).
//!
//! | file | what it holds |
//! |---|---|
//! | [`queue`] | the queue, and what its errors are |
//! | [`get`], [`put`], [`join`] | what of it is awaited |

mod get;
mod join;
mod put;
#[expect(clippy::module_inception, reason = "one noun, one file")]
mod queue;

use pyo3::prelude::*;

use crate::awaitable::Native;
use crate::awaitable::ready::Ready;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<queue::Queue>()?;
    let py = module.py();
    Native::<get::Taking>::register(py)?;
    Native::<put::Storing>::register(py)?;
    Native::<Ready<join::Join>>::register(py)
}
