//! A callable that the user gave, live.

use std::ptr;

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyAnyMethods;

use crate::errors::{self, RaisedError};
use crate::object::gc::traverse;
use crate::object::gil_cell::GilCell;

/// A callable that can be replaced while it is in use.
#[derive(Debug)]
pub(crate) struct Callable {
    parameter: &'static str,
    /// `None` only after the collector cleared it.
    function: GilCell<Option<Py<PyAny>>>,
}

impl Callable {
    /// Takes a callable, or raises a `TypeError` that names the parameter and the value.
    pub(crate) fn new(parameter: &'static str, function: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::check(parameter, function)?;
        Ok(Self {
            parameter,
            function: GilCell::new(Some(function.clone().unbind())),
        })
    }

    /// Raises a `TypeError` that names the parameter and the value unless it is a callable.
    pub(crate) fn check(parameter: &str, function: &Bound<'_, PyAny>) -> PyResult<()> {
        if function.is_callable() {
            return Ok(());
        }
        // SAFETY: a live object, and the GIL is held.
        if unsafe { ffi::PyCoro_CheckExact(function.as_ptr()) } != 0 {
            return Err(PyTypeError::new_err(format!(
                "{parameter} must be callable, got {}; give the function itself, uncalled",
                errors::describe(function)
            )));
        }
        Err(errors::wrong_type(parameter, "callable", function))
    }

    /// The callable of now.
    #[inline]
    pub(crate) fn get<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.function
            .borrow(py)
            .as_ref()
            .map(|function| function.bind(py).clone())
    }

    /// Replaces it, from the next item on.
    pub(crate) fn set(&self, function: &Bound<'_, PyAny>) -> PyResult<()> {
        Self::check(self.parameter, function)?;
        let old = self
            .function
            .borrow(function.py())
            .replace(function.clone().unbind());
        // Dropped with the borrow gone: a destructor may come back here.
        drop(old);
        Ok(())
    }

    /// Calls it with one argument. It is held during the call, in which it may be replaced.
    #[inline]
    pub(crate) fn call<'py>(
        &self,
        item: &Bound<'py, PyAny>,
    ) -> Result<Bound<'py, PyAny>, RaisedError> {
        self.held(item.py(), [ptr::null_mut(), item.as_ptr()])
    }

    /// Calls it with two arguments.
    #[inline]
    pub(crate) fn call2<'py>(
        &self,
        first: &Bound<'py, PyAny>,
        second: &Bound<'py, PyAny>,
    ) -> Result<Bound<'py, PyAny>, RaisedError> {
        self.held(
            first.py(),
            [ptr::null_mut(), first.as_ptr(), second.as_ptr()],
        )
    }

    #[inline]
    fn held<'py, const N: usize>(
        &self,
        py: Python<'py>,
        arguments: [*mut ffi::PyObject; N],
    ) -> Result<Bound<'py, PyAny>, RaisedError> {
        match self.get(py) {
            // SAFETY: the callers hold the arguments.
            Some(function) => unsafe { vectorcall(&function, arguments) },
            None => Err(RaisedError::set(py, self.gone())),
        }
    }

    #[cold]
    fn gone(&self) -> PyErr {
        PyRuntimeError::new_err(format!("{} was collected", self.parameter))
    }

    /// Breaks a cycle.
    pub(crate) fn clear(&self, py: Python<'_>) {
        let old = self.function.borrow(py).take();
        drop(old);
    }
}

traverse!(Callable { function });

/// Calls something that is held with one argument.
#[inline]
pub(crate) fn call_one<'py>(
    function: &Bound<'py, PyAny>,
    item: &Bound<'py, PyAny>,
) -> Result<Bound<'py, PyAny>, RaisedError> {
    // SAFETY: both are alive, and stay so.
    unsafe { vectorcall(function, [ptr::null_mut(), item.as_ptr()]) }
}

/// Calls something with what `arguments` holds behind its first place, which is free for a bound
/// method's `self`.
///
/// # Safety
///
/// The arguments, from the second place on, are live objects that the caller holds.
#[expect(
    clippy::inline_always,
    reason = "it is the body of `call`, for a number of arguments"
)]
#[inline(always)]
unsafe fn vectorcall<'py, const N: usize>(
    function: &Bound<'py, PyAny>,
    mut arguments: [*mut ffi::PyObject; N],
) -> Result<Bound<'py, PyAny>, RaisedError> {
    // SAFETY: the vectorcall protocol, with arguments that the callers hold. Null comes with an
    // exception.
    unsafe {
        let first = arguments.as_mut_ptr().add(1);
        let count = (N - 1) | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;
        let result = match vectorcall_of(function.as_ptr()) {
            Some(call) => call(function.as_ptr(), first, count, ptr::null_mut()),
            None => ffi::PyObject_Vectorcall(function.as_ptr(), first, count, ptr::null_mut()),
        };
        Bound::from_owned_ptr_or_opt(function.py(), result).ok_or(RaisedError)
    }
}

/// `PyVectorcall_Function`, without the call.
///
/// # Safety
///
/// `function` is a live object.
#[inline]
unsafe fn vectorcall_of(function: *mut ffi::PyObject) -> Option<ffi::vectorcallfunc> {
    // SAFETY: the flag of a type says that its objects have such a pointer, and the type says where.
    unsafe {
        let kind = ffi::Py_TYPE(function);
        if ffi::PyType_HasFeature(kind, ffi::Py_TPFLAGS_HAVE_VECTORCALL) == 0 {
            return None;
        }
        function
            .byte_offset((*kind).tp_vectorcall_offset)
            .cast::<Option<ffi::vectorcallfunc>>()
            .read()
    }
}
