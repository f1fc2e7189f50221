//! What the Python classes ask of a link besides closing: parts of restarting and subclassing.
//!
//! They are functions of the module rather than methods, so that nothing of them shows on a user's
//! stream.

use std::mem::size_of;

use pyo3::exceptions::{PyNotImplementedError, PyRuntimeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

use super::awaitable::{Delivery, Pull};
use super::link::PullLink;
use super::state::{Origin, Phase};
use crate::runtime::private_layout::{self, Layout};

/// Replacing `am_anext` of a class. The fallback leaves it as it is, and `anext()` goes through `__anext__`.
pub(crate) static LAYOUT: Layout = Layout::new("anext_slot", self_test);

/// `am_anext` of every pull object whose class leaves it alone: [`Pull::make`] without the way
/// through `PyO3`, which costs as much as the rest.
///
/// # Safety
///
/// CPython's contract for the slot; `object` is a `PullLink`, since only such classes get this slot
/// (see [`adopt`]).
unsafe extern "C" fn anext(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the caller's promise; the slots of a type are called on an attached thread.
    let made = unsafe {
        let py = Python::assume_attached();
        Pull::make(
            Bound::from_borrowed_ptr(py, object).cast_into_unchecked(),
            Delivery::Item,
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

/// The link that an object is, if pulling it is [`Pull`] and nothing else: its class does not override `__anext__`.
pub(crate) fn as_link<'py>(object: &Bound<'py, PyAny>) -> Option<Bound<'py, PullLink>> {
    let link = object.cast::<PullLink>().ok()?;
    // SAFETY: a live object has a live type, whose slots are filled.
    let is_native = unsafe {
        let native = if LAYOUT.is_used() {
            Some(anext as ffi::unaryfunc)
        } else {
            slot(object.py().get_type::<PullLink>().as_type_ptr())
        };
        let address = |function: ffi::unaryfunc| function as usize;
        let own = slot(object.get_type_ptr());
        own.is_some() && own.map(address) == native.map(address)
    };
    is_native.then(|| link.clone())
}

/// Gives a class the short way to `anext()`, unless it has a way of its own.
#[pyfunction]
pub(crate) fn adopt(class_: &Bound<'_, PyType>) {
    if !LAYOUT.is_used() {
        return;
    }
    let native = class_.py().get_type::<PullLink>().as_type_ptr();
    let class = class_.as_type_ptr();
    // SAFETY: types are alive and have their slots filled; a class whose slot is that of `PullLink`
    // derives from it and overrides nothing there. If it is given an `__anext__` later, CPython
    // replaces the slot as it would have.
    unsafe {
        let (own, base) = ((*class).tp_as_async, (*native).tp_as_async);
        let slot = |methods: *mut ffi::PyAsyncMethods| {
            (*methods).am_anext.map(|function| function as usize)
        };
        if !own.is_null() && !base.is_null() && own != base && slot(own) == slot(base) {
            (*own).am_anext = Some(anext);
        }
    }
}

/// `am_anext` of a class, if it has one.
///
/// # Safety
///
/// A live type.
unsafe fn slot(class: *mut ffi::PyTypeObject) -> Option<ffi::unaryfunc> {
    // SAFETY: the caller's promise.
    unsafe { (*class).tp_as_async.as_ref()?.am_anext }
}

/// Replaces `am_anext` of a class that Python made.
fn self_test(py: Python<'_>) -> PyResult<bool> {
    unsafe extern "C" fn itself(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
        // SAFETY: CPython passes a live object.
        unsafe { ffi::Py_NewRef(object) }
    }
    let metatype = py.get_type::<PyType>();
    let class_with = |name: Option<&str>| -> PyResult<Bound<'_, PyType>> {
        let attributes = PyDict::new(py);
        if let Some(name) = name {
            // A function would do; it is never called.
            attributes.set_item(name, py.get_type::<PyDict>())?;
        }
        let class = metatype.call1(("Probe", PyTuple::empty(py), attributes))?;
        Ok(class.cast_into()?)
    };
    let (bare, own) = (class_with(None)?, class_with(Some("__anext__"))?);
    let whole: usize = metatype.getattr("__basicsize__")?.extract()?;
    for class in [&bare, &own] {
        if !private_layout::has_known_struct(class)? {
            return Ok(false);
        }
        let kind = class.as_type_ptr();
        // SAFETY: a live type.
        let methods = unsafe { (*kind).tp_as_async }.addr();
        // They are in the object that the class is, behind what every type has.
        let room = kind.addr() + size_of::<ffi::PyTypeObject>()
            ..=kind.addr() + whole - size_of::<ffi::PyAsyncMethods>().min(whole);
        if !room.contains(&methods) {
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
    // CPython replaces it as soon as the class gets another `__anext__`.
    own.setattr("__anext__", py.get_type::<PyTuple>())?;
    let address = |function: ffi::unaryfunc| function as usize;
    // SAFETY: as above.
    let replaced = unsafe { slot(own.as_type_ptr()) };
    Ok(replaced.map(address) != Some(address(itself)) && replaced.is_some())
}

/// A plain link of the same make, without what a subclass overrides: for `super().pull_impl()`.
#[pyfunction]
pub(crate) fn stock<'py>(link: &Bound<'py, PullLink>) -> PyResult<Bound<'py, PullLink>> {
    let py = link.py();
    let origin = link.get().origin(py);
    if matches!(origin, Origin::Unset) {
        let name = link.get_type().name()?;
        return Err(PyNotImplementedError::new_err(format!(
            "{name} has no items: override pull_impl() as an async generator method"
        )));
    }
    Bound::new(py, PullLink::made_of(origin))
}

/// The link that this one applies its kernel to, if there is one.
#[pyfunction]
pub(crate) fn upstream<'py>(link: &Bound<'py, PullLink>) -> Option<Bound<'py, PullLink>> {
    let py = link.py();
    match &link.get().state.borrow(py).origin {
        Origin::Stage { source, .. } => Some(source.bind(py).clone()),
        Origin::Unset | Origin::Feed(_) => None,
    }
}

