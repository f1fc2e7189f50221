//! `TreeHandle`: the tree, its clock and its timers, shared by all nodes.
//! `PyCapacity`, leases and permits access the core through it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use headrace_core::capacity::{
    Alarm, ManualClock, NodeError, NodeId, NodeOptions, ResourceId, Settings, Time, Tree,
};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};
use pyo3::{PyTraverseError, PyVisit};

use super::timer::LoopTimer;
use crate::coroutine::with_saved_exception;
use crate::errors;
use crate::object::gc::{self, Traverse};
use crate::object::gil_cell::GilCell;
use crate::runtime::fork_guard::ProcessId;

/// A rate loses no quota if a timer is late by up to this. Event loops round to a millisecond, and busy ones are late.
const LATENESS: Duration = Duration::from_millis(50);

/// A tree with its clock and the timers of the event loops that wait for it.
///
/// An operation that may grant capacity must run at the current time. If the clock is a Python function, the tree only knows
/// the time that was read last. So the tree is private, and is accessed by one of these methods:
///
/// | method | use | an error of the clock |
/// |---|---|---|
/// | [`enter`](TreeHandle::enter) | calls | is raised, and the operation is not done |
/// | [`give_back`](TreeHandle::give_back) | releasing | is raised, and the operation is done |
/// | [`in_destructor`](TreeHandle::in_destructor) | destructors and other code without a caller | goes to `sys.unraisablehook`, and the operation is done |
/// | [`peek`](TreeHandle::peek), [`remove_node`](TreeHandle::remove_node) | operations that grant nothing, at any time | |
///
/// A future of the tree is wrapped in a [`Queued`](super::queued::Queued), which leaves its wait queue by the third.
#[derive(Debug)]
pub(super) struct TreeHandle {
    pub(super) process: ProcessId,
    core: Arc<Tree>,
    clock: Option<UserClock>,
    /// The resources that nodes of the tree limit, by name.
    resources: GilCell<BTreeMap<String, ResourceId>>,
    pub(super) loop_timers: GilCell<Vec<Arc<LoopTimer>>>,
    /// Incremented by each change after which a valid request may have become invalid.
    revision: AtomicU64,
    /// Whether outcomes are to be reported for a breaker, which may be set at any time.
    has_breakers: Arc<AtomicBool>,
    /// Whether Python watches the tree while it has waiters; see `watch.rs`.
    pub(super) is_watched: AtomicBool,
}

/// A user's clock, and the time that was read last.
#[derive(Debug)]
struct UserClock {
    /// The garbage collector visits it through the [`PyGcAnchor`], and may clear it when that is garbage.
    callable: GilCell<Option<Py<PyAny>>>,
    /// A weak reference to the [`PyGcAnchor`]. The collector clears weak references to garbage before it clears objects.
    gc_anchor: OnceLock<Py<PyWeakrefReference>>,
    shown: Arc<ManualClock>,
}

impl TreeHandle {
    /// Create a tree. `clock` is a callable that returns seconds.
    pub(super) fn new(clock: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let (mut settings, clock) = match clock {
            None => (Settings::default(), None),
            Some(clock) if clock.is_callable() => {
                let shown = Arc::new(ManualClock::new());
                let user_clock = UserClock {
                    callable: GilCell::new(Some(clock.clone().unbind())),
                    gc_anchor: OnceLock::new(),
                    shown: Arc::clone(&shown),
                };
                (Settings::with_clock(shown), Some(user_clock))
            }
            Some(clock) => return Err(errors::wrong_type("clock", "callable or None", clock)),
        };
        settings.lateness = LATENESS;
        Ok(Self {
            process: ProcessId::current(),
            core: Tree::new(settings),
            clock,
            resources: GilCell::default(),
            loop_timers: GilCell::default(),
            revision: AtomicU64::new(1),
            has_breakers: Arc::default(),
            is_watched: AtomicBool::new(false),
        })
    }

    /// Return whether the tree uses the machine's clock.
    pub(super) fn has_real_clock(&self) -> bool {
        self.clock.is_none()
    }

    /// Fail in a forked child, and after a panic inside the core.
    #[inline]
    pub(super) fn check(&self, py: Python<'_>) -> PyResult<()> {
        self.process.check(py, "capacity")?;
        if self.core.is_broken() {
            return Err(errors::broken(py, "capacity"));
        }
        Ok(())
    }

    /// Check the tree, read the clock, and return the tree.
    #[inline]
    pub(super) fn enter(&self, py: Python<'_>) -> PyResult<&Arc<Tree>> {
        self.check(py)?;
        if let Some(user_clock) = &self.clock {
            user_clock.read(py)?;
        }
        Ok(&self.core)
    }

    /// Release something, even if the clock fails. Fails in a forked child.
    #[inline]
    pub(super) fn give_back(
        &self,
        py: Python<'_>,
        what: &str,
        action: impl FnOnce(&Tree),
    ) -> PyResult<()> {
        self.process.check(py, what)?;
        let entered = self.enter(py);
        action(&self.core);
        entered.map(drop)
    }

