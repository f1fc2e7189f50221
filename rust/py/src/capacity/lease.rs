//! `PyLease`: the user's handle on a permit, and suspending it.
//! `PyCapacity` and the awaitable in `acquire.rs` return it.

use std::ffi::CStr;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use headrace_core::capacity::adaptive::Outcome;
use headrace_core::capacity::{self as core, AlarmId, Amount, NodeId, PermitId, ResourceId, Tree};
use pyo3::exceptions::{
    PyBaseException, PyResourceWarning, PyRuntimeError, PyTypeError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::arguments::current_owner;
use super::node::PyCapacity;
use super::outcome::{check_headers, is_current, outcome_of, report_stated};
use super::queued::Queued;
use super::timer::LoopTimer;
use super::tree::{PyTreeRef, TreeHandle};
use super::{arguments, convert, core_error, timer};
use crate::coroutine::operation::{Operation, Ready};
use crate::coroutine::{async_context, own_class, with_saved_exception};
use crate::errors;
use crate::object::freelist::{Dropped, Filling, FreeList, Pooled};
use crate::object::gc::traverse;
use crate::runtime::asyncio;
use crate::runtime::blocking_wait::Blocking;

/// Holds an amount of a capacity, and of every ancestor, until it is released.
///
/// `with lease:` releases it at the end of the block. A lease that is garbage-collected while it is held returns its capacity
/// and emits a `ResourceWarning`. Any thread may use it.
#[pyclass(frozen, module = "headrace", name = "Lease")]
#[derive(Debug)]
pub(super) struct PyLease {
    permit: Filling<LeasePermit>,
    is_released: AtomicBool,
}

/// The permit of a lease, its node and its tree.
#[derive(Debug)]
struct LeasePermit {
    /// `None` only in a freed object.
    tree_ref: Option<Py<PyTreeRef>>,
    node: NodeId,
    id: PermitId,
}

static FREE_LIST: FreeList = FreeList::new();

impl Pooled for PyLease {
    fn free_list() -> &'static FreeList {
        &FREE_LIST
    }

    #[inline]
    fn recycle(&self, dropped: &mut Dropped) -> bool {
        // A lease that was not released takes the slow path, which releases it and warns.
        let is_spent = self.is_released.load(Ordering::Relaxed);
        if is_spent {
            // SAFETY: the last reference to the object is gone.
            let permit = unsafe { self.permit.get_mut() };
            dropped.push(permit.tree_ref.take().map(Py::into_any));
        }
        is_spent
    }
}

impl PyLease {
    #[inline]
    pub(super) fn make<'py>(
        capacity: &Bound<'py, PyCapacity>,
        id: PermitId,
    ) -> PyResult<Bound<'py, Self>> {
        let py = capacity.py();
        let (tree_ref, node) = capacity.get().tree_and_node()?;
        let permit = LeasePermit {
            tree_ref: Some(tree_ref.clone_ref(py)),
            node,
            id,
        };
        if let Some(lease) = FREE_LIST.take::<Self>(py) {
            let this = lease.get();
            // SAFETY: the object was just taken from the free list, and has no other reference.
            unsafe { *this.permit.get_mut() = permit };
            this.is_released.store(false, Ordering::Relaxed);
            return Ok(lease);
        }
        let lease = Self {
            permit: Filling::new(permit),
            is_released: AtomicBool::new(false),
        };
        // If the allocation fails, the drop releases the permit.
        Bound::new(py, lease)
    }
}

