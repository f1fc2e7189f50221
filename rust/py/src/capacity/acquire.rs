//! The awaitable that returns a lease.
//!
//! Its first step tries the tree once and returns available capacity in that call. Only a request that has to wait is
//! queued, and gets a future and a timer of the event loop.

use std::ffi::CStr;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Poll, Waker};

use headrace_core::capacity::{
    self as core, AcquireRequest, Amount, Cost, NodeId, OwnerId, Permit, PermitId, ResourceId,
};
use pyo3::exceptions::PyTimeoutError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;

use super::lease::PyLease;
use super::node::PyCapacity;
use super::queued::Queued;
use super::timer::LoopTimer;
use super::tree::TreeHandle;
use crate::coroutine::async_context;
use crate::coroutine::async_context::Context;
use crate::coroutine::{Class, Coroutine, Native, Parked, Step};
use crate::errors::RaisedError;
use crate::object::gc::{Traverse, VisitError, Visitor};
use crate::runtime::asyncio;
use crate::runtime::task_id;

/// One `acquire()`, as Python awaits it.
#[derive(Debug)]
pub(super) struct AcquireAwaitable {
    /// `None` while a step runs, which then holds it, and after the end.
    capacity: Option<Py<PyCapacity>>,
    /// The request; `None` for one slot at priority 0, the most common one.
    ask: Option<Box<AcquireRequest>>,
    /// Whether the awaiting task owns the lease.
    is_owned: bool,
    /// The longest wait, in seconds.
    timeout: Option<f64>,
    queued: Option<Box<QueuedAcquire>>,
    usage: Usage,
}

/// The use of the awaitable: awaited, or entered as a context manager.
#[derive(Debug)]
enum Usage {
    Awaited,
    Entered,
    /// Entered; leaving the block releases this lease.
    Holding(Py<PyLease>),
}

/// A queued request.
#[derive(Debug)]
pub(super) struct QueuedAcquire {
    future: Queued<core::Acquire>,
    parked: Parked,
    timer: Option<Timeout>,
    /// Keeps the timer of the event loop alive during the wait.
    _timer: Arc<LoopTimer>,
}

/// A timer of the event loop that ends a wait.
#[derive(Debug)]
struct Timeout {
    callback: Py<TimeoutCallback>,
    handle: Py<PyAny>,
}

/// The callback of that timer.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
struct TimeoutCallback {
    is_over: AtomicBool,
    waker: Waker,
}

#[pymethods]
impl TimeoutCallback {
    fn __call__(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.waker.wake_by_ref();
    }
}

impl Timeout {
    fn new(py: Python<'_>, seconds: f64, waker: Waker) -> PyResult<Self> {
        let callback = Py::new(
            py,
            TimeoutCallback {
                is_over: AtomicBool::new(false),
                waker,
            },
        )?;
        let handle = asyncio::running_loop(py)?
            .call_method1(intern!(py, "call_later"), (seconds, callback.clone_ref(py)))?
            .unbind();
        Ok(Self { callback, handle })
    }

    fn is_over(&self) -> bool {
        self.callback.get().is_over.load(Ordering::Relaxed)
    }
}

/// The result of starting a request.
#[derive(Debug)]
pub(super) enum Started {
    Pending(Box<QueuedAcquire>),
    Granted(PermitId),
    Refused(core::AcquireError),
}

impl QueuedAcquire {
    /// Starts a request: queues it unless it is granted or refused at once.
    pub(super) fn start(
        py: Python<'_>,
        handle: &Arc<TreeHandle>,
        mut ask: AcquireRequest,
        parked: Parked,
        alarm: Arc<LoopTimer>,
    ) -> PyResult<Started> {
        ask.alarm = Some(alarm.id());
        let mut queued = Box::new(Self {
            future: Queued::new(handle, handle.enter(py)?.acquire(ask)),
            parked,
            timer: None,
            _timer: alarm,
        });
        Ok(match queued.poll() {
            Poll::Ready(Ok(permit)) => Started::Granted(permit.into_id()),
            Poll::Ready(Err(error)) => Started::Refused(error),
            Poll::Pending => {
                queued.forward(py);
                Started::Pending(queued)
            }
        })
    }

