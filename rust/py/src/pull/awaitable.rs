//! `Pull`: the awaitable of one `anext()`.
//! `PyPullLink` makes it at `__anext__`; terminals and the pool's feeder drive one of their own.

use std::ffi::CStr;
use std::task::Waker;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::buffer_source::PendingGet;
use super::fifo::{UNQUEUED, WaiterId};
use super::link::PyPullLink;
use super::pipeline::{Advance, Pipeline, Suspension};
use super::state::{Phase, Start};
use super::suspended::{SuspendPoint, SuspendedPull};
use crate::coroutine::{Coroutine, Native, Parked, Step, own_class};
use crate::errors;
use crate::errors::RaisedError;
use crate::object::gc::traverse;
use crate::object::iterator_result::PyIteratorResult;
use crate::runtime::asyncio;
use crate::runtime::asyncio::Cancels;
use crate::runtime::yield_budget;

/// The form in which a pull returns its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResultFormat {
    /// The item. The end raises `StopAsyncIteration`.
    Item,
    /// An `IteratorResult`, for an item and for the end.
    Result,
}

/// The progress of a pull.
#[derive(Debug)]
pub(super) enum PullPhase {
    /// Not started.
    New,
    /// Waiting in the FIFO queue for another pull to end.
    Queued(Box<Parked>),
    /// Owner of the lock, waiting until another link's pipeline has left this link.
    Detaching(Box<Parked>),
    /// Owner of the lock, suspended. The link's [`SuspendedPull`] holds the details.
    Suspended,
    /// Waiting for an item of the buffer that is the link's source.
    Getting(Box<PendingGet>),
    Done,
}

/// A request for one item of a link.
#[derive(Debug)]
pub(crate) struct Pull {
    /// `None` during a step, which then holds the reference, and once the pull is finished.
    link: Option<Py<PyPullLink>>,
    pub(super) format: ResultFormat,
    pub(super) waiter: WaiterId,
    phase: PullPhase,
    /// It has yielded to the event loop for the yield budget.
    pub(super) has_yielded: bool,
}

