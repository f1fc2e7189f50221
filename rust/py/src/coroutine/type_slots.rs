//! The C functions of an awaitable's slots and methods.
//! `type_object.rs` and `async_context.rs` put them into the types.
//!
//! Each uses one of `PyO3`'s own trampolines. These turn a Rust panic into a Python exception, and tell `PyO3` that the thread is
//! attached. (Otherwise it would defer the drop of a `Py<T>`.)

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::ptr;

use pyo3::exceptions::{
    PyBaseException, PyGeneratorExit, PyRuntimeError, PyRuntimeWarning, PyStopIteration,
    PyTypeError,
};
use pyo3::ffi;
use pyo3::impl_::trampoline::{binaryfunc, unaryfunc};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyType;

use super::stop_iteration;
use super::type_object::{Coroutine, Object, Status, finish, step};
use crate::errors::RaisedError;
use crate::object::gc::VisitError;

/// Declares a type that stands for a function with a trampoline of `PyO3`.
macro_rules! trampoline {
    ($name:ident<T: $bound:ident>: $kind:ident = $function:ident) => {
        pub(super) struct $name<T>(std::marker::PhantomData<T>);

        impl<T: $bound> pyo3::impl_::trampoline::MethodDef<pyo3::impl_::trampoline::$kind::Func>
            for $name<T>
        {
            const METH: pyo3::impl_::trampoline::$kind::Func = $function::<T>;
        }
    };
}
pub(super) use trampoline;

trampoline!(Resume<T: Coroutine>: binaryfunc = send);
trampoline!(Throw<T: Coroutine>: fastcall_kw = throw);
trampoline!(Close<T: Coroutine>: noargs = close);
trampoline!(Clear<T: Coroutine>: inquiry = clear);
trampoline!(LastStep<T: Coroutine>: unaryfunc = last_step);

/// Return whether the last step of the object returned a value, and did not yield it.
///
/// # Safety
///
/// A live object of `T`'s type.
#[inline]
unsafe fn has_returned<T: Coroutine>(object: *mut ffi::PyObject) -> bool {
    // SAFETY: the caller's promise; the field is plain data.
    unsafe { (*object.cast::<Object<T>>()).returned }
}

#[expect(clippy::unnecessary_wraps, reason = "the trampoline's signature")]
unsafe fn send<T: Coroutine>(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
) -> PyResult<*mut ffi::PyObject> {
    // SAFETY: CPython calls the slots and methods of a type with objects of that type, attached, and with a live argument.
    unsafe {
        let value = Bound::ref_from_ptr(py, &value);
        let stepped = step::<T>(py, object, |coroutine| coroutine.send(value));
        // For C, an error is null with an exception set.
        Ok(stepped.unwrap_or(ptr::null_mut()))
    }
}

/// Run one step with an error thrown in.
///
/// # Safety
///
/// As for [`step`].
unsafe fn throw_into<T: Coroutine>(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    error: PyErr,
) -> PyResult<*mut ffi::PyObject> {
    // SAFETY: the caller's promise.
    let stepped = unsafe {
        step::<T>(py, object, |coroutine| {
            RaisedError::set_from(py, coroutine.throw(py, error))
        })
    };
    stepped.map_err(|raised| raised.fetch(py))
}

unsafe fn throw<T: Coroutine>(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
    _kwnames: *mut ffi::PyObject,
) -> PyResult<*mut ffi::PyObject> {
    // SAFETY: by the calling convention `args` points to `nargs` live objects. The object is as in `send`; the value is owned.
    unsafe {
        let args = std::slice::from_raw_parts(args, usize::try_from(nargs).unwrap_or(0));
        let mut args = args.iter().map(|arg| Bound::from_borrowed_ptr(py, *arg));
        let error = thrown(py, args.next(), args.next(), args.next())?;
        let value = throw_into::<T>(py, object, error)?;
        if has_returned::<T>(object) {
            return Err(stop_iteration::error(py, Bound::from_owned_ptr(py, value)));
        }
        Ok(value)
    }
}

/// Return the exception of `throw(value)`, `throw(type)` or `throw(type, value, traceback)`.
fn thrown<'py>(
    py: Python<'py>,
    kind: Option<Bound<'py, PyAny>>,
    value: Option<Bound<'py, PyAny>>,
    traceback: Option<Bound<'py, PyAny>>,
) -> PyResult<PyErr> {
    let kind = kind.ok_or_else(|| PyTypeError::new_err("throw() needs an exception"))?;
    let value = value.filter(|value| !value.is_none());
    let instance = match value {
        Some(value) if value.is_instance_of::<PyBaseException>() => value,
        Some(value) => kind.call1((value,))?,
        None if kind.is_instance_of::<PyBaseException>() => kind,
        None if kind.is_instance_of::<PyType>() => kind.call0()?,
        None => {
            return Err(PyTypeError::new_err(format!(
                "throw() needs an exception, got {}",
                kind.repr()?
            )));
        }
    };
    if let Some(traceback) = traceback.filter(|traceback| !traceback.is_none()) {
        instance.setattr(intern!(py, "__traceback__"), traceback)?;
    }
    Ok(PyErr::from_value(instance))
}

