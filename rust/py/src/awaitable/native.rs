//! The heap type behind every awaitable: a Rust value that CPython drives as a coroutine.
//!
//! `PyO3` has no way to fill the `am_send` slot, and a `__next__` that raises `StopIteration` costs
//! more than the Python that it is to replace. So this file builds the type by hand. It has both
//! slots, because bytecode uses `am_send` on CPython 3.11 and 3.15 and `tp_iternext` on 3.12 to
//! 3.14 (and under tracing), while a C `Task` calls `am_send` everywhere. With `send`, `throw`,
//! `close` and `__await__` it is a `collections.abc.Coroutine`, so
//! `asyncio.ensure_future(anext(s))` takes it as it is.
//!
//! Each entry point goes through `PyO3`'s own trampolines, which turn a Rust panic into a Python
//! exception and tell `PyO3` that the thread is attached (else a dropped `Py<T>` would be put off
//! instead of released).
//!
//! A value is driven by one caller at a time: [`Status::Running`] refuses a second one, which is
//! what makes handing out `&mut T` sound.

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_int, c_void};
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, size_of};
use std::ptr;

use pyo3::exceptions::{
    PyGeneratorExit, PyRuntimeError, PyStopIteration, PyTypeError, PyValueError,
};
use pyo3::ffi;
use pyo3::impl_::trampoline::{MethodDef, binaryfunc, fastcall_kw, inquiry, noargs, unaryfunc};
use pyo3::prelude::*;

use super::{Seen, Step, Stopped, stop};

