//! `Taking`: one `get()`.

use std::ffi::CStr;

use headrace_core::buffer::{self as core, Get, TryGetError};
use pyo3::prelude::*;

use super::queue::{Queue, shut_down};
use crate::awaitable::{Class, Coroutine, Pending, Seen, Step, Stopped};
use crate::errors::Raised;

/// One `get()`.
#[derive(Debug)]
pub(super) struct Taking {
    /// `None` while a step runs, which then holds it, and once it is finished.
    queue: Option<Py<Queue>>,
    waiting: Option<Box<Pending<Get<Py<PyAny>>>>>,
}

static TAKING: Class = Class::new();

impl Taking {
    #[inline]
    pub(super) fn new(queue: Bound<'_, Queue>) -> Self {
        Self {
            queue: Some(queue.unbind()),
            waiting: None,
        }
    }

    #[cold]
    fn step_slowly<'py>(&mut self, queue: Bound<'py, Queue>) -> PyResult<Step<'py>> {
        let py = queue.py();
        let core = queue.get().core(py)?;
        let mut waiting = self
            .waiting
            .take()
            .unwrap_or_else(|| Box::new(Pending::new(core.get())));
        match waiting.step(py)? {
            Ok(Ok(item)) => Ok(Step::Return(item.into_bound(py))),
            Ok(Err(core::Ended)) => Err(shut_down(py)),
            Err(object) => {
                self.waiting = Some(waiting);
                self.queue = Some(queue.unbind());
                Ok(Step::Yield(object))
            }
        }
    }
}

impl Coroutine for Taking {
    const NAME: &'static CStr = c"headrace._core.QueueGet";

    fn class() -> &'static Class {
        &TAKING
    }

    #[inline]
    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, Raised> {
        let py = value.py();
        let Some(queue) = self.queue.take() else {
            unreachable!("a finished awaitable is not stepped again")
        };
        let queue = queue.into_bound(py);
        if self.waiting.is_none() {
            match queue.get().usable(py)?.try_get() {
                Ok(item) => return Ok(Step::Return(item.into_bound(py))),
                Err(TryGetError::Ended) => return Err(Raised::set(py, shut_down(py))),
                Err(TryGetError::Empty) => {}
            }
        }
        Raised::lower(py, self.step_slowly(queue))
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        self.abandon(py);
        Err(error)
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.queue.is_none() && self.waiting.is_none()
    }

    fn traverse(&self, see: Seen<'_>) -> Result<(), Stopped> {
        if let Some(queue) = &self.queue {
            see(queue.as_any())?;
        }
        self.waiting
            .as_ref()
            .map_or(Ok(()), |waiting| waiting.traverse(see))
    }

    fn abandon(&mut self, _py: Python<'_>) {
        // Dropping the future gives up its place; the item is still in the queue.
        self.waiting = None;
        self.queue = None;
    }
}
