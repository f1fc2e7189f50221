//! `flat_map`: maps each item to an iterable and emits its items.

use pyo3::prelude::*;

use super::{Callable, Kernel, Output, callable_kernel};
use crate::coroutine::delegate::is_awaitable;
use crate::errors::RaisedError;
use crate::object::gc::traverse;
use crate::source::AnySource;

/// Emits the items of `transform(item)`, awaited if it is awaitable: an iterable, sync or async.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct FlatMapKernel {
    transform: Callable,
}

callable_kernel! {
    impl FlatMapKernel {
        live transform;

        #[new]
        fn new(transform: &Bound<'_, PyAny>) -> PyResult<Self> {
            Ok(Self {
                transform: Callable::new("transform", transform)?,
            })
        }

        fn __clear__(&self, py: Python<'_>) {
            self.transform.clear(py);
        }
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
