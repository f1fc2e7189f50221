//! The C functions behind an awaitable's slots and methods.
//!
//! Each goes through one of `PyO3`'s own trampolines, which turn a Rust panic into a Python
//! exception and tell `PyO3` that the thread is attached (else a dropped `Py<T>` would be put off
//! instead of released).

use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr;

use pyo3::exceptions::{
    PyGeneratorExit, PyRuntimeError, PyRuntimeWarning, PyStopIteration, PyTypeError,
};
use pyo3::ffi;
use pyo3::impl_::trampoline::{MethodDef, binaryfunc, fastcall_kw, inquiry, noargs, unaryfunc};
use pyo3::prelude::*;

use super::stop_iteration;
use super::type_object::{Coroutine, Object, Status, finish, step};
use crate::errors::RaisedError;
use crate::object::gc::VisitError;

struct Resume<T>(PhantomData<T>);

impl<T: Coroutine> MethodDef<binaryfunc::Func> for Resume<T> {
    const METH: binaryfunc::Func = {
        #[expect(clippy::unnecessary_wraps, reason = "the trampoline's signature")]
        unsafe fn send<T: Coroutine>(
            py: Python<'_>,
            object: *mut ffi::PyObject,
            value: *mut ffi::PyObject,
        ) -> PyResult<*mut ffi::PyObject> {
            // SAFETY: CPython calls the slots and methods of a type with objects of that type,
            // attached, and with a live argument.
            unsafe {
                let value = Bound::ref_from_ptr(py, &value);
                let stepped = step::<T>(py, object, |coroutine| coroutine.send(value));
                // Null with an exception set, which is how C has it.
                Ok(stepped.unwrap_or(ptr::null_mut()))
            }
        }
        send::<T>
    };
}

pub(super) struct Throw<T>(PhantomData<T>);

impl<T: Coroutine> MethodDef<fastcall_kw::Func> for Throw<T> {
    const METH: fastcall_kw::Func = {
        unsafe fn throw<T: Coroutine>(
            py: Python<'_>,
            object: *mut ffi::PyObject,
            args: *const *mut ffi::PyObject,
            nargs: ffi::Py_ssize_t,
            _kwnames: *mut ffi::PyObject,
        ) -> PyResult<*mut ffi::PyObject> {
            // SAFETY: by the calling convention `args` points to `nargs` live objects.
            let error = unsafe {
                let args = std::slice::from_raw_parts(args, usize::try_from(nargs).unwrap_or(0));
                let mut args = args.iter().map(|arg| Bound::from_borrowed_ptr(py, *arg));
                thrown(py, args.next(), args.next(), args.next())?
            };
            // SAFETY: as in `Resume`.
            unsafe {
                let stepped = step::<T>(py, object, |coroutine| {
                    coroutine
                        .throw(py, error)
                        .map_err(|error| RaisedError::set(py, error))
                });
                let value = stepped.map_err(|raised| raised.fetch(py))?;
                if (*object.cast::<Object<T>>()).returned {
                    return Err(stop_iteration::error(py, Bound::from_owned_ptr(py, value)));
                }
                Ok(value)
            }
        }
        throw::<T>
    };
}

/// The exception that `throw(value)`, `throw(type)` or `throw(type, value, traceback)` means.
fn thrown<'py>(
    py: Python<'py>,
    kind: Option<Bound<'py, PyAny>>,
    value: Option<Bound<'py, PyAny>>,
    traceback: Option<Bound<'py, PyAny>>,
) -> PyResult<PyErr> {
    let kind = kind.ok_or_else(|| PyTypeError::new_err("throw() needs an exception"))?;
    let value = value.filter(|value| !value.is_none());
    let instance = match value {
        Some(value) if value.is_instance_of::<pyo3::exceptions::PyBaseException>() => value,
        Some(value) => kind.call1((value,))?,
        None if kind.is_instance_of::<pyo3::exceptions::PyBaseException>() => kind,
        None if kind.is_instance_of::<pyo3::types::PyType>() => kind.call0()?,
        None => {
            return Err(PyTypeError::new_err(format!(
                "throw() needs an exception, got {}",
                kind.repr()?
            )));
        }
    };
    if let Some(traceback) = traceback.filter(|traceback| !traceback.is_none()) {
        instance.setattr(pyo3::intern!(py, "__traceback__"), traceback)?;
    }
    Ok(PyErr::from_value(instance))
}

