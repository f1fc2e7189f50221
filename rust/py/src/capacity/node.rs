//! A node of a tree of capacities.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use headrace_core::capacity::{
    AcquireRequest, NodeId, NodeOptions, OwnerId, PermitId, Tree, Usage,
};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::acquire::{Acquiring, one_slot};
use super::arguments::{Given, is_owned};
use super::lease::Lease;
use super::queued::Standing;
use super::tree::{Anchor, Keeper, Shared};
use super::{arguments, convert, core_error, timer};
use crate::errors;
use crate::runtime::blocking_wait;
use crate::runtime::blocking_wait::Blocking;
use crate::runtime::task_id;

/// The native part of a `CapacitySource`.
#[pyclass(subclass, frozen, weakref, module = "headrace._core")]
#[derive(Debug, Default)]
pub(crate) struct Capacity {
    /// Made by `__init__`, so that a subclass may have one of its own.
    made: OnceLock<Made>,
}

#[derive(Debug)]
struct Made {
    shared: Arc<Shared>,
    /// Shows the collector what is shared.
    anchor: Py<Anchor>,
    /// One for the whole tree.
    keeper: Py<Keeper>,
    node: NodeId,
    /// The tree's revision at which one slot could be asked for.
    is_good_at: AtomicU64,
}

#[expect(clippy::doc_markdown, reason = "these docstrings are Python's")]
#[pymethods]
impl Capacity {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::default()
    }

    #[pyo3(signature = (limits, parent, weight, name, clock))]
    fn __init__(
        &self,
        limits: convert::Lowered<'_>,
        parent: Option<&Bound<'_, Self>>,
        weight: &Bound<'_, PyAny>,
        name: Option<&Bound<'_, PyAny>>,
        clock: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let py = weight.py();
        let weight = arguments::weight(weight)?;
        let name = match name.map(|name| name.cast::<PyString>()) {
            None => None,
            Some(Ok(name)) => Some(Arc::from(&*errors::text("name", name)?)),
            Some(Err(_)) => {
                return Err(errors::wrong_type(
                    "name",
                    "a string or None",
                    name.expect("it was looked at"),
                ));
            }
        };
        let options = |shared: &Shared| {
            PyResult::Ok(NodeOptions {
                limits: convert::lowered(py, shared, limits)?,
                weight,
                name,
            })
        };
        let made = match parent {
            Some(_) if clock.is_some() => {
                return Err(PyValueError::new_err(
                    "clock is for a root alone: what is below another capacity goes by that one's clock",
                ));
            }
            Some(parent) => {
                let parent = parent.get().made()?;
                let tree = parent.shared.enter(py)?;
                let node = tree
                    .add(parent.node, options(&parent.shared)?)
                    .map_err(|error| core_error::of_node(py, tree, Some(parent.node), error))?;
                Made {
                    shared: Arc::clone(&parent.shared),
                    anchor: parent.anchor.clone_ref(py),
                    keeper: parent.keeper.clone_ref(py),
                    node,
                    is_good_at: AtomicU64::new(0),
                }
            }
            None => {
                let shared = Arc::new(Shared::new(clock)?);
                let node = shared.root(options(&shared)?);
                let node =
                    node.map_err(|error| core_error::of_node(py, shared.look(), None, error))?;
                Made {
                    anchor: Anchor::new(py, &shared)?,
                    keeper: Py::new(py, Keeper(Arc::clone(&shared)))?,
                    shared,
                    node,
                    is_good_at: AtomicU64::new(0),
                }
            }
        };
        let made = self.made.set(made);
        made.map_err(|_| PyRuntimeError::new_err("this capacity was initialised before"))
    }

    /// Waits for a lease: `lease = await capacity.acquire()`, or `async with capacity.acquire() as lease:`.
    ///
    /// Args:
    ///     cost: So many slots, or a mapping of resource to number; above 0 of one at least.
    ///     priority: The highest goes first; a wait of ten seconds makes up for one.
    ///     timeout: For how many seconds it may wait, on the loop's clock; `None` for any time.
    ///     owner: By default the current task: a request that would wait for what the same task holds raises
    ///         `WouldDeadlock`. `None` if another task releases the lease.
    ///
    /// Raises:
    ///     TypeError: A parameter is of the wrong type, or `owner` anything but `None`.
    ///     ValueError: `cost` is negative, not finite or of nothing; names a resource that nobody on the path limits; or is
    ///         above what a node of the path ever allows.
    ///     BudgetExhausted: What is left of a budget does not cover it, and nothing that is held can come back.
    ///     WouldDeadlock: This task holds itself what it would wait for. Whoever awaits this is the one who asks: `gather`, and `wait_for`
    ///         up to CPython 3.11, do so in a task of their own, which holds nothing; `timeout=` does not.
    ///     TimeoutError: It could not be had in time.
    ///     ClosedError: The node was closed, or one above it.
    #[pyo3(
        signature = (cost = Given::No, *, priority = Given::No, timeout = None, owner = Given::No),
        text_signature = "($self, cost=1, *, priority=0, timeout=None, owner=...)"
    )]
    fn acquire<'py>(
        slf: Bound<'py, Self>,
        cost: Given<'_, 'py>,
        priority: Given<'_, 'py>,
        timeout: Option<&Bound<'py, PyAny>>,
        owner: Given<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let ask = match (cost, priority) {
            (Given::No, Given::No) => {
                slf.get().check_one(py)?;
                None
            }
            _ => Some(Box::new(slf.get().checked(py, cost, priority)?)),
        };
        let timeout = timeout
            .map(|timeout| blocking_wait::seconds("timeout", timeout))
            .transpose()?;
        Acquiring::make(slf, ask, is_owned(owner)?, timeout)
    }

    /// A lease, or `None` if it cannot be had now. It never waits, and never overtakes those who do.
    ///
    /// It raises what `acquire` does, but for `WouldDeadlock` and `TimeoutError`.
    #[pyo3(
        signature = (cost = Given::No, *, owner = Given::No),
        text_signature = "($self, cost=1, *, owner=...)"
    )]
    fn acquire_nowait<'py>(
        slf: &Bound<'py, Self>,
        cost: Given<'_, 'py>,
        owner: Given<'_, 'py>,
    ) -> PyResult<Option<Bound<'py, Lease>>> {
        let py = slf.py();
        let mut ask = slf.get().ask(py, cost, Given::No)?;
        if is_owned(owner)? {
            ask.owner = Some(OwnerId(task_id::current(py)?.get()));
        }
        let permit = slf.get().take(py, &ask)?;
        permit.map(|permit| Lease::make(slf, permit)).transpose()
    }

    /// Waits for a lease in a thread without a loop.
    ///
    /// Args:
    ///     cost: As in `acquire`; `priority` and `owner` too.
    ///     priority: The highest goes first.
    ///     timeout: For how many real seconds it may wait; `None` for any time.
    ///     owner: By default this thread; `None` if another one releases the lease.
    ///
    /// Raises:
    ///     RuntimeError: A loop runs in this thread, which would stand still.
    ///
    /// Besides, it raises what `acquire` does.
    #[pyo3(
        signature = (cost = Given::No, *, priority = Given::No, timeout = None, owner = Given::No),
        text_signature = "($self, cost=1, *, priority=0, timeout=None, owner=...)"
    )]
    fn acquire_sync<'py>(
        slf: &Bound<'py, Self>,
        cost: Given<'_, 'py>,
        priority: Given<'_, 'py>,
        timeout: Option<&Bound<'py, PyAny>>,
        owner: Given<'_, 'py>,
    ) -> PyResult<Bound<'py, Lease>> {
        const CALL: Blocking = Blocking {
            name: "acquire_sync()",
            instead: "await acquire()",
        };
        let py = slf.py();
        let this = slf.get();
        let mut ask = this.ask(py, cost, priority)?;
        let until = timeout.map(blocking_wait::deadline).transpose()?.flatten();
        if is_owned(owner)? {
            ask.owner = Some(OwnerId(task_id::current(py)?.get()));
        }
        if let Some(permit) = this.take(py, &ask)? {
            return Lease::make(slf, permit);
        }
        let shared = this.shared()?;
        let alarm = shared.core_alarm();
        ask.alarm = Some(alarm.id());
        let future = Standing::new(shared, shared.enter(py)?.acquire(ask.clone()));
        match timer::wait(py, CALL, shared, &alarm, future, until)? {
            Some(Ok(permit)) => Lease::make(slf, permit.into_id()),
            Some(Err(error)) => Err(this.refuse(py, &ask, &error)),
            None => Err(blocking_wait::late("the lease could not be had", timeout)),
        }
    }

    /// Lets nobody in, here and below, until `resume()`. What is held stays held. Idempotent.
    fn pause(&self, py: Python<'_>) -> PyResult<()> {
        let (tree, node) = self.enter(py)?;
        (tree.pause(node)).map_err(|error| core_error::of_node(py, tree, Some(node), error))
    }

    /// Ends a pause, and serves those who fit. Idempotent.
    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        let (tree, node) = self.enter(py)?;
        (tree.resume(node)).map_err(|error| core_error::of_node(py, tree, Some(node), error))
    }

    /// Lets nobody in, here and below, for so many seconds: what a server says that refuses. A later call may make it
    /// longer, never shorter.
    ///
    /// Args:
    ///     seconds: For how long, from 0, on the clock of the tree.
    ///     resource: Only those who ask for this one; by default everybody.
    ///
    /// Raises:
    ///     TypeError: `seconds` is no number, or `resource` no string.
    ///     ValueError: `seconds` is negative or not finite, or the node does not limit that resource.
    ///     ClosedError: The node is closed.
    #[pyo3(signature = (seconds, *, resource = None))]
    fn retry_after(
        &self,
        py: Python<'_>,
        seconds: &Bound<'_, PyAny>,
        resource: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let delay = blocking_wait::seconds("seconds", seconds)?;
        if delay.is_infinite() {
            return Err(PyValueError::new_err(format!(
                "seconds must be finite, got {}; pause() lets nobody in until resume()",
                errors::describe(seconds)
            )));
        }
        // What is too long for it is longer than any process lives.
        let delay = Duration::try_from_secs_f64(delay).unwrap_or(Duration::MAX);
        let resource = resource
            .map(|resource| match resource.cast::<PyString>() {
                Ok(name) => errors::text("resource", name),
                Err(_) => Err(errors::wrong_type("resource", "a string or None", resource)),
            })
            .transpose()?;
        let (tree, node) = self.enter(py)?;
        let resource = match resource.as_deref() {
            None => None,
            Some(name) => match self.shared()?.resource(py, name) {
                Some(resource) => Some(resource),
                None => {
                    return Err(PyValueError::new_err(format!(
                        "{} does not limit '{name}'",
                        core_error::name(tree, node)
                    )));
                }
            },
        };
        (tree.retry_after(node, resource, delay))
            .map_err(|error| core_error::of_node(py, tree, Some(node), error))
    }

    /// Closes it and all below: those who wait there, and those who come, get a `ClosedError`. Leases stay valid.
    /// Idempotent.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let (tree, node) = self.enter(py)?;
        self.shared()?.change();
        tree.close(node);
        Ok(())
    }

    /// Whether it was closed, or one above it.
    #[getter]
    fn closed(&self, py: Python<'_>) -> PyResult<bool> {
        let (tree, node) = self.enter(py)?;
        Ok(tree.is_closed(node))
    }

    /// Whether it is paused, or one above it.
    #[getter]
    fn paused(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.usage(py)?.paused)
    }

    /// How many wait, here and below.
    #[getter]
    fn waiting(&self, py: Python<'_>) -> PyResult<usize> {
        let (tree, node) = self.enter(py)?;
        Ok(tree.waiting(node))
    }

    /// The share among its siblings, relative to theirs; may be set at any time.
    #[getter]
    fn weight(&self, py: Python<'_>) -> PyResult<f64> {
        Ok(self.usage(py)?.weight.as_f64())
    }

    #[setter]
    fn set_weight(&self, py: Python<'_>, weight: &Bound<'_, PyAny>) -> PyResult<()> {
        let weight = arguments::weight(weight)?;
        let (tree, node) = self.enter(py)?;
        (tree.reweigh(node, weight))
            .map_err(|error| core_error::of_node(py, tree, Some(node), error))
    }

    /// What it is called in messages and displays.
    #[getter]
    fn name(&self) -> PyResult<Option<String>> {
        let made = self.made()?;
        Ok(made
            .shared
            .look()
            .name(made.node)
            .map(|name| name.to_string()))
    }

    /// Raises what `acquire(cost, priority=priority)` would raise at once.
    fn _check(&self, py: Python<'_>, cost: Given<'_, '_>, priority: Given<'_, '_>) -> PyResult<()> {
        self.checked(py, cost, priority).map(drop)
    }

    /// Puts other limits in the place of those of the same resources.
    ///
    /// `current` is a list of the limits as Python shows them. It must have `before`, or nothing is done and the result is
    /// false; otherwise it has `after` then.
    fn _resize(
        &self,
        py: Python<'_>,
        limits: convert::Lowered<'_>,
        current: &Bound<'_, PyList>,
        before: &Bound<'_, PyAny>,
        after: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let changed = convert::lowered(py, self.shared()?, limits)?;
        let (tree, node) = self.enter(py)?;
        // From here on no Python runs, so that no other call changes them meanwhile. The caller keeps `before` alive.
        if !current.get_item(0)?.is(before) {
            return Ok(false);
        }
        let mut limits = tree.limits(node);
        limits.retain(|(resource, _)| !changed.iter().any(|(named, _)| named == resource));
        limits.extend(changed);
        self.shared()?.change();
        (tree.resize(node, &limits))
            .map_err(|error| core_error::of_node(py, tree, Some(node), error))?;
        current.set_item(0, after)?;
        Ok(true)
    }

    /// What is held, by resource.
    fn _held<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (tree, _) = self.enter(py)?;
        let held = self.usage(py)?.resources;
        convert::by_name(
            py,
            tree,
            held.iter().map(|usage| (usage.resource, usage.held)),
        )
    }

    /// What is left along the path, by resource.
    fn _left<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (tree, node) = self.enter(py)?;
        if tree.is_closed(node) {
            return Err(core_error::closed(py, tree, node));
        }
        convert::by_name(py, tree, tree.peek(node).into_iter())
    }

    /// The node and all below, as nested tuples.
    fn _snapshot<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let (tree, node) = self.enter(py)?;
        match tree.snapshot(node) {
            Some(snapshot) => convert::shown(py, tree, &snapshot),
            None => Err(core_error::closed(py, tree, node)),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.made.get() {
            Some(made) => visit.call(&made.anchor),
            None => Ok(()),
        }
    }
}

