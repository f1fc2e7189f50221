//! `ConcurrentCalls`: the state that the driver, the calls and the consumer of one stream share.
//! `headrace/pull/_concurrent_map.py` derives from it.

use std::task::Waker;

use pyo3::exceptions::{PyAttributeError, PyBaseException};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PySet, PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::driver::CallDriver;
use super::keys::Keys;
use super::partitions::Claim;
use super::result_pull::ResultPull;
use super::state::{Outcome, Space, State, Waiter};
use crate::coroutine::{Native, Parked};
use crate::errors;
use crate::kernel::PyMapKernel;
use crate::object::gc::{self, Traverse, traverse};
use crate::object::gil_cell::GilCell;
use crate::runtime::asyncio;

/// See the [module](super).
#[pyclass(name = "ConcurrentCalls", frozen, subclass, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyConcurrentCalls {
    pub(super) kernel: Py<PyMapKernel>,
    pub(super) is_ordered: bool,
    /// `None` without a `partition_by`.
    pub(super) keys: Option<Keys>,
    /// The name of the calls, in messages and of their asyncio tasks.
    pub(super) call_name: Py<PyString>,
    /// The asyncio tasks of the running calls.
    pub(super) tasks: Py<PySet>,
    pub(super) state: GilCell<State>,
}

#[pymethods]
impl PyConcurrentCalls {
    /// `operator` is the name of the stream's class. Further arguments are those of the subclass.
    #[new]
    #[pyo3(signature = (kernel, operator, *_args, ordered, partition_by = None, **_kwargs))]
    fn new(
        py: Python<'_>,
        kernel: Py<PyMapKernel>,
        operator: &str,
        _args: &Bound<'_, PyTuple>,
        ordered: bool,
        partition_by: Option<&Bound<'_, PyAny>>,
        _kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        Ok(Self {
            kernel,
            is_ordered: ordered,
            keys: partition_by
                .map(|partition_by| Keys::new(operator, partition_by))
                .transpose()?,
            call_name: PyString::new(py, &format!("transform of {operator}")).unbind(),
            tasks: PySet::empty(py)?.unbind(),
            state: GilCell::default(),
        })
    }

    /// Return an awaitable for the next result.
    fn pull(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        let py = slf.py();
        Native::alloc(py, || ResultPull::new(slf.unbind()))
    }