#[expect(clippy::doc_markdown, reason = "these docstrings are Python's")]
#[pymethods]
impl PyLease {
    /// Refuse to be copied and pickled; see `headrace.copying`.
    #[expect(clippy::unused_self, reason = "Python calls it as a method")]
    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err(
            "Lease cannot be copied or pickled: its capacity would be held twice; acquire another one of its capacity",
        ))
    }

    /// Release the lease: slots are returned at once, a rate refills with time, and a budget stays spent. Idempotent.
    pub(super) fn release(&self, py: Python<'_>) -> PyResult<()> {
        self.handle()
            .give_back(py, "lease", |tree| self.release_in(tree))
    }

    /// Correct the requested amounts of the named resources to the actual ones.
    ///
    /// - Rate: a greater amount makes a debt, which later requests wait for. A smaller amount is refunded as if it had been
    ///   requested from the start: nothing is refunded if the rate has refilled since.
    /// - Budget: both are exact, and a greater amount may exceed the budget.
    /// - Slots: a smaller amount returns the rest at once; a greater one is refused.
    ///
    /// May be called repeatedly while the lease is held; for rates and budgets also while it is suspended.
    ///
    /// Raises:
    ///     TypeError: An amount is no number.
    ///     ValueError: An amount is negative or not finite, the lease does not hold that resource, or slots would grow.
    ///     RuntimeError: The lease was released; or it is suspended, and slots are named.
    #[pyo3(signature = (**actual))]
    fn settle(&self, py: Python<'_>, actual: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        let tree = self.handle().enter(py)?;
        let actual = (actual.into_iter().flat_map(PyDictMethods::iter))
            .map(|(name, value)| self.part(&name, &value))
            .collect::<PyResult<Vec<_>>>()?;
        (tree.settle(self.id(), &actual)).map_err(|error| core_error::permit_error(tree, error))
    }

    /// Report the outcome of a call that was made under this lease, for the `AdaptiveLimit`s, `Rate.auto()`s and `Breaker`s of its path.
    /// Without any it does nothing. A pool reports the results and errors of its tasks by itself; there, only errors that the task handles need a report.
    ///
    /// For an `AdaptiveLimit` the first result tells how long the call took, from the grant on, and after it only errors that mean
    /// congestion count. A `Breaker` counts each report as a call.
    ///
    /// Args:
    ///     error: The error of the call; `None` if it returned a result.
    ///     headers: The headers of the answer. A `Rate.auto()` learns from the limits that they state; otherwise from those that `error` carries.
    ///
    /// Raises:
    ///     TypeError: `error` is no exception, or `headers` is no mapping of strings.
    ///     RuntimeError: The lease was released.
    #[pyo3(signature = (*, error = None, headers = None))]
    fn report(
        slf: &Bound<'_, Self>,
        error: Option<&Bound<'_, PyAny>>,
        headers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let py = slf.py();
        if let Some(error) = error
            && !error.is_instance_of::<PyBaseException>()
        {
            return Err(errors::wrong_type("error", "exception or None", error));
        }
        if let Some(headers) = headers {
            check_headers(headers)?;
        }
        if slf.get().is_released() {
            return Err(PyRuntimeError::new_err("this lease was released"));
        }
        let this = slf.get();
        report_stated(py, this.handle(), this.id(), headers, error)?;
        let outcome = match error {
            Some(error) => outcome_of(py, error, None)?,
            // A task may make several calls; the pool reports its result at its end.
            None if is_current(slf)? => None,
            None => Some(Outcome::Done),
        };
        outcome.map_or(Ok(()), |outcome| this.report_outcome(py, outcome))
    }

    /// Suspend the lease for a block: return its slots, and acquire them again at the end of the block, queued like any
    /// other request. Use `async with lease.suspended():`, or `with` in a thread without an event loop. Rates and budgets stay
    /// charged.
    ///
    /// Cancel safety: if the lease cannot be resumed, or that is cancelled, the lease is released.
    ///
    /// Raises:
    ///     RuntimeError: When entered: the lease was released, or is suspended already.
    ///     WouldDeadlock: At the end: this task holds the capacity that it would wait for, as in `acquire`.
    ///     ClosedError: At the end: the node, or one above it, was closed.
    fn suspended(slf: Bound<'_, Self>) -> PySuspended {
        PySuspended {
            lease: slf.unbind(),
        }
    }

    /// Return the held amounts by resource; empty after the release.
    #[getter]
    fn cost<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let tree = self.handle().peek();
        let cost = tree.cost(self.id());
        let parts = cost.iter().flat_map(core::Cost::parts);
        convert::by_name(py, tree, parts.copied())
    }

    /// Return whether the lease was released.
    #[getter]
    fn is_released(&self) -> bool {
        self.is_released.load(Ordering::Relaxed)
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (_kind = None, _error = None, _traceback = None, /))]
    fn __exit__(
        &self,
        py: Python<'_>,
        _kind: Option<&Bound<'_, PyAny>>,
        _error: Option<&Bound<'_, PyAny>>,
        _traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.release(py)
    }

    fn __repr__(&self) -> String {
        let tree = self.handle().peek();
        let Some(cost) = tree.cost(self.id()) else {
            return "<Lease, released>".to_owned();
        };
        let parts: Vec<_> = (cost.parts().iter())
            .map(|(resource, amount)| format!("{amount} {}", tree.resource_name(*resource)))
            .collect();
        let of = (tree.name(self.permit.get().node))
            .map_or(String::new(), |name| format!(" of '{name}'"));
        let suspended = if tree.is_suspended(self.id()) {
            ", suspended"
        } else {
            ""
        };
        format!("<Lease of {}{of}{suspended}>", parts.join(", "))
    }
}

