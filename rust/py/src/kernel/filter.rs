//! `filter`: emits the items that match a predicate.
//! `headrace/pull/transform.py` and `headrace/push/transform.py` use it.

use pyo3::prelude::*;

use super::{Callable, Kernel, Output, live_kernel};
use crate::coroutine::delegate::is_awaitable;
use crate::errors::RaisedError;
use crate::object::gc::traverse;

/// Emits an item if `predicate(item)`, awaited if it is awaitable, is true.
#[pyclass(name = "FilterKernel", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyFilterKernel {
    predicate: Callable,
}

live_kernel! {
    impl PyFilterKernel {
        live { predicate: set_predicate }

        #[new]
        fn new(predicate: &Bound<'_, PyAny>) -> PyResult<Self> {
            Ok(Self {
                predicate: Callable::new("predicate", predicate)?,
            })
        }
    }
}

impl Kernel for PyFilterKernel {
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

traverse!(PyFilterKernel { predicate });
