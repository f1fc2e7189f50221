//! `Pull`: one `anext()`.

use std::ffi::CStr;
use std::task::Waker;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::buffer_source::Wanted;
use super::fifo::{FIRST, Ticket};
use super::link::PullLink;
use super::pipeline::{Advance, Line, Suspended};
use super::state::{Phase, Start};
use super::suspended::{Flight, Place};
use crate::coroutine::{Class, Coroutine, Native, Parked, Step};
use crate::errors;
use crate::errors::Raised;
use crate::object::gc::{Traverse, VisitError, Visitor};
use crate::object::iterator_result::IteratorResult;
use crate::runtime::asyncio;
use crate::runtime::asyncio::Cancels;
use crate::runtime::yield_budget;

/// How a pull gives its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The item; `StopAsyncIteration` at the end.
    Item,
    /// An `IteratorResult`, also at the end.
    Result,
}

/// Where a pull is.
#[derive(Debug)]
pub(super) enum Stage {
    /// Nothing was done yet.
    New,
    /// Another pull is under way.
    Queued(Box<Parked>),
    /// It is its turn, but the line of another link is inside this one.
    Claiming(Box<Parked>),
    /// It is its turn, and it is suspended; see the link's flight.
    Flying,
    /// It waits for an item of the buffer that its link is the far end of.
    Taking(Box<Wanted>),
    Done,
}

/// One item wanted of a link.
#[derive(Debug)]
pub(crate) struct Pull {
    /// `None` while a step runs, which then holds it, and once it is finished.
    link: Option<Py<PullLink>>,
    pub(super) delivery: Delivery,
    ticket: Ticket,
    stage: Stage,
    /// It has let the loop have its turn.
    pub(super) rested: bool,
}

static CLASS: Class = Class::new();

