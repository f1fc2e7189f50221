//! `take`: emits the first items, then ends. `headrace/pull/slicing.py` and `headrace/push/slicing.py` use it.

use pyo3::prelude::*;

use super::{Kernel, Output, live_kernel};
use crate::errors::RaisedError;
use crate::object::gc::traverse;
use crate::object::gil_cell::GilCell;
use crate::object::int_setting::IntSetting;

/// Emits the first `size` items. Ends with the last of them: no further item is taken from the source.
#[pyclass(name = "TakeKernel", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyTakeKernel {
    size: IntSetting,
    taken: GilCell<u64>,
}

live_kernel! {
    impl PyTakeKernel {
        live { size: set_size }

        #[new]
        fn new(size: &Bound<'_, PyAny>) -> PyResult<Self> {
            Ok(Self {
                size: IntSetting::new("size", 0, size)?,
                taken: GilCell::new(0),
            })
        }
    }
}

impl Kernel for PyTakeKernel {
    const PARAMETER: &'static str = "size";

    #[inline(never)]
    fn process<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Output<'py>, RaisedError> {
        let py = item.py();
        if self.is_done(py) {
            return Ok(Output::Stop);
        }
        *self.taken.borrow(py) += 1;
        Ok(if self.is_done(py) {
            Output::Last(item.clone())
        } else {
            Output::Emit(item.clone())
        })
    }

    fn is_done(&self, py: Python<'_>) -> bool {
        *self.taken.borrow(py) >= self.size.get(py)
    }

    fn restart(&self, py: Python<'_>) {
        *self.taken.borrow(py) = 0;
    }
}

traverse!(PyTakeKernel {});
