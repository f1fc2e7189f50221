//! The coroutine of the asyncio task in which a task runs.

use std::ffi::CStr;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use super::engine::Engine;
use super::first_step::FirstAwait;
use super::task_body::{Call, TaskBody};
use super::task_record::TaskRecord;
use crate::coroutine::type_object::MOST_KEPT;
use crate::coroutine::{Class, Coroutine, Step};
use crate::errors::RaisedError;
use crate::object::gc::{Traverse, VisitError, Visitor};
use crate::runtime::asyncio;

/// The result of the first step, which was taken before the asyncio task took its own.
#[derive(Debug)]
enum FirstStep {
    /// There is none, or the asyncio task has it.
    Nothing,
    /// The task waits for this.
    Waits(FirstAwait),
    Returned(Py<PyAny>),
    RaisedError(PyErr),
}

/// It ends as the function ends, so that callbacks of the asyncio task see the result. The engine is notified just before.
#[derive(Debug)]
pub(crate) struct TaskCoroutine {
    engine: Py<Engine>,
    body: Option<TaskBody>,
    ahead: FirstStep,
}

static CLASS: Class = Class::new();

impl TaskCoroutine {
    pub(super) fn new(engine: Py<Engine>, call: Call, record: TaskRecord) -> Self {
        Self {
            engine,
            body: Some(TaskBody::new(call, record)),
            ahead: FirstStep::Nothing,
        }
    }

    #[inline]
    fn step<'py>(
        &mut self,
        value: &Bound<'py, PyAny>,
        task: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Step<'py>> {
        match &mut self.body {
            Some(body) => body.send(&self.engine, value, task),
            None => Ok(Step::Return(value.py().None().into_bound(value.py()))),
        }
    }

    /// Takes the first step, with `task` as the current one.
    pub(super) fn step_ahead<'py>(&mut self, task: &Bound<'py, PyAny>) -> Step<'py> {
        let py = task.py();
        let stepped = self.step(py.None().bind(py), Some(task));
        self.ahead = match stepped {
            Ok(Step::Yield(waits_for)) => FirstStep::Waits(FirstAwait::new(waits_for)),
            Ok(Step::Return(value)) => FirstStep::Returned(value.unbind()),
            Err(error) => FirstStep::RaisedError(error),
        };
        Step::Yield(py.None().into_bound(py))
    }

    /// Takes a step of the asyncio task itself.
    fn go_on<'py>(&mut self, value: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = value.py();
        match std::mem::replace(&mut self.ahead, FirstStep::Nothing) {
            FirstStep::Nothing => self.step(value, None),
            // It waits for one event-loop iteration, which this is.
            FirstStep::Waits(held) if held.is_bare_yield(py) => self.step(value, None),
            FirstStep::Waits(held) => held.hand_up(py).map(Step::Yield),
            FirstStep::Returned(value) => Ok(Step::Return(value.into_bound(py))),
            FirstStep::RaisedError(error) => Err(error),
        }
    }

    /// Throws an error in. It replaces the result of the first step, if the asyncio task does not have that yet.
    fn strike<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        if let FirstStep::Waits(held) = std::mem::replace(&mut self.ahead, FirstStep::Nothing)
            && held.cancel(py, &error)?
        {
            return held.hand_up(py).map(Step::Yield);
        }
        match &mut self.body {
            Some(body) => body.throw(&self.engine, py, error),
            None => Err(error),
        }
    }

    /// Keeps asyncio from logging that the error was never retrieved: an event reports it.
    fn read(py: Python<'_>) {
        static READ: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let done = READ
            .get_or_try_init(py, || {
                let module = py.import("headrace.pool.executor.loop")?;
                PyResult::Ok(module.getattr("mark_retrieved")?.unbind())
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

impl Coroutine for TaskCoroutine {
    const NAME: &'static CStr = c"headrace._core.TaskCoroutine";

    // As many may live at a time as the pool's limit says, and the collector counts what is allocated.
    const FREE_LIST_SIZE: usize = MOST_KEPT;

    fn class() -> &'static Class {
        &CLASS
    }

    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        let py = value.py();
        let stepped = self.go_on(value);
        if stepped.is_err() {
            Self::read(py);
        }
        RaisedError::set_from(py, stepped)
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        let stepped = self.strike(py, error);
        if stepped.is_err() {
            Self::read(py);
        }
        stepped
    }

    fn abandon(&mut self, _py: Python<'_>) {
        self.body = None;
        self.ahead = FirstStep::Nothing;
    }
}

impl Traverse for TaskCoroutine {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        visit(self.engine.as_any())?;
        if let Some(body) = &self.body {
            body.traverse(visit)?;
        }
        match &self.ahead {
            FirstStep::Waits(held) => visit(held.object()),
            FirstStep::Returned(value) => visit(value),
            FirstStep::Nothing | FirstStep::RaisedError(_) => Ok(()),
        }
    }
}
