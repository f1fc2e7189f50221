//! The awaitable that returns a lease. `PyCapacity` makes it; `permit.rs` and `prefetch.rs` use it for the task pool.
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
    self as core, AcquireRequest, Amount, Cost, NodeId, Permit, PermitId, ResourceId,
};
use pyo3::exceptions::PyTimeoutError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;

use super::arguments::current_owner;
use super::lease::PyLease;
use super::node::PyCapacity;
use super::queued::Queued;
use super::task_holding;
use super::timer::LoopTimer;
use super::tree::TreeHandle;
use crate::coroutine::async_context;
use crate::coroutine::async_context::Context;
use crate::coroutine::{Coroutine, Native, Parked, Step, own_class};
use crate::errors::RaisedError;
use crate::object::gc::traverse;
use crate::runtime::asyncio;

/// One `acquire()`, as Python awaits it.
#[derive(Debug)]
pub(super) struct AcquireAwaitable {
    /// `None` while a step runs, which then holds it, and after the end.
    capacity: Option<Py<PyCapacity>>,
    /// The request; `None` for one slot at priority 0, the most common one.
    request: Option<Box<AcquireRequest>>,
    /// Whether the awaiting task owns the lease.
    is_owned: bool,
    /// The longest wait, in seconds.
    timeout: Option<f64>,
    queued: Option<Box<QueuedAcquire>>,
    context: ContextState,
}

/// Whether the awaitable is used as a context manager.
#[derive(Debug)]
enum ContextState {
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
    timeout: Option<Timeout>,
    /// Keeps the timer of the event loop alive during the wait.
    _timer: Arc<LoopTimer>,
}

/// A timer of the event loop that ends a wait.
#[derive(Debug)]
struct Timeout {
    callback: Py<PyTimeoutCallback>,
    handle: Py<PyAny>,
}

/// The callback of that timer.
#[pyclass(name = "TimeoutCallback", frozen, module = "headrace._core")]
#[derive(Debug)]
struct PyTimeoutCallback {
    is_over: AtomicBool,
    waker: Waker,
}

#[pymethods]
impl PyTimeoutCallback {
    fn __call__(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.waker.wake_by_ref();
    }
}