    /// Cancels the timer at the end of the wait.
    fn end(self, py: Python<'_>) -> PyResult<()> {
        match &self.timer {
            Some(timer) if !timer.is_over() => {
                timer.handle.bind(py).call_method0(intern!(py, "cancel"))?;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

static CLASS: Class = Class::new();

impl AcquireAwaitable {
    /// Creates an awaitable that has not started.
    #[inline]
    pub(super) fn make(
        capacity: Bound<'_, PyCapacity>,
        ask: Option<Box<AcquireRequest>>,
        is_owned: bool,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'_, PyAny>> {
        Native::alloc(capacity.py(), || Self {
            capacity: Some(capacity.unbind()),
            ask,
            is_owned,
            timeout,
            queued: None,
            usage: Usage::Awaited,
        })
    }

    /// Creates an awaitable for a queued request of one slot, without an owner.
    pub(super) fn queued(
        capacity: Bound<'_, PyCapacity>,
        queued: Box<QueuedAcquire>,
    ) -> PyResult<Bound<'_, PyAny>> {
        Native::alloc(capacity.py(), || Self {
            capacity: Some(capacity.unbind()),
            ask: None,
            is_owned: false,
            timeout: None,
            queued: Some(queued),
            usage: Usage::Awaited,
        })
    }

    /// Runs the first step: tries the tree, and queues the request if it has to wait.
    #[inline]
    fn start<'py>(
        &mut self,
        capacity: &Bound<'py, PyCapacity>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = capacity.py();
        let (tree, node) = capacity.get().enter(py)?;
        let mut ask = match self.ask.as_deref() {
            None => one_slot(node),
            Some(ask) => ask.clone(),
        };
        if self.is_owned {
            ask.owner = Some(OwnerId(task_id::current(py)?.get()));
        }
        let owner = ask.owner;
        match tree.try_take(&ask) {
            Ok(Some(permit)) => self.grant(capacity, permit).map(Some),
            Ok(None) => self.enqueue(capacity, owner),
            Err(error) => Err(self.acquire_error(capacity, &error)),
        }
    }

    #[cold]
    fn enqueue<'py>(
        &mut self,
        capacity: &Bound<'py, PyCapacity>,
        owner: Option<OwnerId>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = capacity.py();
        let timeout = self.timeout.filter(|timeout| timeout.is_finite());
        if timeout.is_some_and(|timeout| timeout <= 0.0) {
            return Err(self.timeout_error());
        }
        let handle = capacity.get().handle()?;
        let event_loop = match asyncio::running_here(py) {
            Some(event_loop) => event_loop,
            // Raises the error of a missing event loop.
            None => asyncio::running_loop(py)?,
        };
        let alarm = handle.alarm(&event_loop)?;
        let parked = Parked::on(&event_loop)?;
        let mut ask = self.request(capacity)?;
        ask.owner = owner;
        let mut queued = match QueuedAcquire::start(py, handle, ask, parked, alarm)? {
            Started::Pending(queued) => queued,
            Started::Granted(permit) => return self.grant(capacity, permit).map(Some),
            Started::Refused(error) => return Err(self.acquire_error(capacity, &error)),
        };
        if let Some(timeout) = timeout {
            queued.timer = Some(Timeout::new(py, timeout, queued.parked.waker())?);
        }
        self.queued = Some(queued);
        Ok(None)
    }

    /// Runs a later step: polls the queued request.
    fn resume<'py>(
        &mut self,
        capacity: &Bound<'py, PyCapacity>,
        mut queued: Box<QueuedAcquire>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = capacity.py();
        capacity.get().handle()?.enter(py)?;
        let mut polled = queued.poll();
        if polled.is_pending() {
            if queued.timer.as_ref().is_some_and(Timeout::is_over) {
                return Err(self.timeout_error());
            }
            queued.parked.arm(py)?;
            // Creating the future ran Python code, and the request may have been granted meanwhile.
            polled = queued.poll();
        }
        let Poll::Ready(outcome) = polled else {
            queued.forward(py);
            self.queued = Some(queued);
            return Ok(None);
        };
        queued.end(py)?;
        match outcome {
            Ok(permit) => self.grant(capacity, permit.into_id()).map(Some),
            Err(error) => Err(self.acquire_error(capacity, &error)),
        }
    }

