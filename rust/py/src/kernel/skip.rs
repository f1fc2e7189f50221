//! `skip`: all but the first items.

use pyo3::prelude::*;

use super::{Flow, Kernel};
use crate::awaitable::Stopped;
use crate::errors::Raised;
use crate::gil::GilCell;
use crate::number::whole;

/// Drops the first `count` items and emits the rest.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct SkipKernel {
    count: GilCell<u64>,
    skipped: GilCell<u64>,
}

#[pymethods]
impl SkipKernel {
    #[new]
    fn new(count: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self {
            count: GilCell::new(whole("count", 0, count)?),
            skipped: GilCell::new(0),
        })
    }

    #[getter]
    fn count(&self, py: Python<'_>) -> u64 {
        *self.count.borrow(py)
    }

    #[setter]
    fn set_count(&self, count: &Bound<'_, PyAny>) -> PyResult<()> {
        *self.count.borrow(count.py()) = whole("count", 0, count)?;
        Ok(())
    }
}

impl Kernel for SkipKernel {
    const PARAMETER: &'static str = "count";

    #[inline(never)]
    fn feed<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Flow<'py>, Raised> {
        let py = item.py();
        let mut skipped = self.skipped.borrow(py);
        if *skipped < *self.count.borrow(py) {
            *skipped += 1;
            return Ok(Flow::Skip);
        }
        Ok(Flow::Emit(item.clone()))
    }

    fn restart(&self, py: Python<'_>) {
        *self.skipped.borrow(py) = 0;
    }

    fn traverse(
        &self,
        _see: &mut dyn FnMut(&Py<PyAny>) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        Ok(())
    }
}