    /// Pull a source and call the callable while there is space. Return at the end of the source, when the stream is closed, or after a
    /// restart.
    fn feed<'py>(
        slf: Bound<'py, Self>,
        source: &Bound<'py, PyAny>,
        event_loop: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let mut state = slf.get().state.borrow(py);
        let old = state.event_loop.replace(event_loop.clone().unbind());
        let cycle = state.cycle;
        drop(state);
        drop(old);
        Native::alloc(py, || {
            CallDriver::new(slf.unbind(), source, event_loop, cycle)
        })
    }

    /// Set the maximum number of running calls, of items that are held until their result is delivered, and of running calls of a key.
    fn resize(&self, py: Python<'_>, concurrency: usize, max_held: usize, per_key: usize) {
        let mut state = self.state.borrow(py);
        (state.concurrency, state.max_held) = (concurrency, max_held);
        state.partitions.set_per_key(per_key);
        let started = state.start_waiting();
        drop(state);
        started.into_iter().for_each(Waker::wake);
        self.wake_driver(py);
    }

    #[getter]
    fn partition_by<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.keys
            .as_ref()
            .and_then(|keys| keys.partition_by.get(py))
    }

    /// Replace the `partition_by`, from the next item on.
    #[setter]
    fn set_partition_by(&self, partition_by: &Bound<'_, PyAny>) -> PyResult<()> {
        match &self.keys {
            Some(keys) => keys.partition_by.set(partition_by),
            None => Err(PyAttributeError::new_err(
                "this stream has no partition_by that could be replaced; make it with one",
            )),
        }
    }

    /// Queue an error that is raised unchanged: it has its note already, or is not the callable's.
    fn put_error(&self, py: Python<'_>, error: Py<PyBaseException>) {
        self.put(py, Outcome::Error(error, None));
    }

    /// Wake the consumer if it waits and there is a result for it, or the end.
    pub(super) fn wake_consumer(&self, py: Python<'_>) {
        let waker = self.state.borrow(py).consumer_to_wake();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Start closing: drop the results, and those of the calls that still run.
    fn begin_closing(&self, py: Python<'_>) {
        let mut state = self.state.borrow(py);
        state.is_closing = true;
        let dropped = (
            std::mem::take(&mut state.ready),
            std::mem::take(&mut state.slots),
        );
        drop(state);
        drop(dropped);
    }

    /// Drop the results, and end a driver that waits for space.
    fn reset(&self, py: Python<'_>) -> PyResult<()> {
        let mut state = self.state.borrow(py);
        let old = State {
            concurrency: state.concurrency,
            max_held: state.max_held,
            cycle: state.cycle + 1,
            partitions: state.partitions.emptied(),
            ..State::default()
        };
        let old = std::mem::replace(&mut *state, old);
        drop(state);
        if let Some(keys) = &self.keys {
            keys.clear(py);
        }
        if let (Some(driver), Some(event_loop)) = (&old.driver, &old.event_loop)
            && !asyncio::is_closed(event_loop.bind(py))?
        {
            driver.waker.wake_by_ref();
        }
        Ok(())
    }

    #[getter]
    fn call_name<'py>(&self, py: Python<'py>) -> &Bound<'py, PyString> {
        self.call_name.bind(py)
    }

    /// Return the asyncio tasks of the running calls.
    #[getter]
    fn tasks<'py>(&self, py: Python<'py>) -> &Bound<'py, PySet> {
        self.tasks.bind(py)
    }

    /// Return the number of running calls.
    #[getter]
    fn running(&self, py: Python<'_>) -> usize {
        self.state.borrow(py).running
    }

    /// Return the number of items that wait for their key.
    #[getter]
    fn waiting(&self, py: Python<'_>) -> usize {
        self.state.borrow(py).partitions.waiting
    }

    /// Return the number of results that were not taken.
    #[getter]
    fn held(&self, py: Python<'_>) -> usize {
        let state = self.state.borrow(py);
        state.ready.len() + state.slots.held
    }

    #[getter]
    fn is_calling(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).is_calling
    }

    /// Return whether a pull waits for a result.
    #[getter]
    fn is_awaited(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).consumer.is_some()
    }

    /// Return whether the driver waits for space.
    #[getter]
    fn is_full(&self, py: Python<'_>) -> bool {
        let state = self.state.borrow(py);
        let waiter = state.driver.as_ref();
        let future = waiter.map(|waiter| waiter.future.clone_ref(py));
        drop(state);
        future.is_some_and(|future| !future.get().cancelled(py))
    }

    /// Return whether the source has ended.
    #[getter]
    fn is_ended(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).is_ended
    }

    #[setter]
    fn set_is_ended(&self, py: Python<'_>, is_ended: bool) {
        self.state.borrow(py).is_ended = is_ended;
    }

    #[getter]
    fn is_closing(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).is_closing
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| self.traverse(visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        if let Some(keys) = &self.keys {
            keys.partition_by.clear(py);
            keys.clear(py);
        }
        let state = self.state.take(py);
        drop(state);
    }
}

traverse!(PyConcurrentCalls {
    kernel,
    keys,
    tasks,
    state
});

impl PyConcurrentCalls {
    /// Take the next result, if there is one.
    #[inline]
    pub(super) fn take(&self, py: Python<'_>) -> Option<Outcome> {
        let mut state = self.state.borrow(py);
        let taken = state.ready.pop_front()?;
        let is_full = state.driver.is_some();
        drop(state);
        if is_full {
            self.wake_driver(py);
        }
        Some(taken)
    }

