//! `filter`: an item comes out as it went in, or not at all.

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::{Callable, Kernel, Output};
use crate::coroutine::delegate::is_awaitable;
use crate::errors::RaisedError;
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
    fn process<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Output<'py>, RaisedError> {
        let result = self.predicate.call(item)?;
        if is_awaitable(&result) {
            return Ok(Output::Await(result));
        }
        match result.is_truthy() {
            Ok(true) => Ok(Output::Emit(item.clone())),
            Ok(false) => Ok(Output::Skip),
            Err(error) => Err(RaisedError::set(item.py(), error)),
        }
    }

    #[inline]
    fn resume<'py>(
        &self,
        item: &Bound<'py, PyAny>,
        result: Bound<'py, PyAny>,
    ) -> PyResult<Output<'py>> {
        Ok(if result.is_truthy()? {
            Output::Emit(item.clone())
        } else {
            Output::Skip
        })
    }
}

traverse!(FilterKernel { predicate });
