//! `Push`: one `next(item)`, or the flush before the end.

use std::ffi::CStr;
use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::deliver::{Carried, Mode};
use super::link::PushLink;
use super::pipeline::Line;
use super::resume::{Advance, Failure};
use super::wait::{Halt, Place};
use super::work_stack::Todo;
use crate::buffer::Buffer;
use crate::coroutine::{Class, Coroutine, Native, Step};
use crate::errors;
use crate::errors::RaisedError;
use crate::object::gc::{Traverse, VisitError, Visitor};
use crate::object::iterator_result::IteratorResult;
use crate::runtime::asyncio::Cancels;
use crate::runtime::yield_budget;

/// One item on its way down; or everything that a line still holds.
#[derive(Debug)]
pub(crate) struct Push {
    head: Py<PushLink>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    New(Py<PyAny>),
    NewFlush,
    /// A fan has carried it as far as it goes without waiting.
    Halted(Box<(Flight, Halt)>),
    Flying(Box<(Flight, Place, Since)>),
    Done,
}

/// How often its task had been asked to cancel when it first waited for code of somebody else's. Before
/// that, what is thrown in is a cancellation, and what comes out otherwise is not.
pub(super) type Since = Option<Cancels>;

/// A push between two steps.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) line: Arc<Line>,
    pub(super) todo: Todo,
}

static CLASS: Class = Class::new();

