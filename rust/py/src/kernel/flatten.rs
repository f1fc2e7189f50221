//! `flatten`: the items of each item.

use pyo3::prelude::*;

use super::{Flow, Kernel};
use crate::errors::Raised;
use crate::object::gc::traverse;
use crate::source::AnyFeed;

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
    fn feed<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Flow<'py>, Raised> {
        Raised::lower(
            item.py(),
            AnyFeed::over(item).map(|feed| Flow::Many(Box::new(feed))),
        )
    }
}

traverse!(FlattenKernel {});