impl Pull {
    /// Create an awaitable that has not started.
    #[inline]
    pub(crate) fn make(
        link: Bound<'_, PyPullLink>,
        format: ResultFormat,
    ) -> PyResult<Bound<'_, PyAny>> {
        let py = link.py();
        Native::alloc(py, || Self::new(link, format))
    }

    /// Create a pull that has not started.
    #[inline]
    pub(crate) fn new(link: Bound<'_, PyPullLink>, format: ResultFormat) -> Self {
        Self {
            link: Some(link.unbind()),
            format,
            waiter: UNQUEUED,
            phase: PullPhase::New,
            has_yielded: false,
        }
    }

    /// Return whether the pull has not started, or has only yielded to the event loop.
    pub(super) fn is_new(&self) -> bool {
        matches!(self.phase, PullPhase::New)
    }

    /// Run the first step. The path of a ready item is short and in one piece; every other case
    /// branches off here.
    #[inline]
    fn begin<'py>(&mut self, link: &Bound<'py, PyPullLink>) -> Result<Step<'py>, RaisedError> {
        let py = link.py();
        let this = link.get();
        let mut pipeline = match Self::start(link)? {
            Start::Pipeline(pipeline) => pipeline,
            other => return self.begin_without_pipeline(link, other),
        };
        match pipeline.advance(py, link, None) {
            Ok(Advance::Item(item)) if self.format == ResultFormat::Item => {
                pipeline.set_idle(py);
                let alone = this.state.borrow(py).stop(pipeline);
                if !alone {
                    self.leave(link);
                }
                Ok(Step::Return(item))
            }
            outcome => {
                let outcome = outcome.map_err(|raised| raised.fetch(py));
                RaisedError::set_from(py, self.finish(link, pipeline, outcome, None))
            }
        }
    }

    /// Run any step but the first.
    #[cold]
    fn step<'py>(
        &mut self,
        link: &Bound<'py, PyPullLink>,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<Step<'py>> {
        match std::mem::replace(&mut self.phase, PullPhase::Done) {
            PullPhase::Suspended => self.resume(link, Ok(value)),
            PullPhase::Queued(_) => self.on_turn(link),
            PullPhase::Detaching(_) => self.build(link),
            PullPhase::Getting(pending) => self.poll_get(link, pending),
            PullPhase::New | PullPhase::Done => {
                unreachable!("the caller handles a new pull, and a finished one is not stepped")
            }
        }
    }

    /// Resume a suspended pull.
    fn resume<'py>(
        &mut self,
        link: &Bound<'py, PyPullLink>,
        sent: Result<&Bound<'py, PyAny>, PyErr>,
    ) -> PyResult<Step<'py>> {
        let py = link.py();
        let (suspended, pipeline, closing) = {
            let mut state = link.get().state.borrow(py);
            let (suspended, pipeline) = (state.suspended.take(), state.pipeline.take());
            state.running = suspended.is_some() && pipeline.is_some();
            let closing = state.phase == Phase::Closed
                || matches!(&pipeline, Some(pipeline) if pipeline.is_interrupted());
            (suspended, pipeline, closing)
        };
        let (Some(suspended), Some(mut pipeline)) = (suspended, pipeline) else {
            self.leave(link);
            return Err(PyRuntimeError::new_err(
                "the garbage collector cleared this pull while it was suspended",
            ));
        };
        let SuspendedPull {
            point,
            cancels,
            interrupted,
            ..
        } = *suspended;
        let is_cancelled =
            |error: &PyErr| asyncio::is_cancelled_error(py, error) && cancels.rose_since(py);
        // Closing a link cancels the suspended pull once, even if the future could not be
        // cancelled. For a link upstream, which may stay open, this is an ordinary cancellation.
        let cancelled = |error: &PyErr| is_cancelled(error) || errors::is_closing(py, error);
        let is_cancelled_by_closing = |sent: &Result<&Bound<'py, PyAny>, PyErr>| match sent {
            Ok(_) => true,
            Err(error) => asyncio::is_cancelled_error(py, error) && !is_cancelled(error),
        };
        let sent = if closing && !interrupted && is_cancelled_by_closing(&sent) {
            Err(errors::closing(py))
        } else {
            sent
        };
        let mut outcome = pipeline.resume(py, link, point, sent, cancelled);
        if closing
            && !matches!(outcome, Ok(Advance::Suspend(..)))
            && !outcome.as_ref().is_err_and(is_cancelled)
        {
            outcome = Err(closed(py));
        }
        self.finish(link, pipeline, outcome, Some((cancels, closing)))
    }

    /// Return the pipeline to the link. Release the lock unless the pull is suspended.
    #[inline(never)]
    pub(super) fn finish<'py>(
        &mut self,
        link: &Bound<'py, PyPullLink>,
        pipeline: Box<Pipeline>,
        outcome: PyResult<Advance<'py>>,
        before: Option<(Cancels, bool)>,
    ) -> PyResult<Step<'py>> {
        let py = link.py();
        if let Ok(Advance::Suspend(suspended)) = outcome {
            let Suspension { point, object } = *suspended;
            self.suspend(link, pipeline, point, &object, before);
            return Ok(Step::Yield(object));
        }
        pipeline.set_idle(py);
        let (next, closers) = {
            let mut state = link.get().state.borrow(py);
            state.running = false;
            state.pipeline = Some(pipeline);
            if matches!(outcome, Ok(Advance::End)) && state.phase == Phase::Open {
                state.phase = Phase::Ended;
            }
            (state.lock.release(self.waiter), state.take_closers())
        };
        if next.is_some() || !closers.is_empty() {
            wake(next, closers);
        }
        match outcome {
            Ok(Advance::Item(item)) => self.deliver(item),
            Ok(Advance::End) => self.deliver_end(py),
            Ok(Advance::Suspend(..)) => unreachable!("handled above"),
            Err(error) => Err(error),
        }
    }

    fn suspend<'py>(
        &mut self,
        link: &Bound<'py, PyPullLink>,
        pipeline: Box<Pipeline>,
        point: SuspendPoint,
        object: &Bound<'py, PyAny>,
        before: Option<(Cancels, bool)>,
    ) {
        let py = link.py();
        let (cancels, interrupted) = before.unwrap_or_else(|| (Cancels::now(py), false));
        let suspended = Box::new(SuspendedPull {
            point,
            awaiting: object.clone().unbind(),
            cancels,
            interrupted,
        });
        let mut state = link.get().state.borrow(py);
        state.running = false;
        state.pipeline = Some(pipeline);
        state.suspended = Some(suspended);
        drop(state);
        self.suspend_in(link, PullPhase::Suspended);
        yield_budget::renew();
    }

    /// Suspend the pull. It holds its link until the next step.
    pub(super) fn suspend_in(&mut self, link: &Bound<'_, PyPullLink>, phase: PullPhase) {
        self.phase = phase;
        self.link = Some(link.clone().unbind());
    }

    /// Leave the queue, or release the lock.
    pub(super) fn leave(&mut self, link: &Bound<'_, PyPullLink>) {
        let (next, closers) = {
            let mut state = link.get().state.borrow(link.py());
            (state.lock.release(self.waiter), state.take_closers())
        };
        self.phase = PullPhase::Done;
        wake(next, closers);
    }

    pub(super) fn deliver<'py>(&mut self, item: Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        self.phase = PullPhase::Done;
        match self.format {
            ResultFormat::Item => Ok(Step::Return(item)),
            ResultFormat::Result => PyIteratorResult::item(item).map(Step::Return),
        }
    }

    #[cold]
    pub(super) fn deliver_end<'py>(&mut self, py: Python<'py>) -> PyResult<Step<'py>> {
        self.phase = PullPhase::Done;
        match self.format {
            ResultFormat::Item => Err(errors::end()),
            ResultFormat::Result => PyIteratorResult::end(py).map(Step::Return),
        }
    }
}

