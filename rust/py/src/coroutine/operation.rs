//! An awaitable over a future of the core. `signal.rs`, `line_writer.rs` and `capacity/lease.rs` use it.

use std::ffi::CStr;
use std::task::{Context, Poll, Waker};

use pyo3::prelude::*;

use crate::errors::RaisedError;

use super::{Class, Coroutine, Native, Parked, Step};
use crate::object::gc::{Traverse, traverse};

/// A future of the core that Python can await.
pub(crate) trait Operation: Traverse + Sized + Send + 'static {
    /// The full name of the Python type.
    const NAME: &'static CStr;

    /// Return the type object.
    fn class() -> &'static Class;

    /// Poll for the result, and join the wait queue if there is none yet. Called on the event loop's thread only.
    fn poll<'py>(
        &mut self,
        py: Python<'py>,
        context: &mut Context<'_>,
    ) -> Poll<PyResult<Bound<'py, PyAny>>>;

    /// Return the function that leaves the wait queue if the event loop is gone at the wake-up.
    fn forward(&self) -> Option<Box<dyn FnOnce() + Send>> {
        None
    }
}

/// An [`Operation`] between its first poll and its result.
#[derive(Debug)]
pub(crate) struct Ready<O> {
    /// `None` after the result or a cancellation. Dropping it leaves the wait queue and passes on a notification that it received.
    operation: Option<O>,
    parked: Option<Parked>,
}

impl<O: Operation> Ready<O> {
    /// Make an awaitable that has not started.
    pub(crate) fn make(py: Python<'_>, operation: O) -> PyResult<Bound<'_, PyAny>> {
        Native::alloc(py, || Self {
            operation: Some(operation),
            parked: None,
        })
    }
}

impl<O: Operation> Ready<O> {
    fn step<'py>(&mut self, py: Python<'py>) -> PyResult<Step<'py>> {
        let operation = self
            .operation
            .as_mut()
            .expect("a finished awaitable is not stepped again");
        // First with a waker that does nothing: a ready result must not pay for a future.
        let mut outcome = operation.poll(py, &mut Context::from_waker(Waker::noop()));
        if outcome.is_pending() {
            let parked = Parked::new(py)?;
            // Replaces the idle waker. This poll finds a notification that arrived between the two polls.
            outcome = operation.poll(py, &mut Context::from_waker(parked.as_waker()));
            self.parked = Some(parked);
        }
        match outcome {
            Poll::Pending => {
                let parked = self.parked.as_ref().expect("it was parked just now");
                if let Some(forward) = operation.forward() {
                    parked.forward(py, forward);
                }
                Ok(Step::Yield(parked.hand_up(py)?))
            }
            Poll::Ready(result) => {
                self.parked = None;
                self.operation = None;
                result.map(Step::Return)
            }
        }
    }
}

impl<O: Operation> Coroutine for Ready<O> {
    const NAME: &'static CStr = O::NAME;

    fn class() -> &'static Class {
        O::class()
    }

    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        let py = value.py();
        RaisedError::set_from(py, self.step(py))
    }

    fn abandon(&mut self, _py: Python<'_>) {
        self.operation = None;
        self.parked = None;
    }
}

traverse!([O: Operation] Ready<O> { parked, operation });