impl Push {
    /// An awaitable that has not started.
    #[inline]
    pub(super) fn make<'py>(
        head: Bound<'py, PushLink>,
        item: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = head.py();
        Native::alloc(py, || Self {
            head: head.unbind(),
            stage: Stage::New(item.unbind()),
        })
    }

    /// One that delivers what a line still holds, and gives the push object that the line ends in.
    pub(super) fn flush<'py>(head: &Bound<'py, PushLink>) -> PyResult<Bound<'py, PyAny>> {
        // Built now, so that what can fail afterwards is what is flushed.
        PushLink::line(head)?;
        let py = head.py();
        let head = head.clone().unbind();
        Native::alloc(py, || Self {
            head,
            stage: Stage::NewFlush,
        })
    }

    /// One that goes on from where it would have to wait.
    pub(super) fn halted<'py>(
        head: &Bound<'py, PushLink>,
        flight: Flight,
        halt: Halt,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = head.py();
        let stage = Stage::Halted(Box::new((flight, halt)));
        let head = head.clone().unbind();
        Native::alloc(py, || Self { head, stage })
    }

    fn step<'py>(&mut self, value: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = value.py();
        let head = self.head.bind(py).clone();
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::New(item) => self.begin(&head, &item.into_bound(py), || yield_budget::spend(py)),
            Stage::NewFlush => {
                let line = PushLink::line(&head)?;
                let mut todo = Todo::flush();
                todo.flushing = Some(0);
                let outcome = line.run(&head, &mut todo, None);
                self.begun(&head, Flight { line, todo }, outcome)
            }
            Stage::Halted(halted) => {
                let (mut flight, halt) = *halted;
                let outcome = flight.line.wait(&head, &mut flight.todo, halt);
                self.begun(&head, flight, outcome)
            }
            Stage::Flying(flying) => self.resume(&head, *flying, Ok(value)),
            Stage::Done => unreachable!("a finished awaitable is not stepped again"),
        }
    }

    /// The first step. The budget is asked only where an item may come in.
    fn begin<'py>(
        &mut self,
        head: &Bound<'py, PushLink>,
        item: &Bound<'py, PyAny>,
        rests: impl FnOnce() -> bool,
    ) -> PyResult<Step<'py>> {
        let py = head.py();
        let line = PushLink::open_line(head, item)?;
        let rests = rests();
        if line.stages.is_empty() && !rests {
            return self.hand_over(head, line, item);
        }
        let mut todo = Todo::of(item);
        let outcome = if rests {
            line.wait(head, &mut todo, Halt::Rest(Some(item.clone().unbind())))
        } else {
            line.run(head, &mut todo, Some((item.clone(), 0)))
        };
        // The way of an item that needs to wait for nothing is short: it moves nothing around.
        if let Ok(Advance::Done) = outcome {
            return todo.result(py).map(Step::Return);
        }
        self.begun(head, Flight { line, todo }, outcome)
    }

    /// The first step straight into a buffer, which mostly has room. That way is in one piece, and handed over by
    /// registers; everything else branches off it.
    #[inline]
    fn store<'py>(
        &mut self,
        py: Python<'py>,
        item: Py<PyAny>,
        buffer: Py<Buffer>,
    ) -> Result<Step<'py>, RaisedError> {
        let rests = yield_budget::spend(py);
        let item = if rests {
            item
        } else {
            match buffer.get().core().try_put(item) {
                Ok(()) => {
                    drop(buffer.into_bound(py));
                    return RaisedError::set_from(
                        py,
                        IteratorResult::accepted(py).map(Step::Return),
                    );
                }
                Err(refused) => refused.into_item(),
            }
        };
        // What was refused is offered once more, and then waits or comes back.
        let head = self.head.bind(py).clone();
        RaisedError::set_from(py, self.begin(&head, &item.into_bound(py), || rests))
    }

    /// The first step where nothing is made of the item on its way, so that there is nothing to take
    /// note of.
    #[inline(never)]
    fn hand_over<'py>(
        &mut self,
        head: &Bound<'py, PushLink>,
        line: Arc<Line>,
        item: &Bound<'py, PyAny>,
    ) -> PyResult<Step<'py>> {
        let py = head.py();
        match line.hand_over(head, item.clone(), Mode::Await, || None)? {
            Carried::Through => IteratorResult::accepted(py).map(Step::Return),
            Carried::Done => IteratorResult::end(py).map(Step::Return),
            Carried::Answered(result) => Ok(Step::Return(result)),
            Carried::Halted(halt) => {
                let mut todo = Todo::of(item);
                let outcome = line.wait(head, &mut todo, halt);
                self.begun(head, Flight { line, todo }, outcome)
            }
        }
    }

    /// What the first step came to.
    #[cold]
    fn begun<'py>(
        &mut self,
        head: &Bound<'py, PushLink>,
        flight: Flight,
        outcome: PyResult<Advance<'py>>,
    ) -> PyResult<Step<'py>> {
        match outcome {
            Ok(Advance::Done) => flight.arrive(head),
            Ok(Advance::Suspend(place, object)) => {
                self.suspend(head.py(), flight, place, None);
                Ok(Step::Yield(object))
            }
            Err(error) => Err(flight.fail(head, error, false)),
        }
    }

    fn resume<'py>(
        &mut self,
        head: &Bound<'py, PushLink>,
        (mut flight, place, since): (Flight, Place, Since),
        sent: Result<&Bound<'py, PyAny>, PyErr>,
    ) -> PyResult<Step<'py>> {
        let outcome = flight
            .line
            .resume(head, &mut flight.todo, place, sent, since);
        match outcome {
            Ok(Advance::Done) => flight.arrive(head),
            Ok(Advance::Suspend(place, object)) => {
                self.suspend(head.py(), flight, place, since);
                Ok(Step::Yield(object))
            }
            Err(Failure {
                error,
                was_cancelled,
            }) => Err(flight.fail(head, error, was_cancelled)),
        }
    }

    fn suspend(&mut self, py: Python<'_>, flight: Flight, place: Place, since: Since) {
        let since = since.or_else(|| place.runs_others().then(|| Cancels::now(py)));
        self.stage = Stage::Flying(Box::new((flight, place, since)));
        yield_budget::renew();
    }
}