pub(super) struct Close<T>(PhantomData<T>);

impl<T: Coroutine> MethodDef<noargs::Func> for Close<T> {
    const METH: noargs::Func = {
        unsafe fn close<T: Coroutine>(
            py: Python<'_>,
            object: *mut ffi::PyObject,
        ) -> PyResult<*mut ffi::PyObject> {
            // SAFETY: as in `Resume`; `returned` is plain data.
            unsafe {
                if (*object.cast::<Object<T>>()).status != Status::Finished {
                    // Made here and now: PyO3 refuses to make it from its type while the interpreter ends, which closes all that
                    // still waits.
                    let exit = py.get_type::<PyGeneratorExit>().call0()?;
                    let error = PyErr::from_value(exit);
                    let stepped = step::<T>(py, object, |coroutine| {
                        coroutine
                            .throw(py, error)
                            .map_err(|error| RaisedError::set(py, error))
                    });
                    match stepped.map_err(|raised| raised.fetch(py)) {
                        Ok(value) => {
                            drop(Bound::from_owned_ptr(py, value));
                            if !(*object.cast::<Object<T>>()).returned {
                                // It waits again, but nobody will step it any more: it must not hold
                                // up those who come after it.
                                give_up::<T>(py, object);
                                return Err(PyRuntimeError::new_err(
                                    "the awaitable ignored GeneratorExit",
                                ));
                            }
                        }
                        Err(e)
                            if e.is_instance_of::<PyGeneratorExit>(py)
                                || e.is_instance_of::<PyStopIteration>(py) => {}
                        Err(e) => return Err(e),
                    }
                }
            }
            Ok(py.None().into_ptr())
        }
        close::<T>
    };
}

pub(super) unsafe extern "C" fn am_send<T: Coroutine>(
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    // SAFETY: CPython's contract for the slot. On an error `*result` must be null: the C `Task`
    // looks at the pointer, not at the status.
    unsafe {
        let out = binaryfunc::<Resume<T>>(object, value);
        *result = out;
        if out.is_null() {
            ffi::PySendResult::PYGEN_ERROR
        } else if (*object.cast::<Object<T>>()).returned {
            ffi::PySendResult::PYGEN_RETURN
        } else {
            ffi::PySendResult::PYGEN_NEXT
        }
    }
}

