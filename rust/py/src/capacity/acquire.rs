//! The awaitable that gives a lease.
//!
//! Its first step asks the tree once: what can be had now comes back in that very call. Only what has to wait gets a place
//! on the loop, an alarm and a timer.

use std::ffi::CStr;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Poll, Waker};

use headrace_core::capacity::{
    self as core, Amount, Ask, Cost, NodeId, OwnerId, Permit, PermitId, Resource,
};
use pyo3::exceptions::PyTimeoutError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;

use super::lease::Lease;
use super::node::Capacity;
use super::queued::Standing;
use super::timer::LoopAlarm;
use super::tree::Shared;
use crate::coroutine::async_context;
use crate::coroutine::async_context::Context;
use crate::coroutine::{Class, Coroutine, Native, Parked, Step};
use crate::errors::RaisedError;
use crate::object::gc::{Traverse, VisitError, Visitor};
use crate::runtime::asyncio;
use crate::runtime::task_id;

/// One wait for a lease.
#[derive(Debug)]
pub(super) struct Acquiring {
    /// `None` while a step runs, which then holds it, and once it is finished.
    source: Option<Py<Capacity>>,
    /// What is asked for; `None` for one slot at priority 0, which nearly everybody asks for.
    ask: Option<Box<Ask>>,
    /// Whether what is granted counts as held by the task that asks.
    is_owned: bool,
    /// For how many seconds it may wait.
    timeout: Option<f64>,
    waiting: Option<Box<Waiting>>,
    entered: Entered,
}

/// Whether it is used as a context manager.
#[derive(Debug)]
enum Entered {
    No,
    Yes,
    /// And this is what leaving it releases.
    Holding(Py<Lease>),
}

/// What has to wait.
#[derive(Debug)]
pub(super) struct Waiting {
    future: Standing<core::Acquire>,
    parked: Parked,
    timer: Option<Timer>,
    /// As long as this waits, the loop's timer is seen to.
    _alarm: Arc<LoopAlarm>,
}

/// A timer of the loop that ends a wait.
#[derive(Debug)]
struct Timer {
    expiry: Py<Expiry>,
    handle: Py<PyAny>,
}

/// What that timer calls.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
struct Expiry {
    is_over: AtomicBool,
    waker: Waker,
}

#[pymethods]
impl Expiry {
    fn __call__(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.waker.wake_by_ref();
    }
}

impl Timer {
    fn new(py: Python<'_>, seconds: f64, waker: Waker) -> PyResult<Self> {
        let expiry = Py::new(
            py,
            Expiry {
                is_over: AtomicBool::new(false),
                waker,
            },
        )?;
        let handle = asyncio::running_loop(py)?
            .call_method1(intern!(py, "call_later"), (seconds, expiry.clone_ref(py)))?
            .unbind();
        Ok(Self { expiry, handle })
    }

    fn is_over(&self) -> bool {
        self.expiry.get().is_over.load(Ordering::Relaxed)
    }
}

/// What came of asking.
#[derive(Debug)]
pub(super) enum Begun {
    Waits(Box<Waiting>),
    Granted(PermitId),
    Refused(core::AcquireError),
}

impl Waiting {
    /// Takes a place in line.
    pub(super) fn begin(
        py: Python<'_>,
        shared: &Arc<Shared>,
        mut ask: Ask,
        parked: Parked,
        alarm: Arc<LoopAlarm>,
    ) -> PyResult<Begun> {
        ask.alarm = Some(alarm.id());
        let mut waiting = Box::new(Self {
            future: Standing::new(shared, shared.enter(py)?.acquire(ask)),
            parked,
            timer: None,
            _alarm: alarm,
        });
        Ok(match waiting.poll() {
            Poll::Ready(Ok(permit)) => Begun::Granted(permit.into_id()),
            Poll::Ready(Err(error)) => Begun::Refused(error),
            Poll::Pending => {
                waiting.forward(py);
                Begun::Waits(waiting)
            }
        })
    }

