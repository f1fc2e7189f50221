//! `map`: one item out for each item in.

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::{Callable, Kernel, Output};
use crate::coroutine::delegate::is_awaitable;
use crate::errors::RaisedError;
use crate::object::gc::{self, Traverse, traverse};

/// Emits `transform(item)`, awaited if it is awaitable, unless it is wanted `raw`.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct MapKernel {
    transform: Callable,
    raw: bool,
}

#[pymethods]
impl MapKernel {
    #[new]
    #[pyo3(signature = (transform, raw = false))]
    fn new(transform: &Bound<'_, PyAny>, raw: bool) -> PyResult<Self> {
        Ok(Self {
            transform: Callable::new("transform", transform)?,
            raw,
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

impl MapKernel {
    /// One whose callable goes by another name.
    pub(crate) fn calling(parameter: &'static str, function: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self {
            transform: Callable::new(parameter, function)?,
            raw: false,
        })
    }
}

impl Kernel for MapKernel {
    const PARAMETER: &'static str = "transform";

    #[inline]
    fn process<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Output<'py>, RaisedError> {
        let result = self.transform.call(item)?;
        Ok(if is_awaitable(&result) && !self.raw {
            Output::Await(result)
        } else {
            Output::Emit(result)
        })
    }

    fn resume<'py>(
        &self,
        _item: &Bound<'py, PyAny>,
        result: Bound<'py, PyAny>,
    ) -> PyResult<Output<'py>> {
        Ok(Output::Emit(result))
    }
}

traverse!(MapKernel { transform });
