//! `take`: the first items, and then the end.

use pyo3::prelude::*;

use super::{Kernel, Output};
use crate::errors::RaisedError;
use crate::object::gc::traverse;
use crate::object::gil_cell::GilCell;
use crate::object::int_setting::IntSetting;

/// Emits the first `size` items. The end comes with the last of them: no more is taken from above.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct TakeKernel {
    size: IntSetting,
    taken: GilCell<u64>,
}

#[pymethods]
impl TakeKernel {
    #[new]
    fn new(size: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self {
            size: IntSetting::new("size", 0, size)?,
            taken: GilCell::new(0),
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
}

impl Kernel for TakeKernel {
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

traverse!(TakeKernel {});
