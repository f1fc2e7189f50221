//! An awaitable that is also an async context manager: `async with capacity.acquire() as lease`. `capacity/acquire.rs`
//! and `capacity/lease.rs` use it.
//!
//! `__aenter__` returns the awaitable itself, so entering makes no object. The result stays in the awaitable, where `__aexit__` finds it.

use std::ffi::CStr;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::impl_::trampoline::{fastcall_kw, noargs};
use pyo3::prelude::*;

use super::Step;
use super::type_object::{
    Coroutine, Native, Object, Status, method, method_with_arguments, own_class,
};
use super::type_slots::trampoline;
use crate::errors::RaisedError;
use crate::object::gc::traverse;

/// A coroutine whose result is entered and left. It [outlives](Coroutine::KEEPS_VALUE) its last step.
pub(crate) trait Context: Coroutine {
    /// Called before the first step: the result must be kept for [`exit`](Self::exit).
    fn enter(&mut self, py: Python<'_>);

    /// Called after the last step, at the end of the block.
    fn exit(&mut self, py: Python<'_>) -> PyResult<()>;
}

/// `__aenter__` and `__aexit__`.
pub(crate) fn methods<T: Context>() -> Vec<ffi::PyMethodDef> {
    vec![
        method(c"__aenter__", ffi::METH_NOARGS, noargs::<Enter<T>>),
        method_with_arguments(c"__aexit__", fastcall_kw::<Exit<T>>),
    ]
}

trampoline!(Enter<T: Context>: noargs = enter);
trampoline!(Exit<T: Context>: fastcall_kw = exit);

unsafe fn enter<T: Context>(
    py: Python<'_>,
    object: *mut ffi::PyObject,
) -> PyResult<*mut ffi::PyObject> {
    // SAFETY: CPython calls the methods of a type with live objects of that type, attached. No step of an idle object runs, so its value is
    // not borrowed; `enter` calls no Python code.
    unsafe {
        let this = object.cast::<Object<T>>();
        if (*this).status != Status::Idle {
            return Err(PyRuntimeError::new_err(
                "cannot enter an awaitable that was already awaited; make another one",
            ));
        }
        (*this).value.enter(py);
        Ok(ffi::Py_NewRef(object))
    }
}

unsafe fn exit<T: Context>(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    _args: *const *mut ffi::PyObject,
    _nargs: ffi::Py_ssize_t,
    _kwnames: *mut ffi::PyObject,
) -> PyResult<*mut ffi::PyObject> {
    // SAFETY: as in `enter`. No step of a finished object runs any more. The caller holds a reference, so it lives on.
    unsafe {
        let this = object.cast::<Object<T>>();
        if (*this).status != Status::Finished {
            return Err(PyRuntimeError::new_err(
                "cannot leave a block that was not entered; use `async with`",
            ));
        }
        (*this).value.exit(py)?;
    }
    Ok(done(py)?.into_ptr())
}

/// Return an awaitable that is done already.
pub(crate) fn done(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    Native::alloc(py, || Done)
}

#[derive(Debug)]
struct Done;

impl Coroutine for Done {
    const NAME: &'static CStr = c"headrace._core.Done";

    own_class!();

    #[inline]
    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        Ok(Step::Return(value.clone()))
    }

    #[inline]
    fn is_empty(&self) -> bool {
        true
    }
}

traverse!(Done {});

pub(crate) fn register(py: Python<'_>) -> PyResult<()> {
    Native::<Done>::register(py)
}