    #[inline]
    fn grant<'py>(
        &mut self,
        capacity: &Bound<'py, PyCapacity>,
        permit: PermitId,
    ) -> PyResult<Bound<'py, PyAny>> {
        let lease = PyLease::make(capacity, permit)?;
        if matches!(self.usage, Usage::Entered) {
            self.usage = Usage::Holding(lease.clone().unbind());
        }
        Ok(lease.into_any())
    }

    #[cold]
    fn timeout_error(&self) -> PyErr {
        let timeout = self.timeout.unwrap_or_default();
        PyTimeoutError::new_err(format!(
            "the lease could not be had within {timeout} seconds"
        ))
    }

    #[cold]
    fn request(&self, capacity: &Bound<'_, PyCapacity>) -> PyResult<AcquireRequest> {
        match self.ask.as_deref() {
            None => Ok(one_slot(capacity.get().tree_and_node()?.1)),
            Some(ask) => Ok(ask.clone()),
        }
    }

    #[cold]
    fn acquire_error(&self, capacity: &Bound<'_, PyCapacity>, error: &core::AcquireError) -> PyErr {
        match self.request(capacity) {
            Ok(ask) => capacity.get().acquire_error(capacity.py(), &ask, error),
            Err(error) => error,
        }
    }

    #[inline]
    fn step<'py>(&mut self, py: Python<'py>) -> PyResult<Step<'py>> {
        let capacity = self.capacity.take();
        let capacity = capacity
            .expect("a finished awaitable is not stepped again")
            .into_bound(py);
        let lease = match self.queued.take() {
            None => self.start(&capacity),
            Some(queued) => self.resume(&capacity, queued),
        };
        match lease {
            Ok(Some(lease)) => {
                self.ask = None;
                Ok(Step::Return(lease))
            }
            Err(error) => {
                self.ask = None;
                Err(error)
            }
            Ok(None) => {
                self.capacity = Some(capacity.unbind());
                let queued = self
                    .queued
                    .as_ref()
                    .expect("a request without a lease is queued");
                Ok(Step::Yield(queued.parked.hand_up(py)?))
            }
        }
    }
}

#[inline]
pub(super) fn one_slot(node: NodeId) -> AcquireRequest {
    let cost = Cost::of(ResourceId::SLOTS, Amount::ONE);
    AcquireRequest::new(node, cost.expect("a cost of one slot is valid"))
}

impl QueuedAcquire {
    pub(super) fn poll(&mut self) -> Poll<Result<Permit, core::AcquireError>> {
        let mut context = TaskContext::from_waker(self.parked.as_waker());
        Pin::new(&mut self.future).poll(&mut context)
    }

    /// Registers that the queue position is given up if the event loop is closed when the waiter is woken.
    fn forward(&self, py: Python<'_>) {
        if let Some(forward) = self.future.forward() {
            self.parked.forward(py, forward);
        }
    }
}

impl Coroutine for AcquireAwaitable {
    const NAME: &'static CStr = c"headrace._core.Acquire";

    fn never_awaited_warning(&self) -> Option<&'static CStr> {
        (self.capacity.is_some() && self.queued.is_none() && matches!(self.usage, Usage::Awaited))
            .then_some(c"acquire() was never awaited, and nothing is held: write `async with capacity.acquire():`, or `lease = await capacity.acquire()`")
    }

    const KEEPS_VALUE: bool = true;

    fn class() -> &'static Class {
        &CLASS
    }

    fn methods() -> Vec<ffi::PyMethodDef> {
        async_context::methods::<Self>()
    }

    #[inline]
    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        let py = value.py();
        RaisedError::set_from(py, self.step(py))
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        self.abandon(py);
        Err(error)
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.capacity.is_none()
            && self.ask.is_none()
            && self.queued.is_none()
            && !matches!(self.usage, Usage::Holding(_))
    }

    fn abandon(&mut self, py: Python<'_>) {
        if let Some(queued) = self.queued.take()
            && let Err(error) = queued.end(py)
        {
            error.write_unraisable(py, None);
        }
        self.capacity = None;
        self.ask = None;
    }
}

impl Traverse for AcquireAwaitable {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        if let Some(capacity) = &self.capacity {
            visit(capacity.as_any())?;
        }
        let Some(queued) = &self.queued else {
            return Ok(());
        };
        if let Some(timer) = &queued.timer {
            visit(timer.callback.as_any())?;
            visit(&timer.handle)?;
        }
        queued.parked.traverse(visit)
    }
}

impl Context for AcquireAwaitable {
    fn enter(&mut self, _py: Python<'_>) {
        self.usage = Usage::Entered;
    }

    #[inline]
    fn exit(&mut self, py: Python<'_>) -> PyResult<()> {
        match std::mem::replace(&mut self.usage, Usage::Awaited) {
            Usage::Holding(lease) => lease.get().release(py),
            Usage::Awaited | Usage::Entered => Ok(()),
        }
    }
}
