//! A callable parameter that may be replaced while it is in use.
//! Kernels that call a function use it, such as `map.rs`, `filter.rs` and `reduce.rs`.

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
    /// Check and store a callable. Returns a `TypeError` that names the parameter and the value otherwise.
    pub(crate) fn new(parameter: &'static str, function: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::check(parameter, function)?;
        Ok(Self {
            parameter,
            function: GilCell::new(Some(function.clone().unbind())),
        })
    }

    /// Return a `TypeError` that names the parameter and the value unless it is a callable.
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

    /// Return the current callable.
    #[inline]
    pub(crate) fn get<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.function.get(py)
    }

    /// Replace the callable, from the next item on.
    pub(crate) fn set(&self, function: &Bound<'_, PyAny>) -> PyResult<()> {
        Self::check(self.parameter, function)?;
        self.function
            .set(function.py(), Some(function.clone().unbind()));
        Ok(())
    }

    /// Call the callable with one argument. A reference is held during the call, which may replace the callable.
    #[inline]
    pub(crate) fn call<'py>(
        &self,
        item: &Bound<'py, PyAny>,
    ) -> Result<Bound<'py, PyAny>, RaisedError> {
        self.call_with(item.py(), [ptr::null_mut(), item.as_ptr()])
    }

    /// Call the callable with two arguments.
    #[inline]
    pub(crate) fn call2<'py>(
        &self,
        first: &Bound<'py, PyAny>,
        second: &Bound<'py, PyAny>,
    ) -> Result<Bound<'py, PyAny>, RaisedError> {
        self.call_with(
            first.py(),
            [ptr::null_mut(), first.as_ptr(), second.as_ptr()],
        )
    }

    #[inline]
    fn call_with<'py, const N: usize>(
        &self,
        py: Python<'py>,
        arguments: [*mut ffi::PyObject; N],
    ) -> Result<Bound<'py, PyAny>, RaisedError> {
        match self.get(py) {
            // SAFETY: the callers hold the arguments.
            Some(function) => unsafe { vectorcall(&function, arguments) },
            None => Err(RaisedError::set(py, self.cleared_error())),
        }
    }

    #[cold]
    fn cleared_error(&self) -> PyErr {
        PyRuntimeError::new_err(format!(
            "{} was cleared by the garbage collector",
            self.parameter
        ))
    }

    /// Drop the callable, to break a reference cycle.
    pub(crate) fn clear(&self, py: Python<'_>) {
        self.function.set(py, None);
    }
}

traverse!(Callable { function });

/// Call a callable with one argument.
#[inline]
pub(crate) fn call_one<'py>(
    function: &Bound<'py, PyAny>,
    item: &Bound<'py, PyAny>,
) -> Result<Bound<'py, PyAny>, RaisedError> {
    // SAFETY: the caller holds references to both during the call.
    unsafe { vectorcall(function, [ptr::null_mut(), item.as_ptr()]) }
}

/// Calls a callable with `arguments[1..]`. The first element is free for the `self` of a bound method.
///
/// # Safety
///
/// The arguments, from the second element on, are live objects that the caller holds.
#[expect(
    clippy::inline_always,
    reason = "it is the body of `call` for each number of arguments"
)]
#[inline(always)]
unsafe fn vectorcall<'py, const N: usize>(
    function: &Bound<'py, PyAny>,
    mut arguments: [*mut ffi::PyObject; N],
) -> Result<Bound<'py, PyAny>, RaisedError> {
    // SAFETY: the vectorcall protocol, with arguments that the callers hold. Null is returned with an
    // exception set.
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

/// `PyVectorcall_Function`, inlined.
///
/// # Safety
///
/// `function` is a live object.
#[inline]
unsafe fn vectorcall_of(function: *mut ffi::PyObject) -> Option<ffi::vectorcallfunc> {
    // SAFETY: the flag of the type states that its objects have such a pointer, at an offset that the type also has.
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
