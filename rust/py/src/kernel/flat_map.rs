//! `flat_map`: the items of what a callable makes of each item.

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::{Callable, Kernel, Output};
use crate::coroutine::delegate::is_awaitable;
use crate::errors::RaisedError;
use crate::object::gc::{self, Traverse, traverse};
use crate::source::AnySource;

/// Emits the items of `transform(item)`, awaited if it is awaitable: an iterable, sync or async.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct FlatMapKernel {
    transform: Callable,
}

#[pymethods]
impl FlatMapKernel {
    #[new]
    fn new(transform: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self {
            transform: Callable::new("transform", transform)?,
        })
    }

    #[getter]
    fn transform<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.transform.get(py)
    }

    #[setter]
    fn set_transform(&self, transform: &Bound<'_, PyAny>) -> PyResult<()> {
        self.transform.set(transform)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| self.traverse(visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        self.transform.clear(py);
    }
}

impl Kernel for FlatMapKernel {
    const PARAMETER: &'static str = "transform";

    #[inline(never)]
    fn process<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Output<'py>, RaisedError> {
        let result = self.transform.call(item)?;
        if is_awaitable(&result) {
            return Ok(Output::Await(result));
        }
        RaisedError::set_from(item.py(), self.resume(item, result))
    }

    fn resume<'py>(
        &self,
        _item: &Bound<'py, PyAny>,
        result: Bound<'py, PyAny>,
    ) -> PyResult<Output<'py>> {
        AnySource::over(&result).map(|source| Output::Many(Box::new(source)))
    }
}

traverse!(FlatMapKernel { transform });
