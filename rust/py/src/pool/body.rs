//! One plain task, from its call to its end, whoever steps it.

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::lane::Lane;
use super::ticket::Ticket;
use crate::coroutine::delegate::is_awaitable;
use crate::coroutine::{Inner, Step};
use crate::object::gc::traverse;

/// What is to be called.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) fn_: Py<PyAny>,
    pub(super) args: Option<Py<PyTuple>>,
}

traverse!(Call { fn_, args });

/// Calls the function, drives what it returns, and tells the lane of the end just before it ends itself.
#[derive(Debug)]
pub(super) struct Body {
    call: Option<Call>,
    /// Until the lane was told.
    ticket: Option<Ticket>,
    inner: Option<Inner>,
}

impl Body {
    pub(super) fn new(call: Call, ticket: Ticket) -> Self {
        Self {
            call: Some(call),
            ticket: Some(ticket),
            inner: None,
        }
    }

    /// One step, and what the lane makes of its end; `task` is the asyncio task that it is taken in, where that is known.
    #[inline]
    pub(super) fn send<'py>(
        &mut self,
        lane: &Py<Lane>,
        value: &Bound<'py, PyAny>,
        task: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Step<'py>> {
        let py = value.py();
        let stepped = match (&self.inner, self.call.take()) {
            (Some(inner), _) => inner.send(value),
            (None, Some(call)) => self.begin(lane, py, &call),
            (None, None) => Err(PyRuntimeError::new_err("a task was stepped after its end")),
        };
        self.judge(lane, py, stepped, task)
    }

    /// One step with an error thrown in.
    pub(super) fn throw<'py>(
        &mut self,
        lane: &Py<Lane>,
        py: Python<'py>,
        error: PyErr,
    ) -> PyResult<Step<'py>> {
        let Some(inner) = &self.inner else {
            return Err(error);
        };
        let stepped = inner.throw(py, error);
        self.judge(lane, py, stepped, None)
    }

    /// Calls the function, and does the first step of what it returned.
    fn begin<'py>(&mut self, lane: &Py<Lane>, py: Python<'py>, call: &Call) -> PyResult<Step<'py>> {
        let result = match &call.args {
            None => call.fn_.bind(py).call0()?,
            Some(args) => call.fn_.bind(py).call1(args.bind(py))?,
        };
        let coroutine = if Inner::is_coroutine(&result) {
            result
        } else if is_awaitable(&result) || result.hasattr(intern!(py, "__anext__"))? {
            let ticket = self.ticket.as_ref().expect("it has just been called");
            lane.get().rest(result, ticket)?
        } else {
            return Ok(Step::Return(result));
        };
        let inner = self.inner.insert(Inner::of(coroutine)?);
        inner.send(py.None().bind(py))
    }

    /// Tells the lane if that was the end.
    fn judge<'py>(
        &mut self,
        lane: &Py<Lane>,
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
        let Some(ticket) = self.ticket.take() else {
            return ended.map(Step::Return);
        };
        match ended {
            Ok(value) => {
                lane.get().returned(py, ticket, &value, task)?;
                Ok(Step::Return(value))
            }
            Err(error) => {
                if lane.get().raised(py, ticket, &error)? {
                    Err(error)
                } else {
                    Ok(Step::Return(py.None().into_bound(py)))
                }
            }
        }
    }
}

traverse!(Body {
    call,
    ticket,
    inner
});
