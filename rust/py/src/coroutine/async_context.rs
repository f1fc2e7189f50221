//! An awaitable that is an async context manager too: `async with capacity.acquire() as lease`.
//!
//! `__aenter__` gives the awaitable itself, so that entering costs no object; what it came to stays in
//! it, and `__aexit__` finds it there.

use std::ffi::CStr;
use std::marker::PhantomData;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::impl_::trampoline::{MethodDef, fastcall_kw, noargs};
use pyo3::prelude::*;

use super::Step;
use super::type_object::{Class, Coroutine, Native, Object, Status, method};
use crate::errors::RaisedError;
use crate::object::gc::traverse;

/// A coroutine whose result is entered and left. It [outlives](Coroutine::KEEPS_VALUE) its last step.
pub(crate) trait Context: Coroutine {
    /// Before the first step: the result is to be kept for [`exit`](Self::exit).
    fn enter(&mut self, py: Python<'_>);

    /// After the last step: what the end of the block does.
    fn exit(&mut self, py: Python<'_>) -> PyResult<()>;
}

/// `__aenter__` and `__aexit__`.
pub(crate) fn methods<T: Context>() -> Vec<ffi::PyMethodDef> {
    vec![
        method(
            c"__aenter__",
            ffi::METH_NOARGS,
            ffi::PyMethodDefPointer {
                PyCFunction: noargs::<Enter<T>>,
            },
        ),
        method(
            c"__aexit__",
            ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
            ffi::PyMethodDefPointer {
                PyCFunctionFastWithKeywords: fastcall_kw::<Exit<T>>,
            },
        ),
    ]
}

struct Enter<T>(PhantomData<T>);

impl<T: Context> MethodDef<noargs::Func> for Enter<T> {
    const METH: noargs::Func = {
        unsafe fn enter<T: Context>(
            py: Python<'_>,
            object: *mut ffi::PyObject,
        ) -> PyResult<*mut ffi::PyObject> {
            // SAFETY: CPython calls the methods of a type with live objects of that type. While it is
            // idle no step runs, and so nobody else has the value; `enter` calls no Python.
            unsafe {
                let this = object.cast::<Object<T>>();
                if (*this).status != Status::Idle {
                    return Err(PyRuntimeError::new_err(
                        "cannot enter what was already awaited; ask for another one",
                    ));
                }
                (*this).value.enter(py);
                Ok(ffi::Py_NewRef(object))
            }
        }
        enter::<T>
    };
}

struct Exit<T>(PhantomData<T>);

impl<T: Context> MethodDef<fastcall_kw::Func> for Exit<T> {
    const METH: fastcall_kw::Func = {
        unsafe fn exit<T: Context>(
            py: Python<'_>,
            object: *mut ffi::PyObject,
            _args: *const *mut ffi::PyObject,
            _nargs: ffi::Py_ssize_t,
            _kwnames: *mut ffi::PyObject,
        ) -> PyResult<*mut ffi::PyObject> {
            // SAFETY: as in `Enter`; once it is finished no step will run any more. Whoever called us
            // holds a reference, so it does not die meanwhile.
            unsafe {
                let this = object.cast::<Object<T>>();
                if (*this).status != Status::Finished {
                    return Err(PyRuntimeError::new_err(
                        "cannot leave what was not entered; use `async with`",
                    ));
                }
                (*this).value.exit(py)?;
            }
            Ok(done(py)?.into_ptr())
        }
        exit::<T>
    };
}

/// An awaitable that is done already.
pub(crate) fn done(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    Native::alloc(py, || Done)
}

#[derive(Debug)]
struct Done;

static CLASS: Class = Class::new();

impl Coroutine for Done {
    const NAME: &'static CStr = c"headrace._core.Done";

    fn class() -> &'static Class {
        &CLASS
    }

    #[inline]
    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        Ok(Step::Return(value.clone()))
    }

    fn throw<'py>(&mut self, _py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        Err(error)
    }

    #[inline]
    fn is_empty(&self) -> bool {
        true
    }

    fn abandon(&mut self, _py: Python<'_>) {}
}

traverse!(Done {});

pub(crate) fn register(py: Python<'_>) -> PyResult<()> {
    Native::<Done>::register(py)
}
