//! What the Python classes ask of a link: parts of closing, restarting and subclassing.
//!
//! They are functions of the module rather than methods, so that nothing of them shows on a user's
//! stream.

use std::task::Waker;

use pyo3::exceptions::{PyNotImplementedError, PyRuntimeError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyType;

use super::awaitable::{Delivery, Pull};
use super::link::{Origin, Phase, PullLink};
use crate::awaitable::Parked;
use crate::feed::AnyFeed;
use crate::gil::GilCell;

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

/// Closes one link: no pull begins any more, those that wait raise `ClosedError`, and the one that
/// is under way is cancelled in its own task. Returns a future that is done when that one has come
/// out, or `None` if there is none. Call it until it says so.
#[pyfunction]
pub(crate) fn shut<'py>(link: &Bound<'py, PullLink>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = link.py();
    let this = link.get();
    this.home().check(py, "stream")?;
    PullLink::refuse_own_source(link)?;
    let (first, waiting, busy) = {
        let mut state = this.state.borrow(py);
        let first = state.phase != Phase::Closed;
        if !state.running {
            state.phase = Phase::Closed;
        }
        (first, state.turn.dismiss(), !state.turn.is_idle())
    };
    waiting.into_iter().for_each(Waker::wake);
    if busy {
        if first {
            this.cancel_flight(py)?;
        }
        let parked = Parked::new(py)?;
        this.state.borrow(py).closers.push(parked.waker());
        return keep(py, parked).map(Some);
    }
    // The line of a link below may be inside this one: its pull comes out too, with `ClosedError`.
    if let Some((claim, position)) = this.claim(py) {
        let mut place = None;
        let free = claim.revoke(py, position, || {
            let parked = Parked::new(py)?;
            let waker = parked.waker();
            place = Some(parked);
            Ok(waker)
        })?;
        if !free && let Some(parked) = place {
            claim.interrupt(py)?;
            return keep(py, parked).map(Some);
        }
    }
    let left = {
        let mut state = this.state.borrow(py);
        (state.kept.take(), std::mem::take(&mut state.returned))
    };
    drop(left);
    Ok(None)
}

/// The future of a place in the mailbox, which keeps that place for as long as somebody awaits it.
fn keep(py: Python<'_>, parked: Parked) -> PyResult<Bound<'_, PyAny>> {
    let future = parked.future().bind(py).clone();
    let keeper = Py::new(py, Keeper(GilCell::new(Some(parked))))?;
    future.call_method1(intern!(py, "add_done_callback"), (keeper,))?;
    Ok(future)
}

/// Holds a place in the mailbox until the future there is done.
#[pyclass(frozen, module = "headrace._core")]
struct Keeper(GilCell<Option<Parked>>);

#[pymethods]
impl Keeper {
    fn __call__(&self, py: Python<'_>, _future: &Bound<'_, PyAny>) {
        let place = self.0.borrow(py).take();
        drop(place);
    }
}

/// What this link draws from, where that is its own: an iterable of which it still hands items on, its
/// `pull_impl`, its source.
fn feeds(link: &Bound<'_, PullLink>) -> impl Iterator<Item = AnyFeed> {
    let py = link.py();
    let state = link.get().state.borrow(py);
    let own = match &state.origin {
        Origin::Feed(feed) => Some(feed),
        Origin::Unset | Origin::Stage { .. } => None,
    };
    [state.pending.as_ref(), state.implementation.as_ref(), own]
        .map(|feed| feed.map(|feed| feed.clone_ref(py)))
        .into_iter()
        .flatten()
}

/// Ends what this link draws from. What comes back is to be awaited; done again, it is nothing.
#[pyfunction]
pub(crate) fn close_feeds<'py>(link: &Bound<'py, PullLink>) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let py = link.py();
    let mut closing = Vec::new();
    for feed in feeds(link) {
        closing.extend(feed.close(py)?);
    }
    Ok(closing)
}

/// Awaiting what [`close_feeds`] gave failed: it will give it again.
#[pyfunction]
pub(crate) fn reopen_feeds(link: &Bound<'_, PullLink>) {
    for feed in feeds(link) {
        if let AnyFeed::Foreign(feed) = feed {
            feed.get().reopen(link.py());
        }
    }
}

/// Begins a new cycle of one link; its sources are the caller's business.
#[pyfunction]
pub(crate) fn restart(link: &Bound<'_, PullLink>) -> PyResult<()> {
    let py = link.py();
    let this = link.get();
    this.home().check(py, "stream")?;
    let feeds = {
        let state = this.state.borrow(py);
        if state.running || !state.turn.is_idle() {
            return Err(PyRuntimeError::new_err(
                "cannot restart while a pull is pending; await or cancel it first",
            ));
        }
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
