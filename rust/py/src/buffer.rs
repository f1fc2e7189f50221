//! The buffer between producers and consumers, as Python sees it.

use std::num::NonZeroUsize;
use std::sync::Arc;

use headrace_core::buffer as core;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt};
use pyo3::{PyTraverseError, PyVisit};

use crate::errors;
use crate::fork::Home;
use crate::gc;
use crate::gil::GilCell;

/// Items on their way from any number of producers to any number of consumers, in any threads and
/// loops.
#[pyclass(generic, frozen, weakref, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct Buffer {
    home: Home,
    core: Arc<core::Buffer<Py<PyAny>>>,
    /// What the producers ended with, until a consumer has raised it.
    error: GilCell<Option<PyErr>>,
}

#[pymethods]
impl Buffer {
    #[new]
    #[pyo3(signature = (maxsize = None))]
    fn new(maxsize: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let maxsize = maxsize.map(bound).transpose()?;
        Ok(Self {
            home: Home::here(),
            core: core::Buffer::new(maxsize),
            error: GilCell::new(None),
        })
    }

    /// The bound; `None` if there is none.
    #[getter]
    fn maxsize(&self) -> Option<usize> {
        self.core.maxsize().map(NonZeroUsize::get)
    }

    /// The end of supply: what is there is drained, then the stream ends.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        self.check(py)?;
        self.core.finish();
        Ok(())
    }

    /// As `finish`, but after the last item one consumer raises `error` before the stream ends.
    fn fail(&self, error: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = error.py();
        self.check(py)?;
        if self.core.is_finished() || self.core.is_closed() {
            return Ok(());
        }
        let old = self
            .error
            .borrow(py)
            .replace(PyErr::from_value(error.clone()));
        drop(old);
        self.core.finish();
        Ok(())
    }

    /// Whether nothing comes in any more.
    #[getter]
    fn is_finished(&self) -> bool {
        self.core.is_finished() || self.core.is_closed()
    }

    /// How many consumers wait for an item.
    #[getter]
    fn waiting_getters(&self) -> usize {
        self.core.waiting_getters()
    }

    /// How many producers wait for room.
    #[getter]
    fn waiting_putters(&self) -> usize {
        self.core.waiting_putters()
    }

    fn __len__(&self) -> usize {
        self.core.len()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::show(&visit, |see| {
            let mut outcome = Ok(());
            self.core.visit(&mut |item| {
                if outcome.is_ok() {
                    outcome = see(item);
                }
            });
            outcome
        })
    }

    fn __clear__(&self) {
        let left = self.core.close();
        drop(left);
    }
}

/// A bound for the number of items.
fn bound(maxsize: &Bound<'_, PyAny>) -> PyResult<NonZeroUsize> {
    if !maxsize.is_instance_of::<PyInt>() || maxsize.is_instance_of::<PyBool>() {
        return Err(errors::wrong_type(
            "maxsize",
            "a positive integer or None",
            maxsize,
        ));
    }
    maxsize
        .extract::<usize>()
        .ok()
        .and_then(NonZeroUsize::new)
        .ok_or_else(|| {
            PyValueError::new_err(format!(
                "maxsize must be a positive integer or None, got {}",
                errors::describe(maxsize)
            ))
        })
}

impl Buffer {
    /// Fails in a forked child, and after a panic inside.
    #[inline]
    pub(crate) fn check(&self, py: Python<'_>) -> PyResult<()> {
        self.home.check(py, "buffer")?;
        if self.core.is_broken() {
            Err(errors::broken(py, "buffer"))
        } else {
            Ok(())
        }
    }

    #[inline]
    pub(crate) fn core(&self) -> &Arc<core::Buffer<Py<PyAny>>> {
        &self.core
    }

    /// The error that the producers left, the first time.
    pub(crate) fn take_error(&self, py: Python<'_>) -> Option<PyErr> {
        self.error.borrow(py).take()
    }
}
