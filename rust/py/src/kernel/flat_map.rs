//! `flat_map`: maps each item to an iterable and emits its items.
//! `headrace/pull/flattening.py` and `headrace/push/flattening.py` use it.

use pyo3::prelude::*;

use super::{Callable, Kernel, Output, live_kernel};
use crate::errors::RaisedError;
use crate::object::gc::traverse;

/// Emits the items of `transform(item)`, awaited if it is awaitable: an iterable, sync or async.
#[pyclass(name = "FlatMapKernel", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyFlatMapKernel {
    transform: Callable,
}

live_kernel! {
    impl PyFlatMapKernel {
        live { transform: set_transform }

        #[new]
        fn new(transform: &Bound<'_, PyAny>) -> PyResult<Self> {
            Ok(Self {
                transform: Callable::new("transform", transform)?,
            })
        }
    }
}

impl Kernel for PyFlatMapKernel {
    const PARAMETER: &'static str = "transform";

    #[inline(never)]
    fn process<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Output<'py>, RaisedError> {
        self.resume_or_await(item, self.transform.call(item)?)
    }

    fn resume<'py>(
        &self,
        _item: &Bound<'py, PyAny>,
        result: Bound<'py, PyAny>,
    ) -> PyResult<Output<'py>> {
        Output::many(&result)
    }
}

traverse!(PyFlatMapKernel { transform });
