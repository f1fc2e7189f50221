//! A lease: what somebody holds of a capacity.

use std::ffi::CStr;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use headrace_core::capacity::{self as core, Amount, NodeId, OwnerId, PermitId, Resource, Tree};
use pyo3::exceptions::{PyResourceWarning, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::node::Capacity;
use super::queued::Standing;
use super::timer::LoopAlarm;
use super::tree::{Keeper, Shared};
use super::{arguments, convert, core_error, timer};
use crate::coroutine::operation::{Operation, Ready};
use crate::coroutine::{Class, async_context};
use crate::errors;
use crate::object::freelist::{Bin, Filling, Leaving, Recycled};
use crate::object::gc::traverse;
use crate::runtime::asyncio;
use crate::runtime::blocking_wait::Blocking;
use crate::runtime::task_id;

/// What somebody holds of a capacity, here and at every ancestor, until it is released.
///
/// `with lease:` releases it at the end of the block. One that is collected while it is held returns its capacity, and
/// emits a `ResourceWarning`. Any thread may use it.
#[pyclass(frozen, module = "headrace", name = "Lease")]
#[derive(Debug)]
pub(super) struct Lease {
    permit: Filling<Permit>,
    is_released: AtomicBool,
}

/// What it holds, by its name, and where.
#[derive(Debug)]
struct Permit {
    /// `None` in a dead object alone.
    keeper: Option<Py<Keeper>>,
    node: NodeId,
    id: PermitId,
}

static BIN: Bin = Bin::new();

impl Recycled for Lease {
    fn bin() -> &'static Bin {
        &BIN
    }

    #[inline]
    fn spend(&self, leaving: &mut Leaving) -> bool {
        // One that was not released is dropped by the long way, which releases it and warns.
        let is_spent = self.is_released.load(Ordering::Relaxed);
        if is_spent {
            // SAFETY: the last reference to the object is gone.
            let permit = unsafe { self.permit.get_mut() };
            leaving.push(permit.keeper.take().map(Py::into_any));
        }
        is_spent
    }
}

impl Lease {
    #[inline]
    pub(super) fn make<'py>(
        source: &Bound<'py, Capacity>,
        id: PermitId,
    ) -> PyResult<Bound<'py, Self>> {
        let py = source.py();
        let (keeper, node) = source.get().place()?;
        let permit = Permit {
            keeper: Some(keeper.clone_ref(py)),
            node,
            id,
        };
        if let Some(lease) = BIN.take::<Self>(py) {
            let this = lease.get();
            // SAFETY: nobody else has it yet.
            unsafe { *this.permit.get_mut() = permit };
            this.is_released.store(false, Ordering::Relaxed);
            return Ok(lease);
        }
        let lease = Self {
            permit: Filling::new(permit),
            is_released: AtomicBool::new(false),
        };
        // If there is no memory for it, dropping it releases it.
        Bound::new(py, lease)
    }
}

