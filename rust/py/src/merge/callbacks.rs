//! What the loop calls when a source that waited can go on, and other notes to the loop.

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::merge::Merge;
use super::source::Key;
use super::step::Where;

/// The callback of one source, for as long as it lasts.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(super) struct Resumption {
    pub(super) merge: Py<Merge>,
    pub(super) key: Key,
}

#[pymethods]
impl Resumption {
    #[pyo3(signature = (_future = None))]
    fn __call__(&self, py: Python<'_>, _future: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        Merge::resume(self.merge.bind(py), self.key, Where::Callback)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.merge)
    }
}

/// What is to be done in the next turn of the loop.
#[derive(Debug, Clone, Copy)]
pub(super) enum Errand {
    /// See whether the program ends.
    Inspect,
    /// Nobody holds the stream any more.
    LetGo,
    /// Step the sources that let the loop have a turn.
    GoOn,
}

/// An errand of a merge.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(super) struct Note {
    pub(super) merge: Py<Merge>,
    pub(super) errand: Errand,
}

#[pymethods]
impl Note {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let merge = self.merge.bind(py);
        match self.errand {
            Errand::Inspect => Merge::inspect(merge),
            Errand::LetGo => Merge::let_go(merge),
            Errand::GoOn => Merge::go_on(merge),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.merge)
    }
}