/// A state machine that can be awaited.
pub(crate) trait Coroutine: Sized + Send + 'static {
    /// The full name of the Python type.
    const NAME: &'static CStr;

    /// The type object. Each implementor has a static of its own.
    fn class() -> &'static Class;

    /// Goes on with `value` (always `None` the first time).
    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> PyResult<Step<'py>>;

    /// Goes on with an error thrown in: a cancellation, as a rule.
    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>>;

    /// Shows the collector what this holds.
    fn traverse(&self, see: Seen<'_>) -> Result<(), Stopped>;

    /// Gives up its place and everything it holds; called once, when a suspended or a never started
    /// object dies.
    fn abandon(&mut self, py: Python<'_>);
}

/// How many dead objects of a type are kept for reuse.
const FREE_LIST: usize = 64;

/// A type object and its free list, one static for each [`Coroutine`].
pub(crate) struct Class(UnsafeCell<ClassState>);

struct ClassState {
    object: *mut ffi::PyTypeObject,
    free: [*mut ffi::PyObject; FREE_LIST],
    kept: usize,
}

// SAFETY: the state is read and written with the GIL held only: by `register`, `Native::alloc` and
// `dealloc`, none of which calls Python code between reading and writing it. Builds without a GIL
// are refused in gil.rs.
unsafe impl Sync for Class {}

impl Class {
    pub(crate) const fn new() -> Self {
        Self(UnsafeCell::new(ClassState {
            object: ptr::null_mut(),
            free: [ptr::null_mut(); FREE_LIST],
            kept: 0,
        }))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Status {
    /// Not started, or waiting for the next step.
    Idle,
    /// A step is on the stack.
    Running,
    /// It returned or raised. Its value is dropped, and not looked at any more.
    Finished,
}

/// The memory of one awaitable.
#[repr(C)]
struct Object<T> {
    base: ffi::PyObject,
    status: Status,
    /// Whether the last step returned (`am_send` must say which of the two a value is).
    returned: bool,
    /// Whether the collector knows of it.
    tracked: bool,
    value: ManuallyDrop<T>,
}

/// Makes Python objects of `T`.
pub(crate) struct Native<T>(PhantomData<T>);

impl<T: Coroutine> Native<T> {
    /// Creates the type object. Called once for each type, when the module is made.
    pub(crate) fn register(py: Python<'_>) -> PyResult<()> {
        let mut methods = vec![
            method(
                c"send",
                ffi::METH_O,
                ffi::PyMethodDefPointer {
                    PyCFunction: m_send::<T>,
                },
            ),
            method(
                c"throw",
                ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
                ffi::PyMethodDefPointer {
                    PyCFunctionFastWithKeywords: fastcall_kw::<Throw<T>>,
                },
            ),
            method(
                c"close",
                ffi::METH_NOARGS,
                ffi::PyMethodDefPointer {
                    PyCFunction: noargs::<Close<T>>,
                },
            ),
            method(
                c"__await__",
                ffi::METH_NOARGS,
                ffi::PyMethodDefPointer {
                    PyCFunction: m_await,
                },
            ),
        ];
        methods.push(ffi::PyMethodDef::zeroed());
        // The type keeps a pointer to its methods for as long as it lives, which is for ever.
        let methods = Box::leak(methods.into_boxed_slice());
        let slots = [
            (ffi::Py_tp_dealloc, dealloc::<T> as *mut c_void),
            (ffi::Py_tp_traverse, traverse::<T> as *mut c_void),
            (ffi::Py_tp_clear, inquiry::<Clear<T>> as *mut c_void),
            (ffi::Py_tp_iter, self_iter as *mut c_void),
            (ffi::Py_tp_iternext, iternext::<T> as *mut c_void),
            (ffi::Py_am_await, self_iter as *mut c_void),
            (ffi::Py_am_send, am_send::<T> as *mut c_void),
            (ffi::Py_tp_methods, methods.as_mut_ptr().cast()),
            (0, ptr::null_mut()),
        ];
        let mut slots = slots.map(|(slot, pfunc)| ffi::PyType_Slot { slot, pfunc });
        let flags = ffi::Py_TPFLAGS_DEFAULT
            | ffi::Py_TPFLAGS_HAVE_GC
            | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
        let mut spec = ffi::PyType_Spec {
            name: T::NAME.as_ptr(),
            basicsize: c_int::try_from(size_of::<Object<T>>()).expect("an awaitable is small"),
            itemsize: 0,
            flags: u32::try_from(flags).expect("the flags of a type are 32 bits"),
            slots: slots.as_mut_ptr(),
        };
        // SAFETY: the spec is well formed: functions of the signatures that their slots ask for, a
        // terminated slot array, and methods that live for ever.
        let object = unsafe { ffi::PyType_FromSpec(&raw mut spec) };
        if object.is_null() {
            return Err(PyErr::fetch(py));
        }
        // SAFETY: the GIL is held, and nothing else refers to the state now.
        unsafe { (*T::class().0.get()).object = object.cast() };
        Ok(())
    }

    /// A new awaitable that has not started. The value is made where it is to stay: copying one
    /// that was just written stalls for as long as all the rest takes.
    #[inline]
    pub(crate) fn alloc(py: Python<'_>, make: impl FnOnce() -> T) -> PyResult<Bound<'_, PyAny>> {
        // SAFETY: the GIL is held. An object from the free list is memory of this very type whose
        // value was dropped and that nothing refers to; one from `_PyObject_GC_New` is fresh. Its
        // fields are written before anything can see it. It is not tracked yet: see `step`.
        unsafe {
            let class = &mut *T::class().0.get();
            let object = if class.kept > 0 {
                class.kept -= 1;
                let object = class.free[class.kept];
                // From none to one. (CPython's own free lists call `_Py_NewReference`, which does
                // this and tells `tracemalloc`.)
                ffi::Py_INCREF(object);
                object
            } else {
                Self::fresh(py, class)?
            };
            let this = object.cast::<Object<T>>();
            (&raw mut (*this).status).write(Status::Idle);
            (&raw mut (*this).returned).write(false);
            (&raw mut (*this).tracked).write(false);
            (&raw mut (*this).value).write(ManuallyDrop::new(make()));
            Ok(Bound::from_owned_ptr(py, object))
        }
    }

    #[cold]
    fn fresh(py: Python<'_>, class: &ClassState) -> PyResult<*mut ffi::PyObject> {
        // SAFETY: the type was made by `register`.
        let object: *mut ffi::PyObject = unsafe { ffi::PyObject_GC_New(class.object) };
        if object.is_null() {
            Err(PyErr::fetch(py))
        } else {
            Ok(object)
        }
    }
}

fn method(name: &'static CStr, flags: c_int, pointer: ffi::PyMethodDefPointer) -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: pointer,
        ml_flags: flags,
        ml_doc: ptr::null(),
    }
}

/// Runs one step with the object marked as running, and notes what it came to.
///
/// # Safety
///
/// `object` is a live object of `T`'s type, and the thread is attached.
#[inline]
unsafe fn step<'py, T: Coroutine>(
    object: *mut ffi::PyObject,
    run: impl FnOnce(&mut T) -> PyResult<Step<'py>>,
) -> PyResult<*mut ffi::PyObject> {
    let this = object.cast::<Object<T>>();
    // SAFETY: the caller's promise. No other `&mut` to the value exists: a second step is refused
    // while `status` is `Running`, and the collector leaves a running object alone. Whoever called
    // us holds a reference, so it does not die meanwhile.
    unsafe {
        match (*this).status {
            Status::Idle => {}
            Status::Running => {
                return Err(PyValueError::new_err("this awaitable is already executing"));
            }
            Status::Finished => {
                return Err(PyRuntimeError::new_err(
                    "cannot reuse an awaitable that was already awaited",
                ));
            }
        }
        (*this).status = Status::Running;
        let outcome = run(&mut (*this).value);
        match outcome {
            Ok(Step::Return(value)) => {
                finish(this);
                (*this).returned = true;
                Ok(value.into_ptr())
            }
            Ok(Step::Yield(value)) => {
                (*this).status = Status::Idle;
                (*this).returned = false;
                // From here on it may be part of a cycle: a task holds it, and a callback holds the
                // task. Most awaitables never come here, and the collector never hears of them.
                if !(*this).tracked {
                    (*this).tracked = true;
                    ffi::PyObject_GC_Track(object.cast());
                }
                Ok(value.into_ptr())
            }
            Err(error) => {
                finish(this);
                Err(error)
            }
        }
    }
}

/// Drops what it held: nobody will step it again, and whatever dropping runs finds it finished.
///
/// # Safety
///
/// `this` is a live object whose value was not dropped yet, and to which no reference is left.
#[inline]
unsafe fn finish<T>(this: *mut Object<T>) {
    // SAFETY: the caller's promise.
    unsafe {
        (*this).status = Status::Finished;
        ManuallyDrop::drop(&mut (*this).value);
    }
}

struct Resume<T>(PhantomData<T>);

impl<T: Coroutine> MethodDef<binaryfunc::Func> for Resume<T> {
    const METH: binaryfunc::Func = {
        unsafe fn send<T: Coroutine>(
            py: Python<'_>,
            object: *mut ffi::PyObject,
            value: *mut ffi::PyObject,
        ) -> PyResult<*mut ffi::PyObject> {
            // SAFETY: CPython calls the slots and methods of a type with objects of that type,
            // attached, and with a live argument.
            unsafe {
                let value = Bound::ref_from_ptr(py, &value);
                step::<T>(object, |coroutine| coroutine.send(value))
            }
        }
        send::<T>
    };
}

struct Throw<T>(PhantomData<T>);

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
            let value = unsafe { step::<T>(object, |coroutine| coroutine.throw(py, error))? };
            // SAFETY: `object` is alive, of `T`'s type, and no step is running.
            unsafe { deliver::<T>(py, object, value) }
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

struct Close<T>(PhantomData<T>);

impl<T: Coroutine> MethodDef<noargs::Func> for Close<T> {
    const METH: noargs::Func = {
        unsafe fn close<T: Coroutine>(
            py: Python<'_>,
            object: *mut ffi::PyObject,
        ) -> PyResult<*mut ffi::PyObject> {
            // SAFETY: as in `Resume`; `returned` is plain data.
            unsafe {
                if (*object.cast::<Object<T>>()).status != Status::Finished {
                    let error = PyGeneratorExit::new_err(());
                    match step::<T>(object, |coroutine| coroutine.throw(py, error)) {
                        Ok(value) => {
                            drop(Bound::from_owned_ptr(py, value));
                            if !(*object.cast::<Object<T>>()).returned {
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

/// Gives a step's value to a caller that knows the iterator protocol only: a yielded one as it is,
/// a returned one as `StopIteration`.
///
/// # Safety
///
/// `object` is a live object of `T`'s type, `value` what its last step came to, owned; the thread
/// is attached.
#[inline]
unsafe fn deliver<T>(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
) -> PyResult<*mut ffi::PyObject> {
    // SAFETY: the caller's promise.
    unsafe {
        if (*object.cast::<Object<T>>()).returned {
            return Err(stop::error(py, Bound::from_owned_ptr(py, value)));
        }
    }
    Ok(value)
}

unsafe extern "C" fn am_send<T: Coroutine>(
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

unsafe extern "C" fn iternext<T: Coroutine>(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: CPython's contract for the slot; `None` is alive, `out` is owned, and `stop::raise`
    // takes it over.
    unsafe {
        let out = binaryfunc::<Resume<T>>(object, ffi::Py_None());
        if !out.is_null() && (*object.cast::<Object<T>>()).returned {
            if out == ffi::Py_None() {
                // Null without an exception is `StopIteration(None)` to every caller of this slot.
                ffi::Py_DECREF(out);
            } else {
                stop::raise(out);
            }
            return ptr::null_mut();
        }
        out
    }
}

/// `send()`.
unsafe extern "C" fn m_send<T: Coroutine>(
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython's contract for the method. `out` is owned; `stop::raise` takes it over.
    unsafe {
        let out = binaryfunc::<Resume<T>>(object, value);
        if !out.is_null() && (*object.cast::<Object<T>>()).returned {
            stop::raise(out);
            return ptr::null_mut();
        }
        out
    }
}

unsafe extern "C" fn m_await(
    object: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython passes a live object.
    unsafe { ffi::Py_NewRef(object) }
}

unsafe extern "C" fn self_iter(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: CPython passes a live object.
    unsafe { ffi::Py_NewRef(object) }
}

unsafe extern "C" fn traverse<T: Coroutine>(
    object: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: CPython's contract for the slot: a live object, nothing else running. A running
    // object is skipped: its value is borrowed by the step on the stack, and what the collector
    // cannot see it takes for alive.
    unsafe {
        let this = object.cast::<Object<T>>();
        let seen = visit(ffi::Py_TYPE(object).cast(), arg);
        if seen != 0 || (*this).status != Status::Idle {
            return seen;
        }
        let mut see = |reference: &Py<PyAny>| match visit(reference.as_ptr(), arg) {
            0 => Ok(()),
            code => Err(Stopped(code)),
        };
        match (*this).value.traverse(&mut see) {
            Ok(()) => 0,
            Err(Stopped(code)) => code,
        }
    }
}

struct Clear<T>(PhantomData<T>);

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
                let this = object.cast::<Object<T>>();
                if (*this).status == Status::Idle {
                    (*this).status = Status::Running;
                    (*this).value.abandon(py);
                    finish(this);
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
            let this = object.cast::<Object<T>>();
            // SAFETY: called once, by `dealloc`, with the last reference gone and no step running.
            unsafe {
                // Giving up a place may wake others and close a coroutine: Python code, which must
                // not see the exception that may be on its way through whoever dropped us.
                let pending = PyErr::take(py);
                (*this).value.abandon(py);
                finish(this);
                if let Some(pending) = pending {
                    pending.restore(py);
                }
            }
            Ok(ptr::null_mut())
        }
        bury::<T>
    };
}

unsafe extern "C" fn dealloc<T: Coroutine>(object: *mut ffi::PyObject) {
    // SAFETY: CPython calls this once, with the last reference gone. The memory goes either to the
    // free list, which keeps the object's reference to its type, or back to the allocator with that
    // reference.
    unsafe {
        if (*object.cast::<Object<T>>()).tracked {
            ffi::PyObject_GC_UnTrack(object.cast());
        }
        if (*object.cast::<Object<T>>()).status == Status::Idle {
            unaryfunc::<Bury<T>>(object);
        }
        let class = &mut *T::class().0.get();
        if class.kept < FREE_LIST {
            class.free[class.kept] = object;
            class.kept += 1;
        } else {
            ffi::PyObject_GC_Del(object.cast());
            ffi::Py_DECREF(class.object.cast());
        }
    }
}
