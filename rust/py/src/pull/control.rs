//! What the Python classes ask of a link besides closing: parts of restarting and subclassing.
//!
//! They are functions of the module rather than methods, so that nothing of them shows on a user's
//! stream.

use pyo3::exceptions::{PyNotImplementedError, PyRuntimeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;

use super::awaitable::{Delivery, Pull};
use super::link::PullLink;
use super::state::{Origin, Phase};

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
        let methods = (*object.get_type_ptr()).tp_as_async;
        let native: ffi::unaryfunc = anext;
        !methods.is_null()
            && ((*methods).am_anext).is_some_and(|own| own as usize == native as usize)
    };
    is_native.then(|| link.clone())
}

/// Gives a class the short way to `anext()`, unless it has a way of its own.
#[pyfunction]
pub(crate) fn adopt(class_: &Bound<'_, PyType>) {
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
