//! The body of the asyncio task in which a plain task runs.

use std::ffi::CStr;

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;

use super::lane::{Lane, Ticket};
use crate::asyncio;
use crate::awaitable::inner::is_awaitable;
use crate::awaitable::{Class, Coroutine, Inner, Seen, Step, Stopped};
use crate::errors::Raised;

/// What was done in the asyncio task's name before that had its first step.
#[derive(Debug)]
enum Ahead {
    /// Nothing, and nothing will be: the interpreter starts tasks eagerly by itself.
    Never,
    /// The next step is taken in its name.
    Due,
    /// The work waits for this.
    Waits(Py<PyAny>),
    Returned(Py<PyAny>),
    Raised(PyErr),
}

/// Calls the function and drives what it returns. It ends as the function ends, so that callbacks of
/// the asyncio task see what happened; the lane is told just before.
#[derive(Debug)]
pub(crate) struct Work {
    lane: Py<Lane>,
    call: Option<(Py<PyAny>, Option<Py<PyTuple>>)>,
    /// Until the lane was told.
    ticket: Option<Ticket>,
    inner: Option<Inner>,
    ahead: Ahead,
}

static CLASS: Class = Class::new();

impl Work {
    pub(super) fn new(
        lane: Py<Lane>,
        fn_: Py<PyAny>,
        args: Option<Py<PyTuple>>,
        ticket: Ticket,
        ahead: bool,
    ) -> Self {
        Self {
            lane,
            call: Some((fn_, args)),
            ticket: Some(ticket),
            inner: None,
            ahead: if ahead { Ahead::Due } else { Ahead::Never },
        }
    }

    /// One step of the work, and what the lane makes of its end.
    fn step<'py>(&mut self, value: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = value.py();
        let stepped = match (&self.inner, self.call.take()) {
            (Some(inner), _) => inner.send(value),
            (None, Some((fn_, args))) => self.begin(py, &fn_, args.as_ref()),
            (None, None) => Err(PyRuntimeError::new_err("a task was stepped after its end")),
        };
        self.judge(py, stepped)
    }

    /// Calls the function, and does the first step of what it returned.
    fn begin<'py>(
        &mut self,
        py: Python<'py>,
        fn_: &Py<PyAny>,
        args: Option<&Py<PyTuple>>,
    ) -> PyResult<Step<'py>> {
        let result = match args {
            None => fn_.bind(py).call0()?,
            Some(args) => fn_.bind(py).call1(args.bind(py))?,
        };
        let coroutine = if Inner::is_coroutine(&result) {
            result
        } else if is_awaitable(&result) || result.hasattr(intern!(py, "__anext__"))? {
            let ticket = self.ticket.as_ref().expect("it has just been called");
            self.lane.get().rest(result, ticket)?
        } else {
            return Ok(Step::Return(result));
        };
        let inner = self.inner.insert(Inner::of(coroutine)?);
        inner.send(py.None().bind(py))
    }

    /// Tells the lane if that was the end.
    fn judge<'py>(&mut self, py: Python<'py>, stepped: PyResult<Step<'py>>) -> PyResult<Step<'py>> {
        let ended = match stepped {
            Ok(Step::Yield(waits_for)) => return Ok(Step::Yield(waits_for)),
            Ok(Step::Return(value)) => Ok(value),
            Err(error) => Err(error),
        };
        self.inner = None;
        let Some(ticket) = self.ticket.take() else {
            return ended.map(Step::Return);
        };
        match ended {
            Ok(value) => {
                self.lane.get().returned(py, ticket, &value)?;
                Ok(Step::Return(value))
            }
            Err(error) => {
                if self.lane.get().raised(py, ticket, &error)? {
                    Err(error)
                } else {
                    Ok(Step::Return(py.None().into_bound(py)))
                }
            }
        }
    }

    /// The step that the launch takes in the name of the task.
    fn step_ahead<'py>(&mut self, value: &Bound<'py, PyAny>) -> Step<'py> {
        let py = value.py();
        self.ahead = match self.step(value) {
            Ok(Step::Yield(waits_for)) => Ahead::Waits(waits_for.unbind()),
            Ok(Step::Return(value)) => Ahead::Returned(value.unbind()),
            Err(error) => Ahead::Raised(error),
        };
        Step::Yield(py.None().into_bound(py))
    }

    /// A step of the task itself.
    fn go_on<'py>(&mut self, value: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = value.py();
        match std::mem::replace(&mut self.ahead, Ahead::Never) {
            Ahead::Never => self.step(value),
            Ahead::Due => Ok(self.step_ahead(value)),
            // It was to wait for one turn, which this is.
            Ahead::Waits(turn) if turn.is_none(py) => self.step(value),
            Ahead::Waits(future) => Ok(Step::Yield(future.into_bound(py))),
            Ahead::Returned(value) => Ok(Step::Return(value.into_bound(py))),
            Ahead::Raised(error) => Err(error),
        }
    }

    /// The error is told by an envelope: asyncio need not log that nobody asked the task for it.
    fn read(py: Python<'_>) {
        static READ: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let done = READ
            .get_or_try_init(py, || {
                let module = py.import("headrace.pool.executor.loop")?;
                PyResult::Ok(module.getattr("read")?.unbind())
            })
            .and_then(|read| match asyncio::current_task(py) {
                Some(task) => task
                    .call_method1(intern!(py, "add_done_callback"), (read,))
                    .map(drop),
                None => Ok(()),
            });
        if let Err(error) = done {
            error.write_unraisable(py, None);
        }
    }
}

impl Coroutine for Work {
    const NAME: &'static CStr = c"headrace._core.Work";

    fn class() -> &'static Class {
        &CLASS
    }

    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, Raised> {
        let py = value.py();
        let stepped = self.go_on(value);
        if stepped.is_err() {
            Self::read(py);
        }
        Raised::lower(py, stepped)
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        // What it was about to wait for, or ended with, before the task had its first step, gives way.
        self.ahead = Ahead::Never;
        let Some(inner) = &self.inner else {
            return Err(error);
        };
        let stepped = inner.throw(py, error);
        let stepped = self.judge(py, stepped);
        if stepped.is_err() {
            Self::read(py);
        }
        stepped
    }

    fn traverse(&self, see: Seen<'_>) -> Result<(), Stopped> {
        see(self.lane.as_any())?;
        if let Some((fn_, args)) = &self.call {
            see(fn_)?;
            if let Some(args) = args {
                see(args.as_any())?;
            }
        }
        if let Some(inner) = &self.inner {
            see(inner.object())?;
        }
        match &self.ahead {
            Ahead::Waits(held) | Ahead::Returned(held) => see(held),
            Ahead::Never | Ahead::Due | Ahead::Raised(_) => Ok(()),
        }
    }

    fn abandon(&mut self, _py: Python<'_>) {
        self.call = None;
        self.inner = None;
        self.ticket = None;
        self.ahead = Ahead::Never;
    }
}
