//! A future of the core that waits, first for one event-loop iteration.
//!
//! It waits in two steps. First it joins the wait queue of the core and yields for one event-loop iteration. On a busy event loop the
//! result often arrives in that iteration, and a bare yield costs half as much as making, awaiting and resolving a future. Only without
//! a result it waits on a future of the event loop.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use headrace_core::sync::{QueuedFuture, WaitQueues};
use pyo3::prelude::*;

use super::loop_mailbox::Forward;
use super::park::Parked;
use crate::object::gc::{Traverse, traverse};

/// A future that is in a wait queue of the core.
pub(crate) trait Placed: Future + Unpin {
    /// Returns the function that leaves the wait queue if the event loop is gone at the wake-up.
    fn forward(&self) -> Option<Forward>;
}

impl<F: QueuedFuture> Placed for F
where
    F::Owner: WaitQueues + Send + Sync + 'static,
{
    fn forward(&self) -> Option<Forward> {
        let position = self.queue_position()?;
        Some(Box::new(move || position.give_up()))
    }
}

/// A waiting future: see the top of this file. Dropping it leaves the wait queue.
#[derive(Debug)]
pub(crate) struct Pending<F> {
    pub(crate) future: F,
    parked: Option<Parked>,
}

impl<F: Placed> Pending<F> {
    pub(crate) fn new(future: F) -> Self {
        Self {
            future,
            parked: None,
        }
    }

    /// Returns the output; or, as an error, the object to yield to the task before the next step.
    pub(crate) fn step<'py>(
        &mut self,
        py: Python<'py>,
    ) -> PyResult<Result<F::Output, Bound<'py, PyAny>>> {
        let Some(parked) = &mut self.parked else {
            return self.rest(py);
        };
        let future = Pin::new(&mut self.future);
        if let Poll::Ready(output) = future.poll(&mut Context::from_waker(parked.as_waker())) {
            self.parked = None;
            return Ok(Ok(output));
        }
        parked.arm(py)?;
        // Making the future ran Python code, during which the result may have arrived.
        let future = Pin::new(&mut self.future);
        match future.poll(&mut Context::from_waker(parked.as_waker())) {
            Poll::Ready(output) => {
                self.parked = None;
                Ok(Ok(output))
            }
            Poll::Pending => {
                // It may have joined the queue again, if its position was given up.
                if let Some(forward) = self.future.forward() {
                    parked.forward(py, forward);
                }
                parked.hand_up(py).map(Err)
            }
        }
    }

    /// The first step.
    fn rest<'py>(&mut self, py: Python<'py>) -> PyResult<Result<F::Output, Bound<'py, PyAny>>> {
        let parked = Parked::resting(py)?;
        let future = Pin::new(&mut self.future);
        match future.poll(&mut Context::from_waker(parked.as_waker())) {
            Poll::Ready(output) => Ok(Ok(output)),
            Poll::Pending => {
                if let Some(forward) = self.future.forward() {
                    parked.forward(py, forward);
                }
                self.parked = Some(parked);
                Ok(Err(py.None().into_bound(py)))
            }
        }
    }
}

traverse!([F: Placed + Traverse] Pending<F> { future, parked });