#[expect(clippy::doc_markdown, reason = "these docstrings are Python's")]
#[pymethods]
impl Lease {
    /// Refuses to be copied and pickled; see `headrace.copying`.
    #[expect(clippy::unused_self, reason = "Python calls it as a method")]
    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err(
            "Lease cannot be copied or pickled: what it holds would be held twice; acquire another one of its capacity",
        ))
    }

    /// Gives it back: slots at once; what a rate gave comes back with time, and what was taken of a budget is spent.
    /// Idempotent.
    pub(super) fn release(&self, py: Python<'_>) -> PyResult<()> {
        self.shared()
            .give_back(py, "lease", |tree| self.release_in(tree))
    }

    /// Corrects what was asked for to what it really was, of the resources that are named.
    ///
    /// Of a rate, more makes a debt, which those who come later wait for; less gives back what was not needed, as if it had been
    /// known from the start: nothing, where the rate was at rest since and is full already. Of a budget both are exact, and more may go
    /// beyond it. Of slots less is given back at once; more is refused. It may be done more than once, while the lease is held; of a
    /// rate or a budget also while it is given back for a while.
    ///
    /// Raises:
    ///     TypeError: An amount is no number.
    ///     ValueError: An amount is negative or not finite, the lease does not hold that resource, or slots would grow.
    ///     RuntimeError: The lease was released; or it is given back for a while, and slots are among what is named.
    #[pyo3(signature = (**actual))]
    fn settle(&self, py: Python<'_>, actual: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        let tree = self.shared().enter(py)?;
        let actual = (actual.into_iter().flat_map(PyDictMethods::iter))
            .map(|(name, value)| self.part(&name, &value))
            .collect::<PyResult<Vec<_>>>()?;
        (tree.settle(self.id(), &actual)).map_err(|error| core_error::of_permit(tree, error))
    }

    /// Gives it back for a while, and takes it again at the end of the block, in a line as any other: `async with
    /// lease.suspended():`, or `with` in a thread without a loop. What it took of rates and budgets stays taken.
    ///
    /// Cancel safety: if taking it again is cancelled or fails, the lease is released.
    ///
    /// Raises:
    ///     RuntimeError: When entered: the lease was released, or is given back already.
    ///     WouldDeadlock: At the end: this task holds itself what it would wait for, as in `acquire`.
    ///     ClosedError: At the end: the node was closed, or one above it.
    fn suspended(slf: Bound<'_, Self>) -> Suspended {
        Suspended {
            lease: slf.unbind(),
        }
    }

    /// How much it holds, by resource; nothing once it was released.
    #[getter]
    fn cost<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let tree = self.shared().look();
        let cost = tree.cost(self.id());
        let parts = cost.iter().flat_map(core::Cost::parts);
        convert::by_name(py, tree, parts.copied())
    }

    /// Whether it was released.
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
        let tree = self.shared().look();
        let Some(cost) = tree.cost(self.id()) else {
            return "<Lease, released>".to_owned();
        };
        let parts: Vec<_> = (cost.parts().iter())
            .map(|(resource, amount)| format!("{amount} {}", tree.resource_name(*resource)))
            .collect();
        let of = (tree.name(self.permit.get().node))
            .map_or(String::new(), |name| format!(" of '{name}'"));
        let away = if tree.is_suspended(self.id()) {
            ", given back for a while"
        } else {
            ""
        };
        format!("<Lease of {}{of}{away}>", parts.join(", "))
    }
}

impl Lease {
    #[inline]
    fn shared(&self) -> &Arc<Shared> {
        let keeper = self.permit.get().keeper.as_ref();
        let keeper = keeper.expect("it is there until it is dropped");
        &keeper.get().0
    }

    #[inline]
    fn id(&self) -> PermitId {
        self.permit.get().id
    }

    /// Releases it, unless it is.
    #[inline]
    fn release_in(&self, tree: &Tree) {
        // With the GIL held, so that nobody comes in between.
        if !self.is_released.load(Ordering::Relaxed) {
            self.is_released.store(true, Ordering::Relaxed);
            tree.release(self.id());
        }
    }

    /// The same where nobody can be told that the clock failed.
    fn release_at_last(&self) {
        if !self.is_released.load(Ordering::Relaxed) {
            self.shared().at_last(|tree| self.release_in(tree));
        }
    }

    fn part(
        &self,
        name: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<(Resource, Amount)> {
        let py = name.py();
        let name = errors::text("a resource", name.cast::<PyString>()?)?;
        let amount = arguments::amount(&name, value)?;
        let shared = self.shared();
        let cost = shared.look().cost(self.id());
        let parts = cost.as_ref().map_or(&[][..], core::Cost::parts);
        let resource = shared.resource(py, &name);
        match resource.filter(|resource| parts.iter().any(|(held, _)| held == resource)) {
            Some(resource) => Ok((resource, amount)),
            None if cost.is_none() => Err(PyRuntimeError::new_err("this lease was released")),
            None => {
                let held: Vec<_> = (parts.iter())
                    .map(|(held, _)| format!("'{}'", shared.look().resource_name(*held)))
                    .collect();
                Err(PyValueError::new_err(format!(
                    "this lease holds no '{name}'; it holds {}",
                    held.join(", ")
                )))
            }
        }
    }

    fn suspend(&self, py: Python<'_>) -> PyResult<()> {
        let tree = self.shared().enter(py)?;
        (tree.suspend(self.id())).map_err(|error| core_error::of_permit(tree, error))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A forked child has no such tree.
        let is_held = !*self.is_released.get_mut();
        if is_held && self.shared().home.is_here() {
            self.release_at_last();
            warn();
        }
    }
}

/// A warning runs Python code, which must not see an exception that is on its way through whoever dropped the lease.
#[cold]
fn warn() {
    Python::attach(|py| {
        let pending = PyErr::take(py);
        let category = py.get_type::<PyResourceWarning>();
        let warned = PyErr::warn(
            py,
            &category,
            c"a lease was collected before it was released; use `with lease:`",
            1,
        );
        if let Err(error) = warned {
            error.write_unraisable(py, None);
        }
        if let Some(pending) = pending {
            pending.restore(py);
        }
    });
}

/// A lease that is given back for the length of a block.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(super) struct Suspended {
    lease: Py<Lease>,
}

