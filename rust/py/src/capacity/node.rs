//! `PyCapacity`: a node of a tree of capacities.
//! `headrace/capacity/node.py` derives the public `Capacity` from it; the pool's `Engine` acquires from it.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use headrace_core::capacity::{Limit, NodeId, NodeOptions, Tree};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::acquire::AcquireAwaitable;
use super::arguments::{Argument, current_owner, is_owned};
use super::lease::PyLease;
use super::queued::Queued;
use super::tree::{PyGcAnchor, PyTreeRef, TreeHandle};
use super::{arguments, breaker, convert, core_error, timer};
use crate::errors;
use crate::runtime::blocking_wait;
use crate::runtime::blocking_wait::Blocking;

/// The native part of a `CapacitySource`.
#[pyclass(
    name = "Capacity",
    subclass,
    frozen,
    weakref,
    module = "headrace._core"
)]
#[derive(Debug, Default)]
pub(crate) struct PyCapacity {
    /// Set by `__init__`, which a subclass may override.
    pub(super) initialized: OnceLock<Initialized>,
}

#[derive(Debug)]
pub(super) struct Initialized {
    pub(super) handle: Arc<TreeHandle>,
    /// Shows the tree's Python objects to the garbage collector.
    pub(super) gc_anchor: Py<PyGcAnchor>,
    /// Shared by all nodes and leases of the tree.
    pub(super) tree_ref: Py<PyTreeRef>,
    pub(super) node: NodeId,
    /// The tree's revision at which a request for one slot was valid.
    pub(super) slot_checked_at: AtomicU64,
}

