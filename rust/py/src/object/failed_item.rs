//! `FailedItem`: the item for which a callable raised an error, kept in the attributes of that error.
//! The drivers in `pull`, `concurrent_map` and `headrace/pool` attach it, and `catch` passes it to its handler.
//!
//! The error carries its item, because it may pass through streams that do not know the item: a merge, a `tee`, a generator of the user.
//! It is attached where the error is raised or delivered, so that of an exception object that is raised for several items, the last
//! one counts.

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};
use pyo3::{PyTraverseError, PyVisit};

/// See the module documentation. It needs no `__clear__`, because the error has one.
#[pyclass(name = "FailedItem", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyFailedItem(Py<PyAny>);

#[pymethods]
impl PyFailedItem {
    /// Pickle as `None`: an error must not become impossible to pickle because of its item.
    #[expect(clippy::unused_self, reason = "a method of Python")]
    fn __reduce__<'py>(&self, py: Python<'py>) -> (Bound<'py, PyType>, Bound<'py, PyTuple>) {
        (py.None().bind(py).get_type(), PyTuple::empty(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0)
    }
}

impl PyFailedItem {
    /// Attach the item to an error. An exception that accepts no attribute is raised without it.
    pub(crate) fn attach(error: &Bound<'_, PyAny>, item: &Bound<'_, PyAny>) {
        let py = error.py();
        let attached = Bound::new(py, Self(item.clone().unbind())).and_then(|attached| {
            // Not the `__setattr__` of the class, which may be that of a frozen dataclass.
            // SAFETY: three live objects.
            let code = unsafe {
                ffi::PyObject_GenericSetAttr(error.as_ptr(), name(py).as_ptr(), attached.as_ptr())
            };
            if code == 0 {
                Ok(())
            } else {
                Err(PyErr::fetch(py))
            }
        });
        drop(attached);
    }

    /// Return the item of an error, if it is known.
    pub(crate) fn of<'py>(error: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
        let py = error.py();
        // Not the `__getattr__` of the class.
        // SAFETY: two live objects; the result is an owned reference, or null with an exception.
        let attached = unsafe {
            let attached = ffi::PyObject_GenericGetAttr(error.as_ptr(), name(py).as_ptr());
            Bound::from_owned_ptr_or_err(py, attached)
        };
        let attached = attached.ok()?.cast_into_exact::<Self>().ok()?;
        Some(attached.get().0.bind(py).clone())
    }
}

fn name(py: Python<'_>) -> &Bound<'_, pyo3::types::PyString> {
    intern!(py, "_headrace_item")
}

/// Attach to an error the item of the call that raised it, for the handler of a `catch`.
#[pyfunction]
pub(crate) fn attach_item(error: &Bound<'_, PyAny>, item: &Bound<'_, PyAny>) {
    PyFailedItem::attach(error, item);
}
