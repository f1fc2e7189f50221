//! `ConcurrentCalls`: the state that the driver, the calls and the consumer of one stream share.
//! `headrace/pull/_concurrent_map.py` derives from it.

use pyo3::exceptions::PyBaseException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PySet, PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::call_body::CallBody;
use super::driver::CallDriver;
use super::result_pull::ResultPull;
use super::state::{Outcome, Space, State, Waiter};
use crate::asyncio_task::{Options, TaskFactory};
use crate::coroutine::{Native, Parked};
use crate::errors::RaisedError;
use crate::kernel::{Kernel, Output, PyMapKernel};
use crate::object::gc::{self, Traverse, traverse};
use crate::object::gil_cell::GilCell;
use crate::runtime::asyncio;

/// See the [module](super).
#[pyclass(name = "ConcurrentCalls", frozen, subclass, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyConcurrentCalls {
    kernel: Py<PyMapKernel>,
    is_ordered: bool,
    /// The name of the calls, in messages and of their asyncio tasks.
    call_name: Py<PyString>,
    /// The asyncio tasks of the running calls.
    tasks: Py<PySet>,
    state: GilCell<State>,
}

#[pymethods]
impl PyConcurrentCalls {
    /// `operator` is the name of the stream's class. Further arguments are those of the subclass.
    #[new]
    #[pyo3(signature = (kernel, operator, *_args, ordered, **_kwargs))]
    fn new(
        py: Python<'_>,
        kernel: Py<PyMapKernel>,
        operator: &str,
        _args: &Bound<'_, PyTuple>,
        ordered: bool,
        _kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        Ok(Self {
            kernel,
            is_ordered: ordered,
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

    /// Set the maximum number of running calls, and of calls that run or wait to be delivered.
    fn resize(&self, py: Python<'_>, concurrency: usize, max_held: usize) {
        let mut state = self.state.borrow(py);
        (state.concurrency, state.max_held) = (concurrency, max_held);
        drop(state);
        self.wake_driver(py);
    }

    /// Queue an error that is raised unchanged: it has its note already, or is not the callable's.
    fn put_error(&self, py: Python<'_>, error: Py<PyBaseException>) {
        self.put(py, Outcome::Error(error));
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
            ..State::default()
        };
        let old = std::mem::replace(&mut *state, old);
        drop(state);
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
        let state = self.state.take(py);
        drop(state);
    }
}

traverse!(PyConcurrentCalls {
    kernel,
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
    fn put(&self, py: Python<'_>, outcome: Outcome) {
        let mut state = self.state.borrow(py);
        let slot = self.is_ordered.then(|| state.slots.add());
        state.put(slot, outcome);
        drop(state);
        self.wake_consumer(py);
    }

    /// Call the callable with an item. Its error is the result of the item. Return whether an asyncio task was started.
    pub(super) fn call<'py>(
        slf: &Bound<'py, Self>,
        item: &Bound<'py, PyAny>,
        factory: &TaskFactory,
    ) -> PyResult<bool> {
        let py = slf.py();
        let this = slf.get();
        // A source that ignores its cancellation may yield an item that is no longer needed.
        if this.state.borrow(py).is_closing {
            return Ok(false);
        }
        let output = this.kernel.get().process(item);
        match output.map_err(|raised: RaisedError| raised.fetch(py)) {
            Ok(Output::Await(awaitable)) => {
                Self::start(slf, awaitable, factory)?;
                return Ok(true);
            }
            Ok(Output::Emit(value)) => this.put(py, Outcome::Value(value.unbind())),
            Ok(_) => unreachable!("map emits or awaits"),
            Err(error) => this.put(py, Self::described(slf, error)),
        }
        Ok(false)
    }

    /// Start the asyncio task of a call.
    #[inline]
    fn start<'py>(
        slf: &Bound<'py, Self>,
        awaitable: Bound<'py, PyAny>,
        factory: &TaskFactory,
    ) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let options = Options {
            name: this.call_name.bind(py),
            context: &asyncio::copy_context(py)?,
        };
        let mut state = this.state.borrow(py);
        let slot = this.is_ordered.then(|| state.slots.add());
        state.running += 1;
        state.is_calling = true;
        drop(state);
        let body = CallBody::new(slf.clone().unbind(), awaitable.unbind(), slot);
        let started = factory.start(py, body, &options);
        let is_running = std::mem::take(&mut this.state.borrow(py).is_calling);
        match started {
            Ok(task) if is_running => this.tasks.bind(py).add(task),
            Ok(_) => Ok(()),
            Err(error) => Self::finish(slf, slot, Err(error), None),
        }
    }

    /// Queue the result of a call, which is in its last step. `task` is its asyncio task, if known.
    pub(super) fn finish<'py>(
        slf: &Bound<'py, Self>,
        slot: Option<u64>,
        result: PyResult<&Bound<'py, PyAny>>,
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
            Err(error) => Self::described(slf, error),
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
        let mut state = this.state.borrow(py);
        state.running = state.running.saturating_sub(1);
        let dropped = if state.is_closing {
            Some(outcome)
        } else {
            state.put(slot, outcome);
            None
        };
        let consumer = state.consumer_to_wake();
        let is_full = state.driver.is_some();
        let is_idle = state.is_ended && state.running == 0;
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

    /// Return an error of the callable as the consumer gets it.
    #[cold]
    fn described(slf: &Bound<'_, Self>, error: PyErr) -> Outcome {
        let py = slf.py();
        let described = slf
            .call_method1(intern!(py, "_describe"), (error.into_value(py),))
            .and_then(|error| Ok(error.cast_into::<PyBaseException>()?.unbind()));
        described.map_or_else(|failure| Outcome::of_error(py, failure), Outcome::Error)
    }
}