    pub(super) fn is_over(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).is_over()
    }

    /// Register the pull that waits.
    pub(super) fn set_consumer(&self, py: Python<'_>, parked: &Parked) -> PyResult<()> {
        let waiter = Waiter::of(py, parked)?;
        let old = self.state.borrow(py).consumer.replace(waiter);
        drop(old);
        // A result may have arrived while the future was made.
        self.wake_consumer(py);
        self.wake_driver(py);
        Ok(())
    }

    pub(super) fn remove_consumer(&self, py: Python<'_>) {
        let old = self.state.borrow(py).consumer.take();
        drop(old);
    }

    /// Register the driver that waits for space.
    pub(super) fn set_driver(&self, py: Python<'_>, parked: &Parked) -> PyResult<()> {
        let waiter = Waiter::of(py, parked)?;
        let old = self.state.borrow(py).driver.replace(waiter);
        drop(old);
        self.wake_driver(py);
        Ok(())
    }

    pub(super) fn remove_driver(&self, py: Python<'_>) {
        let old = self.state.borrow(py).driver.take();
        drop(old);
    }

    /// Wake the driver if it waits and there is space.
    fn wake_driver(&self, py: Python<'_>) {
        let mut state = self.state.borrow(py);
        let waiter = if state.has_space(self.is_ordered) {
            state.driver.take()
        } else {
            None
        };
        drop(state);
        if let Some(waiter) = waiter {
            waiter.waker.wake_by_ref();
        }
    }

    /// Return whether the driver of a cycle may pull.
    #[inline]
    pub(super) fn space(&self, py: Python<'_>, cycle: u64) -> Space {
        self.state.borrow(py).space(self.is_ordered, cycle)
    }

    /// Queue a result that is no call's.
    pub(super) fn put(&self, py: Python<'_>, outcome: Outcome) {
        let mut state = self.state.borrow(py);
        let slot = self.is_ordered.then(|| state.slots.add());
        state.put(slot, outcome);
        drop(state);
        self.wake_consumer(py);
    }

    /// Remove an item from its key, and start the calls of items that may start now.
    #[inline(never)]
    fn leave(&self, py: Python<'_>, claim: Claim) {
        let mut state = self.state.borrow(py);
        let idle_key = state.leave(claim);
        let started = state.start_waiting();
        drop(state);
        started.into_iter().for_each(Waker::wake);
        if let (Some(keys), Some(key)) = (&self.keys, idle_key) {
            keys.forget(key.bind(py));
        }
    }

    /// Queue the result of a call for an item, which is in its last step. `task` is its asyncio task, if known.
    pub(super) fn finish<'py>(
        slf: &Bound<'py, Self>,
        slot: Option<u64>,
        claim: Option<Claim>,
        result: PyResult<&Bound<'py, PyAny>>,
        item: &Bound<'py, PyAny>,
        task: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let mut state = this.state.borrow(py);
        let is_first_step = std::mem::take(&mut state.is_calling);
        let event_loop = state.event_loop.as_ref();
        let event_loop = event_loop.map(|event_loop| event_loop.bind(py).clone());
        drop(state);
        let task = match (task, event_loop) {
            (Some(task), _) => Some(task.clone()),
            (None, Some(event_loop)) => asyncio::current_task_of(&event_loop),
            (None, None) => None,
        };
        let mut outcome = match result {
            Ok(value) => Outcome::Value(value.clone().unbind()),
            Err(error) => Self::described(py, error, &this.call_name, item),
        };
        if let Some(task) = task {
            if let Outcome::Value(_) = &outcome
                && let Some(error) = asyncio::pending_cancellation(&task)?
            {
                // asyncio discards the value.
                outcome = Outcome::of_error(py, PyErr::from_value(error));
            }
            if !is_first_step {
                this.tasks.bind(py).discard(task)?;
            }
        }
        Self::end(slf, slot, claim, outcome)
    }

    /// Queue the result of a call that has ended.
    #[inline]
    pub(super) fn end(
        slf: &Bound<'_, Self>,
        slot: Option<u64>,
        claim: Option<Claim>,
        outcome: Outcome,
    ) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let mut state = if let Some(claim) = claim {
            this.leave(py, claim);
            this.state.borrow(py)
        } else {
            let mut state = this.state.borrow(py);
            state.running = state.running.saturating_sub(1);
            state
        };
        let dropped = if state.is_closing {
            Some(outcome)
        } else {
            state.put(slot, outcome);
            None
        };
        let consumer = state.consumer_to_wake();
        let is_full = state.driver.is_some();
        let is_idle = state.is_idle();
        drop(state);
        drop(dropped);
        if let Some(consumer) = consumer {
            consumer.wake();
        }
        if is_full {
            this.wake_driver(py);
        }
        if is_idle {
            slf.call_method0(intern!(py, "_on_idle"))?;
        }
        Ok(())
    }

    /// Return the error of a callable for an item as the consumer gets it.
    #[cold]
    pub(super) fn described(
        py: Python<'_>,
        error: PyErr,
        function: &Py<PyString>,
        item: &Bound<'_, PyAny>,
    ) -> Outcome {
        let callable = function.bind(py).to_string_lossy();
        let error = errors::from_callable(py, error, &callable, Some(item));
        Outcome::Error(error.into_value(py), Some(item.clone().unbind()))
    }
}
