//! `State`: the results, the waiting coroutines and the limits of a concurrent `map`. `calls.rs` holds it.

use std::collections::VecDeque;
use std::task::Waker;

use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;

use super::partitions::{Claim, Partitions};
use crate::coroutine::{Parked, PyFuture};
use crate::object::failed_item::PyFailedItem;
use crate::object::gc::traverse;
use crate::object::output_slots::OutputSlots;

/// The result of an item.
#[derive(Debug)]
pub(super) enum Outcome {
    Value(Py<PyAny>),
    /// An error, as the consumer gets it, and the item of its call.
    Error(Py<PyBaseException>, Option<Py<PyAny>>),
}

traverse!(
    enum Outcome {
        Value(value),
        Error(error, item),
    }
);

impl Outcome {
    pub(super) fn of_error(py: Python<'_>, error: PyErr) -> Self {
        Self::Error(error.into_value(py), None)
    }

    /// Return the value, or raise the error.
    #[inline]
    pub(super) fn into_result(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        match self {
            Self::Value(value) => Ok(value.into_bound(py)),
            Self::Error(error, item) => {
                let error = error.into_bound(py).into_any();
                if let Some(item) = item {
                    PyFailedItem::attach(&error, item.bind(py));
                }
                Err(PyErr::from_value(error))
            }
        }
    }
}

/// A coroutine that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) waker: Waker,
    pub(super) future: Py<PyFuture>,
    is_woken: bool,
}

traverse!(Waiter { future });

impl Waiter {
    pub(super) fn of(py: Python<'_>, parked: &Parked) -> PyResult<Self> {
        Ok(Self {
            waker: parked.waker(),
            future: parked.future(py)?.unbind(),
            is_woken: false,
        })
    }
}

/// The answer to whether the driver may pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    Free,
    Full,
    /// The driver must stop: the stream is being closed, or has another driver.
    Stop,
}

/// The state. `calls.rs` holds it in a cell.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The results that the consumer may take.
    pub(super) ready: VecDeque<Outcome>,
    /// If ordered, the slots of the calls whose results the consumer may not take yet: of the first running call and of all later calls.
    pub(super) slots: OutputSlots<Outcome>,
    /// The number of running calls.
    pub(super) running: usize,
    /// The items that wait for their key. None of them waits while no call runs, except while the stream is being closed.
    pub(super) partitions: Partitions,
    pub(super) concurrency: usize,
    pub(super) max_held: usize,
    /// The pull that waits for a result. The native link admits one pull at a time.
    pub(super) consumer: Option<Waiter>,
    /// The driver, while it waits for space.
    pub(super) driver: Option<Waiter>,
    pub(super) event_loop: Option<Py<PyAny>>,
    /// The number of restarts.
    pub(super) cycle: u64,
    /// Whether a call takes its first step, inside a step of the driver.
    pub(super) is_calling: bool,
    /// Whether the source has ended.
    pub(super) is_ended: bool,
    pub(super) is_closing: bool,
}

traverse!(State {
    ready,
    slots,
    partitions,
    consumer,
    driver,
    event_loop
});

impl State {
    /// Return whether the consumer need not wait: there is a result, or nothing will come.
    #[inline]
    fn is_readable(&self) -> bool {
        !self.ready.is_empty() || self.is_over()
    }

    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.is_idle() && self.ready.is_empty() && self.slots.len() == 0
    }

    /// Return whether the source has ended, and no call runs or will run.
    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        self.is_ended && self.running == 0 && self.partitions.waiting == 0
    }

    #[inline]
    pub(super) fn has_space(&self, is_ordered: bool) -> bool {
        let called = if is_ordered {
            self.slots.len()
        } else {
            self.running + self.partitions.waiting
        };
        let held = self.ready.len() + called;
        if self.concurrency == 1 {
            // No call runs ahead of its pull.
            return self.consumer.is_some() && self.running == 0 && held == 0;
        }
        self.running < self.concurrency && held < self.max_held
    }

    /// Return whether the driver of a cycle may pull.
    #[inline]
    pub(super) fn space(&self, is_ordered: bool, cycle: u64) -> Space {
        if self.is_closing || self.cycle != cycle {
            Space::Stop
        } else if self.has_space(is_ordered) {
            Space::Free
        } else {
            Space::Full
        }
    }

    /// Add an item of the key with this number. Return its claim, and whether its call starts at once.
    pub(super) fn enter(&mut self, number: u64, key: &Bound<'_, PyAny>) -> (Claim, bool) {
        let is_call_free = self.running < self.concurrency;
        let (claim, starts) = self.partitions.enter(number, key, is_call_free);
        self.running += usize::from(starts);
        (claim, starts)
    }

    /// Remove an item whose call has ended, or that was cancelled before. Return its key, if it is no longer in use.
    pub(super) fn leave(&mut self, claim: Claim) -> Option<Py<PyAny>> {
        let left = self.partitions.leave(claim);
        self.running = self.running.saturating_sub(usize::from(left.had_call));
        left.idle_key
    }

    /// Give the free calls to items that wait. Return their wakers.
    pub(super) fn start_waiting(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while !self.is_closing
            && self.running < self.concurrency
            && let Some(started) = self.partitions.start_next()
        {
            self.running += 1;
            wakers.extend(started.waker);
        }
        wakers
    }

    /// Queue an outcome: in its slot, or without a slot as the next result.
    #[inline]
    pub(super) fn put(&mut self, slot: Option<u64>, outcome: Outcome) {
        let Some(slot) = slot else {
            self.ready.push_back(outcome);
            return;
        };
        self.ready.extend(self.slots.hold(slot, outcome));
        self.ready.extend(self.slots.end(slot));
    }

    /// Return the waker of the consumer, if it waits and has something to take; once.
    #[inline]
    pub(super) fn consumer_to_wake(&mut self) -> Option<Waker> {
        if !self.is_readable() {
            return None;
        }
        let waiter = self.consumer.as_mut()?;
        let is_first = !std::mem::replace(&mut waiter.is_woken, true);
        is_first.then(|| waiter.waker.clone())
    }
}
