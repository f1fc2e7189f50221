//! A future of the core that waits, first for one event-loop iteration.
//! `operation.rs`, `buffer/queue_ops.rs`, and pulls and pushes that wait for a buffer use it.
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
    /// Return the function that leaves the wait queue if the event loop is gone at the wake-up.
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

    /// Return the output; or, as an error, the object to yield to the task before the next step.
    pub(crate) fn step<'py>(
        &mut self,
        py: Python<'py>,
    ) -> PyResult<Result<F::Output, Bound<'py, PyAny>>> {
        let Some(mut parked) = self.parked.take() else {
            return self.rest(py);
        };
        if let Poll::Ready(output) = self.poll(&parked) {
            return Ok(Ok(output));
        }
        parked.arm(py)?;
        // Making the future ran Python code, during which the result may have arrived.
        if let Poll::Ready(output) = self.poll(&parked) {
            return Ok(Ok(output));
        }
        let future = parked.hand_up(py)?;
        // It may have joined the queue again, if its position was given up.
        self.park(py, parked);
        Ok(Err(future))
    }

    /// Return the first step.
    fn rest<'py>(&mut self, py: Python<'py>) -> PyResult<Result<F::Output, Bound<'py, PyAny>>> {
        let parked = Parked::resting(py)?;
        if let Poll::Ready(output) = self.poll(&parked) {
            return Ok(Ok(output));
        }
        self.park(py, parked);
        Ok(Err(py.None().into_bound(py)))
    }

    fn poll(&mut self, parked: &Parked) -> Poll<F::Output> {
        Pin::new(&mut self.future).poll(&mut Context::from_waker(parked.as_waker()))
    }

    fn park(&mut self, py: Python<'_>, parked: Parked) {
        if let Some(forward) = self.future.forward() {
            parked.forward(py, forward);
        }
        self.parked = Some(parked);
    }
}

traverse!([F: Placed + Traverse] Pending<F> { future, parked });
