//! Closing a link: the parts of it that `PullObj.aclose` puts in order.
//!
//! Several may close a link at once. The first awaits the closing of what the link draws from; the
//! others wait until it has come to its end, whichever way it did ([`await_closing`]).

use std::task::Waker;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::link::PullLink;
use super::state::{Origin, Phase};
use crate::coroutine::Parked;
use crate::object::gc::{self, Traverse, traverse};
use crate::object::gil_cell::GilCell;
use crate::runtime::asyncio;
use crate::source::AnySource;

/// What a link draws from is being closed.
#[derive(Debug)]
pub(super) struct Closing {
    /// The task that closes it, if a task does.
    task: Option<Py<PyAny>>,
    /// The others who close, and wait for that one.
    waiting: Vec<Waker>,
}

traverse!(Closing { task });

/// Closes one link: no pull begins any more, those that wait raise `ClosedError`, and the one that
/// is under way is cancelled in its own task. Returns a future that is done when that one has come
/// out, or `None` if there is none. Call it until it says so.
#[pyfunction]
pub(crate) fn shut<'py>(link: &Bound<'py, PullLink>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = link.py();
    let this = link.get();
    this.home().check(py, "stream")?;
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
        // It may have come out meanwhile: what it waits for is cancelled by Python code.
        let is_busy = {
            let mut state = this.state.borrow(py);
            let is_busy = !state.turn.is_idle();
            if is_busy {
                state.closers.push(parked.waker());
            }
            is_busy
        };
        if is_busy {
            return keep(py, parked).map(Some);
        }
    }
    // The line of a link below may be inside this one: its pull comes out too, with `ClosedError`. But the end of a buffer
    // that has come to it comes to each of its consumers, so none of them is interrupted because another was the first.
    let has_ended =
        PullLink::find_far_end(link)?.is_some_and(|buffer| buffer.get().core().has_ended());
    if !has_ended && let Some((claim, position)) = this.claim(py) {
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

/// A task, if there is one, and a future that it will resolve.
type Closer<'py> = (Option<Bound<'py, PyAny>>, Bound<'py, PyAny>);

/// If somebody else closes what this link draws from: the task that does, and a future that is done
/// when it has come to its end.
#[pyfunction]
pub(crate) fn await_closing<'py>(link: &Bound<'py, PullLink>) -> PyResult<Option<Closer<'py>>> {
    let py = link.py();
    let known = match &link.get().state.borrow(py).closing {
        Some(closing) => closing.task.as_ref().map(|task| task.bind(py).clone()),
        None => return Ok(None),
    };
    if let Some(task) = &known
        && asyncio::is_closed(&task.call_method0(intern!(py, "get_loop"))?)?
    {
        // It was left there, and will never come to its end.
        return Ok(None);
    }
    let parked = Parked::new(py)?;
    let waker = parked.waker();
    let is_closing = {
        let mut state = link.get().state.borrow(py);
        state
            .closing
            .as_mut()
            .map(|closing| closing.waiting.push(waker))
            .is_some()
    };
    if is_closing {
        Ok(Some((known, keep(py, parked)?)))
    } else {
        Ok(None)
    }
}

/// Raises if who runs is a source of this stream, whose closing would wait for itself. It looks at all that is above the
/// link, once for the closing of all of them.
#[pyfunction]
pub(crate) fn check_closing(link: &Bound<'_, PullLink>) -> PyResult<()> {
    PullLink::refuse_own_source(link)
}

/// Begins to end what this link draws from. What comes back is to be awaited, and then
/// [`end_closing`] to be called, whatever came of it; done again, it is nothing.
#[pyfunction]
pub(crate) fn begin_closing<'py>(link: &Bound<'py, PullLink>) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let py = link.py();
    let mut feeds_to_close = Vec::new();
    for feed in feeds(link) {
        feeds_to_close.extend(feed.close(py)?);
    }
    if !feeds_to_close.is_empty() {
        let closing = Closing {
            task: asyncio::current_task(py).map(Bound::unbind),
            waiting: Vec::new(),
        };
        let old = link.get().state.borrow(py).closing.replace(closing);
        release(old);
    }
    Ok(feeds_to_close)
}

/// What [`begin_closing`] gave was awaited. If that failed, it will give it again.
#[pyfunction]
pub(crate) fn end_closing(link: &Bound<'_, PullLink>, failed: bool) {
    let py = link.py();
    if failed {
        for feed in feeds(link) {
            if let AnySource::AsyncIter(feed) = feed {
                feed.get().reopen(py);
            }
        }
    }
    let old = link.get().state.borrow(py).closing.take();
    release(old);
}

/// Lets those who wait go on.
fn release(closing: Option<Closing>) {
    if let Some(closing) = closing {
        closing.waiting.into_iter().for_each(Waker::wake);
    }
}

/// What this link draws from, where that is its own: an iterable of which it still hands items on, its
/// `pull_impl`, its source.
fn feeds(link: &Bound<'_, PullLink>) -> impl Iterator<Item = AnySource> {
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

/// The future of a place in the mailbox, which keeps that place for as long as somebody awaits it.
fn keep(py: Python<'_>, parked: Parked) -> PyResult<Bound<'_, PyAny>> {
    let future = parked.future(py)?.into_any();
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

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.0.peek_for_gc().as_deref() {
            Some(Some(place)) => gc::visit(&visit, |visit| place.traverse(visit)),
            _ => Ok(()),
        }
    }

    fn __clear__(&self, py: Python<'_>) {
        let place = self.0.borrow(py).take();
        drop(place);
    }
}