impl Pull {
    /// An awaitable that has not started.
    #[inline]
    pub(crate) fn make(
        link: Bound<'_, PullLink>,
        delivery: Delivery,
    ) -> PyResult<Bound<'_, PyAny>> {
        let py = link.py();
        Native::alloc(py, || Self::new(link, delivery))
    }

    /// A pull that has not started.
    #[inline]
    pub(crate) fn new(link: Bound<'_, PullLink>, delivery: Delivery) -> Self {
        Self {
            link: Some(link.unbind()),
            delivery,
            ticket: FIRST,
            stage: Stage::New,
            rested: false,
        }
    }

    /// Whether its next step is its first, or is as good as that.
    pub(super) fn is_new(&self) -> bool {
        matches!(self.stage, Stage::New)
    }

    /// The first step. The way of a ready item is short and in one piece; everything else branches
    /// off it.
    #[inline]
    fn begin<'py>(&mut self, link: &Bound<'py, PullLink>) -> Result<Step<'py>, Raised> {
        let py = link.py();
        let this = link.get();
        let mut line = match Self::start(link)? {
            Start::Line(line) => line,
            other => return self.begin_without(link, other),
        };
        match line.advance(py, link, None) {
            Ok(Advance::Item(item)) if self.delivery == Delivery::Item => {
                line.settle(py);
                let alone = this.state.borrow(py).stop(line);
                if !alone {
                    self.leave(link);
                }
                Ok(Step::Return(item))
            }
            outcome => {
                let outcome = outcome.map_err(|raised| raised.fetch(py));
                Raised::lower(py, self.finish(link, line, outcome, None))
            }
        }
    }

    /// Takes the turn and the line, if nothing is in the way.
    #[inline]
    pub(super) fn start(link: &Bound<'_, PullLink>) -> Result<Start, Raised> {
        let py = link.py();
        let this = link.get();
        this.home()
            .check(py, "stream")
            .map_err(|error| Raised::set(py, error))?;
        let started = this.state.borrow(py).start(py);
        Ok(started)
    }

    /// The first step where there is no line to be had at once.
    #[inline]
    pub(super) fn begin_without<'py>(
        &mut self,
        link: &Bound<'py, PullLink>,
        start: Start,
    ) -> Result<Step<'py>, Raised> {
        match start {
            Start::FarEnd(buffer) => self.take(link, buffer),
            Start::Line(_) | Start::Slow => Raised::lower(link.py(), self.begin_slowly(link)),
        }
    }

    /// The first step where something is in the way, or the line is not built yet.
    #[cold]
    fn begin_slowly<'py>(&mut self, link: &Bound<'py, PullLink>) -> PyResult<Step<'py>> {
        let py = link.py();
        let state = link.get().state.borrow(py);
        if state.phase != Phase::Open {
            // One that only rested was pending when the link was closed.
            let was_pending = self.rested && state.phase == Phase::Closed;
            drop(state);
            return match PullLink::find_far_end(link)? {
                Some(buffer) if was_pending => self.deliver_end_of(link, buffer.get()),
                None if was_pending => Err(closed(py)),
                _ => self.deliver_end(py),
            };
        }
        if state.running {
            drop(state);
            PullLink::refuse_own_source(link)?;
            return Err(PyRuntimeError::new_err(
                "this stream is being pulled already, from inside its own callable or by another thread: give each a branch of its tee()",
            ));
        }
        drop(state);
        if let Some(buffer) = PullLink::find_far_end(link)? {
            if let Some(item) = link.get().take_returned(py) {
                return self.deliver(item);
            }
            return self.take(link, buffer).map_err(|raised| raised.fetch(py));
        }
        let this = link.get();
        this.bind_loop(py)?;
        // Perhaps only the thread was unknown.
        let started = this.state.borrow(py).start(py);
        if let Start::Line(line) = started {
            return self.run_on(link, line);
        }
        let taken = this.state.borrow(py).turn.take();
        if taken {
            self.build(link)
        } else {
            self.queue(link)
        }
    }

    /// Waits for its turn.
    #[cold]
    fn queue<'py>(&mut self, link: &Bound<'py, PullLink>) -> PyResult<Step<'py>> {
        let py = link.py();
        link.get().bind_loop(py)?;
        PullLink::refuse_own_source(link)?;
        let parked = Parked::new(py)?;
        self.ticket = link.get().state.borrow(py).turn.queue(parked.waker());
        let future = parked.hand_up(py)?;
        self.wait_in(link, Stage::Queued(Box::new(parked)));
        yield_budget::renew();
        Ok(Step::Yield(future))
    }

    /// Builds the line, and runs it for the first time. The turn is this pull's.
    #[cold]
    fn build<'py>(&mut self, link: &Bound<'py, PullLink>) -> PyResult<Step<'py>> {
        let py = link.py();
        let this = link.get();
        let built = this.bind_loop(py).and_then(|()| {
            if let Some(parked) = this.release_claim(py)? {
                return Ok(Err(parked));
            }
            // Building may run Python code (a property of a subclass); nobody else builds
            // meanwhile.
            this.state.borrow(py).running = true;
            let line = Line::build(link);
            this.state.borrow(py).running = false;
            line.map(Ok)
        });
        match built {
            Ok(Ok(line)) => self.run(link, Box::new(line)),
            Ok(Err(parked)) => {
                let future = parked.hand_up(py)?;
                self.wait_in(link, Stage::Claiming(Box::new(parked)));
                yield_budget::renew();
                Ok(Step::Yield(future))
            }
            Err(error) => {
                self.leave(link);
                Err(error)
            }
        }
    }

    fn run<'py>(&mut self, link: &Bound<'py, PullLink>, line: Box<Line>) -> PyResult<Step<'py>> {
        link.get().state.borrow(link.py()).running = true;
        self.run_on(link, line)
    }

    /// Runs the line, which is marked as running.
    fn run_on<'py>(
        &mut self,
        link: &Bound<'py, PullLink>,
        mut line: Box<Line>,
    ) -> PyResult<Step<'py>> {
        let py = link.py();
        let outcome = line
            .advance(py, link, None)
            .map_err(|raised| raised.fetch(py));
        self.finish(link, line, outcome, None)
    }

    /// Its turn has come, or the link closed.
    fn called<'py>(&mut self, link: &Bound<'py, PullLink>) -> PyResult<Step<'py>> {
        let py = link.py();
        let (phase, mine, line) = {
            let mut state = link.get().state.borrow(py);
            let mine = state.turn.is_owner(self.ticket);
            let line = if mine && state.phase == Phase::Open {
                state.line.take()
            } else {
                None
            };
            (state.phase, mine, line)
        };
        match (phase, mine) {
            (Phase::Closed, _) => {
                self.leave(link);
                Err(closed(py))
            }
            (Phase::Ended, _) => {
                self.leave(link);
                self.deliver_end(py)
            }
            (Phase::Open, true) => match line {
                Some(line) => self.run(link, line),
                None => self.build(link),
            },
            (Phase::Open, false) => {
                // Somebody else resolved the future. The place in the queue is kept.
                let parked = Parked::new(py)?;
                link.get()
                    .state
                    .borrow(py)
                    .turn
                    .wait_with(self.ticket, parked.waker());
                let future = parked.hand_up(py)?;
                self.wait_in(link, Stage::Queued(Box::new(parked)));
                Ok(Step::Yield(future))
            }
        }
    }

    /// Any step but the first.
    #[cold]
    fn go_on<'py>(
        &mut self,
        link: &Bound<'py, PullLink>,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<Step<'py>> {
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Flying => self.resume(link, Ok(value)),
            Stage::Queued(_) => self.called(link),
            Stage::Claiming(_) => self.build(link),
            Stage::Taking(wanted) => self.wait_for(link, wanted),
            Stage::New | Stage::Done => {
                unreachable!("one is handled by the caller, the other not stepped again")
            }
        }
    }

    /// Goes on with a pull that was suspended.
    fn resume<'py>(
        &mut self,
        link: &Bound<'py, PullLink>,
        sent: Result<&Bound<'py, PyAny>, PyErr>,
    ) -> PyResult<Step<'py>> {
        let py = link.py();
        let (flight, line, closing) = {
            let mut state = link.get().state.borrow(py);
            let (flight, line) = (state.flight.take(), state.line.take());
            state.running = flight.is_some() && line.is_some();
            let upstream_closes = line.as_ref().is_some_and(|line| line.is_interrupted());
            let closing = state.phase == Phase::Closed || upstream_closes;
            (flight, line, closing)
        };
        let (Some(flight), Some(mut line)) = (flight, line) else {
            self.leave(link);
            return Err(PyRuntimeError::new_err(
                "this pull was collected while it was suspended",
            ));
        };
        let Flight {
            place,
            cancels,
            interrupted,
            ..
        } = *flight;
        let rose = |error: &PyErr| asyncio::is_cancelled_error(py, error) && cancels.rose_since(py);
        // A link that closes cancels what is under way, once, also where the future could not be
        // cancelled. To a link above, which perhaps does not close, its pull was cancelled like any.
        let cancelled = |error: &PyErr| rose(error) || errors::is_closing(py, error);
        let sent = match sent {
            Ok(_) if closing && !interrupted => Err(errors::closing(py)),
            Err(error)
                if closing
                    && !interrupted
                    && asyncio::is_cancelled_error(py, &error)
                    && !rose(&error) =>
            {
                Err(errors::closing(py))
            }
            sent => sent,
        };
        let mut outcome = line.resume(py, link, place, sent, cancelled);
        if closing
            && !matches!(outcome, Ok(Advance::Suspend(..)))
            && !outcome.as_ref().is_err_and(rose)
        {
            outcome = Err(closed(py));
        }
        self.finish(link, line, outcome, Some((cancels, closing)))
    }

    /// Puts the line back, and passes the turn on unless the pull is suspended.
    #[inline(never)]
    pub(super) fn finish<'py>(
        &mut self,
        link: &Bound<'py, PullLink>,
        line: Box<Line>,
        outcome: PyResult<Advance<'py>>,
        before: Option<(Cancels, bool)>,
    ) -> PyResult<Step<'py>> {
        let py = link.py();
        if let Ok(Advance::Suspend(suspended)) = outcome {
            let Suspended { place, object } = *suspended;
            self.suspend(link, line, place, &object, before);
            return Ok(Step::Yield(object));
        }
        line.settle(py);
        let (next, closers) = {
            let mut state = link.get().state.borrow(py);
            state.running = false;
            state.line = Some(line);
            if matches!(outcome, Ok(Advance::End)) && state.phase == Phase::Open {
                state.phase = Phase::Ended;
            }
            (state.turn.leave(self.ticket), state.take_closers())
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
        link: &Bound<'py, PullLink>,
        line: Box<Line>,
        place: Place,
        object: &Bound<'py, PyAny>,
        before: Option<(Cancels, bool)>,
    ) {
        let py = link.py();
        let (cancels, interrupted) = before.unwrap_or_else(|| (Cancels::now(py), false));
        let flight = Box::new(Flight {
            place,
            awaiting: object.clone().unbind(),
            cancels,
            interrupted,
        });
        let mut state = link.get().state.borrow(py);
        state.running = false;
        state.line = Some(line);
        state.flight = Some(flight);
        drop(state);
        self.wait_in(link, Stage::Flying);
        yield_budget::renew();
    }

    /// It is suspended: it holds its link until the next step.
    pub(super) fn wait_in(&mut self, link: &Bound<'_, PullLink>, stage: Stage) {
        self.stage = stage;
        self.link = Some(link.clone().unbind());
    }

    /// Gives up its place, wherever it is.
    fn leave(&mut self, link: &Bound<'_, PullLink>) {
        let (next, closers) = {
            let mut state = link.get().state.borrow(link.py());
            (state.turn.leave(self.ticket), state.take_closers())
        };
        self.stage = Stage::Done;
        wake(next, closers);
    }

    pub(super) fn deliver<'py>(&mut self, item: Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        self.stage = Stage::Done;
        match self.delivery {
            Delivery::Item => Ok(Step::Return(item)),
            Delivery::Result => IteratorResult::item(item).map(Step::Return),
        }
    }

    #[cold]
    pub(super) fn deliver_end<'py>(&mut self, py: Python<'py>) -> PyResult<Step<'py>> {
        self.stage = Stage::Done;
        match self.delivery {
            Delivery::Item => Err(errors::end()),
            Delivery::Result => IteratorResult::end(py).map(Step::Return),
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

    fn class() -> &'static Class {
        &CLASS
    }

    #[expect(clippy::inline_always, reason = "it is the body of the slot")]
    #[inline(always)]
    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, Raised> {
        let py = value.py();
        let Some(link) = self.link.take() else {
            unreachable!("a finished awaitable is not stepped again")
        };
        let link = link.into_bound(py);
        if matches!(self.stage, Stage::New) {
            return self.begin(&link);
        }
        Raised::lower(py, self.go_on(&link, value))
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.link.is_none() && matches!(self.stage, Stage::New | Stage::Done)
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        let Some(link) = self.link.take() else {
            return Err(error);
        };
        let link = link.into_bound(py);
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Flying => self.resume(&link, Err(error)),
            Stage::Queued(_) | Stage::Claiming(_) => {
                self.leave(&link);
                Err(error)
            }
            // Dropping the wait gives up its place; the item is still in the buffer.
            Stage::New | Stage::Taking(..) | Stage::Done => Err(error),
        }
    }

    fn abandon(&mut self, py: Python<'_>) {
        let Some(link) = self.link.take() else { return };
        let link = link.into_bound(py);
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::New | Stage::Taking(..) | Stage::Done => {}
            Stage::Queued(_) | Stage::Claiming(_) => self.leave(&link),
            Stage::Flying => {
                let (flight, line) = {
                    let mut state = link.get().state.borrow(py);
                    (state.flight.take(), state.line.take())
                };
                if let (Some(flight), Some(mut line)) = (flight, line) {
                    line.abandon(&link, flight.place);
                    line.settle(py);
                    link.get().state.borrow(py).line = Some(line);
                }
                self.leave(&link);
            }
        }
    }
}

impl Traverse for Pull {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        if let Some(link) = &self.link {
            visit(link.as_any())?;
        }
        match &self.stage {
            Stage::Queued(parked) | Stage::Claiming(parked) => parked.traverse(visit),
            Stage::Taking(wanted) => {
                visit(wanted.0.as_any())?;
                wanted.1.traverse(visit)
            }
            Stage::New | Stage::Flying | Stage::Done => Ok(()),
        }
    }
}