    /// It is over: nothing of it is left on the loop.
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

impl Acquiring {
    /// An awaitable that has not started.
    #[inline]
    pub(super) fn make(
        source: Bound<'_, Capacity>,
        ask: Option<Box<Ask>>,
        is_owned: bool,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'_, PyAny>> {
        Native::alloc(source.py(), || Self {
            source: Some(source.unbind()),
            ask,
            is_owned,
            timeout,
            waiting: None,
            entered: Entered::No,
        })
    }

    /// One that stands in line already, for one slot on nobody's account.
    pub(super) fn standing(
        source: Bound<'_, Capacity>,
        waiting: Box<Waiting>,
    ) -> PyResult<Bound<'_, PyAny>> {
        Native::alloc(source.py(), || Self {
            source: Some(source.unbind()),
            ask: None,
            is_owned: false,
            timeout: None,
            waiting: Some(waiting),
            entered: Entered::No,
        })
    }

    /// The first step.
    #[inline]
    fn start<'py>(&mut self, source: &Bound<'py, Capacity>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = source.py();
        let (tree, node) = source.get().enter(py)?;
        let mut ask = match self.ask.as_deref() {
            None => one_slot(node),
            Some(ask) => ask.clone(),
        };
        if self.is_owned {
            ask.owner = Some(OwnerId(task_id::current(py)?.get()));
        }
        let owner = ask.owner;
        match tree.try_take(&ask) {
            Ok(Some(permit)) => self.grant(source, permit).map(Some),
            Ok(None) => self.join(source, owner),
            Err(error) => Err(self.refuse(source, &error)),
        }
    }

    #[cold]
    fn join<'py>(
        &mut self,
        source: &Bound<'py, Capacity>,
        owner: Option<OwnerId>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = source.py();
        let timeout = self.timeout.filter(|timeout| timeout.is_finite());
        if timeout.is_some_and(|timeout| timeout <= 0.0) {
            return Err(self.late());
        }
        let shared = source.get().shared()?;
        let event_loop = match asyncio::running_here(py) {
            Some(event_loop) => event_loop,
            // Says that there is none.
            None => asyncio::running_loop(py)?,
        };
        let alarm = shared.alarm(&event_loop)?;
        let parked = Parked::on(&event_loop)?;
        let mut ask = self.asked(source)?;
        ask.owner = owner;
        let mut waiting = match Waiting::begin(py, shared, ask, parked, alarm)? {
            Begun::Waits(waiting) => waiting,
            Begun::Granted(permit) => return self.grant(source, permit).map(Some),
            Begun::Refused(error) => return Err(self.refuse(source, &error)),
        };
        if let Some(timeout) = timeout {
            waiting.timer = Some(Timer::new(py, timeout, waiting.parked.waker())?);
        }
        self.waiting = Some(waiting);
        Ok(None)
    }

    /// A later step.
    fn go_on<'py>(
        &mut self,
        source: &Bound<'py, Capacity>,
        mut waiting: Box<Waiting>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = source.py();
        source.get().shared()?.enter(py)?;
        let mut polled = waiting.poll();
        if polled.is_pending() {
            if waiting.timer.as_ref().is_some_and(Timer::is_over) {
                return Err(self.late());
            }
            waiting.parked.arm(py)?;
            // Making the future was Python code, and the grant may have come meanwhile.
            polled = waiting.poll();
        }
        let Poll::Ready(outcome) = polled else {
            waiting.forward(py);
            self.waiting = Some(waiting);
            return Ok(None);
        };
        waiting.end(py)?;
        match outcome {
            Ok(permit) => self.grant(source, permit.into_id()).map(Some),
            Err(error) => Err(self.refuse(source, &error)),
        }
    }

    #[inline]
    fn grant<'py>(
        &mut self,
        source: &Bound<'py, Capacity>,
        permit: PermitId,
    ) -> PyResult<Bound<'py, PyAny>> {
        let lease = Lease::make(source, permit)?;
        if matches!(self.entered, Entered::Yes) {
            self.entered = Entered::Holding(lease.clone().unbind());
        }
        Ok(lease.into_any())
    }

    #[cold]
    fn late(&self) -> PyErr {
        let timeout = self.timeout.unwrap_or_default();
        PyTimeoutError::new_err(format!(
            "the lease could not be had within {timeout} seconds"
        ))
    }

    #[cold]
    fn asked(&self, source: &Bound<'_, Capacity>) -> PyResult<Ask> {
        match self.ask.as_deref() {
            None => Ok(one_slot(source.get().place()?.1)),
            Some(ask) => Ok(ask.clone()),
        }
    }

    #[cold]
    fn refuse(&self, source: &Bound<'_, Capacity>, error: &core::AcquireError) -> PyErr {
        match self.asked(source) {
            Ok(ask) => source.get().refuse(source.py(), &ask, error),
            Err(error) => error,
        }
    }

    #[inline]
    fn step<'py>(&mut self, py: Python<'py>) -> PyResult<Step<'py>> {
        let source = self.source.take();
        let source = source
            .expect("a finished awaitable is not stepped again")
            .into_bound(py);
        let lease = match self.waiting.take() {
            None => self.start(&source),
            Some(waiting) => self.go_on(&source, waiting),
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
                self.source = Some(source.unbind());
                let waiting = self.waiting.as_ref().expect("it waits, having no lease");
                Ok(Step::Yield(waiting.parked.hand_up(py)?))
            }
        }
    }
}

