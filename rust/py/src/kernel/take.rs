//! `take`: the first items, and then the end.

use pyo3::prelude::*;

use super::{Flow, Kernel};
use crate::awaitable::Stopped;
use crate::errors::Raised;
use crate::gil::GilCell;
use crate::number::whole;

/// Emits the first `count` items. The end comes with the last of them: no more is taken from above.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct TakeKernel {
    count: GilCell<u64>,
    taken: GilCell<u64>,
}

#[pymethods]
impl TakeKernel {
    #[new]
    fn new(count: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self {
            count: GilCell::new(whole("count", 0, count)?),
            taken: GilCell::new(0),
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

impl Kernel for TakeKernel {
    const PARAMETER: &'static str = "count";

    #[inline(never)]
    fn feed<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Flow<'py>, Raised> {
        let py = item.py();
        if self.is_done(py) {
            return Ok(Flow::Stop);
        }
        *self.taken.borrow(py) += 1;
        Ok(if self.is_done(py) {
            Flow::Last(item.clone())
        } else {
            Flow::Emit(item.clone())
        })
    }

    fn is_done(&self, py: Python<'_>) -> bool {
        *self.taken.borrow(py) >= *self.count.borrow(py)
    }

    fn restart(&self, py: Python<'_>) {
        *self.taken.borrow(py) = 0;
    }

    fn traverse(
        &self,
        _see: &mut dyn FnMut(&Py<PyAny>) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        Ok(())
    }
}
