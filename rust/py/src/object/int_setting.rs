//! Integers that are parameters: checked, and replaceable at any time.
//! The kernels `take`, `skip`, `batch` and `in_order` use it.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt};

use super::gil_cell::GilCell;
use crate::errors;

/// An integer parameter with a minimum, which may be replaced at any time.
#[derive(Debug)]
pub(crate) struct IntSetting {
    parameter: &'static str,
    least: u64,
    value: GilCell<u64>,
}

impl IntSetting {
    pub(crate) fn new(
        parameter: &'static str,
        least: u64,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        Ok(Self {
            parameter,
            least,
            value: GilCell::new(check_int(parameter, least, value)?),
        })
    }

    #[inline]
    pub(crate) fn get(&self, py: Python<'_>) -> u64 {
        *self.value.borrow(py)
    }

    /// Does nothing. A `live_kernel!` clears each of its attributes.
    #[expect(
        clippy::unused_self,
        reason = "a callable attribute has the same method"
    )]
    pub(crate) fn clear(&self, _py: Python<'_>) {}

    pub(crate) fn set(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        *self.value.borrow(value.py()) = check_int(self.parameter, self.least, value)?;
        Ok(())
    }
}

/// Return an integer of at least `least`, or an error that names the parameter and the value.
pub(crate) fn check_int(parameter: &str, least: u64, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    if !value.is_instance_of::<PyInt>() || value.is_instance_of::<PyBool>() {
        return Err(errors::wrong_type(parameter, "an integer", value));
    }
    match value.extract::<u64>() {
        Ok(number) if number >= least => Ok(number),
        _ => Err(PyValueError::new_err(format!(
            "{parameter} must be at least {least} and below 2**64, got {}",
            errors::describe(value)
        ))),
    }
}
