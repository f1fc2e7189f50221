//! Functions for the Python classes: fast `anext()`, subclassing, inspection and restart.
//! `headrace/pull/base.py` calls them.
//!
//! They are module functions rather than methods, so that they do not show on a user's stream.

use std::mem::size_of;

use pyo3::exceptions::{PyNotImplementedError, PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

use super::awaitable::{Pull, ResultFormat};
use super::link::PyPullLink;
use super::state::{Origin, Phase};
use crate::runtime::private_layout::{self, Layout};

/// The replacement of a class's `am_anext`. The fallback leaves the slot, so `anext()` calls `__anext__`.
pub(crate) static LAYOUT: Layout = Layout::new("anext_slot", self_test);

/// `am_anext` of each pull class that does not override it: [`Pull::make`] without the call through
/// `PyO3`, which would double the cost.
///
/// # Safety
///
/// CPython's contract for the slot. `object` is a `PyPullLink`, since only its subclasses get this
/// slot (see [`adopt`]).
unsafe extern "C" fn anext(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the caller's promise; the slots of a type are called on an attached thread.
    let made = unsafe {
        let py = Python::assume_attached();
        Pull::make(
            Bound::from_borrowed_ptr(py, object).cast_into_unchecked(),
            ResultFormat::Item,
        )
    };
    match made {
        Ok(pull) => pull.into_ptr(),
        Err(error) => {
            // SAFETY: as above.
            error.restore(unsafe { Python::assume_attached() });
            std::ptr::null_mut()
        }
    }
}

/// Return the object as a link, if its class does not override `__anext__`.
pub(crate) fn as_link<'py>(object: &Bound<'py, PyAny>) -> Option<Bound<'py, PyPullLink>> {
    let link = object.cast::<PyPullLink>().ok()?;
    // SAFETY: a live object has a live type, whose slots are filled.
    let is_native = unsafe {
        let native = if LAYOUT.is_used() {
            Some(anext as *const () as usize)
        } else {
            slot(object.py().get_type::<PyPullLink>().as_type_ptr())
        };
        let own = slot(object.get_type_ptr());
        own.is_some() && own == native
    };
    is_native.then(|| link.clone())
}

/// Raise the error of a plain `for` over a stream: the `tp_iter` slot of the classes of streams.
///
/// The slot has no `__iter__` beside it, so that no class looks iterable to `isinstance`, `hasattr` or a type checker.
///
/// # Safety
///
/// CPython's contract for the slot.
unsafe extern "C" fn refuse_iteration(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the caller's promise.
    unsafe { refuse(object, "is not iterable") }
}

/// Raise the error of an `await` of a stream: the `am_await` slot of the classes of streams, without an `__await__` beside it.
///
/// # Safety
///
/// CPython's contract for the slot.
pub(crate) unsafe extern "C" fn refuse_await(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the caller's promise.
    unsafe { refuse(object, "can't be used in 'await' expression") }
}

/// # Safety
///
/// The thread is attached, and the object is live.
unsafe fn refuse(object: *mut ffi::PyObject, reason: &str) -> *mut ffi::PyObject {
    // SAFETY: the caller's promise.
    let (py, stream) = unsafe {
        let py = Python::assume_attached();
        (py, Bound::from_borrowed_ptr(py, object))
    };
    let class = stream.get_type();
    let name = class
        .name()
        .map_or_else(|_| "stream".to_owned(), |name| name.to_string());
    PyTypeError::new_err(format!(
        "'{name}' object {reason}: it is an async stream; use `async for item in stream`, or \
         `await stream.collect()` for a list"
    ))
    .restore(py);
    std::ptr::null_mut()
}

/// Give a class the fast `anext()`, unless it has its own, and the errors of a plain `for` and of an `await`.
#[pyfunction]
pub(crate) fn adopt(class_: &Bound<'_, PyType>) {
    // SAFETY: the type is alive and has its slots filled. If it gets an `__iter__` later, CPython replaces the slot.
    unsafe {
        let class = class_.as_type_ptr();
        if (*class).tp_iter.is_none() {
            (*class).tp_iter = Some(refuse_iteration);
        }
    }
    if !LAYOUT.is_used() {
        return;
    }
    let native = class_.py().get_type::<PyPullLink>().as_type_ptr();
    let class = class_.as_type_ptr();
    // SAFETY: types are alive and have their slots filled. A class whose slot is that of
    // `PyPullLink` derives from it and does not override the slot. If it gets an `__anext__` later,
    // CPython replaces the slot as usual; likewise `am_await`, for an `__await__`.
    unsafe {
        let (own, base) = ((*class).tp_as_async, (*native).tp_as_async);
        if !own.is_null() && own != base && (*own).am_await.is_none() {
            (*own).am_await = Some(refuse_await);
        }
        if !own.is_null() && !base.is_null() && own != base && slot(class) == slot(native) {
            (*own).am_anext = Some(anext);
        }
    }
}

/// Return the address of the `am_anext` of a class, if it has one.
///
/// # Safety
///
/// A live type.
unsafe fn slot(class: *mut ffi::PyTypeObject) -> Option<usize> {
    // SAFETY: the caller's promise.
    let anext = unsafe { (*class).tp_as_async.as_ref()?.am_anext };
    anext.map(|function| function as usize)
}