unsafe fn close<T: Coroutine>(
    py: Python<'_>,
    object: *mut ffi::PyObject,
) -> PyResult<*mut ffi::PyObject> {
    // SAFETY: as in `send`; the value is owned.
    unsafe {
        if (*object.cast::<Object<T>>()).status == Status::Finished {
            return Ok(py.None().into_ptr());
        }
        // An instance, because PyO3 cannot make one from its type while the interpreter exits, which closes all waiting objects.
        let exit = py.get_type::<PyGeneratorExit>().call0()?;
        match throw_into::<T>(py, object, PyErr::from_value(exit)) {
            Ok(value) => {
                drop(Bound::from_owned_ptr(py, value));
                if !has_returned::<T>(object) {
                    // It waits again, but will not be stepped any more. It must not block the waiters behind it.
                    abandon::<T>(py, object);
                    return Err(PyRuntimeError::new_err(
                        "the awaitable ignored GeneratorExit",
                    ));
                }
            }
            Err(error)
                if error.is_instance_of::<PyGeneratorExit>(py)
                    || error.is_instance_of::<PyStopIteration>(py) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(py.None().into_ptr())
}

pub(super) unsafe extern "C" fn am_send<T: Coroutine>(
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    // SAFETY: CPython's contract for the slot. On an error `*result` must be null: the C `Task` tests the pointer, not the status.
    unsafe {
        let out = binaryfunc::<Resume<T>>(object, value);
        *result = out;
        if out.is_null() {
            ffi::PySendResult::PYGEN_ERROR
        } else if has_returned::<T>(object) {
            ffi::PySendResult::PYGEN_RETURN
        } else {
            ffi::PySendResult::PYGEN_NEXT
        }
    }
}

pub(super) unsafe extern "C" fn iternext<T: Coroutine>(
    object: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython's contract for the slot. `None` is alive; `out` is owned, and moved to `stop_iteration::raise`.
    unsafe {
        let out = binaryfunc::<Resume<T>>(object, ffi::Py_None());
        if !out.is_null() && has_returned::<T>(object) {
            if out == ffi::Py_None() {
                // Null without an exception is `StopIteration(None)` for every caller of this slot.
                ffi::Py_DECREF(out);
            } else {
                stop_iteration::raise(out);
            }
            return ptr::null_mut();
        }
        out
    }
}

/// `send()`.
pub(super) unsafe extern "C" fn m_send<T: Coroutine>(
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython's contract for the method. `out` is owned, and moved to `stop_iteration::raise`.
    unsafe {
        let out = binaryfunc::<Resume<T>>(object, value);
        if !out.is_null() && has_returned::<T>(object) {
            stop_iteration::raise(out);
            return ptr::null_mut();
        }
        out
    }
}

/// `__await__()`.
pub(super) unsafe extern "C" fn am_await<T: Coroutine>(
    object: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython passes a live object of this type, and the GIL is held.
    unsafe {
        (*object.cast::<Object<T>>()).iterable = true;
        ffi::Py_NewRef(object)
    }
}

/// `iter()`. Only the result of `__await__()` is iterable: a `for` over an awaitable would find no items, and hide that an `await` is
/// missing.
pub(super) unsafe extern "C" fn iter<T: Coroutine>(
    object: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython passes a live object of this type, and the GIL is held.
    unsafe {
        if (*object.cast::<Object<T>>()).iterable {
            return ffi::Py_NewRef(object);
        }
        let py = Python::assume_attached();
        let name = T::NAME.to_string_lossy();
        let name = name.rsplit('.').next().unwrap_or_default();
        PyTypeError::new_err(format!("'{name}' object is not iterable: await it first"))
            .restore(py);
        ptr::null_mut()
    }
}

pub(super) unsafe extern "C" fn qualname(
    object: *mut ffi::PyObject,
    _: *mut c_void,
) -> *mut ffi::PyObject {
    // SAFETY: CPython passes a live object, whose type is alive.
    unsafe { ffi::PyType_GetQualName(ffi::Py_TYPE(object)) }
}

/// Return the name of the type, and the progress. Can fail only for lack of memory.
pub(super) unsafe extern "C" fn repr<T: Coroutine>(
    object: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython passes a live object, and the GIL is held.
    let (status, tracked) = unsafe {
        let this = object.cast::<Object<T>>();
        ((*this).status, (*this).tracked)
    };
    let state = match status {
        // The collector tracks it from its first suspension on.
        Status::Idle if tracked => c"pending",
        Status::Idle => c"not begun",
        Status::Running => c"running",
        Status::Finished => c"done",
    };
    let name = T::NAME.to_bytes_with_nul();
    let begin = (name.iter().rposition(|&byte| byte == b'.')).map_or(0, |dot| dot + 1);
    // SAFETY: three null-terminated strings; the first one takes the others as its arguments.
    unsafe {
        ffi::PyUnicode_FromFormat(
            c"<%s: %s>".as_ptr(),
            name[begin..].as_ptr().cast::<c_char>(),
            state.as_ptr(),
        )
    }
}

pub(super) unsafe extern "C" fn traverse<T: Coroutine>(
    object: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: CPython's contract for the slot: a live object, and no other code runs. A running object is skipped, because the step on
    // the stack borrows its value. The collector treats unvisited objects as reachable.
    unsafe {
        let this = object.cast::<Object<T>>();
        let code = visit(ffi::Py_TYPE(object).cast(), arg);
        if code != 0 || (*this).status != Status::Idle {
            return code;
        }
        let mut visit_one = |reference: &Py<PyAny>| match visit(reference.as_ptr(), arg) {
            0 => Ok(()),
            code => Err(VisitError(code)),
        };
        match (*this).value.traverse(&mut visit_one) {
            Ok(()) => 0,
            Err(VisitError(code)) => code,
        }
    }
}

/// Make an object leave its wait queue and drop its fields. Afterwards it is finished.
///
/// # Safety
///
/// `object` is an idle object of `T`'s type, and the thread is attached.
unsafe fn abandon<T: Coroutine>(py: Python<'_>, object: *mut ffi::PyObject) {
    let this = object.cast::<Object<T>>();
    // SAFETY: the caller's promise. The status keeps code that runs meanwhile from stepping the object.
    unsafe {
        (*this).status = Status::Running;
        (*this).value.abandon(py);
        finish(this);
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the trampoline's signature")]
unsafe fn clear<T: Coroutine>(py: Python<'_>, object: *mut ffi::PyObject) -> PyResult<c_int> {
    // SAFETY: CPython's contract for the slot: a live object of this type, unreachable, so no step is running.
    unsafe {
        if (*object.cast::<Object<T>>()).status == Status::Idle {
            abandon::<T>(py, object);
        }
    }
    Ok(0)
}

/// Return the part of [`dealloc`] that may run Python code.
#[expect(clippy::unnecessary_wraps, reason = "the trampoline's signature")]
unsafe fn last_step<T: Coroutine>(
    py: Python<'_>,
    object: *mut ffi::PyObject,
) -> PyResult<*mut ffi::PyObject> {
    // SAFETY: called once, by `dealloc`, after the last reference was dropped; no step is running.
    unsafe {
        let this = object.cast::<Object<T>>();
        // Leaving a wait queue may wake other waiters and close a coroutine: Python code, which must not see an exception that is set.
        let pending = PyErr::take(py);
        if (*this).status == Status::Idle {
            let never_awaited_warning = (*this).value.never_awaited_warning();
            abandon::<T>(py, object);
            if let Some(message) = never_awaited_warning {
                warn(py, message);
            }
        }
        if T::KEEPS_VALUE {
            ManuallyDrop::drop(&mut (*this).value);
        }
        if let Some(pending) = pending {
            pending.restore(py);
        }
    }
    Ok(ptr::null_mut())
}

/// Warn as CPython does for a coroutine that was never awaited.
#[cold]
fn warn(py: Python<'_>, message: &CStr) {
    let category = py.get_type::<PyRuntimeWarning>();
    if let Err(error) = PyErr::warn(py, &category, message, 1) {
        error.write_unraisable(py, None);
    }
}

pub(super) unsafe extern "C" fn dealloc<T: Coroutine>(object: *mut ffi::PyObject) {
    // SAFETY: CPython calls this once, after the last reference was dropped.
    unsafe {
        let this = object.cast::<Object<T>>();
        if (*this).tracked {
            ffi::PyObject_GC_UnTrack(object.cast());
        }
        if (*this).status == Status::Idle || (T::KEEPS_VALUE && !(*this).value.is_empty()) {
            unaryfunc::<LastStep<T>>(object);
        }
        T::class().reclaim(object);
    }
}
