//! `skip`: drops the first items. `headrace/pull/slicing.py` and `headrace/pull/transform.py` use it.

use pyo3::prelude::*;

use super::{Kernel, Output, live_kernel};
use crate::errors::RaisedError;
use crate::object::gc::traverse;
use crate::object::gil_cell::GilCell;
use crate::object::int_setting::IntSetting;

/// Drops the first `size` items and emits the rest.
#[pyclass(name = "SkipKernel", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PySkipKernel {
    size: IntSetting,
    skipped: GilCell<u64>,
}

live_kernel! {
    impl PySkipKernel {
        live { size: set_size }

        #[new]
        fn new(size: &Bound<'_, PyAny>) -> PyResult<Self> {
            Ok(Self {
                size: IntSetting::new("size", 0, size)?,
                skipped: GilCell::new(0),
            })
        }
    }
}

impl Kernel for PySkipKernel {
    const PARAMETER: &'static str = "size";

    #[inline(never)]
    fn process<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Output<'py>, RaisedError> {
        let py = item.py();
        let mut skipped = self.skipped.borrow(py);
        if *skipped < self.size.get(py) {
            *skipped += 1;
            return Ok(Output::Skip);
        }
        Ok(Output::Emit(item.clone()))
    }

    fn restart(&self, py: Python<'_>) {
        *self.skipped.borrow(py) = 0;
    }
}

traverse!(PySkipKernel {});
