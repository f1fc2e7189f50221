//! `map`: emits one result for each item. `headrace/pull/transform.py` and `headrace/push/transform.py` use it.

use pyo3::prelude::*;

use super::{Callable, Kernel, Output, live_kernel};
use crate::coroutine::delegate::is_awaitable;
use crate::errors::RaisedError;
use crate::object::gc::traverse;

/// Emits `transform(item)`, awaited if it is awaitable and not `raw`.
#[pyclass(name = "MapKernel", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyMapKernel {
    transform: Callable,
    raw: bool,
}

live_kernel! {
    impl PyMapKernel {
        live { transform: set_transform }

        #[new]
        #[pyo3(signature = (transform, raw = false))]
        fn new(transform: &Bound<'_, PyAny>, raw: bool) -> PyResult<Self> {
            Ok(Self {
                transform: Callable::new("transform", transform)?,
                raw,
            })
        }
    }
}

impl PyMapKernel {
    /// Make a kernel whose callable is named differently in errors.
    pub(crate) fn calling(parameter: &'static str, function: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self {
            transform: Callable::new(parameter, function)?,
            raw: false,
        })
    }
}

impl Kernel for PyMapKernel {
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

traverse!(PyMapKernel { transform });