impl PyLease {
    #[inline]
    fn handle(&self) -> &Arc<TreeHandle> {
        let tree_ref = self.permit.get().tree_ref.as_ref();
        let tree_ref = tree_ref.expect("a live lease has a tree");
        &tree_ref.get().0
    }

    #[inline]
    pub(super) fn id(&self) -> PermitId {
        self.permit.get().id
    }

    /// Release the permit, unless it is released already.
    #[inline]
    fn release_in(&self, tree: &Tree) {
        // The GIL is held between the load and the store.
        if !self.is_released.load(Ordering::Relaxed) {
            self.is_released.store(true, Ordering::Relaxed);
            tree.release(self.id());
        }
    }

    /// Release the permit in a place that cannot raise an error of the clock.
    fn release_in_destructor(&self) {
        if !self.is_released.load(Ordering::Relaxed) {
            self.handle().in_destructor(|tree| self.release_in(tree));
        }
    }

    fn part(
        &self,
        name: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<(ResourceId, Amount)> {
        let py = name.py();
        let name = errors::text("a resource", name.cast::<PyString>()?)?;
        let amount = arguments::amount(&name, value)?;
        let handle = self.handle();
        let cost = handle.peek().cost(self.id());
        let parts = cost.as_ref().map_or(&[][..], core::Cost::parts);
        let resource = handle.resource(py, &name);
        match resource.filter(|resource| parts.iter().any(|(held, _)| held == resource)) {
            Some(resource) => Ok((resource, amount)),
            None if cost.is_none() => Err(PyRuntimeError::new_err("this lease was released")),
            None => {
                let held: Vec<_> = (parts.iter())
                    .map(|(held, _)| format!("'{}'", handle.peek().resource_name(*held)))
                    .collect();
                Err(PyValueError::new_err(format!(
                    "this lease holds no '{name}'; it holds {}",
                    held.join(", ")
                )))
            }
        }
    }

    /// Report an outcome to the adaptive limits and the breakers of the path.
    pub(super) fn report_outcome(&self, py: Python<'_>, outcome: Outcome) -> PyResult<()> {
        self.handle().enter(py)?.report(self.id(), outcome);
        Ok(())
    }

    /// Report the limits that an error carries to the auto rates of the path.
    pub(super) fn report_stated(&self, py: Python<'_>, error: &Bound<'_, PyAny>) -> PyResult<()> {
        report_stated(py, self.handle(), self.id(), None, Some(error))
    }

    fn suspend(&self, py: Python<'_>) -> PyResult<()> {
        let tree = self.handle().enter(py)?;
        (tree.suspend(self.id())).map_err(|error| core_error::permit_error(tree, error))
    }
}

impl Drop for PyLease {
    fn drop(&mut self) {
        // A forked child releases nothing.
        let is_held = !*self.is_released.get_mut();
        if is_held && self.handle().process.is_current() {
            self.release_in_destructor();
            warn();
        }
    }
}

/// Warn about a lease that was not released. The warning runs Python code, which must not see an exception that is
/// propagating through the frame that dropped the lease.
#[cold]
fn warn() {
    with_saved_exception(|py| {
        let category = py.get_type::<PyResourceWarning>();
        let message = c"a lease was collected before it was released; use `with lease:`";
        if let Err(error) = PyErr::warn(py, &category, message, 1) {
            error.write_unraisable(py, None);
        }
    });
}

/// The context manager of [`PyLease::suspended`].
#[pyclass(name = "Suspended", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(super) struct PySuspended {
    lease: Py<PyLease>,
}

