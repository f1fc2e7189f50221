//! A pull whose source is a buffer. `start.rs` and `awaitable.rs` call it.
//!
//! It is not bound to an event loop and needs no lock: the buffer serves its consumers in FIFO
//! order, from any thread.

use headrace_core::buffer::{Get, TryGetError};
use pyo3::prelude::*;

use super::awaitable::{Pull, PullPhase, ResultFormat, closed};
use super::link::PyPullLink;
use super::state::Phase;
use crate::buffer::PyBuffer;
use crate::coroutine::{Pending, Step};
use crate::errors;
use crate::errors::RaisedError;
use crate::object::gc::traverse;
use crate::runtime::yield_budget;

/// A pending `get()`, and its buffer.
#[derive(Debug)]
pub(super) struct PendingGet {
    buffer: Py<PyBuffer>,
    get: Pending<Get<Py<PyAny>>>,
}

traverse!(PendingGet { buffer, get });

impl Pull {
    /// Take the next item if there is one that is not promised to a waiter.
    #[inline]
    pub(super) fn take_from_buffer<'py>(
        &mut self,
        link: &Bound<'py, PyPullLink>,
        buffer: Py<PyBuffer>,
    ) -> Result<Step<'py>, RaisedError> {
        let py = link.py();
        let core = buffer.get().core();
        if core.is_broken() {
            return Err(RaisedError::set(py, errors::broken(py, "buffer")));
        }
        // If no item is available the pull waits anyway, which yields to the event loop.
        if !self.has_yielded && yield_budget::spend(py) && core.available() > 0 {
            return Ok(self.yield_now(link));
        }
        match core.try_get() {
            Ok(item) if self.format == ResultFormat::Item => {
                let item = buffer.get().reveal(item.into_bound(py));
                drop(buffer.into_bound(py));
                Ok(Step::Return(item))
            }
            Ok(item) => {
                let item = buffer.get().reveal(item.into_bound(py));
                RaisedError::set_from(py, self.deliver(item))
            }
            Err(why) => RaisedError::set_from(py, self.wait_or_end(link, buffer, why)),
        }
    }

    /// Yield to the event loop before taking an item.
    #[cold]
    fn yield_now<'py>(&mut self, link: &Bound<'py, PyPullLink>) -> Step<'py> {
        self.has_yielded = true;
        self.suspend_in(link, PullPhase::New);
        yield_budget::renew();
        Step::Yield(link.py().None().into_bound(link.py()))
    }

    /// Wait for an item, or deliver the end, if no item is available.
    #[cold]
    fn wait_or_end<'py>(
        &mut self,
        link: &Bound<'py, PyPullLink>,
        buffer: Py<PyBuffer>,
        why: TryGetError,
    ) -> PyResult<Step<'py>> {
        match why {
            TryGetError::Ended => self.deliver_buffer_end(link, buffer.get()),
            TryGetError::Empty => {
                let get = Pending::new(buffer.get().core().get());
                self.poll_get(link, Box::new(PendingGet { buffer, get }))
            }
        }
    }

    /// Poll the pending `get()`, and suspend if it is not ready.
    pub(super) fn poll_get<'py>(
        &mut self,
        link: &Bound<'py, PyPullLink>,
        mut pending: Box<PendingGet>,
    ) -> PyResult<Step<'py>> {
        let py = link.py();
        match pending.get.step(py)? {
            Ok(Ok(item)) => self.deliver(pending.buffer.get().reveal(item.into_bound(py))),
            Ok(Err(_)) => self.deliver_buffer_end(link, pending.buffer.get()),
            Err(object) => {
                self.suspend_in(link, PullPhase::Getting(pending));
                yield_budget::renew();
                Ok(Step::Yield(object))
            }
        }
    }

    /// Deliver the end of a buffer: the producer's error, `ClosedError` if the buffer was closed,
    /// or the end.
    pub(super) fn deliver_buffer_end<'py>(
        &mut self,
        link: &Bound<'py, PyPullLink>,
        buffer: &PyBuffer,
    ) -> PyResult<Step<'py>> {
        let py = link.py();
        if let Some(error) = buffer.take_error(py) {
            return Err(error);
        }
        // Closed by another consumer. A buffer that ended before that is not closed, so its end is
        // delivered.
        if buffer.core().is_closed() {
            return Err(closed(py));
        }
        let mut state = link.get().state.borrow(py);
        if state.phase == Phase::Open {
            state.phase = Phase::Ended;
        }
        drop(state);
        self.deliver_end(py)
    }
}
