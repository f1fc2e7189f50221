//! Closing a link: the native steps of `PullObj.aclose`, which `headrace/pull/base.py` calls.
//!
//! Several tasks may close a link concurrently. The first one awaits the closing of the link's
//! sources. The others wait until that has finished or failed ([`await_closing`]).

use std::task::Waker;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::link::PyPullLink;
use super::state::Phase;
use crate::coroutine::Parked;
use crate::object::gc::{self, Traverse, traverse};
use crate::object::gil_cell::GilCell;
use crate::runtime::asyncio;
use crate::source::AnySource;

/// Set while the sources of a link are being closed.
#[derive(Debug)]
pub(super) struct Closing {
    /// The task that closes them, if there is a current task.
    task: Option<Py<PyAny>>,
    /// Wakers of the other closers, which wait for that task.
    waiting: Vec<Waker>,
}

traverse!(Closing { task });

/// Close one link: no pull can start, queued pulls raise `ClosedError`, and the current pull is
/// cancelled in its own task. Return a future that is done when the current pull has ended, or
/// `None` if there is none. Call this again until it returns `None`.
#[pyfunction]
pub(crate) fn close_link<'py>(
    link: &Bound<'py, PyPullLink>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = link.py();
    let this = link.get();
    this.home().check(py, "stream")?;
    let (first, waiting, busy) = {
        let mut state = this.state.borrow(py);
        let first = state.phase != Phase::Closed;
        if !state.running {
            state.phase = Phase::Closed;
        }
        (first, state.lock.take_waiters(), !state.lock.is_free())
    };
    waiting.into_iter().for_each(Waker::wake);
    if busy {
        if first {
            this.cancel_suspended(py)?;
        }
        let parked = Parked::new(py)?;
        // The pull may have ended meanwhile: cancelling runs Python code.
        let is_busy = {
            let mut state = this.state.borrow(py);
            let is_busy = !state.lock.is_free();
            if is_busy {
                state.closers.push(parked.waker());
            }
            is_busy
        };
        if is_busy {
            return hold(py, parked).map(Some);
        }
    }
    // The pipeline of a link downstream may be inside this one; its pull then ends with
    // `ClosedError`. A buffer that has ended delivers its end to each consumer, so its consumers
    // are not interrupted.
    let has_ended =
        PyPullLink::find_buffer(link)?.is_some_and(|buffer| buffer.get().core().has_ended());
    if !has_ended
        && let Some((guard, position)) = this.fused_into(py)
        && let Some(parked) = guard.revoke(py, position)?
    {
        guard.interrupt(py)?;
        return hold(py, parked).map(Some);
    }
    let left = {
        let mut state = this.state.borrow(py);
        (state.retained.take(), std::mem::take(&mut state.returned))
    };
    drop(left);
    Ok(None)
}

/// The closing task, if known, and a future that is done when it has finished.
type Closer<'py> = (Option<Bound<'py, PyAny>>, Bound<'py, PyAny>);

/// If another caller closes the sources of this link: its task, and a future that is done when it
/// has finished.
#[pyfunction]
pub(crate) fn await_closing<'py>(link: &Bound<'py, PyPullLink>) -> PyResult<Option<Closer<'py>>> {
    let py = link.py();
    let known = match &link.get().state.borrow(py).closing {
        Some(closing) => closing.task.as_ref().map(|task| task.bind(py).clone()),
        None => return Ok(None),
    };
    if let Some(task) = &known
        && asyncio::is_closed(&task.call_method0(intern!(py, "get_loop"))?)?
    {
        // The task was left on a closed event loop, and never finishes.
        return Ok(None);
    }
    let parked = Parked::new(py)?;
    match &mut link.get().state.borrow(py).closing {
        Some(closing) => closing.waiting.push(parked.waker()),
        None => return Ok(None),
    }
    Ok(Some((known, hold(py, parked)?)))
}

/// Raise if the current task runs a source of this stream: the closing would wait for itself. One
/// call checks all links upstream.
#[pyfunction]
pub(crate) fn check_closing(link: &Bound<'_, PyPullLink>) -> PyResult<()> {
    PyPullLink::reject_own_source(link)
}

/// Start to close the sources of this link. Await each returned object, then call [`end_closing`]
/// even if one failed. A second call returns nothing to await.
#[pyfunction]
pub(crate) fn begin_closing<'py>(
    link: &Bound<'py, PyPullLink>,
) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let py = link.py();
    let mut to_close = Vec::new();
    for feed in sources(link) {
        to_close.extend(feed.close(py)?);
    }
    if !to_close.is_empty() {
        let closing = Closing {
            task: asyncio::current_task(py).map(Bound::unbind),
            waiting: Vec::new(),
        };
        let old = link.get().state.borrow(py).closing.replace(closing);
        release(old);
    }
    Ok(to_close)
}

/// Finish the closing that [`begin_closing`] started. If it failed, the next `begin_closing` starts
/// it again.
#[pyfunction]
pub(crate) fn end_closing(link: &Bound<'_, PyPullLink>, failed: bool) {
    let py = link.py();
    if failed {
        for feed in sources(link) {
            if let AnySource::AsyncIter(feed) = feed {
                feed.get().reopen(py);
            }
        }
    }
    let old = link.get().state.borrow(py).closing.take();
    release(old);
}

/// Wake the other closers.
fn release(closing: Option<Closing>) {
    if let Some(closing) = closing {
        closing.waiting.into_iter().for_each(Waker::wake);
    }
}

/// Return the sources that this link owns: its open inner source, its `pull_impl` and its native source.
fn sources(link: &Bound<'_, PyPullLink>) -> impl Iterator<Item = AnySource> {
    let state = link.get().state.borrow(link.py());
    let inner = state.inner_source.as_ref();
    inner
        .map(|feed| feed.clone_ref(link.py()))
        .into_iter()
        .chain(state.own_sources(link.py()))
}

/// Return the future of a mailbox entry. A callback keeps the entry alive until the future is done.
fn hold(py: Python<'_>, parked: Parked) -> PyResult<Bound<'_, PyAny>> {
    let future = parked.future(py)?.into_any();
    let keeper = Py::new(py, PyParkedHolder(GilCell::new(Some(parked))))?;
    future.call_method1(intern!(py, "add_done_callback"), (keeper,))?;
    Ok(future)
}

/// Keeps a mailbox entry alive until its future is done.
#[pyclass(frozen, module = "headrace._core")]
struct PyParkedHolder(GilCell<Option<Parked>>);

#[pymethods]
impl PyParkedHolder {
    fn __call__(&self, py: Python<'_>, _future: &Bound<'_, PyAny>) {
        self.0.set(py, None);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| self.0.traverse(visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        self.0.set(py, None);
    }
}
