//! The heap type behind every awaitable: a Rust value that CPython drives as a coroutine.
//! `Pull`, `Push`, `Terminal` and the other types that implement `Coroutine` use it, as `Native<T>`.
//!
//! `PyO3` cannot fill the `am_send` slot, and a `__next__` that raises `StopIteration` costs more than the Python code that it would
//! replace. So this file builds the type by hand. It has both slots: bytecode uses `am_send` on CPython 3.11 and 3.15, and
//! `tp_iternext` on 3.12 to 3.14 and under tracing; a C `Task` always calls `am_send`. With `send`, `throw`, `close` and `__await__`
//! it is a `collections.abc.Coroutine`, which `asyncio.ensure_future()` accepts.
//!
//! The functions that the type points to are in [`super::type_slots`].
//!
//! A value is driven by one caller at a time: [`Status::Running`] refuses a second one, so a step may have a `&mut T`.

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_int, c_void};
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, size_of};
use std::ptr;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::ffi;
use pyo3::impl_::trampoline::{fastcall_kw, inquiry, noargs};
use pyo3::prelude::*;

use super::type_slots;
use super::type_slots::{Clear, Close, Throw};
use super::{Step, self_test};
use crate::errors::RaisedError;
use crate::object::gc::Traverse;
use crate::runtime::private_layout::Layout;

/// Reviving a dead awaitable: its memory and its reference to the type are kept, its reference count goes from 0 to 1 again. The
/// fallback frees each of them.
pub(crate) static LAYOUT: Layout = Layout::new("recycled_awaitables", self_test::revives);

/// A state machine that can be awaited.
pub(crate) trait Coroutine: Traverse + Sized + Send + 'static {
    /// The full name of the Python type.
    const NAME: &'static CStr;

    /// Return the type object. Each implementor has a static of its own.
    fn class() -> &'static Class;

    /// Resume with `value`, which is `None` the first time.
    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError>;

    /// Resume with an error thrown in, which is usually a cancellation. By default gives up and return the error.
    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        self.abandon(py);
        Err(error)
    }

    /// Return whether no field needs a drop, as after the only step of most awaitables.
    #[inline]
    fn is_empty(&self) -> bool {
        false
    }

    /// The number of dead objects of the type that are kept for reuse, at most [`MOST_KEPT`].
    const FREE_LIST_SIZE: usize = 64;

    /// Whether the value is kept after the last step and dropped with the object.
    const KEEPS_VALUE: bool = false;

    /// Return the warning for an object that was never awaited, if the forgotten `await` has consequences.
    #[inline]
    fn never_awaited_warning(&self) -> Option<&'static CStr> {
        None
    }

    /// Return the methods of the type in addition to those of a coroutine.
    fn methods() -> Vec<ffi::PyMethodDef> {
        Vec::new()
    }

    /// Leave its wait queue and drop its fields. Called once, when a suspended or never started object is deallocated.
    /// By default does nothing.
    fn abandon(&mut self, _py: Python<'_>) {}
}

/// Defines `class()` of a [`Coroutine`] or an [`Operation`](super::operation::Operation) with a static of its own.
macro_rules! own_class {
    () => {
        fn class() -> &'static crate::coroutine::Class {
            static CLASS: crate::coroutine::Class = crate::coroutine::Class::new();
            &CLASS
        }
    };
}
pub(crate) use own_class;

/// The most dead objects of a type that can be kept for reuse.
pub(crate) const MOST_KEPT: usize = 256;

/// A type object and its free list, one static for each [`Coroutine`].
pub(crate) struct Class(UnsafeCell<ClassState>);

struct ClassState {
    object: *mut ffi::PyTypeObject,
    free: [*mut ffi::PyObject; MOST_KEPT],
    kept: usize,
    /// The most that may be kept: 0 if they cannot be revived.
    most: usize,
}

