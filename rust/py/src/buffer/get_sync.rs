//! Taking in a thread without a loop: the same for a buffer and for a queue, but for their errors.

use std::sync::Arc;

use headrace_core::buffer::{Buffer, Ended, TryGetError};
use pyo3::prelude::*;

use crate::runtime::blocking_wait;
use crate::runtime::blocking_wait::Blocking;

/// The next item, or that no more will come; `None` if neither is so after so many seconds.
pub(crate) fn take_sync(
    py: Python<'_>,
    core: &Arc<Buffer<Py<PyAny>>>,
    call: Blocking,
    timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<Option<Result<Py<PyAny>, Ended>>> {
    let until = timeout.map(blocking_wait::deadline).transpose()?.flatten();
    match core.try_get() {
        Ok(item) => Ok(Some(Ok(item))),
        Err(TryGetError::Ended) => Ok(Some(Err(Ended))),
        Err(TryGetError::Empty) => blocking_wait::wait(py, call, core.get(), until),
    }
}
