//! `batch`: items in lists of a size. `headrace/pull/batching.py` and `headrace/push/batching.py` use it.

use pyo3::prelude::*;

use super::pending_batch::Batch;
use super::{Kernel, Output, live_kernel};
use crate::errors::RaisedError;
use crate::object::gc::traverse;
use crate::object::int_setting::IntSetting;

/// Emits lists of `size` items; at the end the partial list, if `keeps_partial`.
#[pyclass(name = "BatchKernel", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyBatchKernel {
    size: IntSetting,
    batch: Batch,
}

live_kernel! {
    impl PyBatchKernel {
        live { size: set_size }

        #[new]
        fn new(size: &Bound<'_, PyAny>, keeps_partial: bool) -> PyResult<Self> {
            Ok(Self {
                size: IntSetting::new("size", 1, size)?,
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

impl Kernel for PyBatchKernel {
    const PARAMETER: &'static str = "size";

    #[inline(never)]
    fn process<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Output<'py>, RaisedError> {
        let py = item.py();
        let size = self.size.get(py);
        if (self.batch.push(item) as u64) < size {
            return Ok(Output::Skip);
        }
        RaisedError::set_from(py, self.batch.take(py).map(Output::Emit))
    }

    fn flush<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.batch.flush(py)
    }

    fn restart(&self, py: Python<'_>) {
        self.batch.clear(py);
    }
}

traverse!(PyBatchKernel { batch });