impl Timeout {
    fn new(event_loop: &Bound<'_, PyAny>, seconds: f64, waker: Waker) -> PyResult<Self> {
        let py = event_loop.py();
        let is_over = AtomicBool::new(false);
        let callback = Py::new(py, PyTimeoutCallback { is_over, waker })?;
        let handle = event_loop
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
    /// Start a request: queue it unless it is granted or refused at once.
    pub(super) fn start(
        py: Python<'_>,
        handle: &Arc<TreeHandle>,
        mut request: AcquireRequest,
        parked: Parked,
        timer: Arc<LoopTimer>,
    ) -> PyResult<Started> {
        request.alarm = Some(timer.id());
        let mut queued = Box::new(Self {
            future: Queued::new(handle, handle.enter(py)?.acquire(request)),
            parked,
            timeout: None,
            _timer: timer,
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

    /// Cancel the timeout at the end of the wait.
    fn end(self, py: Python<'_>) -> PyResult<()> {
        if let Some(timeout) = &self.timeout
            && !timeout.is_over()
        {
            timeout.handle.call_method0(py, intern!(py, "cancel"))?;
        }
        Ok(())
    }

    pub(super) fn poll(&mut self) -> Poll<Result<Permit, core::AcquireError>> {
        let mut context = TaskContext::from_waker(self.parked.as_waker());
        Pin::new(&mut self.future).poll(&mut context)
    }

    /// Register that the queue position is given up if the event loop is closed when the waiter is woken.
    fn forward(&self, py: Python<'_>) {
        if let Some(forward) = self.future.forward() {
            self.parked.forward(py, forward);
        }
    }
}

impl AcquireAwaitable {
    /// One slot for no owner, without a timeout.
    #[inline]
    fn new(capacity: Bound<'_, PyCapacity>) -> Self {
        Self {
            capacity: Some(capacity.unbind()),
            request: None,
            is_owned: false,
            timeout: None,
            queued: None,
            context: ContextState::Awaited,
        }
    }

    /// Create an awaitable that has not started.
    #[inline]
    pub(super) fn make(
        capacity: Bound<'_, PyCapacity>,
        request: Option<Box<AcquireRequest>>,
        is_owned: bool,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'_, PyAny>> {
        Native::alloc(capacity.py(), || Self {
            request,
            is_owned,
            timeout,
            ..Self::new(capacity)
        })
    }

    /// Create an awaitable for a queued request of one slot, without an owner.
    pub(super) fn queued(
        capacity: Bound<'_, PyCapacity>,
        queued: Box<QueuedAcquire>,
    ) -> PyResult<Bound<'_, PyAny>> {
        Native::alloc(capacity.py(), || Self {
            queued: Some(queued),
            ..Self::new(capacity)
        })
    }

    #[inline]
    fn request(&self, node: NodeId) -> AcquireRequest {
        match self.request.as_deref() {
            None => one_slot(node),
            Some(request) => request.clone(),
        }
    }

    /// Run the first step: try the tree, and queue the request if it has to wait.
    #[inline]
    fn start<'py>(
        &mut self,
        capacity: &Bound<'py, PyCapacity>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = capacity.py();
        let (tree, node) = capacity.get().enter(py)?;
        let mut request = self.request(node);
        if self.is_owned {
            request.owner = Some(current_owner(py)?);
        }
        match tree.try_take(&request) {
            Ok(Some(permit)) => self.grant(capacity, permit).map(Some),
            Ok(None) => self.enqueue(capacity, request),
            Err(error) => Err(capacity.get().acquire_error(py, &request, &error)),
        }
    }

    #[cold]
    fn enqueue<'py>(
        &mut self,
        capacity: &Bound<'py, PyCapacity>,
        request: AcquireRequest,
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
        task_holding::adopt(py, handle, &request)?;
        capacity.get().watch(&event_loop)?;
        let timer = handle.loop_timer(&event_loop)?;
        let parked = Parked::on(&event_loop)?;
        let mut queued = match QueuedAcquire::start(py, handle, request, parked, timer)? {
            Started::Pending(queued) => queued,
            Started::Granted(permit) => return self.grant(capacity, permit).map(Some),
            Started::Refused(error) => return Err(self.acquire_error(capacity, &error)),
        };
        if let Some(timeout) = timeout {
            let waker = queued.parked.waker();
            queued.timeout = Some(Timeout::new(&event_loop, timeout, waker)?);
        }
        self.queued = Some(queued);
        Ok(None)
    }

    /// Run a later step: poll the queued request.
    fn resume<'py>(
        &mut self,
        capacity: &Bound<'py, PyCapacity>,
        mut queued: Box<QueuedAcquire>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = capacity.py();
        capacity.get().handle()?.enter(py)?;
        let mut polled = queued.poll();
        if polled.is_pending() {
            if queued.timeout.as_ref().is_some_and(Timeout::is_over) {
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
        if matches!(self.context, ContextState::Entered) {
            self.context = ContextState::Holding(lease.clone().unbind());
        }
        Ok(lease.into_any())
    }

    #[cold]
    fn timeout_error(&self) -> PyErr {
        let timeout = self.timeout.unwrap_or_default();
        PyTimeoutError::new_err(format!(
            "the lease was not granted within {timeout} seconds"
        ))
    }

    #[cold]
    fn acquire_error(&self, capacity: &Bound<'_, PyCapacity>, error: &core::AcquireError) -> PyErr {
        match capacity.get().tree_and_node() {
            Ok((_, node)) => {
                let request = self.request(node);
                (capacity.get()).acquire_error(capacity.py(), &request, error)
            }
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
            None => self.start(&capacity)?,
            Some(queued) => self.resume(&capacity, queued)?,
        };
        if let Some(lease) = lease {
            self.request = None;
            return Ok(Step::Return(lease));
        }
        self.capacity = Some(capacity.unbind());
        let queued = self.queued.as_ref();
        let queued = queued.expect("a request without a lease is queued");
        Ok(Step::Yield(queued.parked.hand_up(py)?))
    }
}

#[inline]
pub(super) fn one_slot(node: NodeId) -> AcquireRequest {
    let cost = Cost::of(ResourceId::SLOTS, Amount::ONE);
    AcquireRequest::new(node, cost.expect("a cost of one slot is valid"))
}

impl Coroutine for AcquireAwaitable {
    const NAME: &'static CStr = c"headrace._core.Acquire";

    fn never_awaited_warning(&self) -> Option<&'static CStr> {
        (self.capacity.is_some() && self.queued.is_none() && matches!(self.context, ContextState::Awaited))
            .then_some(c"acquire() was never awaited, and nothing is held: write `async with capacity.acquire():`, or `lease = await capacity.acquire()`")
    }

    const KEEPS_VALUE: bool = true;

    own_class!();

    fn methods() -> Vec<ffi::PyMethodDef> {
        async_context::methods::<Self>()
    }

    #[inline]
    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        let py = value.py();
        RaisedError::set_from(py, self.step(py))
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.capacity.is_none()
            && self.request.is_none()
            && self.queued.is_none()
            && !matches!(self.context, ContextState::Holding(_))
    }

    fn abandon(&mut self, py: Python<'_>) {
        if let Some(queued) = self.queued.take()
            && let Err(error) = queued.end(py)
        {
            error.write_unraisable(py, None);
        }
        self.capacity = None;
        self.request = None;
    }
}

traverse!(AcquireAwaitable { capacity, queued });
traverse!(QueuedAcquire { timeout, parked });
traverse!(Timeout { callback, handle });

impl Context for AcquireAwaitable {
    fn enter(&mut self, _py: Python<'_>) {
        self.context = ContextState::Entered;
    }

    #[inline]
    fn exit(&mut self, py: Python<'_>) -> PyResult<()> {
        match std::mem::replace(&mut self.context, ContextState::Awaited) {
            ContextState::Holding(lease) => lease.get().release(py),
            ContextState::Awaited | ContextState::Entered => Ok(()),
        }
    }
}
