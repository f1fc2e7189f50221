//! `PendingPut`: a push that waits for space. `Refused`: why an item was not accepted. `PyBuffer` returns both; the
//! push driver (`push/wait.rs`) awaits a `PendingPut`.

use headrace_core::buffer::Put;
use pyo3::prelude::*;

use super::PyBuffer;
use crate::coroutine::Pending;
use crate::errors;
use crate::object::gc::traverse;

/// A push that waits for space. Dropping it gives up its queue position; its item never left the caller.
#[derive(Debug)]
pub(crate) struct PendingPut {
    /// Also visited by the garbage collector: the buffer visits the items in the core.
    pub(super) buffer: Py<PyBuffer>,
    pub(super) put: Pending<Put<Py<PyAny>>>,
}

impl PendingPut {
    /// Store the item, or return the object to yield to the task before the next step.
    pub(crate) fn step<'py>(
        &mut self,
        py: Python<'py>,
    ) -> Result<Option<Bound<'py, PyAny>>, Refused<'py>> {
        let buffer = self.buffer.get();
        buffer.check(py).map_err(Refused::Failed)?;
        match self.put.step(py).map_err(Refused::Failed)? {
            Ok(Ok(())) => Ok(None),
            Ok(Err(refused)) => Err(buffer.refused(py, refused)),
            Err(object) => Ok(Some(object)),
        }
    }
}

traverse!(PendingPut { buffer, put });

/// Why an item was not accepted.
pub(crate) enum Refused<'py> {
    Full(Bound<'py, PyAny>),
    Closed(Bound<'py, PyAny>),
    Failed(PyErr),
}

impl<'py> Refused<'py> {
    /// Create the error to raise. It carries `original` if given, and otherwise the item.
    #[cold]
    pub(crate) fn into_error(self, py: Python<'py>, original: Option<Bound<'py, PyAny>>) -> PyErr {
        match self {
            Self::Full(item) => errors::refused(
                py,
                "WouldBlock",
                "the item cannot be accepted without waiting; it is in this error's `item`",
                original.unwrap_or(item),
            ),
            Self::Closed(item) => errors::refused(
                py,
                "ClosedError",
                "the buffer accepts no more items: it was ended, or its source was closed; the item is in this error's `item`",
                original.unwrap_or(item),
            ),
            Self::Failed(error) => error,
        }
    }
}
