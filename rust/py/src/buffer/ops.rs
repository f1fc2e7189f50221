//! Operations shared by [`PyBuffer`](super::PyBuffer) and [`PyQueue`](super::queue::PyQueue).

use std::future::Future;
use std::sync::Arc;

use headrace_core::buffer::{self as core, Ended, Get, Put, PutError, TryGetError};
use pyo3::prelude::*;

use crate::errors;
use crate::object::gc::{VisitError, Visitor};
use crate::runtime::blocking_wait::{self, Blocking};
use crate::runtime::fork_guard::ProcessId;

/// The core's buffer of Python objects.
pub(crate) type Core = core::Buffer<Py<PyAny>>;

/// The output of an operation that is complete, or the future that waits for it.
pub(super) type Attempt<F> = Result<<F as Future>::Output, F>;

/// Fail in a forked child, and after a panic inside the core. `name` is the noun of the error message.
#[inline]
pub(super) fn check(
    py: Python<'_>,
    process: ProcessId,
    core: &Core,
    name: &'static str,
) -> PyResult<()> {
    process.check(py, name)?;
    if core.is_broken() {
        return Err(errors::broken(py, name));
    }
    Ok(())
}

/// Take the next item.
#[inline]
pub(super) fn get(core: &Arc<Core>) -> Attempt<Get<Py<PyAny>>> {
    match core.try_get() {
        Ok(item) => Ok(Ok(item)),
        Err(TryGetError::Ended) => Ok(Err(Ended)),
        Err(TryGetError::Empty) => Err(core.get()),
    }
}

/// Store an item. If the buffer is full, wait for space or, unless `waits`, refuse the item.
#[inline]
pub(super) fn put(core: &Arc<Core>, item: Py<PyAny>, waits: bool) -> Attempt<Put<Py<PyAny>>> {
    match core.try_put(item) {
        Err(PutError::Full(item)) if waits => Err(core.put(item)),
        stored => Ok(stored),
    }
}

/// Complete an operation, and block the thread if it must wait; `None` after the timeout.
pub(super) fn block_on<F: Future + Unpin>(
    py: Python<'_>,
    call: Blocking,
    timeout: Option<&Bound<'_, PyAny>>,
    attempt: impl FnOnce() -> Attempt<F>,
) -> PyResult<Option<F::Output>> {
    let deadline = timeout.map(blocking_wait::deadline).transpose()?.flatten();
    match attempt() {
        Ok(output) => Ok(Some(output)),
        Err(future) => blocking_wait::wait(py, call, future, deadline),
    }
}

/// Pass each stored item to the garbage collector.
pub(super) fn visit_items(core: &Core, visit: Visitor<'_>) -> Result<(), VisitError> {
    let mut result = Ok(());
    core.visit(&mut |item| {
        if result.is_ok() {
            result = visit(item);
        }
    });
    result
}