/// Whether a link may begin a new cycle now.
///
/// # Errors
///
/// `RuntimeError`: A pull is pending, or it is being closed.
#[pyfunction]
pub(crate) fn check_restart(link: &Bound<'_, PullLink>) -> PyResult<()> {
    let py = link.py();
    let this = link.get();
    this.home().check(py, "stream")?;
    let state = this.state.borrow(py);
    if state.running || !state.turn.is_idle() {
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

/// How a link stands, for those who look at it: how far it has come, how many items wait in it that cancelled pulls left
/// or that were handed back, and whether a pull of it is under way.
#[pyfunction]
pub(crate) fn standing(link: &Bound<'_, PullLink>) -> (&'static str, usize, bool) {
    let state = link.get().state.borrow(link.py());
    let phase = match state.phase {
        Phase::Open => "open",
        Phase::Ended => "ended",
        Phase::Closed => "closed",
    };
    let kept = state.returned.len() + usize::from(state.kept.is_some());
    (phase, kept, state.running || !state.turn.is_idle())
}

/// Begins a new cycle of one link; its sources are the caller's business.
#[pyfunction]
pub(crate) fn restart(link: &Bound<'_, PullLink>) -> PyResult<()> {
    let py = link.py();
    let this = link.get();
    check_restart(link)?;
    let feeds = {
        let state = this.state.borrow(py);
        let own = match &state.origin {
            Origin::Feed(feed) => Some(feed.clone_ref(py)),
            Origin::Unset | Origin::Stage { .. } => None,
        };
        [
            state.implementation.as_ref().map(|feed| feed.clone_ref(py)),
            own,
        ]
    };
    for feed in feeds.iter().flatten() {
        feed.restart(py)?;
    }
    if let Origin::Stage { kernel, .. } = this.origin(py) {
        kernel.restart(py);
    }
    let gone = {
        let mut state = this.state.borrow(py);
        state.phase = Phase::Open;
        (
            state.kept.take(),
            std::mem::take(&mut state.returned),
            state.line.take(),
            state.pending.take(),
            state.event_loop.take(),
        )
    };
    drop(gone);
    Ok(())
}
