//! One value, once a cycle.

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::SourcePoll;
use crate::object::gil_cell::GilCell;

/// Gives the value that it has at that moment, once.
#[pyclass(frozen, name = "OnceSource", module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyOnceSource(GilCell<State>);

#[derive(Debug)]
struct State {
    value: Py<PyAny>,
    given: bool,
}

#[pymethods]
impl PyOnceSource {
    #[new]
    fn new(value: Py<PyAny>) -> Self {
        Self(GilCell::new(State {
            value,
            given: false,
        }))
    }

    #[getter]
    fn value(&self, py: Python<'_>) -> Py<PyAny> {
        self.0.borrow(py).value.clone_ref(py)
    }

    #[setter]
    fn set_value(&self, py: Python<'_>, value: Py<PyAny>) {
        let old = std::mem::replace(&mut self.0.borrow(py).value, value);
        drop(old);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0
            .peek_for_gc()
            .map_or(Ok(()), |state| visit.call(&state.value))
    }

    fn __clear__(&self, py: Python<'_>) {
        self.set_value(py, py.None());
    }
}

impl PyOnceSource {
    #[inline(never)]
    pub(crate) fn ready<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let mut state = self.0.borrow(py);
        if state.given {
            return None;
        }
        state.given = true;
        Some(state.value.bind(py).clone())
    }

    pub(crate) fn poll_next<'py>(&self, py: Python<'py>) -> SourcePoll<'py> {
        self.ready(py).map_or(SourcePoll::End, SourcePoll::Item)
    }

    pub(crate) fn restart(&self, py: Python<'_>) {
        self.0.borrow(py).given = false;
    }
}
