//! `window`: items in lists of a size.

use pyo3::prelude::*;
use pyo3::types::PyList;
use pyo3::{PyTraverseError, PyVisit};

use super::{Flow, Kernel};
use crate::awaitable::Stopped;
use crate::errors::Raised;
use crate::gc;
use crate::gil::GilCell;
use crate::number::whole;

/// Emits lists of `size` items; at the end the list that is not full, unless it is to be dropped.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct WindowKernel {
    size: GilCell<u64>,
    keeps_partial: bool,
    batch: GilCell<Vec<Py<PyAny>>>,
}

#[pymethods]
impl WindowKernel {
    #[new]
    fn new(size: &Bound<'_, PyAny>, keeps_partial: bool) -> PyResult<Self> {
        Ok(Self {
            size: GilCell::new(whole("size", 1, size)?),
            keeps_partial,
            batch: GilCell::new(Vec::new()),
        })
    }

    #[getter]
    fn size(&self, py: Python<'_>) -> u64 {
        *self.size.borrow(py)
    }

    #[setter]
    fn set_size(&self, size: &Bound<'_, PyAny>) -> PyResult<()> {
        *self.size.borrow(size.py()) = whole("size", 1, size)?;
        Ok(())
    }

    /// How many items wait for their window to be full.
    #[getter]
    fn waiting(&self, py: Python<'_>) -> usize {
        self.batch.borrow(py).len()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::show(&visit, |see| self.traverse(see))
    }

    fn __clear__(&self, py: Python<'_>) {
        drop(self.take(py));
    }
}

impl WindowKernel {
    fn take(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        std::mem::take(&mut *self.batch.borrow(py))
    }
}

impl Kernel for WindowKernel {
    const PARAMETER: &'static str = "size";

    #[inline(never)]
    fn feed<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Flow<'py>, Raised> {
        let py = item.py();
        let size = *self.size.borrow(py);
        let full = {
            let mut batch = self.batch.borrow(py);
            batch.push(item.clone().unbind());
            batch.len() as u64 >= size
        };
        if !full {
            return Ok(Flow::Skip);
        }
        let list = Raised::lower(py, PyList::new(py, self.take(py)))?;
        Ok(Flow::Emit(list.into_any()))
    }

    fn flush<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let batch = self.take(py);
        if batch.is_empty() || !self.keeps_partial {
            return None;
        }
        PyList::new(py, batch).ok().map(Bound::into_any)
    }

    fn restart(&self, py: Python<'_>) {
        drop(self.take(py));
    }

    fn traverse(
        &self,
        see: &mut dyn FnMut(&Py<PyAny>) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        match self.batch.peek_for_gc() {
            Some(batch) => batch.iter().try_for_each(see),
            None => Ok(()),
        }
    }
}
