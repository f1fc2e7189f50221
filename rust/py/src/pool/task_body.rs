//! `TaskBody`: one attempt of a task, from its call to its end. The coroutine of its asyncio task drives it. `start.rs` makes it.

use std::ffi::CStr;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::emitter::PyEmitter;
use super::engine::PyEngine;
use super::task_record::TaskRecord;
use crate::asyncio_task::Body;
use crate::coroutine::delegate::is_awaitable;
use crate::coroutine::{Inner, Step, own_class};
use crate::object::gc::traverse;

/// The function to call, and its arguments.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) fn_: Py<PyAny>,
    pub(super) args: Option<Py<PyTuple>>,
    /// Whether the task has a context of its own, in which the variable that marks code inside the run is not set yet.
    pub(super) has_own_context: bool,
    /// Whether `current_lease()` returns the lease of the task.
    pub(super) has_lease: bool,
}

traverse!(Call { fn_, args });

/// The attempt. It calls the function, drives its result, and reports the end to the engine just before it returns or raises.
#[derive(Debug)]
pub(crate) struct TaskBody {
    engine: Py<PyEngine>,
    call: Option<Call>,
    /// `None` once the end was reported.
    record: Option<TaskRecord>,
    inner: Option<Inner>,
}

impl Body for TaskBody {
    const NAME: &'static CStr = c"headrace._core.TaskCoroutine";

    own_class!();

    #[inline]
    fn send<'py>(
        &mut self,
        value: &Bound<'py, PyAny>,
        task: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Step<'py>> {
        let stepped = match (&self.inner, self.call.take()) {
            (Some(inner), _) => inner.send(value),
            (None, Some(call)) => self.begin(value.py(), &call),
            (None, None) => Err(PyRuntimeError::new_err("a task was stepped after its end")),
        };
        self.finish_if_done(value.py(), stepped, task)
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        let stepped = match (&self.inner, self.call.take()) {
            (Some(inner), _) => inner.throw(py, error),
            // The task was cancelled before its first step.
            (None, _) => Err(error),
        };
        self.finish_if_done(py, stepped, None)
    }
}

impl TaskBody {
    pub(super) fn new(engine: Py<PyEngine>, call: Call, record: TaskRecord) -> Self {
        Self {
            engine,
            call: Some(call),
            record: Some(record),
            inner: None,
        }
    }

    /// Return the record of the task, until the end of the attempt.
    pub(super) fn record(&self) -> Option<&TaskRecord> {
        self.record.as_ref()
    }

    /// Take the record out, between two steps. It must be given back before the next one.
    pub(super) fn lend(&mut self) -> Option<TaskRecord> {
        self.record.take()
    }

    /// Take back the record that was lent.
    pub(super) fn take_back(&mut self, record: TaskRecord) {
        debug_assert!(self.record.is_none(), "the record was lent");
        self.record = Some(record);
    }

    /// Call the function, and take the first step of its result.
    fn begin<'py>(&mut self, py: Python<'py>, call: &Call) -> PyResult<Step<'py>> {
        let engine = self.engine.bind(py);
        let this = engine.get();
        let record = self.record.as_ref().expect("it has just been called");
        if call.has_own_context {
            set_variable(this.inside_variable.bind(py), this.inside.bind(py))?;
        }
        if let Some(lease) = record.grant.as_ref().and_then(|grant| grant.lease())
            && call.has_lease
        {
            // Each lease is a new object, so the variable never has it yet.
            replace_variable(this.lease_variable.bind(py), lease.bind(py))?;
        }
        let coroutine = if this.is_debug {
            let args = call.args.as_ref().map(|args| args.bind(py).clone());
            let args = args.unwrap_or_else(|| PyTuple::empty(py));
            let emitter = PyEmitter::make(engine, record)?;
            (this.policy.bind(py)).call_method1(intern!(py, "watch"), (&call.fn_, args, emitter))?
        } else {
            let result = match &call.args {
                None => call.fn_.bind(py).call0()?,
                Some(args) => call.fn_.bind(py).call1(args.bind(py))?,
            };
            if Inner::is_coroutine(&result) {
                result
            } else if is_awaitable(&result) || result.hasattr(intern!(py, "__anext__"))? {
                let emitter = PyEmitter::make(engine, record)?;
                (this.policy.bind(py)).call_method1(intern!(py, "rest"), (result, emitter))?
            } else {
                return Ok(Step::Return(result));
            }
        };
        let inner = self.inner.insert(Inner::of(coroutine)?);
        inner.send(py.None().bind(py))
    }

    /// Report the end of the attempt to the engine, if this step was the last one.
    fn finish_if_done<'py>(
        &mut self,
        py: Python<'py>,
        stepped: PyResult<Step<'py>>,
        task: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Step<'py>> {
        let ended = match stepped {
            Ok(Step::Yield(waits_for)) => return Ok(Step::Yield(waits_for)),
            Ok(Step::Return(value)) => Ok(value),
            Err(error) => Err(error),
        };
        self.inner = None;
        let Some(record) = self.record.take() else {
            return ended.map(Step::Return);
        };
        let engine = self.engine.bind(py);
        match ended {
            Ok(value) => {
                PyEngine::returned(engine, record, &value, task)?;
                Ok(Step::Return(value))
            }
            Err(error) => {
                if PyEngine::raised(engine, record, error.clone_ref(py))? {
                    Err(error)
                } else {
                    Ok(Step::Return(py.None().into_bound(py)))
                }
            }
        }
    }
}

traverse!(TaskBody {
    engine,
    call,
    record,
    inner
});

/// Set a context variable in the current context, unless it has that value: setting costs several times as much as reading.
fn set_variable(variable: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    // SAFETY: attached, and a live object; CPython refuses an object that is no context variable. The value is an owned reference, or
    // null.
    let current = unsafe {
        let mut current = std::ptr::null_mut();
        if ffi::PyContextVar_Get(variable.as_ptr(), std::ptr::null_mut(), &raw mut current) < 0 {
            return Err(PyErr::fetch(variable.py()));
        }
        Bound::from_owned_ptr_or_opt(variable.py(), current)
    };
    if current.is_some_and(|current| current.is(value)) {
        return Ok(());
    }
    replace_variable(variable, value)
}

/// Set a context variable in the current context.
fn replace_variable(variable: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    // SAFETY: as above, with two live objects. The token is an owned reference, or null.
    let token = unsafe {
        Bound::from_owned_ptr_or_err(
            variable.py(),
            ffi::PyContextVar_Set(variable.as_ptr(), value.as_ptr()),
        )
    };
    token.map(drop)
}