// SAFETY: the state is read and written with the GIL held only: by `register`, `Native::alloc` and `dealloc`. None of them calls Python
// code between a read and its write. Builds without a GIL are refused in gil_cell.rs.
unsafe impl Sync for Class {}

impl Class {
    pub(crate) const fn new() -> Self {
        Self(UnsafeCell::new(ClassState {
            object: ptr::null_mut(),
            free: [ptr::null_mut(); MOST_KEPT],
            kept: 0,
            most: 0,
        }))
    }

    /// Return the number of dead objects.
    pub(super) fn kept(&self, _attached: Python<'_>) -> usize {
        // SAFETY: the GIL is held.
        unsafe { (*self.0.get()).kept }
    }

    /// Set the most dead objects that may be kept.
    pub(super) fn set_most(&self, _attached: Python<'_>, most: usize) {
        // SAFETY: the GIL is held.
        unsafe { (*self.0.get()).most = most.min(MOST_KEPT) };
    }

    /// Put a dead object into the free list, with its reference to the type; free it if the list is full.
    ///
    /// # Safety
    ///
    /// The GIL is held. `object` is of this type, untracked and without references, and its value was dropped.
    pub(super) unsafe fn reclaim(&self, object: *mut ffi::PyObject) {
        // SAFETY: the caller's promise.
        unsafe {
            let class = &mut *self.0.get();
            if class.kept < class.most {
                class.free[class.kept] = object;
                class.kept += 1;
            } else {
                ffi::PyObject_GC_Del(object.cast());
                ffi::Py_DECREF(class.object.cast());
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Status {
    /// Not started, or waiting for the next step.
    Idle,
    /// A step is on the stack.
    Running,
    /// It returned or raised. Its value was dropped, unless it [is kept](Coroutine::KEEPS_VALUE).
    Finished,
}

/// The memory of one awaitable.
#[repr(C)]
pub(super) struct Object<T> {
    base: ffi::PyObject,
    pub(super) status: Status,
    /// Whether the last step returned its value, and did not yield it: `am_send` reports which.
    pub(super) returned: bool,
    /// Whether the garbage collector tracks it.
    pub(super) tracked: bool,
    /// Whether it is awaited: the result of `__await__()` must be iterable for `yield from`.
    pub(super) iterable: bool,
    pub(super) value: ManuallyDrop<T>,
}

/// Makes Python objects of `T`.
pub(crate) struct Native<T>(PhantomData<T>);

impl<T: Coroutine> Native<T> {
    /// Create the type object. Called once for each type, at import.
    pub(crate) fn register(py: Python<'_>) -> PyResult<()> {
        let mut methods = vec![
            method(c"send", ffi::METH_O, type_slots::m_send::<T>),
            method_with_arguments(c"throw", fastcall_kw::<Throw<T>>),
            method(c"close", ffi::METH_NOARGS, noargs::<Close<T>>),
        ];
        methods.extend(T::methods());
        methods.push(ffi::PyMethodDef::zeroed());
        // The type, which is never dropped, keeps a pointer to its methods.
        let methods = Box::leak(methods.into_boxed_slice());
        // A task shows this name in its `repr()`.
        let name = ffi::PyGetSetDef {
            name: c"__qualname__".as_ptr(),
            get: Some(type_slots::qualname),
            ..ffi::PyGetSetDef::default()
        };
        let getters = Box::leak(Box::new([name, ffi::PyGetSetDef::default()]));
        let slots = [
            (ffi::Py_tp_dealloc, type_slots::dealloc::<T> as *mut c_void),
            (
                ffi::Py_tp_traverse,
                type_slots::traverse::<T> as *mut c_void,
            ),
            (ffi::Py_tp_clear, inquiry::<Clear<T>> as *mut c_void),
            (ffi::Py_tp_repr, type_slots::repr::<T> as *mut c_void),
            (ffi::Py_tp_iter, type_slots::iter::<T> as *mut c_void),
            (
                ffi::Py_tp_iternext,
                type_slots::iternext::<T> as *mut c_void,
            ),
            (ffi::Py_am_await, type_slots::am_await::<T> as *mut c_void),
            (ffi::Py_am_send, type_slots::am_send::<T> as *mut c_void),
            (ffi::Py_tp_methods, methods.as_mut_ptr().cast()),
            (ffi::Py_tp_getset, getters.as_mut_ptr().cast()),
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
        // SAFETY: the spec is well formed: functions with the signatures of their slots, a terminated slot array, and methods that are
        // never dropped.
        let object = unsafe { ffi::PyType_FromSpec(&raw mut spec) };
        if object.is_null() {
            return Err(PyErr::fetch(py));
        }
        // SAFETY: the GIL is held, and nothing else refers to the state now.
        unsafe { (*T::class().0.get()).object = object.cast() };
        let most = if LAYOUT.is_used() {
            T::FREE_LIST_SIZE
        } else {
            0
        };
        T::class().set_most(py, most);
        Ok(())
    }

    /// Make an awaitable that has not started. The value is made in place: copying a value that was just written would
    /// double the time.
    #[inline]
    pub(crate) fn alloc(py: Python<'_>, make: impl FnOnce() -> T) -> PyResult<Bound<'_, PyAny>> {
        // SAFETY: the GIL is held. An object from the free list is memory of this type, without references, whose value was dropped; one
        // from `_PyObject_GC_New` is new. Its fields are written before other code can access it. It is not tracked yet: see `step`.
        unsafe {
            let class = &mut *T::class().0.get();
            let object = if class.kept > 0 {
                class.kept -= 1;
                let object = class.free[class.kept];
                // The count goes from 0 to 1. (CPython's own free lists call `_Py_NewReference`, which also notifies `tracemalloc`.)
                ffi::Py_INCREF(object);
                object
            } else {
                Self::fresh(py, class)?
            };
            let this = object.cast::<Object<T>>();
            (&raw mut (*this).status).write(Status::Idle);
            (&raw mut (*this).returned).write(false);
            (&raw mut (*this).tracked).write(false);
            (&raw mut (*this).iterable).write(false);
            (&raw mut (*this).value).write(ManuallyDrop::new(make()));
            Ok(Bound::from_owned_ptr(py, object))
        }
    }

    /// Return whether an object is of this type.
    #[inline]
    pub(crate) fn is(object: &Bound<'_, PyAny>) -> bool {
        // SAFETY: attached; the types are only compared.
        unsafe { ptr::eq(ffi::Py_TYPE(object.as_ptr()), (*T::class().0.get()).object) }
    }

    /// Call `look` with the value of an object of this type. Return `None` for any other object, during a step and after the end.
    ///
    /// `look` must not run Python code, which might take a step.
    pub(crate) fn peek<R>(object: &Bound<'_, PyAny>, look: impl FnOnce(&T) -> R) -> Option<R> {
        if !Self::is(object) {
            return None;
        }
        let this = object.as_ptr().cast::<Object<T>>();
        // SAFETY: the object is of this type, and attached. While it is idle its value is present, and no step has a mutable reference to
        // it; none can begin while `look` runs, as it runs no Python code.
        unsafe { ((*this).status == Status::Idle).then(|| look(&(*this).value)) }
    }

    /// Call `change` with the value of an object of this type. Return `None` for any other object, during a step and after the end.
    ///
    /// `change` must not run Python code, nor drop or make Python objects.
    pub(crate) fn alter<R>(
        object: &Bound<'_, PyAny>,
        change: impl FnOnce(&mut T) -> R,
    ) -> Option<R> {
        if !Self::is(object) {
            return None;
        }
        let this = object.as_ptr().cast::<Object<T>>();
        // SAFETY: as in `peek`; no garbage collection, which would read the value, runs meanwhile, since no object is made.
        unsafe { ((*this).status == Status::Idle).then(|| change(&mut (*this).value)) }
    }

    /// Run one step other than `send`. Returns the value that it returned or yielded.
    #[inline]
    pub(crate) fn drive<'py>(
        object: &Bound<'py, PyAny>,
        run: impl FnOnce(&mut T) -> PyResult<Step<'py>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = object.py();
        assert!(
            Self::is(object),
            "only an object of the type has such steps"
        );
        // SAFETY: the object is of the type that `register` made; the thread is attached. The result of `step` is owned.
        unsafe {
            let stepped = step::<T>(py, object.as_ptr(), |value| {
                RaisedError::set_from(py, run(value))
            });
            match stepped {
                Ok(value) => Ok(Bound::from_owned_ptr(py, value)),
                Err(raised) => Err(raised.fetch(py)),
            }
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

/// Return a method without arguments or with one, as the flag says.
pub(super) fn method(
    name: &'static CStr,
    flag: c_int,
    function: ffi::PyCFunction,
) -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer {
            PyCFunction: function,
        },
        ml_flags: flag,
        ml_doc: ptr::null(),
    }
}

/// Return a method with any arguments.
pub(super) fn method_with_arguments(
    name: &'static CStr,
    function: ffi::PyCFunctionFastWithKeywords,
) -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer {
            PyCFunctionFastWithKeywords: function,
        },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: ptr::null(),
    }
}

/// Run one step with the object marked as running, and store its kind of result.
///
/// # Safety
///
/// `object` is a live object of `T`'s type, and the thread is attached.
#[inline]
pub(super) unsafe fn step<'py, T: Coroutine>(
    py: Python<'py>,
    object: *mut ffi::PyObject,
    run: impl FnOnce(&mut T) -> Result<Step<'py>, RaisedError>,
) -> Result<*mut ffi::PyObject, RaisedError> {
    let this = object.cast::<Object<T>>();
    // SAFETY: the caller's promise. No other `&mut` to the value exists: while `status` is `Running`, a second step is refused and the
    // collector skips the object. The caller holds a reference, so the object lives on.
    unsafe {
        if (*this).status != Status::Idle {
            return Err(refuse(py, (*this).status));
        }
        (*this).status = Status::Running;
        match run(&mut (*this).value) {
            Ok(Step::Return(value)) => {
                finish(this);
                (*this).returned = true;
                Ok(value.into_ptr())
            }
            Ok(Step::Yield(value)) => {
                (*this).status = Status::Idle;
                (*this).returned = false;
                // From now on it may be part of a reference cycle: a task holds it, and a callback holds the task. Most awaitables never
                // suspend, and are never tracked.
                if !(*this).tracked {
                    (*this).tracked = true;
                    ffi::PyObject_GC_Track(object.cast());
                }
                Ok(value.into_ptr())
            }
            Err(raised) => {
                finish(this);
                Err(raised)
            }
        }
    }
}

/// Return the error of a step of an object that is not idle.
#[cold]
fn refuse(py: Python<'_>, status: Status) -> RaisedError {
    let error = if status == Status::Running {
        PyValueError::new_err("this awaitable is already executing")
    } else {
        PyRuntimeError::new_err("cannot reuse an awaitable that was already awaited")
    };
    RaisedError::set(py, error)
}

/// Drop the value, unless it [is kept](Coroutine::KEEPS_VALUE). The object is finished first, because the drop may run
/// Python code.
///
/// # Safety
///
/// `this` is a live object whose value was not dropped yet, and no reference to the value is left.
#[inline]
pub(super) unsafe fn finish<T: Coroutine>(this: *mut Object<T>) {
    // SAFETY: the caller's promise.
    unsafe {
        (*this).status = Status::Finished;
        if !T::KEEPS_VALUE && !(*this).value.is_empty() {
            ManuallyDrop::drop(&mut (*this).value);
        }
    }
}
