//! `flatten`: emits the items of each item. `headrace/pull/flattening.py` and `headrace/push/flattening.py` use it.

use pyo3::prelude::*;

use super::{Kernel, Output};
use crate::errors::RaisedError;
use crate::object::gc::traverse;

/// Emits the items of each item, which is an iterable, sync or async.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct FlattenKernel;

#[pymethods]
impl FlattenKernel {
    #[new]
    fn new() -> Self {
        Self
    }
}

impl Kernel for FlattenKernel {
    const PARAMETER: &'static str = "item";

    #[inline(never)]
    fn process<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Output<'py>, RaisedError> {
        RaisedError::set_from(item.py(), Output::many(item))
    }
}

traverse!(FlattenKernel {});