    /// Run an operation that has no caller to raise an error to. Does nothing in a forked child and in a broken tree. Must be
    /// called without a lock held or a borrow open.
    pub(super) fn in_destructor(&self, action: impl FnOnce(&Tree)) {
        if !self.process.is_current() || self.core.is_broken() {
            return;
        }
        if let Some(user_clock) = &self.clock {
            with_saved_exception(|py| {
                if user_clock.is_alive(py)
                    && let Err(error) = user_clock.read(py)
                {
                    error.write_unraisable(py, None);
                }
            });
        }
        action(&self.core);
    }

    /// Remove a node that is no longer referenced. Waiters reference their node, so there are none, and the removal grants
    /// nothing: the time does not matter.
    pub(super) fn remove_node(&self, node: NodeId) {
        if self.process.is_current() && !self.core.is_broken() {
            self.core.remove(node);
        }
    }

    /// Return the tree without reading the clock, for reads of names, held amounts and limits; not for operations that may
    /// grant.
    #[inline]
    pub(super) fn peek(&self) -> &Tree {
        &self.core
    }

    /// Create a timer of the core.
    pub(super) fn core_alarm(&self) -> Alarm {
        self.core.alarm()
    }

    /// Create the root of a new tree.
    pub(super) fn root(&self, options: NodeOptions) -> Result<NodeId, NodeError> {
        self.core.root(options)
    }

    #[inline]
    pub(super) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }

    /// Record that a limit changed or a node was closed. Readers and writers hold the GIL.
    pub(super) fn bump_revision(&self) {
        self.revision.fetch_add(1, Ordering::Relaxed);
    }

    /// Return the flag of [`report_from_now_on`](Self::report_from_now_on).
    pub(super) fn has_breakers(&self) -> &Arc<AtomicBool> {
        &self.has_breakers
    }

    /// Record that a node of the tree has got a breaker, so pools must report the outcomes of tasks. Readers and writers hold the GIL.
    pub(super) fn report_from_now_on(&self) {
        self.has_breakers.store(true, Ordering::Relaxed);
    }

    /// Return the resource of a name that a node limits; create it if it is new.
    pub(super) fn intern_resource(&self, py: Python<'_>, name: &str) -> ResourceId {
        let resource = self.core.resource(name);
        let mut resources = self.resources.borrow(py);
        resources.insert(name.to_owned(), resource);
        resource
    }

    /// Return the resource of a name, if a node of the tree limits it.
    pub(super) fn resource(&self, py: Python<'_>, name: &str) -> Option<ResourceId> {
        self.resources.borrow(py).get(name).copied()
    }
}

impl UserClock {
    /// Return whether the tree is referenced. If not, no request waits there that needs the time, and the clock may
    /// have been cleared.
    fn is_alive(&self, py: Python<'_>) -> bool {
        let gc_anchor = self.gc_anchor.get();
        gc_anchor.is_some_and(|gc_anchor| gc_anchor.bind(py).upgrade().is_some())
    }

    #[cold]
    fn read(&self, py: Python<'_>) -> PyResult<()> {
        let Some(callable) = self.callable.get(py) else {
            return Ok(());
        };
        let value = callable.call0()?;
        let seconds: f64 = value.extract().map_err(|_| {
            PyTypeError::new_err(format!(
                "clock must return a number of seconds, got {}",
                errors::describe(&value)
            ))
        })?;
        if !seconds.is_finite() || seconds < 0.0 {
            return Err(PyValueError::new_err(format!(
                "clock must return a finite number of seconds from 0, got {}",
                errors::describe(&value)
            )));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "finite and not negative; saturates at the greatest time"
        )]
        self.shown
            .set(Time::from_nanos((seconds * 1e9).round() as u64));
        Ok(())
    }
}

/// The reference of a lease to its tree. Its reference count changes under the GIL. Counting an `Arc` takes an atomic
/// instruction each time, which costs more than creating and dropping the rest of a lease.
///
/// Neither this nor a lease is tracked by the garbage collector.
#[pyclass(name = "TreeRef", frozen, weakref, module = "headrace._core")]
#[derive(Debug)]
pub(super) struct PyTreeRef(pub(super) Arc<TreeHandle>);

/// Shows the Python objects of a tree to the garbage collector. Each node holds one reference to it; the collector cannot see
/// the `Arc` of the tree itself.
#[pyclass(name = "GcAnchor", frozen, weakref, module = "headrace._core")]
#[derive(Debug)]
pub(super) struct PyGcAnchor(Arc<TreeHandle>);

impl PyGcAnchor {
    pub(super) fn new(py: Python<'_>, handle: &Arc<TreeHandle>) -> PyResult<Py<Self>> {
        let gc_anchor = Bound::new(py, Self(Arc::clone(handle)))?;
        if let Some(user_clock) = &handle.clock {
            let weak = PyWeakrefReference::new(gc_anchor.as_any())?.unbind();
            user_clock
                .gc_anchor
                .set(weak)
                .expect("a tree has one GC anchor");
        }
        Ok(gc_anchor.unbind())
    }
}

#[pymethods]
impl PyGcAnchor {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| {
            let user_clock = self.0.clock.as_ref();
            user_clock.map_or(Ok(()), |user_clock| user_clock.callable.traverse(visit))
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        if let Some(user_clock) = &self.0.clock {
            user_clock.callable.set(py, None);
        }
    }
}