#[inline]
pub(super) fn one_slot(node: NodeId) -> Ask {
    let cost = Cost::of(Resource::SLOTS, Amount::ONE);
    Ask::new(node, cost.expect("one is more than nothing"))
}

impl Waiting {
    pub(super) fn poll(&mut self) -> Poll<Result<Permit, core::AcquireError>> {
        let mut context = TaskContext::from_waker(self.parked.as_waker());
        Pin::new(&mut self.future).poll(&mut context)
    }

    /// Has its place given up if its loop is dead when it is to be woken.
    fn forward(&self, py: Python<'_>) {
        if let Some(forward) = self.future.forward() {
            self.parked.forward(py, forward);
        }
    }
}

impl Coroutine for Acquiring {
    const NAME: &'static CStr = c"headrace._core.Acquire";

    fn never_awaited_warning(&self) -> Option<&'static CStr> {
        (self.source.is_some() && self.waiting.is_none() && matches!(self.entered, Entered::No))
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
        self.source.is_none()
            && self.ask.is_none()
            && self.waiting.is_none()
            && !matches!(self.entered, Entered::Holding(_))
    }

    fn abandon(&mut self, py: Python<'_>) {
        if let Some(waiting) = self.waiting.take()
            && let Err(error) = waiting.end(py)
        {
            error.write_unraisable(py, None);
        }
        self.source = None;
        self.ask = None;
    }
}

impl Traverse for Acquiring {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        if let Some(source) = &self.source {
            visit(source.as_any())?;
        }
        let Some(waiting) = &self.waiting else {
            return Ok(());
        };
        if let Some(timer) = &waiting.timer {
            visit(timer.expiry.as_any())?;
            visit(&timer.handle)?;
        }
        waiting.parked.traverse(visit)
    }
}

impl Context for Acquiring {
    fn enter(&mut self, _py: Python<'_>) {
        self.entered = Entered::Yes;
    }

    #[inline]
    fn exit(&mut self, py: Python<'_>) -> PyResult<()> {
        match std::mem::replace(&mut self.entered, Entered::No) {
            Entered::Holding(lease) => lease.get().release(py),
            Entered::No | Entered::Yes => Ok(()),
        }
    }
}
