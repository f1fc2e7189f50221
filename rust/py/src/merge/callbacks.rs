//! `LoopCallback`: the callbacks that a merge gives to the event loop and to the futures that its sources await.
//! `pending.rs`, `yielding.rs` and `merge.rs` register them.

use headrace_core::sync::Key;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::merge::PyMerge;
use super::step::StepFrom;

/// The action of a [`LoopCallback`].
#[derive(Debug, Clone, Copy)]
pub(super) enum LoopAction {
    /// Resume one source, whose future is done. Each source reuses its callback.
    Resume(Key),
    /// Resume the sources that yielded to the event loop.
    ResumeYielding,
    /// Check whether the event loop is shutting down.
    CheckShutdown,
    /// Close the sources of a stream that was dropped unclosed.
    CloseAbandoned,
}

/// A callable that runs one action of a merge.
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
            LoopAction::Resume(key) => PyMerge::at(merge, key).resume(StepFrom::Callback),
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
    /// Schedule an action for the next iteration of the event loop.
    pub(super) fn call_soon(slf: &Bound<'_, Self>, action: LoopAction) -> PyResult<()> {
        let call_soon = slf
            .get()
            .loop_object(slf.py(), |event_loop| &event_loop.call_soon)?;
        call_soon.call1((LoopCallback::make(slf, action)?,))?;
        Ok(())
    }
}
