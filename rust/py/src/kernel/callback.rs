//! `tap`: items are shown to somebody on their way.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{PyTraverseError, PyVisit};

use super::{Callable, Flow, Kernel};
use crate::coroutine::delegate::is_awaitable;
use crate::errors::{self, Raised};
use crate::object::gc::{self, Traverse, traverse};
use crate::object::gil_cell::GilCell;

/// Calls each of `callbacks` with each item, one after the other, and emits the item.
///
/// An item is awaited for once, so from the first callback that returns an awaitable on the others are
/// called by a coroutine: `rest(awaitable, callbacks, item)`.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct CallbackKernel {
    /// `None` only after the collector cleared it.
    callbacks: GilCell<Option<Py<PyTuple>>>,
    rest: Py<PyAny>,
}

#[pymethods]
impl CallbackKernel {
    #[new]
    fn new(callbacks: &Bound<'_, PyAny>, rest: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self {
            callbacks: GilCell::new(Some(checked(callbacks)?)),
            rest: rest.clone().unbind(),
        })
    }

    #[getter]
    fn callbacks<'py>(&self, py: Python<'py>) -> Bound<'py, PyTuple> {
        self.callbacks.borrow(py).as_ref().map_or_else(
            || PyTuple::empty(py),
            |callbacks| callbacks.bind(py).clone(),
        )
    }

    #[setter]
    fn set_callbacks(&self, callbacks: &Bound<'_, PyAny>) -> PyResult<()> {
        self.set(callbacks.py(), Some(checked(callbacks)?));
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| self.traverse(visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        self.set(py, None);
    }
}

impl CallbackKernel {
    fn set(&self, py: Python<'_>, callbacks: Option<Py<PyTuple>>) {
        let old = std::mem::replace(&mut *self.callbacks.borrow(py), callbacks);
        drop(old);
    }
}

/// A tuple of callables, one at least, or the `TypeError` that names what is wrong.
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

impl Kernel for CallbackKernel {
    const PARAMETER: &'static str = "callbacks";

    #[inline(never)]
    fn feed<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Flow<'py>, Raised> {
        let py = item.py();
        let callbacks = self.callbacks(py);
        let called = || {
            for (number, callback) in callbacks.iter().enumerate() {
                let result = callback.call1((item,))?;
                if is_awaitable(&result) {
                    let others = callbacks.get_slice(number + 1, callbacks.len());
                    let rest = self.rest.bind(py).call1((result, others, item))?;
                    return Ok(Flow::Await(rest));
                }
            }
            Ok(Flow::Emit(item.clone()))
        };
        Raised::lower(py, called())
    }

    fn resume<'py>(
        &self,
        item: &Bound<'py, PyAny>,
        _result: Bound<'py, PyAny>,
    ) -> PyResult<Flow<'py>> {
        Ok(Flow::Emit(item.clone()))
    }
}

traverse!(CallbackKernel { callbacks, rest });
