//! `catch`: replaces an error by an item. `headrace/pull/transform.py` uses it; `pull/pipeline.rs` routes errors to it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::{Callable, Kernel, Output};
use crate::errors::RaisedError;
use crate::object::failed_item::PyFailedItem;
use crate::object::gc::{self, Traverse, traverse};

/// Emits items unchanged. For each error of the stages before it, emits `handler(error)` or `handler(error, item)`, awaited if it is
/// awaitable; nothing if that is `skip`.
#[pyclass(name = "CatchKernel", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyCatchKernel {
    handler: Callable,
    /// Whether the handler takes the item too. Set before the handler, with no Python code in between.
    takes_item: AtomicBool,
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

    /// Return the item of the error, if it is known.
    pub(crate) fn item<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        PyFailedItem::of(self.0.bind(py))
    }
}

#[pymethods]
impl PyCatchKernel {
    #[new]
    fn new(
        handler: &Bound<'_, PyAny>,
        skip: &Bound<'_, PyAny>,
        takes_item: bool,
    ) -> PyResult<Self> {
        Ok(Self {
            handler: Callable::new("handler", handler)?,
            takes_item: AtomicBool::new(takes_item),
            skip: skip.clone().unbind(),
        })
    }

    #[getter]
    fn handler<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.handler.get(py)
    }

    /// Replace the handler, from the next error on.
    fn set_handler(&self, handler: &Bound<'_, PyAny>, takes_item: bool) -> PyResult<()> {
        Callable::check("handler", handler)?;
        self.takes_item.store(takes_item, Relaxed);
        self.handler.set(handler)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| self.traverse(visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        self.handler.clear(py);
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
        let caught = caught.get();
        let error = caught.0.bind(py);
        let result = if self.takes_item.load(Relaxed) {
            let failed = caught.item(py).unwrap_or_else(|| py.None().into_bound(py));
            self.handler.call2(error, &failed)?
        } else {
            self.handler.call(error)?
        };
        self.resume_or_await(item, result)
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
