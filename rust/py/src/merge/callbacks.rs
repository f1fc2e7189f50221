//! Callbacks that a merge schedules on the event loop.

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::merge::PyMerge;
use super::source::Key;
use super::step::StepFrom;

/// The action of a [`LoopCallback`].
#[derive(Debug, Clone, Copy)]
pub(super) enum LoopAction {
    /// Resume one source, whose future is done. This callback is reused for the life of the source.
    Resume(Key),
    /// Step the sources that yielded.
    ResumeYielding,
    /// Check whether the event loop is shutting down.
    CheckShutdown,
    /// Close the sources of a stream that was dropped.
    CloseAbandoned,
}

/// Runs one action of a merge from the event loop.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(super) struct LoopCallback {
    merge: Py<PyMerge>,
    action: LoopAction,
}

#[pymethods]
impl LoopCallback {
    #[pyo3(signature = (_future = None))]
    fn __call__(&self, py: Python<'_>, _future: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let merge = self.merge.bind(py);
        match self.action {
            LoopAction::Resume(key) => PyMerge::resume(merge, key, StepFrom::Callback),
            LoopAction::ResumeYielding => PyMerge::resume_yielding(merge),
            LoopAction::CheckShutdown => PyMerge::check_shutdown(merge),
            LoopAction::CloseAbandoned => PyMerge::close_abandoned(merge),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.merge)
    }
}

impl LoopCallback {
    pub(super) fn make<'py>(
        merge: &Bound<'py, PyMerge>,
        action: LoopAction,
    ) -> PyResult<Bound<'py, Self>> {
        let callback = Self {
            merge: merge.clone().unbind(),
            action,
        };
        Bound::new(merge.py(), callback)
    }
}

impl PyMerge {
    /// Schedules an action for the next iteration of the event loop.
    pub(super) fn call_soon(slf: &Bound<'_, Self>, action: LoopAction) -> PyResult<()> {
        let call_soon = slf.get().loop_object(slf.py(), |known| &known.call_soon)?;
        call_soon.call1((LoopCallback::make(slf, action)?,))?;
        Ok(())
    }
}
