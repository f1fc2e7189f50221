//! `Putting`: a push that waits for room; and `Refused`: why an item was not accepted.

use headrace_core::buffer::Put;
use pyo3::prelude::*;

use super::Buffer;
use crate::coroutine::Pending;
use crate::errors;
use crate::object::gc::traverse;

/// A push that waits for room. Dropping it gives up its place; its item never left the caller.
#[derive(Debug)]
pub(crate) struct Putting {
    /// Also for the collector, to which the items in the core are the buffer's.
    pub(super) buffer: Py<Buffer>,
    pub(super) put: Pending<Put<Py<PyAny>>>,
}

impl Putting {
    /// Stores the item, or gives what to hand up to the task before the next step.
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

traverse!(Putting { buffer, put });

/// Why an item was not accepted.
pub(crate) enum Refused<'py> {
    Full(Bound<'py, PyAny>),
    Closed(Bound<'py, PyAny>),
    Failed(PyErr),
}

impl<'py> Refused<'py> {
    /// The error to raise. It carries the item, or what that was made of.
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
                "the buffer takes nothing more: it was ended, or its source was closed; the item is in this error's `item`",
                original.unwrap_or(item),
            ),
            Self::Failed(error) => error,
        }
    }
}
