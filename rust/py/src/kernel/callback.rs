//! `tap`: calls callables with each item and emits the item. `headrace/pull/transform.py` uses it.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{PyTraverseError, PyVisit};

use super::{Callable, Kernel, Output};
use crate::coroutine::delegate::is_awaitable;
use crate::errors::{self, RaisedError};
use crate::object::gc::{self, Traverse, traverse};
use crate::object::gil_cell::GilCell;

/// Calls each of `callbacks` with each item, one after the other, and emits the item.
///
/// A kernel awaits once for each item. So from the first callback that returns an awaitable on, a coroutine calls the others:
/// `rest(awaitable, callbacks, item)`.
#[pyclass(name = "CallbackKernel", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyCallbackKernel {
    /// `None` only after the collector cleared it.
    callbacks: GilCell<Option<Py<PyTuple>>>,
    rest: Py<PyAny>,
}

#[pymethods]
impl PyCallbackKernel {
    #[new]
    fn new(callbacks: &Bound<'_, PyAny>, rest: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self {
            callbacks: GilCell::new(Some(checked(callbacks)?)),
            rest: rest.clone().unbind(),
        })
    }

    #[getter]
    fn callbacks<'py>(&self, py: Python<'py>) -> Bound<'py, PyTuple> {
        self.callbacks.get(py).unwrap_or_else(|| PyTuple::empty(py))
    }

    #[setter]
    fn set_callbacks(&self, callbacks: &Bound<'_, PyAny>) -> PyResult<()> {
        self.callbacks
            .set(callbacks.py(), Some(checked(callbacks)?));
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| self.traverse(visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        self.callbacks.set(py, None);
    }
}

/// Return a tuple of at least one callable, or a `TypeError` that names the wrong element.
fn checked(callbacks: &Bound<'_, PyAny>) -> PyResult<Py<PyTuple>> {
    let Ok(items) = callbacks.try_iter() else {
        return Err(errors::wrong_type(
            "callbacks",
            "an iterable of callables",
            callbacks,
        ));
    };
    let items = items.collect::<PyResult<Vec<_>>>()?;
    if items.is_empty() {
        return Err(PyTypeError::new_err(
            "callbacks must be one callable at least, got none",
        ));
    }
    for (number, callback) in items.iter().enumerate() {
        Callable::check(&format!("callbacks[{number}]"), callback)?;
    }
    PyTuple::new(callbacks.py(), items).map(Bound::unbind)
}

impl Kernel for PyCallbackKernel {
    const PARAMETER: &'static str = "callbacks";

    #[inline(never)]
    fn process<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Output<'py>, RaisedError> {
        let py = item.py();
        let callbacks = self.callbacks(py);
        let called = || {
            for (number, callback) in callbacks.iter().enumerate() {
                let result = callback.call1((item,))?;
                if is_awaitable(&result) {
                    let others = callbacks.get_slice(number + 1, callbacks.len());
                    let rest = self.rest.bind(py).call1((result, others, item))?;
                    return Ok(Output::Await(rest));
                }
            }
            Ok(Output::Emit(item.clone()))
        };
        RaisedError::set_from(py, called())
    }

    fn resume<'py>(
        &self,
        item: &Bound<'py, PyAny>,
        _result: Bound<'py, PyAny>,
    ) -> PyResult<Output<'py>> {
        Ok(Output::Emit(item.clone()))
    }
}

traverse!(PyCallbackKernel { callbacks, rest });
