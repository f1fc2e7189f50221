//! The source of one value. `headrace/pull/source.py` makes it.

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::SourcePoll;
use crate::object::gc::{self, Traverse, traverse};
use crate::object::gil_cell::GilCell;

/// Emits its current value once, and once more after each restart.
#[pyclass(frozen, name = "OnceSource", module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyOnceSource(GilCell<State>);

#[derive(Debug)]
struct State {
    value: Py<PyAny>,
    emitted: bool,
}

traverse!(State { value });

#[pymethods]
impl PyOnceSource {
    #[new]
    fn new(value: Py<PyAny>) -> Self {
        Self(GilCell::new(State {
            value,
            emitted: false,
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
        gc::visit(&visit, |visit| self.0.traverse(visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        self.set_value(py, py.None());
    }
}

impl PyOnceSource {
    #[inline(never)]
    pub(crate) fn ready<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let mut state = self.0.borrow(py);
        if state.emitted {
            return None;
        }
        state.emitted = true;
        Some(state.value.bind(py).clone())
    }

    pub(crate) fn poll_next<'py>(&self, py: Python<'py>) -> SourcePoll<'py> {
        self.ready(py).map_or(SourcePoll::End, SourcePoll::Item)
    }

    pub(crate) fn restart(&self, py: Python<'_>) {
        self.0.borrow(py).emitted = false;
    }
}
