//! `Storing`: one `put()`.

use std::ffi::CStr;

use headrace_core::buffer::{Put, PutError};
use pyo3::prelude::*;

use super::queue::{Queue, refusal};
use crate::awaitable::{Class, Coroutine, Pending, Seen, Step, Stopped};
use crate::errors::Raised;

/// One `put()`.
#[derive(Debug)]
pub(super) struct Storing {
    /// `None` while a step runs, which then holds it, and once it is finished.
    queue: Option<Py<Queue>>,
    /// Until the first step.
    item: Option<Py<PyAny>>,
    waiting: Option<Box<Pending<Put<Py<PyAny>>>>>,
}

static STORING: Class = Class::new();

impl Storing {
    #[inline]
    pub(super) fn new(queue: Bound<'_, Queue>, item: Bound<'_, PyAny>) -> Self {
        Self {
            queue: Some(queue.unbind()),
            item: Some(item.unbind()),
            waiting: None,
        }
    }

    #[cold]
    fn step_slowly<'py>(
        &mut self,
        queue: Bound<'py, Queue>,
        mut waiting: Box<Pending<Put<Py<PyAny>>>>,
    ) -> PyResult<Step<'py>> {
        let py = queue.py();
        queue.get().core(py)?;
        match waiting.step(py)? {
            Ok(Ok(())) => Ok(Step::Return(py.None().into_bound(py))),
            Ok(Err(refused)) => Err(refusal(py, refused)),
            Err(object) => {
                self.waiting = Some(waiting);
                self.queue = Some(queue.unbind());
                Ok(Step::Yield(object))
            }
        }
    }
}

impl Coroutine for Storing {
    const NAME: &'static CStr = c"headrace._core.QueuePut";

    fn class() -> &'static Class {
        &STORING
    }

    #[inline]
    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, Raised> {
        let py = value.py();
        let Some(queue) = self.queue.take() else {
            unreachable!("a finished awaitable is not stepped again")
        };
        let queue = queue.into_bound(py);
        let waiting = match self.item.take() {
            None => self.waiting.take().expect("it waits if it has no item"),
            Some(item) => {
                let core = queue.get().usable(py)?;
                match core.try_put(item) {
                    Ok(()) => return Ok(Step::Return(value.clone())),
                    Err(PutError::Full(item)) => Box::new(Pending::new(core.put(item))),
                    Err(refused) => return Err(Raised::set(py, refusal(py, refused))),
                }
            }
        };
        Raised::lower(py, self.step_slowly(queue, waiting))
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        self.abandon(py);
        Err(error)
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.queue.is_none() && self.item.is_none() && self.waiting.is_none()
    }

    fn traverse(&self, see: Seen<'_>) -> Result<(), Stopped> {
        if let Some(queue) = &self.queue {
            see(queue.as_any())?;
        }
        if let Some(item) = &self.item {
            see(item)?;
        }
        let Some(waiting) = self.waiting.as_deref() else {
            return Ok(());
        };
        if let Some(item) = waiting.future.item() {
            see(item)?;
        }
        waiting.traverse(see)
    }

    fn abandon(&mut self, _py: Python<'_>) {
        // Dropping the future gives up its place; its item never left the caller.
        self.waiting = None;
        self.item = None;
        self.queue = None;
    }
}
