//! `flatten`: emits the items of each item. `headrace/pull/flattening.py` and `headrace/push/flattening.py` use it.

use pyo3::prelude::*;

use super::{Kernel, Output};
use crate::errors::RaisedError;
use crate::object::gc::traverse;

/// Emits the items of each item, which is an iterable, sync or async.
#[pyclass(name = "FlattenKernel", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyFlattenKernel;

#[pymethods]
impl PyFlattenKernel {
    #[new]
    fn new() -> Self {
        Self
    }
}

impl Kernel for PyFlattenKernel {
    const PARAMETER: &'static str = "item";

    #[inline(never)]
    fn process<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Output<'py>, RaisedError> {
        RaisedError::set_from(item.py(), Output::many(item))
    }
}

traverse!(PyFlattenKernel {});
