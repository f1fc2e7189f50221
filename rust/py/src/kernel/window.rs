//! `batch`: items in lists of a size.

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::pending_batch::Batch;
use super::{Flow, Kernel};
use crate::errors::Raised;
use crate::object::gc::{self, Traverse, traverse};
use crate::object::int_setting::Whole;

/// Emits lists of `size` items; at the end the list that is not full, unless it is to be dropped.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct WindowKernel {
    size: Whole,
    batch: Batch,
}

#[pymethods]
impl WindowKernel {
    #[new]
    fn new(size: &Bound<'_, PyAny>, keeps_partial: bool) -> PyResult<Self> {
        Ok(Self {
            size: Whole::new("size", 1, size)?,
            batch: Batch::new(keeps_partial),
        })
    }

    #[getter]
    fn size(&self, py: Python<'_>) -> u64 {
        self.size.get(py)
    }

    #[setter]
    fn set_size(&self, size: &Bound<'_, PyAny>) -> PyResult<()> {
        self.size.set(size)
    }

    /// How many items wait for their list to be full.
    #[getter]
    fn waiting(&self, py: Python<'_>) -> usize {
        self.batch.len(py)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| self.traverse(visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        self.batch.clear(py);
    }
}

impl Kernel for WindowKernel {
    const PARAMETER: &'static str = "size";

    #[inline(never)]
    fn feed<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Flow<'py>, Raised> {
        let py = item.py();
        let size = self.size.get(py);
        if (self.batch.push(item) as u64) < size {
            return Ok(Flow::Skip);
        }
        Raised::lower(py, self.batch.take(py).map(Flow::Emit))
    }

    fn flush<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.batch.flush(py)
    }

    fn restart(&self, py: Python<'_>) {
        self.batch.clear(py);
    }
}

traverse!(WindowKernel { batch });
