//! `batch_until`: items in lists that a condition completes.
//! `headrace/pull/batching.py` and `headrace/push/batching.py` use it.

use pyo3::prelude::*;

use super::pending_batch::Batch;
use super::{Callable, Kernel, Output, live_kernel};
use crate::errors::RaisedError;
use crate::object::gc::traverse;

/// Emits lists of items, each up to and with the item with which `condition(items so far)`, awaited if
/// it is awaitable, is true; at the end the incomplete list, unless it is to be dropped.
#[pyclass(name = "BatchUntilKernel", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyBatchUntilKernel {
    condition: Callable,
    batch: Batch,
}

live_kernel! {
    impl PyBatchUntilKernel {
        live { condition: set_condition }

        #[new]
        fn new(condition: &Bound<'_, PyAny>, keeps_partial: bool) -> PyResult<Self> {
            Ok(Self {
                condition: Callable::new("condition", condition)?,
                batch: Batch::new(keeps_partial),
            })
        }

        /// Return the number of items in the partial list.
        #[getter]
        fn waiting(&self, py: Python<'_>) -> usize {
            self.batch.len(py)
        }
    }
}

impl Kernel for PyBatchUntilKernel {
    const PARAMETER: &'static str = "condition";

    #[inline(never)]
    fn process<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Output<'py>, RaisedError> {
        let list = RaisedError::set_from(item.py(), self.batch.preview(item))?;
        self.resume_or_await(item, self.condition.call(list.as_any())?)
    }

    fn resume<'py>(
        &self,
        item: &Bound<'py, PyAny>,
        result: Bound<'py, PyAny>,
    ) -> PyResult<Output<'py>> {
        let closes = result.is_truthy()?;
        self.batch.push(item);
        if closes {
            self.batch.take(item.py()).map(Output::Emit)
        } else {
            Ok(Output::Skip)
        }
    }

    fn flush<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.batch.flush(py)
    }

    fn restart(&self, py: Python<'_>) {
        self.batch.clear(py);
    }
}

traverse!(PyBatchUntilKernel { condition, batch });
