//! `catch`: replaces an error by an item. `headrace/pull/transform.py` uses it; `pull/pipeline.rs` routes errors to it.

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::{Callable, Kernel, Output, live_kernel};
use crate::errors::RaisedError;
use crate::object::gc::traverse;

/// Emits items unchanged. For each error of the stages before it, emits `handler(error)`, awaited if it is awaitable; nothing if
/// that is `skip`.
#[pyclass(name = "CatchKernel", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyCatchKernel {
    handler: Callable,
    skip: Py<PyAny>,
}

/// An error that a [`PyCatchKernel`] processes. The driver passes it like an item: it is awaited, and kept when its pull is
/// cancelled. It needs no `__clear__`, because the error has one.
#[pyclass(name = "Caught", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyCaught(Py<PyAny>);

#[pymethods]
impl PyCaught {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0)
    }
}

impl PyCaught {
    pub(crate) fn of(py: Python<'_>, error: PyErr) -> PyResult<Bound<'_, PyAny>> {
        Bound::new(py, Self(error.into_value(py).into_any())).map(Bound::into_any)
    }
}

live_kernel! {
    impl PyCatchKernel {
        live { handler: set_handler }

        #[new]
        fn new(handler: &Bound<'_, PyAny>, skip: &Bound<'_, PyAny>) -> PyResult<Self> {
            Ok(Self {
                handler: Callable::new("handler", handler)?,
                skip: skip.clone().unbind(),
            })
        }
    }
}

impl Kernel for PyCatchKernel {
    const PARAMETER: &'static str = "handler";
    const CATCHES: bool = true;

    #[inline(never)]
    fn process<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Output<'py>, RaisedError> {
        let Ok(caught) = item.cast_exact::<PyCaught>() else {
            return Ok(Output::Emit(item.clone()));
        };
        let py = item.py();
        self.resume_or_await(item, self.handler.call(caught.get().0.bind(py))?)
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

traverse!(PyCatchKernel { handler, skip });
