//! The object that a task waits for after its first step, before its asyncio task knows.

use pyo3::intern;
use pyo3::prelude::*;

use crate::runtime::asyncio;

/// The mark of a future that is awaited, until the asyncio task has seen it.
const MARK: &str = "_asyncio_future_blocking";

/// What the first step of a work, taken in the name of its task, came to wait for; the task hands it up when it is
/// stepped.
///
/// Until then asyncio knows of no wait, and what a task does at once is done here: to take the mark from the future that
/// says that it is being awaited, without which nobody else could await the same one, and to pass on a cancellation.
#[derive(Debug)]
pub(super) struct FirstAwait {
    object: Py<PyAny>,
    /// Whether it was awaited, as everything is that is no fault.
    is_awaited: bool,
}

impl FirstAwait {
    pub(super) fn new(object: Bound<'_, PyAny>) -> Self {
        // What cannot be asked is no future, which the task will say.
        let is_awaited = !object.is_none() && take_mark(&object).unwrap_or(false);
        Self {
            object: object.unbind(),
            is_awaited,
        }
    }

    /// Whether it is one turn of the loop.
    pub(super) fn is_turn(&self, py: Python<'_>) -> bool {
        self.object.is_none(py)
    }

    /// The object, as a task expects it.
    pub(super) fn hand_up(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        let object = self.object.into_bound(py);
        if self.is_awaited {
            object.setattr(intern!(py, MARK), true)?;
        }
        Ok(object)
    }

    /// Passes on a cancellation to what is awaited, as a task does; whether that takes it, and will tell.
    pub(super) fn cancel(&self, py: Python<'_>, error: &PyErr) -> PyResult<bool> {
        if !self.is_awaited || !asyncio::is_cancelled_error(py, error) {
            return Ok(false);
        }
        // With its message, which is its argument.
        let message = error.value(py).getattr(intern!(py, "args"))?;
        let cancel = self.object.bind(py).getattr(intern!(py, "cancel"))?;
        cancel.call1(message.cast_into()?)?.is_truthy()
    }

    pub(super) fn object(&self) -> &Py<PyAny> {
        &self.object
    }
}

/// Whether somebody has just awaited it; if so, it can be awaited again.
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
