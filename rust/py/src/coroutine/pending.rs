//! A future of the core on its way to being ready.
//!
//! It waits in two steps. First it takes its place in the line of the core and lets the loop have
//! one turn: on a busy loop what it waits for often comes in that very turn, and a bare turn costs
//! half of what a future costs that is made, awaited and resolved. Only if nothing came it waits on
//! a future of the loop.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use headrace_core::buffer::{Get, Put};
use pyo3::prelude::*;

use super::loop_mailbox::Forward;
use super::park::Parked;
use crate::object::gc::{Traverse, traverse};

/// A future that stands in a line of the core.
pub(crate) trait Placed: Future + Unpin {
    /// What gives up its place, should its loop be gone when it is woken.
    fn forward(&self) -> Option<Forward>;
}

impl Placed for Get<Py<PyAny>> {
    fn forward(&self) -> Option<Forward> {
        let position = self.queue_position()?;
        Some(Box::new(move || position.give_up()))
    }
}

impl Placed for Put<Py<PyAny>> {
    fn forward(&self) -> Option<Forward> {
        let position = self.queue_position()?;
        Some(Box::new(move || position.give_up()))
    }
}

/// See the top of this file. Dropping it gives up the place.
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

    /// The output; or what to hand up to the task before the next step.
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
        // Making the future was Python code, and what is waited for may have come meanwhile.
        let future = Pin::new(&mut self.future);
        match future.poll(&mut Context::from_waker(parked.as_waker())) {
            Poll::Ready(output) => {
                self.parked = None;
                Ok(Ok(output))
            }
            Poll::Pending => {
                // It may have begun to wait anew, if its place was given up.
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
