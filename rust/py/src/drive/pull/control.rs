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

use super::awaitable;
use super::link::{Origin, Phase, PullLink};
use crate::awaitable::Parked;
use crate::gil::GilCell;

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
            (*own).am_anext = Some(awaitable::anext);
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
    let (waiting, awaiting, busy) = {
        let mut state = this.state.borrow(py);
        if state.running {
            return Err(PyRuntimeError::new_err(
                "a stream cannot be closed from inside its own callable",
            ));
        }
        let first = state.phase != Phase::Closed;
        state.phase = Phase::Closed;
        let awaiting = state
            .flight
            .as_ref()
            .filter(|_| first)
            .map(|flight| flight.awaiting.clone_ref(py));
        (state.turn.dismiss(), awaiting, !state.turn.is_idle())
    };
    waiting.into_iter().for_each(Waker::wake);
    if !busy {
        let kept = this.state.borrow(py).kept.take();
        drop(kept);
        return Ok(None);
    }
    if let Some(awaiting) = awaiting
        && let Some(cancel) = awaiting.bind(py).getattr_opt(intern!(py, "cancel"))?
    {
        cancel.call0()?;
    }
    let parked = Parked::new(py)?;
    let future = parked.future().bind(py).clone();
    this.state.borrow(py).closers.push(parked.waker());
    // The mailbox must know the future for as long as somebody awaits it: it keeps the place alive,
    // and goes with it.
    let keeper = Py::new(py, Keeper(GilCell::new(Some(parked))))?;
    future.call_method1(intern!(py, "add_done_callback"), (keeper,))?;
    Ok(Some(future))
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

/// Ends the source of this link, if it has one of its own. What comes back is to be awaited.
#[pyfunction]
pub(crate) fn close_feed<'py>(link: &Bound<'py, PullLink>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = link.py();
    let feeds = {
        let state = link.get().state.borrow(py);
        let own = match &state.origin {
            Origin::Feed(feed) => Some(feed.clone_ref(py)),
            Origin::Unset | Origin::Stage { .. } => None,
        };
        (
            state.implementation.as_ref().map(|feed| feed.clone_ref(py)),
            own,
        )
    };
    match feeds {
        (Some(implementation), own) => {
            if let Some(own) = own {
                own.close(py)?;
            }
            implementation.close(py)
        }
        (None, Some(own)) => own.close(py),
        (None, None) => Ok(None),
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
            state.line.take(),
            state.event_loop.take(),
        )
    };
    drop(gone);
    Ok(())
}
