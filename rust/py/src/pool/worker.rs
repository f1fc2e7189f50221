//! An asyncio task that runs one plain task after another.

use std::ffi::CStr;

use pyo3::exceptions::PyGeneratorExit;
use pyo3::prelude::*;

use super::body::{Body, Call};
use super::crew::Crew;
use super::held::Held;
use super::lane::Lane;
use super::ticket::Ticket;
use crate::awaitable::{Class, Coroutine, Seen, Step, Stopped};
use crate::drive::merge::identity::InContext;
use crate::errors::Raised;

/// A plain task on its way to a worker.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) call: Call,
    pub(super) ticket: Ticket,
    /// Its own; the worker enters it for each step.
    pub(super) context: Py<PyAny>,
}

impl Job {
    pub(super) fn traverse(&self, see: Seen<'_>) -> Result<(), Stopped> {
        self.call.traverse(see)?;
        self.ticket.traverse(see)?;
        see(&self.context)
    }
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
/// meanwhile or has not begun, and that is the first step of the plain task. If the plain task has to wait, the
/// asyncio task is woken, takes up what is waited for, and takes the steps that follow. If it has not, the asyncio task never
/// hears of it.
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
    fn begin<'py>(&mut self, py: Python<'py>, job: Job) -> PyResult<Step<'py>> {
        let running = self.running.insert(Running {
            body: Body::new(job.call, job.ticket, Some(self.number)),
            context: job.context,
            held: None,
        });
        let stepped = {
            let _context = InContext::enter(running.context.bind(py))?;
            running.body.send(&self.lane, py.None().bind(py), None)
        };
        if let Ok(Step::Yield(waits_for)) = stepped {
            running.held = Some(Held::new(waits_for));
            Crew::wake(self.lane.bind(py), self.number)?;
        } else {
            // What it came to, the consumer was told.
            self.running = None;
            Crew::rest_ahead(self.lane.bind(py), self.number)?;
        }
        // Nobody looks at this.
        Ok(Step::Yield(py.None().into_bound(py)))
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
        if let Some(held) = running.held.take()
            && held.cancel(py, &error)?
        {
            return held.hand_up(py).map(Step::Yield);
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
    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, Raised> {
        let py = value.py();
        let stepped = match Crew::take_job(self.lane.bind(py)) {
            Some(job) => self.begin(py, job),
            None => self.go_on(value),
        };
        Raised::lower(py, stepped)
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        self.strike(py, error)
    }

    fn traverse(&self, see: Seen<'_>) -> Result<(), Stopped> {
        see(self.lane.as_any())?;
        let Some(running) = &self.running else {
            return Ok(());
        };
        running.body.traverse(see)?;
        see(&running.context)?;
        running
            .held
            .as_ref()
            .map_or(Ok(()), |held| see(held.object()))
    }

    fn abandon(&mut self, _py: Python<'_>) {
        self.running = None;
    }
}