impl Flight {
    #[inline]
    fn arrive<'py>(mut self, head: &Bound<'py, PushLink>) -> PyResult<Step<'py>> {
        if self.todo.flushing.is_some() {
            return Ok(Step::Return(self.line.tail(head)));
        }
        self.todo.result(head.py()).map(Step::Return)
    }

    /// Leaves what was taken at the links that took it, and says so in the error.
    #[cold]
    pub(super) fn fail(
        self,
        head: &Bound<'_, PushLink>,
        error: PyErr,
        was_cancelled: bool,
    ) -> PyErr {
        let py = head.py();
        let was_earlier = self.todo.callers_waits();
        let keepers = self.line.leave(head, self.todo, was_cancelled);
        // An exception that takes no attribute still has to arrive.
        let _ = if was_earlier {
            clear_keepers(py, &error)
        } else if keepers.is_empty() {
            Ok(())
        } else {
            name_keepers(py, &error, &keepers)
        };
        error
    }
}

/// Says in an error that it came while an earlier item was delivered, which had been kept.
fn clear_keepers(py: Python<'_>, error: &PyErr) -> PyResult<()> {
    error
        .value(py)
        .setattr(intern!(py, "accepted_by"), PyTuple::empty(py))?;
    errors::note(
        py,
        error,
        "this was an earlier item, which had been kept; the item that was pushed was not accepted",
    )
}

/// Adds to the `accepted_by` of an error.
fn name_keepers(py: Python<'_>, error: &PyErr, keepers: &[Py<PushLink>]) -> PyResult<()> {
    let name = intern!(py, "accepted_by");
    let value = error.value(py);
    let mut all = match value.getattr_opt(name)? {
        Some(known) => known.extract::<Vec<Bound<'_, PyAny>>>()?,
        None => Vec::new(),
    };
    for keeper in keepers {
        let keeper = keeper.bind(py).as_any();
        if !all.iter().any(|known| known.is(keeper)) {
            all.push(keeper.clone());
        }
        errors::note(
            py,
            error,
            &format!("the item was accepted by {}", keeper.repr()?),
        )?;
    }
    value.setattr(name, PyTuple::new(py, all)?)
}

impl Coroutine for Push {
    const NAME: &'static CStr = c"headrace._core.Push";

    fn never_awaited_warning(&self) -> Option<&'static CStr> {
        matches!(self.stage, Stage::New(_)).then_some(
            c"a push was never awaited, and its item went nowhere: write `await sink.next(item)`",
        )
    }

    fn class() -> &'static Class {
        &CLASS
    }

    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        let py = value.py();
        if matches!(self.stage, Stage::New(_))
            && let Some(buffer) = self.head.get().straight(py)
            && let Stage::New(item) = std::mem::replace(&mut self.stage, Stage::Done)
        {
            return self.store(py, item, buffer);
        }
        RaisedError::set_from(py, self.step(value))
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        let head = self.head.bind(py).clone();
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Flying(flying) => self.resume(&head, *flying, Err(error)),
            Stage::Halted(halted) => {
                let (mut flight, halt) = *halted;
                // It never began to wait; what a stage took before that is kept.
                flight.todo.give_up(py, halt)?;
                Err(flight.fail(&head, error, true))
            }
            Stage::New(_) | Stage::NewFlush | Stage::Done => Err(error),
        }
    }

    fn abandon(&mut self, py: Python<'_>) {
        let head = self.head.bind(py).clone();
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Flying(flying) => {
                let (mut flight, place, _) = *flying;
                flight.line.abandon(py, &mut flight.todo, place);
                flight.line.leave(&head, flight.todo, true);
            }
            Stage::Halted(halted) => {
                let (mut flight, halt) = *halted;
                if let Err(error) = flight.todo.give_up(py, halt) {
                    error.write_unraisable(py, None);
                }
                flight.line.leave(&head, flight.todo, true);
            }
            Stage::New(_) | Stage::NewFlush | Stage::Done => {}
        }
    }
}

impl Traverse for Push {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        visit(self.head.as_any())?;
        match &self.stage {
            Stage::New(item) => visit(item),
            Stage::Halted(halted) => {
                halted.0.todo.traverse(visit)?;
                halted.1.traverse(visit)
            }
            Stage::Flying(flying) => {
                flying.0.todo.traverse(visit)?;
                flying.1.traverse(visit)
            }
            Stage::NewFlush | Stage::Done => Ok(()),
        }
    }
}