/// Test the replacement of `am_anext` on a class that was made in Python.
fn self_test(py: Python<'_>) -> PyResult<bool> {
    unsafe extern "C" fn itself(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
        // SAFETY: CPython passes a live object.
        unsafe { ffi::Py_NewRef(object) }
    }
    let metatype = py.get_type::<PyType>();
    let class_with = |name: Option<&str>| -> PyResult<Bound<'_, PyType>> {
        let attributes = PyDict::new(py);
        if let Some(name) = name {
            // Any callable works, since it is never called.
            attributes.set_item(name, py.get_type::<PyDict>())?;
        }
        let class = metatype.call1(("Probe", PyTuple::empty(py), attributes))?;
        Ok(class.cast_into()?)
    };
    let (bare, own) = (class_with(None)?, class_with(Some("__anext__"))?);
    let size: usize = metatype.getattr("__basicsize__")?.extract()?;
    for class in [&bare, &own] {
        if !private_layout::has_known_struct(class)? {
            return Ok(false);
        }
        let kind = class.as_type_ptr();
        // SAFETY: a live type.
        let methods = unsafe { (*kind).tp_as_async }.addr();
        // The methods are part of the class object, after the fields of every type.
        let expected = kind.addr() + size_of::<ffi::PyTypeObject>()
            ..=kind.addr() + size - size_of::<ffi::PyAsyncMethods>().min(size);
        if !expected.contains(&methods) {
            return Ok(false);
        }
    }
    let filled = |class: &Bound<'_, PyType>| {
        // SAFETY: a live type, whose methods were just found in it.
        let methods = unsafe { &*(*class.as_type_ptr()).tp_as_async };
        [
            methods.am_await.is_some(),
            methods.am_aiter.is_some(),
            methods.am_anext.is_some(),
            methods.am_send.is_some(),
        ]
    };
    if filled(&bare) != [false; 4] || filled(&own) != [false, false, true, false] {
        return Ok(false);
    }
    // SAFETY: as above.
    unsafe { (*(*own.as_type_ptr()).tp_as_async).am_anext = Some(itself) };
    let object = own.call0()?;
    let anext = py.import("builtins")?.getattr("anext")?;
    if !anext.call1((&object,))?.is(&object) {
        return Ok(false);
    }
    // CPython replaces the slot when the class gets another `__anext__`.
    own.setattr("__anext__", py.get_type::<PyTuple>())?;
    // SAFETY: as above.
    let replaced = unsafe { slot(own.as_type_ptr()) };
    Ok(replaced.is_some_and(|address| address != itself as *const () as usize))
}

/// Return a plain link with the same origin and no overrides, for `super().pull_impl()`.
#[pyfunction]
pub(crate) fn stock<'py>(link: &Bound<'py, PyPullLink>) -> PyResult<Bound<'py, PyPullLink>> {
    let py = link.py();
    let origin = link.get().origin(py);
    if matches!(origin, Origin::Unset) {
        let name = link.get_type().name()?;
        return Err(PyNotImplementedError::new_err(format!(
            "{name} has no items: override pull_impl() as an async generator method"
        )));
    }
    Bound::new(py, PyPullLink::with_origin(origin))
}

/// Return the link to whose items this one applies its kernel, if there is one.
#[pyfunction]
pub(crate) fn upstream<'py>(link: &Bound<'py, PyPullLink>) -> Option<Bound<'py, PyPullLink>> {
    let py = link.py();
    match &link.get().state.borrow(py).origin {
        Origin::Stage { source, .. } => Some(source.bind(py).clone()),
        Origin::Unset | Origin::Source(_) => None,
    }
}

/// Check that a link may be restarted.
///
/// # Errors
///
/// `RuntimeError`: a pull is pending, or the link is being closed.
#[pyfunction]
pub(crate) fn check_restart(link: &Bound<'_, PyPullLink>) -> PyResult<()> {
    let py = link.py();
    let this = link.get();
    this.home().check(py, "stream")?;
    let state = this.state.borrow(py);
    if state.running || !state.lock.is_free() {
        return Err(PyRuntimeError::new_err(
            "cannot restart while a pull is pending; await or cancel it first",
        ));
    }
    if state.closing.is_some() {
        return Err(PyRuntimeError::new_err(
            "cannot restart while the stream is being closed; await its aclose() first",
        ));
    }
    Ok(())
}

/// Return a link's state for `repr()`: its phase, the number of items that it holds (retained or handed
/// back), and whether a pull is in progress.
#[pyfunction]
pub(crate) fn link_status(link: &Bound<'_, PyPullLink>) -> (&'static str, usize, bool) {
    let state = link.get().state.borrow(link.py());
    let phase = match state.phase {
        Phase::Open => "open",
        Phase::Ended => "ended",
        Phase::Closed => "closed",
    };
    let kept = state.returned.len() + usize::from(state.retained.is_some());
    (phase, kept, state.running || !state.lock.is_free())
}

/// Restart one link. The caller restarts its sources.
#[pyfunction]
pub(crate) fn restart(link: &Bound<'_, PyPullLink>) -> PyResult<()> {
    let py = link.py();
    let this = link.get();
    check_restart(link)?;
    let feeds = this.state.borrow(py).own_sources(py);
    for feed in feeds {
        feed.restart(py)?;
    }
    if let Origin::Stage { kernel, .. } = this.origin(py) {
        kernel.restart(py);
    }
    let gone = {
        let mut state = this.state.borrow(py);
        state.phase = Phase::Open;
        (
            state.retained.take(),
            std::mem::take(&mut state.returned),
            state.pipeline.take(),
            state.inner_source.take(),
            state.event_loop.take(),
        )
    };
    drop(gone);
    Ok(())
}