#[expect(clippy::doc_markdown, reason = "these docstrings are Python's")]
#[pymethods]
impl PyCapacity {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::default()
    }

    #[pyo3(signature = (limits, parent, weight, name, clock))]
    fn __init__(
        &self,
        limits: convert::LimitTuples<'_>,
        parent: Option<&Bound<'_, Self>>,
        weight: &Bound<'_, PyAny>,
        name: Option<&Bound<'_, PyAny>>,
        clock: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let py = weight.py();
        let weight = arguments::weight(weight)?;
        let name = arguments::text("name", name)?.map(Arc::from);
        let options = |handle: &TreeHandle| {
            PyResult::Ok(NodeOptions {
                limits: convert::limits_to_core(py, handle, limits)?,
                weight,
                name,
                ..NodeOptions::default()
            })
        };
        let (handle, gc_anchor, tree_ref, node) = match parent {
            Some(_) if clock.is_some() => {
                return Err(PyValueError::new_err(
                    "clock is for a root alone: a capacity with a parent uses the clock of its parent",
                ));
            }
            Some(parent) => {
                let parent = parent.get().initialized()?;
                let handle = Arc::clone(&parent.handle);
                let tree = handle.enter(py)?;
                let node = tree
                    .add(parent.node, options(&handle)?)
                    .map_err(|error| core_error::node_error(py, tree, Some(parent.node), error))?;
                let (gc_anchor, tree_ref) = (&parent.gc_anchor, &parent.tree_ref);
                (
                    handle,
                    gc_anchor.clone_ref(py),
                    tree_ref.clone_ref(py),
                    node,
                )
            }
            None => {
                let handle = Arc::new(TreeHandle::new(clock)?);
                let node = (handle.root(options(&handle)?))
                    .map_err(|error| core_error::node_error(py, handle.peek(), None, error))?;
                let gc_anchor = PyGcAnchor::new(py, &handle)?;
                let tree_ref = Py::new(py, PyTreeRef(Arc::clone(&handle)))?;
                (handle, gc_anchor, tree_ref, node)
            }
        };
        let initialized = Initialized {
            handle,
            gc_anchor,
            tree_ref,
            node,
            slot_checked_at: AtomicU64::new(0),
        };
        (self.initialized.set(initialized))
            .map_err(|_| PyRuntimeError::new_err("this capacity is initialised already"))
    }

    /// Wait for a lease: `lease = await capacity.acquire()`, or `async with capacity.acquire() as lease:`.
    ///
    /// Args:
    ///     cost: A number of slots, or a mapping of resource to number; one of them must be above 0.
    ///     priority: The highest is granted first; a wait of ten seconds counts as much as one level.
    ///     timeout: The longest wait in seconds, on the event loop's clock; `None` for no limit.
    ///     owner: By default the current task: a request that would wait for a lease of the same task raises
    ///         `WouldDeadlock`. `None` if another task releases the lease.
    ///
    /// Raises:
    ///     TypeError: A parameter is of the wrong type, or `owner` is not `None`.
    ///     ValueError: `cost` is negative, not finite or empty; names a resource that no node on the path limits; or is above
    ///         the limit of a node on the path.
    ///     BudgetExhausted: The rest of a budget does not cover the cost, and no held lease can return enough.
    ///     WouldDeadlock: This task holds the capacity that it would wait for. Detected only for the awaiting task itself:
    ///         `gather`, and `wait_for` up to CPython 3.11, await in a new task that holds no lease; `timeout=` does not.
    ///     TimeoutError: The lease was not granted in time.
    ///     ClosedError: The node, or one above it, was closed.
    #[pyo3(
        signature = (cost = Argument::Default, *, priority = Argument::Default, timeout = None, owner = Argument::Default),
        text_signature = "($self, cost=1, *, priority=0, timeout=None, owner=...)"
    )]
    fn acquire<'py>(
        slf: Bound<'py, Self>,
        cost: Argument<'_, 'py>,
        priority: Argument<'_, 'py>,
        timeout: Option<&Bound<'py, PyAny>>,
        owner: Argument<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let request = match (cost, priority) {
            (Argument::Default, Argument::Default) => {
                slf.get().check_one_slot(py)?;
                None
            }
            _ => Some(Box::new(slf.get().checked_request(py, cost, priority)?)),
        };
        let timeout = timeout
            .map(|timeout| blocking_wait::seconds("timeout", timeout))
            .transpose()?;
        AcquireAwaitable::make(slf, request, is_owned(owner)?, timeout)
    }

    /// Return a lease, or `None` if it is not available now. Never waits, and never overtakes waiting requests.
    ///
    /// Raises the errors of `acquire`, except `WouldDeadlock` and `TimeoutError`.
    #[pyo3(
        signature = (cost = Argument::Default, *, owner = Argument::Default),
        text_signature = "($self, cost=1, *, owner=...)"
    )]
    fn acquire_nowait<'py>(
        slf: &Bound<'py, Self>,
        cost: Argument<'_, 'py>,
        owner: Argument<'_, 'py>,
    ) -> PyResult<Option<Bound<'py, PyLease>>> {
        let py = slf.py();
        let mut request = slf.get().request(py, cost, Argument::Default)?;
        if is_owned(owner)? {
            request.owner = Some(current_owner(py)?);
        }
        let permit = slf.get().try_take(py, &request)?;
        permit.map(|permit| PyLease::make(slf, permit)).transpose()
    }

    /// Wait for a lease in a thread without an event loop.
    ///
    /// Args:
    ///     cost: As in `acquire`; `priority` and `owner` too.
    ///     priority: The highest is granted first.
    ///     timeout: The longest wait in real seconds; `None` for no limit.
    ///     owner: By default this thread; `None` if another thread releases the lease.
    ///
    /// Raises:
    ///     RuntimeError: An event loop runs in this thread, which would be blocked.
    ///
    /// Also raises the errors of `acquire`.
    #[pyo3(
        signature = (cost = Argument::Default, *, priority = Argument::Default, timeout = None, owner = Argument::Default),
        text_signature = "($self, cost=1, *, priority=0, timeout=None, owner=...)"
    )]
    fn acquire_sync<'py>(
        slf: &Bound<'py, Self>,
        cost: Argument<'_, 'py>,
        priority: Argument<'_, 'py>,
        timeout: Option<&Bound<'py, PyAny>>,
        owner: Argument<'_, 'py>,
    ) -> PyResult<Bound<'py, PyLease>> {
        const CALL: Blocking = Blocking {
            name: "acquire_sync()",
            instead: "await acquire()",
        };
        let py = slf.py();
        let this = slf.get();
        let mut request = this.request(py, cost, priority)?;
        let until = timeout.map(blocking_wait::deadline).transpose()?.flatten();
        if is_owned(owner)? {
            request.owner = Some(current_owner(py)?);
        }
        if let Some(permit) = this.try_take(py, &request)? {
            return PyLease::make(slf, permit);
        }
        let handle = this.handle()?;
        let alarm = handle.core_alarm();
        request.alarm = Some(alarm.id());
        let future = Queued::new(handle, handle.enter(py)?.acquire(request.clone()));
        match timer::wait(py, CALL, handle, &alarm, future, until)? {
            Some(Ok(permit)) => PyLease::make(slf, permit.into_id()),
            Some(Err(error)) => Err(this.acquire_error(py, &request, &error)),
            None => Err(blocking_wait::late("the lease was not granted", timeout)),
        }
    }

    /// Grant nothing, here and below, until `resume()`. Held leases stay valid. Idempotent.
    fn pause(&self, py: Python<'_>) -> PyResult<()> {
        self.change(py, Tree::pause)
    }

    /// End a pause, and grant waiting requests that fit. Idempotent.
    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        self.change(py, Tree::resume)
    }

    /// Grant nothing, here and below, for a number of seconds, such as the delay of a server's `Retry-After`; then ramp up.
    ///
    /// Siblings continue, waiters keep their places, and leases stay valid. Calls of one moment are one event, whose latest
    /// deadline counts. Afterwards one lease is granted. The number that may be held doubles in each mean hold up to half of
    /// the number held at the event, and then each second, until the limit is reached. If the node is cooled down
    /// again before that, the ramp restarts with half of what was held then, and takes up to four seconds for a doubling.
    ///
    /// Args:
    ///     seconds: The duration on the clock of the tree. 0 changes nothing. `None` if the server gives none: then it is 0.5 s,
    ///         doubled up to 64 s by each cooldown if no lease was granted and released since the last one, and halved by each other
    ///         one. If a reported answer has lowered an `AdaptiveLimit` here or above, it is a pause of at most one mean hold.
    ///     resource: Delay only requests for this resource; by default all requests.
    ///
    /// Returns:
    ///     The seconds until the node grants again.
    ///
    /// Raises:
    ///     TypeError: `seconds` is neither a number nor `None`, or `resource` no string.
    ///     ValueError: `seconds` is negative or not finite, or the node does not limit that resource.
    ///     ClosedError: The node is closed.
    #[pyo3(signature = (seconds, resource = None))]
    fn cool_down(
        &self,
        py: Python<'_>,
        seconds: Option<&Bound<'_, PyAny>>,
        resource: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<f64> {
        let delay = seconds.map(|seconds| {
            let delay = blocking_wait::seconds("seconds", seconds)?;
            if delay.is_infinite() {
                return Err(PyValueError::new_err(format!(
                    "seconds must be finite, got {}; pause() grants nothing until resume()",
                    errors::describe(seconds)
                )));
            }
            // A duration that overflows is longer than the life of any process.
            Ok(Duration::try_from_secs_f64(delay).unwrap_or(Duration::MAX))
        });
        let delay = delay.transpose()?;
        let (tree, node) = self.enter(py)?;
        let resource = arguments::text("resource", resource)?
            .map(|name| {
                (self.handle()?.resource(py, &name)).ok_or_else(|| {
                    let node = core_error::name(tree, node);
                    PyValueError::new_err(format!("{node} does not limit '{name}'"))
                })
            })
            .transpose()?;
        let left = self.change(py, |tree, node| tree.cool_down(node, resource, delay))?;
        Ok(left.as_secs_f64())
    }

    /// Spend an amount of each budget with this name on the path, for calls of an earlier process.
    fn _spend(&self, py: Python<'_>, name: &str, amount: &Bound<'_, PyAny>) -> PyResult<()> {
        let amount = arguments::amount("amount", amount)?;
        match self.handle()?.resource(py, name) {
            Some(resource) => self.change(py, |tree, node| tree.spend(node, resource, amount)),
            None => Ok(()),
        }
    }

    /// Cool this node down after a throttled answer without a delay to a call at `leaf`, which is this node or below it.
    fn _back_off(&self, py: Python<'_>, leaf: &Bound<'_, Self>) -> PyResult<f64> {
        let leaf = leaf.get().initialized()?.node;
        let left = self.change(py, |tree, node| tree.back_off(node, leaf))?;
        Ok(left.as_secs_f64())
    }

    /// Close this node and all below: waiting and later requests raise `ClosedError`. Leases stay valid. Idempotent.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let (tree, node) = self.enter(py)?;
        self.handle()?.bump_revision();
        tree.close(node);
        Ok(())
    }

    /// Return whether this node, or one above it, was closed.
    #[getter]
    fn closed(&self, py: Python<'_>) -> PyResult<bool> {
        let (tree, node) = self.enter(py)?;
        Ok(tree.is_closed(node))
    }

    /// Return whether this node, or one above it, is paused.
    #[getter]
    fn paused(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.usage(py)?.paused)
    }

    /// Return the seconds until this node, or one above it, is no longer cooled down. 0 if none is.
    #[getter]
    fn cooling(&self, py: Python<'_>) -> PyResult<f64> {
        Ok(self.cooled(py)?.left)
    }

    /// Return the number of waiting requests, here and below.
    #[getter]
    fn waiting(&self, py: Python<'_>) -> PyResult<usize> {
        let (tree, node) = self.enter(py)?;
        Ok(tree.waiting(node))
    }

    /// Return the share relative to the weights of its siblings; may be set at any time.
    #[getter]
    fn weight(&self, py: Python<'_>) -> PyResult<f64> {
        Ok(self.usage(py)?.weight.as_f64())
    }

    #[setter]
    fn set_weight(&self, py: Python<'_>, weight: &Bound<'_, PyAny>) -> PyResult<()> {
        let weight = arguments::weight(weight)?;
        self.change(py, |tree, node| tree.reweigh(node, weight))
    }

    /// Return the guaranteed minimum of slots; may be set at any time.
    #[getter]
    fn floor<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(arguments::number(py, self.usage(py)?.floor))
    }

    #[setter]
    fn set_floor(&self, py: Python<'_>, floor: &Bound<'_, PyAny>) -> PyResult<()> {
        let floor = arguments::amount("floor", floor)?;
        self.change(py, |tree, node| tree.refloor(node, floor))
    }

    /// Return the name in messages and displays.
    #[getter]
    fn name(&self) -> PyResult<Option<String>> {
        let initialized = self.initialized()?;
        let name = initialized.handle.peek().name(initialized.node);
        Ok(name.map(|name| name.to_string()))
    }

    /// Raise the errors that `acquire(cost, priority=priority)` raises at once.
    fn _check(
        &self,
        py: Python<'_>,
        cost: Argument<'_, '_>,
        priority: Argument<'_, '_>,
    ) -> PyResult<()> {
        self.checked_request(py, cost, priority).map(drop)
    }

    /// Replace the limits of some resources.
    ///
    /// `current` is a list of one element, the limits as Python shows them. If that element is not `before`, does nothing and
    /// returns `False`; otherwise replaces it by `after`.
    fn _resize(
        &self,
        py: Python<'_>,
        limits: convert::LimitTuples<'_>,
        current: &Bound<'_, PyList>,
        before: &Bound<'_, PyAny>,
        after: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let changed = convert::limits_to_core(py, self.handle()?, limits)?;
        let (tree, node) = self.enter(py)?;
        // No Python code runs from here on, so no other call can change the limits meanwhile. The caller keeps `before` alive.
        if !current.get_item(0)?.is(before) {
            return Ok(false);
        }
        let mut limits = tree.limits(node);
        limits.retain(|(resource, _)| !changed.iter().any(|(named, _)| named == resource));
        limits.extend(changed);
        self.handle()?.bump_revision();
        self.change(py, |tree, node| tree.resize(node, &limits))?;
        current.set_item(0, after)?;
        Ok(true)
    }

    /// Set the breaker of the node, closed, or remove it.
    fn _set_breaker(&self, py: Python<'_>, options: Option<breaker::Options>) -> PyResult<()> {
        let options = options.map(breaker::options_to_core);
        self.handle()?.report_from_now_on();
        self.change(py, |tree, node| tree.set_breaker(node, options))
    }

    /// Return the state of the node's breaker.
    fn _breaker_status(&self, py: Python<'_>) -> PyResult<Option<breaker::Status>> {
        Ok(self.usage(py)?.breaker.map(breaker::status_to_python))
    }

    /// Return the current limit of each adaptive resource and each auto rate, and its maximum.
    fn _adaptive<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (tree, node) = self.enter(py)?;
        let found = PyDict::new(py);
        for (resource, limit) in tree.limits(node) {
            if let Limit::Adaptive { start, maximum, .. } | Limit::AutoRate { start, maximum, .. } =
                limit
            {
                let pair = (arguments::number(py, start), arguments::number(py, maximum));
                found.set_item(&*tree.resource_name(resource), pair)?;
            }
        }
        Ok(found)
    }

    /// Return the held amounts by resource.
    fn _held<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (tree, _) = self.enter(py)?;
        let held = self.usage(py)?.resources;
        convert::by_name(
            py,
            tree,
            held.iter().map(|usage| (usage.resource, usage.held)),
        )
    }

    /// Return the amounts that are left along the path, by resource.
    fn _left<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (tree, node) = self.enter(py)?;
        if tree.is_closed(node) {
            return Err(core_error::closed(py, tree, node));
        }
        convert::by_name(py, tree, tree.peek(node).into_iter())
    }

    /// Return a snapshot of the node and all below, as nested tuples.
    fn _snapshot<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let (tree, node) = self.enter(py)?;
        match tree.snapshot(node) {
            Some(snapshot) => convert::snapshot_to_python(py, tree, &snapshot),
            None => Err(core_error::closed(py, tree, node)),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.initialized.get() {
            Some(initialized) => visit.call(&initialized.gc_anchor),
            None => Ok(()),
        }
    }
}

impl Drop for PyCapacity {
    fn drop(&mut self) {
        if let Some(initialized) = self.initialized.get() {
            initialized.handle.remove_node(initialized.node);
        }
    }
}