impl Capacity {
    #[inline]
    fn made(&self) -> PyResult<&Made> {
        self.made.get().ok_or_else(uninitialised)
    }

    #[inline]
    pub(super) fn shared(&self) -> PyResult<&Arc<Shared>> {
        Ok(&self.made()?.shared)
    }

    /// What keeps the tree, and the node.
    #[inline]
    pub(super) fn place(&self) -> PyResult<(&Py<Keeper>, NodeId)> {
        let made = self.made()?;
        Ok((&made.keeper, made.node))
    }

    /// The tree, if it may be used here, and the node.
    #[inline]
    pub(super) fn enter(&self, py: Python<'_>) -> PyResult<(&Arc<Tree>, NodeId)> {
        let made = self.made()?;
        Ok((made.shared.enter(py)?, made.node))
    }

    fn usage(&self, py: Python<'_>) -> PyResult<Usage> {
        let (tree, node) = self.enter(py)?;
        tree.usage(node)
            .ok_or_else(|| core_error::closed(py, tree, node))
    }

    /// What a user asks for.
    #[inline]
    pub(super) fn ask(
        &self,
        py: Python<'_>,
        cost: Given<'_, '_>,
        priority: Given<'_, '_>,
    ) -> PyResult<AcquireRequest> {
        let made = self.made()?;
        let (shared, node) = (&made.shared, made.node);
        shared.check(py)?;
        let cost = match cost {
            Given::No => one_slot(node).cost,
            Given::Value(cost) => arguments::cost(&cost, |name| {
                let tree = shared.look();
                let resource = shared.resource(py, name);
                resource.ok_or_else(|| core_error::unknown(tree, node, name, known(tree, node)))
            })?,
        };
        let mut ask = AcquireRequest::new(node, cost);
        if let Given::Value(priority) = priority {
            ask.priority = arguments::priority(&priority)?;
        }
        Ok(ask)
    }