#[pymethods]
impl Suspended {
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
        let taken = lease.take_again(py, CALL);
        if taken.is_err() {
            lease.release_at_last();
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
            Retaking {
                lease: self.lease.clone_ref(py),
                future: None,
                is_over: false,
            },
        )
    }
}

impl Lease {
    /// Takes it again in a thread; nothing if somebody released it, before or meanwhile.
    fn take_again(&self, py: Python<'_>, call: Blocking) -> PyResult<()> {
        let shared = self.shared();
        let tree = shared.enter(py)?;
        if self.is_released() {
            return Ok(());
        }
        let alarm = tree.alarm();
        let future = (tree.take_again(self.id(), Some(alarm.id())))
            .map_err(|error| core_error::of_permit(tree, error))?
            .by(OwnerId(task_id::current(py)?.get()));
        let future = Standing::new(shared, future);
        match timer::wait(py, call, shared, &alarm, future, None)? {
            Some(Err(error)) if !self.is_released() => Err(self.refuse(py, &error)),
            // It waits for as long as it takes.
            _ => Ok(()),
        }
    }

    #[cold]
    fn refuse(&self, py: Python<'_>, error: &core::AcquireError) -> PyErr {
        let tree = self.shared().look();
        let cost = tree.cost(self.id());
        let asked = |resource| (cost.as_ref()).map_or(Amount::ZERO, |cost| cost.get(resource));
        core_error::of_ask(py, tree, self.permit.get().node, error, asked)
    }
}

/// Taking a lease again.
#[derive(Debug)]
pub(super) struct Retaking {
    lease: Py<Lease>,
    /// Made by the first step, with the alarm of its loop.
    future: Option<(Standing<core::Resume>, Arc<LoopAlarm>)>,
    is_over: bool,
}

static CLASS: Class = Class::new();

impl Operation for Retaking {
    const NAME: &'static CStr = c"headrace._core.Retaking";

    fn class() -> &'static Class {
        &CLASS
    }

    fn poll<'py>(
        &mut self,
        py: Python<'py>,
        context: &mut Context<'_>,
    ) -> Poll<PyResult<Bound<'py, PyAny>>> {
        let polled = self.poll_retaken(py, context);
        self.is_over = matches!(polled, Poll::Ready(Ok(())));
        polled.map_ok(|()| py.None().into_bound(py))
    }

    fn forward(&self) -> Option<Box<dyn FnOnce() + Send>> {
        self.future.as_ref()?.0.forward()
    }
}

traverse!(Retaking { lease });

impl Retaking {
    fn poll_retaken(&mut self, py: Python<'_>, context: &mut Context<'_>) -> Poll<PyResult<()>> {
        let lease = self.lease.get();
        if lease.is_released() {
            return Poll::Ready(Ok(()));
        }
        let shared = lease.shared();
        let tree = shared.enter(py)?;
        if self.future.is_none() {
            let alarm = shared.alarm(&asyncio::running_loop(py)?)?;
            let future = (tree.take_again(lease.id(), Some(alarm.id())))
                .map_err(|error| core_error::of_permit(tree, error))?
                .by(OwnerId(task_id::current(py)?.get()));
            self.future = Some((Standing::new(shared, future), alarm));
        }
        let Some((future, _)) = &mut self.future else {
            unreachable!("it was made just now")
        };
        Pin::new(future)
            .poll(context)
            .map_err(|error| lease.refuse(py, &error))
    }
}

impl Drop for Retaking {
    fn drop(&mut self) {
        // What stands in the line for this lease, first.
        self.future = None;
        let lease = self.lease.get();
        if !self.is_over {
            lease.release_at_last();
        }
    }
}
