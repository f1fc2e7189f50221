//! `filter`: an item comes out as it went in, or not at all.

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::{Callable, Flow, Kernel};
use crate::coroutine::delegate::is_awaitable;
use crate::errors::Raised;
use crate::object::gc::{self, Traverse, traverse};

/// Emits an item if `predicate(item)`, awaited if it is awaitable, is true.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct FilterKernel {
    predicate: Callable,
}

#[pymethods]
impl FilterKernel {
    #[new]
    fn new(predicate: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self {
            predicate: Callable::new("predicate", predicate)?,
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
        gc::visit(&visit, |visit| self.traverse(visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        self.predicate.clear(py);
    }
}

impl Kernel for FilterKernel {
    const PARAMETER: &'static str = "predicate";

    #[inline]
    fn feed<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Flow<'py>, Raised> {
        let result = self.predicate.call(item)?;
        if is_awaitable(&result) {
            return Ok(Flow::Await(result));
        }
        match result.is_truthy() {
            Ok(true) => Ok(Flow::Emit(item.clone())),
            Ok(false) => Ok(Flow::Skip),
            Err(error) => Err(Raised::set(item.py(), error)),
        }
    }

    #[inline]
    fn resume<'py>(
        &self,
        item: &Bound<'py, PyAny>,
        result: Bound<'py, PyAny>,
    ) -> PyResult<Flow<'py>> {
        Ok(if result.is_truthy()? {
            Flow::Emit(item.clone())
        } else {
            Flow::Skip
        })
    }
}

traverse!(FilterKernel { predicate });
