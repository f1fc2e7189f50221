//! `catch`: an item in the place of an error.

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::{Callable, Kernel, Output};
use crate::coroutine::delegate::is_awaitable;
use crate::errors::RaisedError;
use crate::object::gc::{self, Traverse, traverse};

/// Emits items as they are, and for each error from above `handler(error)`, awaited if it is awaitable;
/// nothing, if that is `skip`.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct CatchKernel {
    handler: Callable,
    skip: Py<PyAny>,
}

/// An error on its way into a [`CatchKernel`]. The driver puts it there in the place of an item, so that
/// it is awaited for, and kept when its pull is cancelled, like one. It has nothing to clear: the error
/// in it does that.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct Caught(Py<PyAny>);

#[pymethods]
impl Caught {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0)
    }
}

impl Caught {
    pub(crate) fn of(py: Python<'_>, error: PyErr) -> PyResult<Bound<'_, PyAny>> {
        Bound::new(py, Self(error.into_value(py).into_any())).map(Bound::into_any)
    }
}

#[pymethods]
impl CatchKernel {
    #[new]
    fn new(handler: &Bound<'_, PyAny>, skip: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self {
            handler: Callable::new("handler", handler)?,
            skip: skip.clone().unbind(),
        })
    }

    #[getter]
    fn handler<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.handler.get(py)
    }

    #[setter]
    fn set_handler(&self, handler: &Bound<'_, PyAny>) -> PyResult<()> {
        self.handler.set(handler)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| self.traverse(visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        self.handler.clear(py);
    }
}

impl Kernel for CatchKernel {
    const PARAMETER: &'static str = "handler";
    const CATCHES: bool = true;

    #[inline(never)]
    fn process<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Output<'py>, RaisedError> {
        let Ok(caught) = item.cast_exact::<Caught>() else {
            return Ok(Output::Emit(item.clone()));
        };
        let py = item.py();
        let result = self.handler.call(caught.get().0.bind(py))?;
        if is_awaitable(&result) {
            return Ok(Output::Await(result));
        }
        RaisedError::set_from(py, self.resume(item, result))
    }

    fn resume<'py>(
        &self,
        _item: &Bound<'py, PyAny>,
        result: Bound<'py, PyAny>,
    ) -> PyResult<Output<'py>> {
        Ok(if result.is(&self.skip) {
            Output::Skip
        } else {
            Output::Emit(result)
        })
    }
}

traverse!(CatchKernel { handler, skip });
