//! `batch_until`: items in lists that a condition completes.

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::pending_batch::Batch;
use super::{Callable, Flow, Kernel};
use crate::coroutine::delegate::is_awaitable;
use crate::errors::Raised;
use crate::object::gc::{self, Traverse, traverse};

/// Emits lists of items, each up to and with the item with which `condition(items so far)`, awaited if
/// it is awaitable, is true; at the end the incomplete list, unless it is to be dropped.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct BufferKernel {
    condition: Callable,
    batch: Batch,
}

#[pymethods]
impl BufferKernel {
    #[new]
    fn new(condition: &Bound<'_, PyAny>, keeps_partial: bool) -> PyResult<Self> {
        Ok(Self {
            condition: Callable::new("condition", condition)?,
            batch: Batch::new(keeps_partial),
        })
    }

    #[getter]
    fn condition<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.condition.get(py)
    }

    #[setter]
    fn set_condition(&self, condition: &Bound<'_, PyAny>) -> PyResult<()> {
        self.condition.set(condition)
    }

    /// How many items wait for their list to be closed.
    #[getter]
    fn waiting(&self, py: Python<'_>) -> usize {
        self.batch.len(py)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| self.traverse(visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        self.condition.clear(py);
        self.batch.clear(py);
    }
}

impl Kernel for BufferKernel {
    const PARAMETER: &'static str = "condition";

    #[inline(never)]
    fn feed<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Flow<'py>, Raised> {
        let list = Raised::lower(item.py(), self.batch.preview(item))?;
        let result = self.condition.call(list.as_any())?;
        if is_awaitable(&result) {
            return Ok(Flow::Await(result));
        }
        Raised::lower(item.py(), self.resume(item, result))
    }

    fn resume<'py>(
        &self,
        item: &Bound<'py, PyAny>,
        result: Bound<'py, PyAny>,
    ) -> PyResult<Flow<'py>> {
        let closes = result.is_truthy()?;
        self.batch.push(item);
        if closes {
            self.batch.take(item.py()).map(Flow::Emit)
        } else {
            Ok(Flow::Skip)
        }
    }

    fn flush<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.batch.flush(py)
    }

    fn restart(&self, py: Python<'_>) {
        self.batch.clear(py);
    }
}

traverse!(BufferKernel { condition, batch });
