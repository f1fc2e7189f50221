//! `FirstAwait`: the object that a task awaits after a first step that the core took before its asyncio task.
//! `task_coroutine.rs` uses it.

use pyo3::intern;
use pyo3::prelude::*;

use crate::runtime::asyncio;

/// The attribute that a future sets when it is awaited. asyncio resets it when the task registers its wait.
const MARK: &str = "_asyncio_future_blocking";

/// The object that the first step awaits. The asyncio task yields it in its own first step.
///
/// Until then the asyncio task has not registered the wait, so this type does two of its jobs:
///
/// - It resets the mark of the future, which would otherwise prevent a second task from awaiting the same future.
/// - It forwards a cancellation to the future.
#[derive(Debug)]
pub(super) struct FirstAwait {
    object: Py<PyAny>,
    /// Whether the object was awaited. A task that yields any other object gets an error from asyncio.
    is_awaited: bool,
}

impl FirstAwait {
    pub(super) fn new(object: Bound<'_, PyAny>) -> Self {
        // An object whose mark cannot be read is not a future. The asyncio task raises the error for that.
        let is_awaited = !object.is_none() && take_mark(&object).unwrap_or(false);
        Self {
            object: object.unbind(),
            is_awaited,
        }
    }

    /// Return whether the task waits for one event-loop iteration only (a bare `yield`).
    pub(super) fn is_bare_yield(&self, py: Python<'_>) -> bool {
        self.object.is_none(py)
    }

    /// Return the object, marked again as asyncio requires.
    pub(super) fn hand_up(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        let object = self.object.into_bound(py);
        if self.is_awaited {
            object.setattr(intern!(py, MARK), true)?;
        }
        Ok(object)
    }

    /// Forward a cancellation to the awaited object, as an asyncio task does. Return whether that object accepted it.
    pub(super) fn cancel(&self, py: Python<'_>, error: &PyErr) -> PyResult<bool> {
        if !self.is_awaited || !asyncio::is_cancelled_error(py, error) {
            return Ok(false);
        }
        // The arguments of the error are the message of the cancellation.
        let message = error.value(py).getattr(intern!(py, "args"))?;
        let cancel = self.object.bind(py).getattr(intern!(py, "cancel"))?;
        cancel.call1(message.cast_into()?)?.is_truthy()
    }

    pub(super) fn object(&self) -> &Py<PyAny> {
        &self.object
    }
}

/// Reset the mark of an object. Return whether it was set.
fn take_mark(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let name = intern!(object.py(), MARK);
    let is_marked = match object.getattr_opt(name)? {
        Some(mark) => mark.is_truthy()?,
        None => false,
    };
    if is_marked {
        object.setattr(name, false)?;
    }
    Ok(is_marked)
}