pub(super) unsafe extern "C" fn iternext<T: Coroutine>(
    object: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython's contract for the slot; `None` is alive, `out` is owned, and `stop_iteration::raise`
    // takes it over.
    unsafe {
        let out = binaryfunc::<Resume<T>>(object, ffi::Py_None());
        if !out.is_null() && (*object.cast::<Object<T>>()).returned {
            if out == ffi::Py_None() {
                // Null without an exception is `StopIteration(None)` to every caller of this slot.
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
    // SAFETY: CPython's contract for the method. `out` is owned; `stop_iteration::raise` takes it over.
    unsafe {
        let out = binaryfunc::<Resume<T>>(object, value);
        if !out.is_null() && (*object.cast::<Object<T>>()).returned {
            stop_iteration::raise(out);
            return ptr::null_mut();
        }
        out
    }
}

pub(super) unsafe extern "C" fn m_await(
    object: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython passes a live object.
    unsafe { ffi::Py_NewRef(object) }
}

pub(super) unsafe extern "C" fn qualname(
    object: *mut ffi::PyObject,
    _: *mut c_void,
) -> *mut ffi::PyObject {
    // SAFETY: CPython passes a live object, whose type is alive.
    unsafe { ffi::PyType_GetQualName(ffi::Py_TYPE(object)) }
}

/// What it is, and how far it has come. Nothing of it can fail but the memory for the string.
pub(super) unsafe extern "C" fn repr<T: Coroutine>(
    object: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython passes a live object, and the GIL is held.
    let (status, tracked) = unsafe {
        let this = object.cast::<Object<T>>();
        ((*this).status, (*this).tracked)
    };
    let state = match status {
        // The collector is told of it when it first suspends.
        Status::Idle if tracked => c"pending",
        Status::Idle => c"not begun",
        Status::Running => c"running",
        Status::Finished => c"done",
    };
    let name = T::NAME.to_bytes_with_nul();
    let begin = (name.iter().rposition(|&byte| byte == b'.')).map_or(0, |dot| dot + 1);
    // SAFETY: three strings that end with a zero, the last two of which are what the first asks for.
    unsafe {
        ffi::PyUnicode_FromFormat(
            c"<%s: %s>".as_ptr(),
            name[begin..].as_ptr().cast::<c_char>(),
            state.as_ptr(),
        )
    }
}

pub(super) unsafe extern "C" fn self_iter(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: CPython passes a live object.
    unsafe { ffi::Py_NewRef(object) }
}

pub(super) unsafe extern "C" fn traverse<T: Coroutine>(
    object: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: CPython's contract for the slot: a live object, nothing else running. A running
    // object is skipped: its value is borrowed by the step on the stack, and what the collector
    // cannot see it takes for alive.
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

/// Has it give up its place and everything it holds. It is finished then.
///
/// # Safety
///
/// `object` is an idle object of `T`'s type, and the thread is attached.
unsafe fn give_up<T: Coroutine>(py: Python<'_>, object: *mut ffi::PyObject) {
    let this = object.cast::<Object<T>>();
    // SAFETY: the caller's promise. What runs meanwhile finds it running, and leaves it alone.
    unsafe {
        (*this).status = Status::Running;
        (*this).value.abandon(py);
        finish(this);
    }
}

pub(super) struct Clear<T>(PhantomData<T>);

impl<T: Coroutine> MethodDef<inquiry::Func> for Clear<T> {
    const METH: inquiry::Func = {
        #[expect(clippy::unnecessary_wraps, reason = "the trampoline's signature")]
        unsafe fn clear<T: Coroutine>(
            py: Python<'_>,
            object: *mut ffi::PyObject,
        ) -> PyResult<c_int> {
            // SAFETY: CPython's contract for the slot: a live object of this type, unreachable, so
            // that no step is running.
            unsafe {
                if (*object.cast::<Object<T>>()).status == Status::Idle {
                    give_up::<T>(py, object);
                }
            }
            Ok(0)
        }
        clear::<T>
    };
}

struct Bury<T>(PhantomData<T>);

impl<T: Coroutine> MethodDef<unaryfunc::Func> for Bury<T> {
    const METH: unaryfunc::Func = {
        #[expect(clippy::unnecessary_wraps, reason = "the trampoline's signature")]
        unsafe fn bury<T: Coroutine>(
            py: Python<'_>,
            object: *mut ffi::PyObject,
        ) -> PyResult<*mut ffi::PyObject> {
            // SAFETY: called once, by `dealloc`, with the last reference gone and no step running.
            unsafe {
                // Giving up a place may wake others and close a coroutine: Python code, which must
                // not see the exception that may be on its way through whoever dropped us.
                let pending = PyErr::take(py);
                if (*object.cast::<Object<T>>()).status == Status::Idle {
                    let never_awaited_warning =
                        (*object.cast::<Object<T>>()).value.never_awaited_warning();
                    give_up::<T>(py, object);
                    if let Some(message) = never_awaited_warning {
                        warn(py, message);
                    }
                }
                if T::KEEPS_VALUE {
                    ManuallyDrop::drop(&mut (*object.cast::<Object<T>>()).value);
                }
                if let Some(pending) = pending {
                    pending.restore(py);
                }
            }
            Ok(ptr::null_mut())
        }
        bury::<T>
    };
}

/// As CPython says it of a coroutine that was never awaited.
#[cold]
fn warn(py: Python<'_>, message: &CStr) {
    let category = py.get_type::<PyRuntimeWarning>();
    if let Err(error) = PyErr::warn(py, &category, message, 1) {
        error.write_unraisable(py, None);
    }
}

pub(super) unsafe extern "C" fn dealloc<T: Coroutine>(object: *mut ffi::PyObject) {
    // SAFETY: CPython calls this once, with the last reference gone.
    unsafe {
        if (*object.cast::<Object<T>>()).tracked {
            ffi::PyObject_GC_UnTrack(object.cast());
        }
        let this = object.cast::<Object<T>>();
        if (*this).status == Status::Idle || (T::KEEPS_VALUE && !(*this).value.is_empty()) {
            unaryfunc::<Bury<T>>(object);
        }
        T::class().reclaim(object);
    }
}
