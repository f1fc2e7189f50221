//! Callbacks that a merge schedules on the event loop.

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::merge::PyMerge;
use super::source::Key;
use super::step::StepFrom;

/// Resumes one source when its future is done. Reused for the life of the source.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(super) struct ResumeCallback {
    pub(super) merge: Py<PyMerge>,
    pub(super) key: Key,
}

#[pymethods]
impl ResumeCallback {
    #[pyo3(signature = (_future = None))]
    fn __call__(&self, py: Python<'_>, _future: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        PyMerge::resume(self.merge.bind(py), self.key, StepFrom::Callback)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.merge)
    }
}

/// The action of a [`LoopCallback`].
#[derive(Debug, Clone, Copy)]
pub(super) enum LoopAction {
    /// Check whether the event loop is shutting down.
    CheckShutdown,
    /// Close the sources of a stream that was dropped.
    CloseAbandoned,
    /// Step the sources that yielded.
    ResumeYielding,
}

/// Runs one action of a merge in the next iteration of the event loop.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(super) struct LoopCallback {
    pub(super) merge: Py<PyMerge>,
    pub(super) action: LoopAction,
}

#[pymethods]
impl LoopCallback {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let merge = self.merge.bind(py);
        match self.action {
            LoopAction::CheckShutdown => PyMerge::check_shutdown(merge),
            LoopAction::CloseAbandoned => PyMerge::close_abandoned(merge),
            LoopAction::ResumeYielding => PyMerge::resume_yielding(merge),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.merge)
    }
}
