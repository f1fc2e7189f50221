//! `Asking`: one `get()` or `put()`, which differ in their [`Errand`] alone.

use std::ffi::CStr;
use std::future::Future;
use std::sync::Arc;

use pyo3::prelude::*;

use super::queue::{Core, Queue};
use crate::coroutine::pending::Placed;
use crate::coroutine::{Class, Coroutine, Pending, Step};
use crate::errors::RaisedError;
use crate::object::gc::{Traverse, traverse};

/// What somebody wants of a queue.
pub(super) trait Errand: Traverse + Sized + Send + 'static {
    /// The full name of the Python type.
    const NAME: &'static CStr;

    /// What to warn of if nobody awaited it.
    const NEGLECTED: Option<&'static CStr> = None;

    /// What waits, if it cannot be done at once.
    type Future: Placed + Traverse + Send;

    fn class() -> &'static Class;

    /// Does it now; or gives what waits for it, or the error.
    fn attempt<'py>(
        self,
        py: Python<'py>,
        core: &Arc<Core>,
    ) -> Result<Bound<'py, PyAny>, Refused<Self::Future>>;

    /// What the wait came to.
    fn conclude(
        py: Python<'_>,
        output: <Self::Future as Future>::Output,
    ) -> PyResult<Bound<'_, PyAny>>;
}

/// Why an errand was not done.
pub(super) enum Refused<F> {
    /// It has to wait.
    Waits(F),
    Failed(PyErr),
}

/// One errand.
#[derive(Debug)]
pub(super) struct Asking<E: Errand> {
    /// `None` while a step runs, which then holds it, and once it is finished.
    queue: Option<Py<Queue>>,
    /// Until the first step.
    errand: Option<E>,
    waiting: Option<Box<Pending<E::Future>>>,
}

impl<E: Errand> Asking<E> {
    #[inline]
    pub(super) fn new(queue: Bound<'_, Queue>, errand: E) -> Self {
        Self {
            queue: Some(queue.unbind()),
            errand: Some(errand),
            waiting: None,
        }
    }

    #[cold]
    fn wait<'py>(
        &mut self,
        queue: Bound<'py, Queue>,
        mut waiting: Box<Pending<E::Future>>,
    ) -> PyResult<Step<'py>> {
        let py = queue.py();
        queue.get().core(py)?;
        match waiting.step(py)? {
            Ok(output) => E::conclude(py, output).map(Step::Return),
            Err(object) => {
                self.waiting = Some(waiting);
                self.queue = Some(queue.unbind());
                Ok(Step::Yield(object))
            }
        }
    }
}

impl<E: Errand> Coroutine for Asking<E> {
    const NAME: &'static CStr = E::NAME;

    fn never_awaited_warning(&self) -> Option<&'static CStr> {
        self.errand.as_ref().and(E::NEGLECTED)
    }

    fn class() -> &'static Class {
        E::class()
    }

    #[inline]
    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        let py = value.py();
        let Some(queue) = self.queue.take() else {
            unreachable!("a finished awaitable is not stepped again")
        };
        let queue = queue.into_bound(py);
        let waiting = match self.errand.take() {
            None => self.waiting.take().expect("it waits if it has begun"),
            Some(errand) => match errand.attempt(py, queue.get().usable(py)?) {
                Ok(result) => return Ok(Step::Return(result)),
                Err(Refused::Waits(future)) => Box::new(Pending::new(future)),
                Err(Refused::Failed(error)) => return Err(RaisedError::set(py, error)),
            },
        };
        RaisedError::set_from(py, self.wait(queue, waiting))
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.queue.is_none() && self.errand.is_none() && self.waiting.is_none()
    }

    fn abandon(&mut self, _py: Python<'_>) {
        // Dropping the future gives up its place; what it would have taken is still in the queue, and what it would have
        // stored never left the caller.
        self.waiting = None;
        self.errand = None;
        self.queue = None;
    }
}

traverse!([E: Errand] Asking<E> { queue, errand, waiting });