    /// The same, if it could be granted now or later.
    #[inline]
    pub(super) fn checked(
        &self,
        py: Python<'_>,
        cost: Given<'_, '_>,
        priority: Given<'_, '_>,
    ) -> PyResult<AcquireRequest> {
        let ask = self.ask(py, cost, priority)?;
        let checked = self.shared()?.look().check_request(&ask);
        match checked {
            Ok(()) => Ok(ask),
            Err(error) => Err(self.refuse(py, &ask, &error)),
        }
    }

    /// Fails if one slot could never be had. What was found is good until a limit changes.
    #[inline]
    pub(super) fn check_one(&self, py: Python<'_>) -> PyResult<()> {
        let made = self.made()?;
        made.shared.home.check(py, "capacity")?;
        let revision = made.shared.revision();
        if made.is_good_at.load(Ordering::Relaxed) != revision {
            self.checked(py, Given::No, Given::No)?;
            made.is_good_at.store(revision, Ordering::Relaxed);
        }
        Ok(())
    }

    #[inline]
    pub(super) fn take(&self, py: Python<'_>, ask: &AcquireRequest) -> PyResult<Option<PermitId>> {
        let tree = self.shared()?.enter(py)?;
        (tree.try_take(ask)).map_err(|error| self.refuse(py, ask, &error))
    }

    #[cold]
    pub(super) fn refuse(
        &self,
        py: Python<'_>,
        ask: &AcquireRequest,
        error: &headrace_core::capacity::AcquireError,
    ) -> PyErr {
        match self.shared() {
            Ok(shared) => {
                let asked = |resource| ask.cost.get(resource);
                core_error::of_ask(py, shared.look(), ask.node, error, asked)
            }
            Err(error) => error,
        }
    }
}

impl Drop for Capacity {
    fn drop(&mut self) {
        if let Some(made) = self.made.get() {
            made.shared.forget(made.node);
        }
    }
}

#[cold]
fn uninitialised() -> PyErr {
    PyRuntimeError::new_err("this capacity was not initialised: call super().__init__() first")
}

/// The resources that are limited at a node or above it.
#[cold]
fn known(tree: &Tree, node: NodeId) -> Vec<String> {
    (tree.known(node).iter())
        .map(|&resource| tree.resource_name(resource).to_string())
        .collect()
}
