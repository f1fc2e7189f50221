//! The receiving end of a buffer that producers push into.
//! `headrace/buffer.py` and `headrace/graph/sources.py` make it.

use headrace_core::buffer::{Get, TryGetError};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::{SourcePoll, Wait};
use crate::buffer::PyBuffer;
use crate::coroutine::Pending;

/// Takes items out of a [`Buffer`].
#[pyclass(frozen, name = "BufferSource", module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyBufferSource {
    buffer: Py<PyBuffer>,
}

#[pymethods]
impl PyBufferSource {
    #[new]
    fn new(buffer: Py<PyBuffer>) -> Self {
        Self { buffer }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.buffer)
    }
}

impl PyBufferSource {
    /// Return the buffer that items are taken from.
    pub(crate) fn buffer(&self, py: Python<'_>) -> Py<PyBuffer> {
        self.buffer.clone_ref(py)
    }

    #[inline(never)]
    pub(crate) fn ready<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let buffer = self.buffer.get();
        // The link has just been checked for a fork; `poll_next` reports a broken buffer.
        if buffer.core().is_broken() {
            return None;
        }
        let item = buffer.core().try_get().ok()?;
        Some(buffer.reveal(item.into_bound(py)))
    }

    pub(crate) fn poll_next<'py>(&self, py: Python<'py>) -> PyResult<SourcePoll<'py>> {
        let buffer = self.buffer.get();
        buffer.check(py)?;
        match buffer.core().try_get() {
            Ok(item) => Ok(SourcePoll::Item(buffer.reveal(item.into_bound(py)))),
            Err(TryGetError::Empty) => self.wait(py, Pending::new(buffer.core().get())),
            Err(TryGetError::Ended) => self.end(py),
        }
    }

    /// Wait for an item, or return one that has arrived since.
    pub(crate) fn wait<'py>(
        &self,
        py: Python<'py>,
        mut pending: Pending<Get<Py<PyAny>>>,
    ) -> PyResult<SourcePoll<'py>> {
        match pending.step(py)? {
            Ok(Ok(item)) => Ok(SourcePoll::Item(
                self.buffer.get().reveal(item.into_bound(py)),
            )),
            Ok(Err(_)) => self.end(py),
            Err(object) => Ok(SourcePoll::Wait(Box::new(Wait::Core(pending)), object)),
        }
    }

    /// Return the end; or, the first time, the error that the producers ended the buffer with.
    fn end<'py>(&self, py: Python<'py>) -> PyResult<SourcePoll<'py>> {
        self.buffer
            .get()
            .take_error(py)
            .map_or(Ok(SourcePoll::End), Err)
    }

    pub(crate) fn restart(&self) -> PyResult<()> {
        if self.buffer.get().core().is_finished() {
            return Err(PyRuntimeError::new_err(
                "cannot restart: the buffer behind this source was ended; make a new one",
            ));
        }
        Ok(())
    }

    /// Close the buffer: blocked producers get their items back.
    pub(crate) fn close(&self, py: Python<'_>) -> PyResult<()> {
        let buffer = self.buffer.get();
        buffer.check(py)?;
        let left = buffer.core().close();
        drop(left);
        Ok(())
    }
}
