//! Operations shared by [`PyBuffer`](super::PyBuffer) and [`PyQueue`](super::queue::PyQueue).

use std::sync::Arc;

use headrace_core::buffer::{self as core, Ended, PutError, TryGetError};
use pyo3::prelude::*;

use crate::errors;
use crate::object::gc::{VisitError, Visitor};
use crate::runtime::blocking_wait::{self, Blocking};
use crate::runtime::fork_guard::ProcessId;

/// The core's buffer of Python objects.
pub(crate) type Core = core::Buffer<Py<PyAny>>;

/// Fails in a forked child, and after a panic inside the core. `name` is the noun of the error message.
#[inline]
pub(super) fn check(
    py: Python<'_>,
    home: &ProcessId,
    core: &Core,
    name: &'static str,
) -> PyResult<()> {
    home.check(py, name)?;
    if core.is_broken() {
        return Err(errors::broken(py, name));
    }
    Ok(())
}

/// Returns the next item, or that no more will come; `None` after the timeout. Blocks the thread.
pub(super) fn get_blocking(
    py: Python<'_>,
    core: &Arc<Core>,
    call: Blocking,
    timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<Option<Result<Py<PyAny>, Ended>>> {
    let deadline = timeout.map(blocking_wait::deadline).transpose()?.flatten();
    match core.try_get() {
        Ok(item) => Ok(Some(Ok(item))),
        Err(TryGetError::Ended) => Ok(Some(Err(Ended))),
        Err(TryGetError::Empty) => blocking_wait::wait(py, call, core.get(), deadline),
    }
}

/// Stores an item, or returns why it was refused; `None` after the timeout. Blocks the thread while the buffer is full if
/// `waits` is set, and otherwise refuses the item.
pub(super) fn put_blocking(
    py: Python<'_>,
    core: &Arc<Core>,
    item: Py<PyAny>,
    waits: bool,
    call: Blocking,
    timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<Option<Result<(), PutError<Py<PyAny>>>>> {
    let deadline = timeout.map(blocking_wait::deadline).transpose()?.flatten();
    match core.try_put(item) {
        Err(PutError::Full(item)) if waits => {
            blocking_wait::wait(py, call, core.put(item), deadline)
        }
        result => Ok(Some(result)),
    }
}

/// Passes each stored item to the garbage collector.
pub(super) fn visit_items(core: &Core, visit: Visitor<'_>) -> Result<(), VisitError> {
    let mut result = Ok(());
    core.visit(&mut |item| {
        if result.is_ok() {
            result = visit(item);
        }
    });
    result
}
