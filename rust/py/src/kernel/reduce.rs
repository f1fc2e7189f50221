//! `accumulate`: the running result of a function of two, one out for each item in.

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::{Callable, Flow, Kernel};
use crate::coroutine::delegate::is_awaitable;
use crate::errors::Raised;
use crate::object::gc::{self, Traverse, traverse};
use crate::object::gil_cell::GilCell;

/// Emits `accumulator = reducer(accumulator, item)`, awaited if it is awaitable.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct ReduceKernel {
    reducer: Callable,
    /// What a cycle begins with; `None` if it begins with its first item.
    initial: Option<Py<PyAny>>,
    accumulator: GilCell<Option<Py<PyAny>>>,
}

#[pymethods]
impl ReduceKernel {
    #[new]
    #[pyo3(signature = (reducer, *initial))]
    pub(crate) fn new(
        reducer: &Bound<'_, PyAny>,
        initial: &Bound<'_, pyo3::types::PyTuple>,
    ) -> PyResult<Self> {
        let py = reducer.py();
        let initial = initial.iter().next().map(Bound::unbind);
        Ok(Self {
            reducer: Callable::new("reducer", reducer)?,
            accumulator: GilCell::new(initial.as_ref().map(|initial| initial.clone_ref(py))),
            initial,
        })
    }

    #[getter]
    fn reducer<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.reducer.get(py)
    }

    #[setter]
    fn set_reducer(&self, reducer: &Bound<'_, PyAny>) -> PyResult<()> {
        self.reducer.set(reducer)
    }

    /// The result so far; `None` before the first item if there is no initial value.
    #[getter]
    pub(crate) fn accumulator(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.accumulator
            .borrow(py)
            .as_ref()
            .map(|value| value.clone_ref(py))
    }

    #[setter]
    fn set_accumulator(&self, value: &Bound<'_, PyAny>) {
        self.set(value.py(), Some(value.clone().unbind()));
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| self.traverse(visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        self.reducer.clear(py);
        self.set(py, None);
    }
}

impl ReduceKernel {
    fn set(&self, py: Python<'_>, value: Option<Py<PyAny>>) {
        // The old one is dropped with the borrow gone: its destructor may come back here.
        let old = std::mem::replace(&mut *self.accumulator.borrow(py), value);
        drop(old);
    }
}

impl Kernel for ReduceKernel {
    const PARAMETER: &'static str = "reducer";

    #[inline(never)]
    fn feed<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Flow<'py>, Raised> {
        let py = item.py();
        let Some(accumulator) = self.accumulator(py) else {
            self.set(py, Some(item.clone().unbind()));
            return Ok(Flow::Emit(item.clone()));
        };
        let result = self.reducer.call2(accumulator.bind(py), item)?;
        if is_awaitable(&result) {
            return Ok(Flow::Await(result));
        }
        self.set(py, Some(result.clone().unbind()));
        Ok(Flow::Emit(result))
    }

    fn resume<'py>(
        &self,
        _item: &Bound<'py, PyAny>,
        result: Bound<'py, PyAny>,
    ) -> PyResult<Flow<'py>> {
        self.set(result.py(), Some(result.clone().unbind()));
        Ok(Flow::Emit(result))
    }

    fn restart(&self, py: Python<'_>) {
        self.set(
            py,
            self.initial.as_ref().map(|initial| initial.clone_ref(py)),
        );
    }
}

traverse!(ReduceKernel {
    reducer,
    initial,
    accumulator
});