#[pymethods]
impl PySuspended {
    fn __enter__(&self, py: Python<'_>) -> PyResult<()> {
        self.lease.get().suspend(py)
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) -> PyResult<()> {
        const CALL: Blocking = Blocking {
            name: "the end of `with lease.suspended()`",
            instead: "write `async with`",
        };
        let lease = self.lease.get();
        let taken = lease.resume_blocking(py, CALL);
        if taken.is_err() {
            lease.release_in_destructor();
        }
        taken
    }

    fn __aenter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.lease.get().suspend(py)?;
        async_context::done(py)
    }

    #[pyo3(signature = (*_exception))]
    fn __aexit__<'py>(
        &self,
        py: Python<'py>,
        _exception: &Bound<'_, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Ready::make(
            py,
            ResumeAwaitable {
                lease: self.lease.clone_ref(py),
                future: None,
                is_over: false,
            },
        )
    }
}

impl PyLease {
    /// Create the future that resumes the lease for the current task or thread.
    fn resume(
        &self,
        py: Python<'_>,
        tree: &Arc<Tree>,
        alarm: AlarmId,
    ) -> PyResult<Queued<core::Resume>> {
        let future = (tree.take_again(self.id(), Some(alarm)))
            .map_err(|error| core_error::permit_error(tree, error))?;
        let future = future.by(current_owner(py)?);
        Ok(Queued::new(self.handle(), future))
    }

    /// Resume the lease in a thread without an event loop. Does nothing if it is released before or meanwhile.
    fn resume_blocking(&self, py: Python<'_>, call: Blocking) -> PyResult<()> {
        let handle = self.handle();
        let tree = handle.enter(py)?;
        if self.is_released() {
            return Ok(());
        }
        let alarm = tree.alarm();
        let future = self.resume(py, tree, alarm.id())?;
        match timer::wait(py, call, handle, &alarm, future, None)? {
            Some(Err(error)) if !self.is_released() => Err(self.acquire_error(py, &error)),
            // Without a deadline the wait cannot time out.
            _ => Ok(()),
        }
    }

    #[cold]
    fn acquire_error(&self, py: Python<'_>, error: &core::AcquireError) -> PyErr {
        let tree = self.handle().peek();
        let cost = tree.cost(self.id());
        let requested = |resource| (cost.as_ref()).map_or(Amount::ZERO, |cost| cost.get(resource));
        core_error::acquire_error(py, tree, self.permit.get().node, error, requested)
    }
}

/// Resuming a lease, as Python awaits it.
#[derive(Debug)]
pub(super) struct ResumeAwaitable {
    lease: Py<PyLease>,
    /// Set by the first step, with the timer of the event loop.
    future: Option<(Queued<core::Resume>, Arc<LoopTimer>)>,
    is_over: bool,
}

impl Operation for ResumeAwaitable {
    const NAME: &'static CStr = c"headrace._core.ResumeLease";

    own_class!();

    fn poll<'py>(
        &mut self,
        py: Python<'py>,
        context: &mut Context<'_>,
    ) -> Poll<PyResult<Bound<'py, PyAny>>> {
        let polled = self.poll_resumed(py, context);
        self.is_over = matches!(polled, Poll::Ready(Ok(())));
        polled.map_ok(|()| py.None().into_bound(py))
    }

    fn forward(&self) -> Option<Box<dyn FnOnce() + Send>> {
        self.future.as_ref()?.0.forward()
    }
}

traverse!(ResumeAwaitable { lease });

impl ResumeAwaitable {
    fn poll_resumed(&mut self, py: Python<'_>, context: &mut Context<'_>) -> Poll<PyResult<()>> {
        let lease = self.lease.get();
        if lease.is_released() {
            return Poll::Ready(Ok(()));
        }
        let handle = lease.handle();
        let tree = handle.enter(py)?;
        if self.future.is_none() {
            let timer = handle.loop_timer(&asyncio::running_loop(py)?)?;
            let future = lease.resume(py, tree, timer.id())?;
            self.future = Some((future, timer));
        }
        let Some((future, _)) = &mut self.future else {
            unreachable!("the future was set above")
        };
        Pin::new(future)
            .poll(context)
            .map_err(|error| lease.acquire_error(py, &error))
    }
}

impl Drop for ResumeAwaitable {
    fn drop(&mut self) {
        // First drop the queued request of this lease.
        self.future = None;
        let lease = self.lease.get();
        if !self.is_over {
            lease.release_in_destructor();
        }
    }
}
