//! `TaskCoroutine`: the coroutine of an asyncio task that the core makes. `task_factory.rs` makes it.

use std::ffi::CStr;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use super::first_step::FirstAwait;
use crate::coroutine::type_object::MOST_KEPT;
use crate::coroutine::{Class, Coroutine, Step};
use crate::errors::RaisedError;
use crate::object::gc::{Traverse, VisitError, Visitor};
use crate::runtime::asyncio;

/// The work of an asyncio task. It reports its own end just before it returns or raises.
pub(crate) trait Body: Traverse + Sized + Send + 'static {
    /// The full name of the Python type of its coroutine.
    const NAME: &'static CStr;

    /// Return the type object of its coroutine.
    fn class() -> &'static Class;

    /// Take one step. `task` is the current asyncio task, if known.
    fn send<'py>(
        &mut self,
        value: &Bound<'py, PyAny>,
        task: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Step<'py>>;

    /// Take one step by throwing an error.
    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>>;
}

/// The result of a first step that the core took before the asyncio task took its own.
#[derive(Debug)]
enum FirstStep {
    /// No result, or one that the asyncio task has received.
    Nothing,
    /// The object that the task awaits.
    Waits(FirstAwait),
    Returned(Py<PyAny>),
    RaisedError(PyErr),
}

/// The coroutine. It ends with the result of the body, so that callbacks of the asyncio task see that.
#[derive(Debug)]
pub(crate) struct TaskCoroutine<B> {
    body: Option<B>,
    ahead: FirstStep,
}

impl<B: Body> TaskCoroutine<B> {
    pub(super) fn new(body: B) -> Self {
        Self {
            body: Some(body),
            ahead: FirstStep::Nothing,
        }
    }

    /// Return the work, until it has ended.
    pub(crate) fn body(&self) -> Option<&B> {
        self.body.as_ref()
    }

    /// Return the work, until it has ended.
    pub(crate) fn body_mut(&mut self) -> Option<&mut B> {
        self.body.as_mut()
    }

    #[inline]
    fn step<'py>(
        &mut self,
        value: &Bound<'py, PyAny>,
        task: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Step<'py>> {
        match &mut self.body {
            Some(body) => body.send(value, task),
            None => Ok(Step::Return(value.py().None().into_bound(value.py()))),
        }
    }

    /// Take the first step, with `task` as the current asyncio task, and store its result.
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

    /// Take a step for the asyncio task, or return the stored result of the first step.
    fn advance<'py>(&mut self, value: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = value.py();
        match std::mem::replace(&mut self.ahead, FirstStep::Nothing) {
            FirstStep::Nothing => self.step(value, None),
            // The task waits for one event-loop iteration, which has passed.
            FirstStep::Waits(held) if held.is_bare_yield(py) => self.step(value, None),
            FirstStep::Waits(held) => held.hand_up(py).map(Step::Yield),
            FirstStep::Returned(value) => Ok(Step::Return(value.into_bound(py))),
            FirstStep::RaisedError(error) => Err(error),
        }
    }

    /// Throw an error into the task. It replaces a stored result of the first step.
    fn throw_into<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        if let FirstStep::Waits(held) = std::mem::replace(&mut self.ahead, FirstStep::Nothing)
            && held.cancel(py, &error)?
        {
            return held.hand_up(py).map(Step::Yield);
        }
        match &mut self.body {
            Some(body) => body.throw(py, error),
            None => Err(error),
        }
    }
}

impl<B: Body> Coroutine for TaskCoroutine<B> {
    const NAME: &'static CStr = B::NAME;

    // As many coroutines run at a time as the user allows, and each new allocation brings the next garbage collection
    // closer.
    const FREE_LIST_SIZE: usize = MOST_KEPT;

    fn class() -> &'static Class {
        B::class()
    }

    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        let py = value.py();
        let stepped = self.advance(value);
        if stepped.is_err() {
            mark_retrieved(py);
        }
        RaisedError::set_from(py, stepped)
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        let stepped = self.throw_into(py, error);
        if stepped.is_err() {
            mark_retrieved(py);
        }
        stepped
    }

    fn abandon(&mut self, _py: Python<'_>) {
        self.body = None;
        self.ahead = FirstStep::Nothing;
    }
}

impl<B: Body> Traverse for TaskCoroutine<B> {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
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

/// Mark the error of the current asyncio task as retrieved, so that asyncio does not log it. It is reported in another way.
fn mark_retrieved(py: Python<'_>) {
    static MARK_RETRIEVED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let done = MARK_RETRIEVED
        .get_or_try_init(py, || {
            let module = py.import("headrace._internal.tasks")?;
            PyResult::Ok(module.getattr("mark_retrieved")?.unbind())
        })
        .and_then(|callback| match asyncio::current_task(py) {
            Some(task) => task
                .call_method1(intern!(py, "add_done_callback"), (callback,))
                .map(drop),
            None => Ok(()),
        });
    if let Err(error) = done {
        error.write_unraisable(py, None);
    }
}