pub(super) fn closed(py: Python<'_>) -> PyErr {
    errors::closed(py, "the stream was closed while this pull was pending")
}

#[cold]
fn wake(next: Option<Waker>, closers: Vec<Waker>) {
    if let Some(next) = next {
        next.wake();
    }
    closers.into_iter().for_each(Waker::wake);
}

impl Coroutine for Pull {
    const NAME: &'static CStr = c"headrace._core.Pull";

    own_class!();

    #[expect(clippy::inline_always, reason = "it is the body of the slot")]
    #[inline(always)]
    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        let py = value.py();
        let Some(link) = self.link.take() else {
            unreachable!("a finished awaitable is not stepped again")
        };
        let link = link.into_bound(py);
        if matches!(self.phase, PullPhase::New) {
            return self.begin(&link);
        }
        RaisedError::set_from(py, self.step(&link, value))
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.link.is_none() && matches!(self.phase, PullPhase::New | PullPhase::Done)
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        if matches!(self.phase, PullPhase::Suspended)
            && let Some(link) = self.link.take()
        {
            self.phase = PullPhase::Done;
            return self.resume(&link.into_bound(py), Err(error));
        }
        self.abandon(py);
        Err(error)
    }

    fn abandon(&mut self, py: Python<'_>) {
        let Some(link) = self.link.take() else { return };
        let link = link.into_bound(py);
        match std::mem::replace(&mut self.phase, PullPhase::Done) {
            // Dropping the wait leaves the buffer's queue. The item is still in the buffer.
            PullPhase::New | PullPhase::Getting(..) | PullPhase::Done => {}
            PullPhase::Queued(_) | PullPhase::Detaching(_) => self.leave(&link),
            PullPhase::Suspended => {
                let (suspended, pipeline) = {
                    let mut state = link.get().state.borrow(py);
                    (state.suspended.take(), state.pipeline.take())
                };
                if let (Some(suspended), Some(mut pipeline)) = (suspended, pipeline) {
                    pipeline.abandon(&link, suspended.point);
                    pipeline.set_idle(py);
                    link.get().state.borrow(py).pipeline = Some(pipeline);
                }
                self.leave(&link);
            }
        }
    }
}

traverse!(Pull { link, phase });

traverse!(
    enum PullPhase {
        New {},
        Queued(parked),
        Detaching(parked),
        Suspended {},
        Getting(pending),
        Done {},
    }
);
