//! `take_while`: the items up to the first that the predicate is false for, and then the end.

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::{Callable, Flow, Kernel};
use crate::awaitable::Stopped;
use crate::awaitable::inner::is_awaitable;
use crate::errors::Raised;
use crate::gc;
use crate::gil::GilCell;

/// Emits items while `predicate(item)`, awaited if it is awaitable, is true. The first other one ends it, and is dropped.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct TakeWhileKernel {
    predicate: Callable,
    /// It was false once.
    turned: GilCell<bool>,
}

#[pymethods]
impl TakeWhileKernel {
    #[new]
    fn new(predicate: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self {
            predicate: Callable::new("predicate", predicate)?,
            turned: GilCell::new(false),
        })
    }

    #[getter]
    fn predicate<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.predicate.get(py)
    }

    #[setter]
    fn set_predicate(&self, predicate: &Bound<'_, PyAny>) -> PyResult<()> {
        self.predicate.set(predicate)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::show(&visit, |see| self.traverse(see))
    }

    fn __clear__(&self, py: Python<'_>) {
        self.predicate.clear(py);
    }
}

impl Kernel for TakeWhileKernel {
    const PARAMETER: &'static str = "predicate";

    #[inline(never)]
    fn feed<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Flow<'py>, Raised> {
        let py = item.py();
        if *self.turned.borrow(py) {
            return Ok(Flow::Stop);
        }
        let result = self.predicate.call(item)?;
        if is_awaitable(&result) {
            return Ok(Flow::Await(result));
        }
        Raised::lower(py, self.resume(item, result))
    }

    fn resume<'py>(
        &self,
        item: &Bound<'py, PyAny>,
        result: Bound<'py, PyAny>,
    ) -> PyResult<Flow<'py>> {
        if result.is_truthy()? {
            return Ok(Flow::Emit(item.clone()));
        }
        *self.turned.borrow(item.py()) = true;
        Ok(Flow::Stop)
    }

    fn is_done(&self, py: Python<'_>) -> bool {
        *self.turned.borrow(py)
    }

    fn restart(&self, py: Python<'_>) {
        *self.turned.borrow(py) = false;
    }

    fn traverse(
        &self,
        see: &mut dyn FnMut(&Py<PyAny>) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        self.predicate.traverse(see)
    }
}
