//! `PyCallbacks`: a sink made of callables. `headrace/push/sink.py` makes it; `deliver.rs` and `branch.rs` call it.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{PyTraverseError, PyVisit};

use crate::errors;
use crate::object::gc;
use crate::object::gil_cell::GilCell;

/// The callables of a sink, called with each item in order; `SinkNullObj` has none.
#[pyclass(name = "Callbacks", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyCallbacks {
    functions: GilCell<Arc<[Py<PyAny>]>>,
}

#[pymethods]
impl PyCallbacks {
    #[new]
    #[pyo3(signature = (*functions))]
    fn new(functions: &Bound<'_, PyTuple>) -> PyResult<Self> {
        Ok(Self {
            functions: GilCell::new(checked(functions)?),
        })
    }

    #[getter]
    fn functions<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let functions = self.current(py);
        PyTuple::new(py, functions.iter().map(|function| function.bind(py)))
    }

    #[setter]
    fn set_functions(&self, functions: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = functions.py();
        let functions = functions.try_iter()?.collect::<PyResult<Vec<_>>>()?;
        self.functions
            .set(py, checked(&PyTuple::new(py, functions)?)?);
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| {
            match self.functions.peek_for_gc().as_deref() {
                // Otherwise a running push holds them too, and they are alive.
                Some(functions) if Arc::strong_count(functions) == 1 => {
                    functions.iter().try_for_each(visit)
                }
                _ => Ok(()),
            }
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        self.functions.set(py, Arc::new([]));
    }
}

impl PyCallbacks {
    /// Return the current callables. A later assignment does not change the returned ones.
    #[inline]
    pub(super) fn current(&self, py: Python<'_>) -> Arc<[Py<PyAny>]> {
        Arc::clone(&self.functions.borrow(py))
    }

    /// Return the callable, if there is exactly one.
    #[inline]
    pub(super) fn single<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        match &**self.functions.borrow(py) {
            [function] => Some(function.bind(py).clone()),
            _ => None,
        }
    }
}

fn checked(functions: &Bound<'_, PyTuple>) -> PyResult<Arc<[Py<PyAny>]>> {
    for (number, function) in functions.iter().enumerate() {
        if !function.is_callable() {
            let parameter = format!("callbacks[{number}]");
            return Err(errors::wrong_type(&parameter, "callable", &function));
        }
    }
    Ok(functions.iter().map(Bound::unbind).collect())
}
