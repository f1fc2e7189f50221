//! An asyncio task that runs one plain task after another.

use std::ffi::CStr;

use pyo3::exceptions::PyGeneratorExit;
use pyo3::prelude::*;

use super::body::{Body, Call};
use super::crew::Crew;
use super::held::Held;
use super::lane::Lane;
use super::ticket::Ticket;
use crate::coroutine::{Class, Coroutine, Step};
use crate::errors::RaisedError;
use crate::object::gc::{Traverse, VisitError, Visitor};
use crate::runtime::asyncio::InContext;

/// A plain task on its way to a worker.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) call: Call,
    pub(super) ticket: Ticket,
    /// Its own; the worker enters it for each step.
    pub(super) context: Py<PyAny>,
}

/// A plain task that a worker runs.
#[derive(Debug)]
struct Running {
    body: Body,
    context: Py<PyAny>,
    /// What its first step came to wait for, until the worker's asyncio task knows.
    held: Option<Held>,
}

/// The coroutine of that asyncio task.
///
/// It is stepped in two ways. The launch of a plain task steps it in the name of its asyncio task, which parks on a future
/// meanwhile or has not begun, and that is the first step of the plain task; so it goes on as long as that waits for turns of
/// the loop alone. If the plain task has to wait for a future, the asyncio task is woken, takes up what is waited for, and takes
/// the steps that follow. If it has not, the asyncio task never hears of it.
#[derive(Debug)]
pub(crate) struct Worker {
    lane: Py<Lane>,
    number: usize,
    running: Option<Running>,
}

static CLASS: Class = Class::new();

impl Worker {
    pub(super) fn new(lane: Py<Lane>, number: usize) -> Self {
        Self {
            lane,
            number,
            running: None,
        }
    }

    /// The first step of a plain task.
    pub(super) fn begin<'py>(&mut self, task: &Bound<'py, PyAny>, job: Job) -> PyResult<Step<'py>> {
        self.running = Some(Running {
            body: Body::new(job.call, job.ticket, Some(self.number)),
            context: job.context,
            held: None,
        });
        self.step_ahead(task)
    }

    /// The turn of the loop that it waits for, if it does.
    pub(super) fn turn<'py>(&mut self, task: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = task.py();
        if let Some(running) = &mut self.running {
            let waited = running.held.take_if(|held| held.is_turn(py));
            if waited.is_some() {
                return self.step_ahead(task);
            }
        }
        Ok(Step::Yield(py.None().into_bound(py)))
    }

    /// A step of the plain task in the name of the asyncio task, which hears of it only if there is a future to wait for.
    /// Nobody looks at what it gives.
    fn step_ahead<'py>(&mut self, task: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = task.py();
        let nothing = py.None().into_bound(py);
        let Some(running) = &mut self.running else {
            return Ok(Step::Yield(nothing));
        };
        let stepped = {
            let _context = InContext::enter(running.context.bind(py))?;
            running.body.send(&self.lane, &nothing, Some(task))
        };
        let lane = self.lane.bind(py);
        if let Ok(Step::Yield(waits_for)) = stepped {
            let held = running.held.insert(Held::new(waits_for));
            if !(held.is_turn(py) && Crew::await_turn(lane, self.number)?) {
                Crew::wake(lane, self.number)?;
            }
        } else {
            // What it came to, the consumer was told.
            self.running = None;
            Crew::rest_ahead(lane, self.number)?;
        }
        Ok(Step::Yield(nothing))
    }

    /// A step of the asyncio task.
    fn go_on<'py>(&mut self, value: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = value.py();
        let Some(running) = &mut self.running else {
            return Crew::park(self.lane.bind(py), self.number);
        };
        match running.held.take() {
            Some(held) if !held.is_turn(py) => return held.hand_up(py).map(Step::Yield),
            _ => {}
        }
        let stepped = {
            let _context = InContext::enter(running.context.bind(py))?;
            running.body.send(&self.lane, value, None)
        };
        self.went(py, stepped)
    }

    /// What a step of the asyncio task came to.
    fn went<'py>(&mut self, py: Python<'py>, stepped: PyResult<Step<'py>>) -> PyResult<Step<'py>> {
        if let Ok(Step::Yield(waits_for)) = stepped {
            return Ok(Step::Yield(waits_for));
        }
        self.running = None;
        Crew::rest(self.lane.bind(py), self.number)
    }

    /// An error that the asyncio task throws in: as a rule somebody cancelled it.
    fn strike<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        let Some(running) = &mut self.running else {
            return Crew::struck(self.lane.bind(py), self.number, error);
        };
        match running.held.take() {
            Some(held) if held.is_turn(py) => Crew::take_over(self.lane.bind(py), self.number),
            Some(held) if held.cancel(py, &error)? => return held.hand_up(py).map(Step::Yield),
            _ => {}
        }
        // The loop is gone, or the coroutine is closed by hand: then it is over for the worker too.
        let is_closed = error.is_instance_of::<PyGeneratorExit>(py);
        let closing = is_closed.then(|| error.clone_ref(py));
        let stepped = {
            let _context = InContext::enter(running.context.bind(py))?;
            running.body.throw(&self.lane, py, error)
        };
        match closing {
            Some(closing) if !matches!(stepped, Ok(Step::Yield(_))) => Err(closing),
            _ => self.went(py, stepped),
        }
    }
}

impl Coroutine for Worker {
    const NAME: &'static CStr = c"headrace._core.Worker";

    fn class() -> &'static Class {
        &CLASS
    }

    #[inline]
    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        let py = value.py();
        let stepped = self.go_on(value);
        RaisedError::set_from(py, stepped)
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        self.strike(py, error)
    }

    fn abandon(&mut self, _py: Python<'_>) {
        self.running = None;
    }
}

impl Traverse for Worker {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        visit(self.lane.as_any())?;
        let Some(running) = &self.running else {
            return Ok(());
        };
        running.body.traverse(visit)?;
        visit(&running.context)?;
        running
            .held
            .as_ref()
            .map_or(Ok(()), |held| visit(held.object()))
    }
}
