//! What the nodes of one tree share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use headrace_core::capacity::{
    Alarm, ManualClock, NodeError, NodeId, NodeOptions, Resource, Settings, Time, Tree,
};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};
use pyo3::{PyTraverseError, PyVisit};

use super::timer::LoopAlarm;
use crate::coroutine::with_saved_exception;
use crate::errors;
use crate::object::gc;
use crate::object::gil_cell::GilCell;
use crate::runtime::fork_guard::ProcessId;

/// What a loop's timer is late by costs no quota, up to this: a millisecond, by which loops round, and what keeps a busy one.
const LATENESS: Duration = Duration::from_millis(50);

/// A tree with its clock and the alarms of the loops that wait for it.
///
/// Whatever may grant something has to be done at the time of now, and where the clock is a function of Python's the tree knows
/// no other time than the one that it was told last. So the tree is out of reach but for these ways:
///
/// | way | for what | an error of the clock |
/// |---|---|---|
/// | [`enter`](Shared::enter) | what somebody calls | is the caller's, and nothing was done |
/// | [`give_back`](Shared::give_back) | giving something back | is the caller's, and it was done |
/// | [`at_last`](Shared::at_last) | destructors, and whoever else has no caller | goes to `sys.unraisablehook`, and it was done |
/// | [`look`](Shared::look), [`forget`](Shared::forget) | what grants nothing, at whatever time | |
///
/// A future of the tree is kept in a [`Standing`](super::queued::Standing), which leaves its line by the third.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) home: ProcessId,
    core: Arc<Tree>,
    clock: Option<Given>,
    /// The resources that some node limits, by name.
    resources: GilCell<HashMap<String, Resource>>,
    pub(super) alarms: GilCell<Vec<Arc<LoopAlarm>>>,
    /// Counts the changes after which what could be asked for may not be any more.
    revision: AtomicU64,
}

/// A clock of the user's, and what it showed last.
#[derive(Debug)]
struct Given {
    /// The collector knows it by the [`Anchor`], and may take it when that one is gone.
    callable: GilCell<Option<Py<PyAny>>>,
    /// That one. Of what is garbage the collector clears the weak references before it takes anything apart.
    anchor: OnceLock<Py<PyWeakrefReference>>,
    shown: Arc<ManualClock>,
}

impl Shared {
    /// A new tree; `clock` is a callable that gives the seconds.
    pub(super) fn new(clock: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let (mut settings, clock) = match clock {
            None => (Settings::default(), None),
            Some(clock) if clock.is_callable() => {
                let shown = Arc::new(ManualClock::new());
                let given = Given {
                    callable: GilCell::new(Some(clock.clone().unbind())),
                    anchor: OnceLock::new(),
                    shown: Arc::clone(&shown),
                };
                (Settings::with_clock(shown), Some(given))
            }
            Some(clock) => return Err(errors::wrong_type("clock", "callable or None", clock)),
        };
        settings.lateness = LATENESS;
        Ok(Self {
            home: ProcessId::current(),
            core: Tree::new(settings),
            clock,
            resources: GilCell::default(),
            alarms: GilCell::default(),
            revision: AtomicU64::new(1),
        })
    }

    /// Whether time is that of the machine here, and no clock of the user's.
    pub(super) fn has_real_clock(&self) -> bool {
        self.clock.is_none()
    }

    /// Fails if it may not be used here.
    #[inline]
    pub(super) fn check(&self, py: Python<'_>) -> PyResult<()> {
        self.home.check(py, "capacity")?;
        if self.core.is_broken() {
            return Err(errors::broken(py, "capacity"));
        }
        Ok(())
    }

    /// The tree, if it may be used here, with its clock set to the time of now.
    #[inline]
    pub(super) fn enter(&self, py: Python<'_>) -> PyResult<&Arc<Tree>> {
        self.check(py)?;
        if let Some(given) = &self.clock {
            given.read(py)?;
        }
        Ok(&self.core)
    }

    /// Gives something back, also if the clock fails. In a forked child there is nothing to give it back to.
    #[inline]
    pub(super) fn give_back(
        &self,
        py: Python<'_>,
        what: &str,
        act: impl FnOnce(&Tree),
    ) -> PyResult<()> {
        self.home.check(py, what)?;
        let entered = self.enter(py);
        act(&self.core);
        entered.map(drop)
    }

    /// Does what has to be done although nobody is there who could be told of an error: nothing in a forked child, nor in a tree
    /// that is broken. Called with no lock held, and with no borrow open.
    pub(super) fn at_last(&self, act: impl FnOnce(&Tree)) {
        if !self.home.is_current() || self.core.is_broken() {
            return;
        }
        if let Some(given) = &self.clock {
            with_saved_exception(|py| {
                if given.is_alive(py)
                    && let Err(error) = given.read(py)
                {
                    error.write_unraisable(py, None);
                }
            });
        }
        act(&self.core);
    }

    /// A node is nobody's any more. All who wait there have it, so nobody does, and this makes room for nobody: the time does not
    /// matter.
    pub(super) fn forget(&self, node: NodeId) {
        if self.home.is_current() && !self.core.is_broken() {
            self.core.remove(node);
        }
    }

    /// The tree as it is: for names, for what is held, and for what could be asked; not for anything that grants.
    #[inline]
    pub(super) fn look(&self) -> &Tree {
        &self.core
    }

    /// A timer's side of the tree.
    pub(super) fn core_alarm(&self) -> Alarm {
        self.core.alarm()
    }

    /// The root of a tree that has just been made.
    pub(super) fn root(&self, options: NodeOptions) -> Result<NodeId, NodeError> {
        self.core.root(options)
    }

    #[inline]
    pub(super) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }

    /// A limit changes, or a node is closed. Called with the GIL held, under which both sides run.
    pub(super) fn change(&self) {
        self.revision.fetch_add(1, Ordering::Relaxed);
    }

    /// The resource of a name, new or known.
    pub(super) fn limited(&self, py: Python<'_>, name: &str) -> Resource {
        let resource = self.core.resource(name);
        let mut resources = self.resources.borrow(py);
        resources.insert(name.to_owned(), resource);
        resource
    }

    /// The resource of a name, if a node of the tree limits it.
    pub(super) fn resource(&self, py: Python<'_>, name: &str) -> Option<Resource> {
        self.resources.borrow(py).get(name).copied()
    }
}

impl Given {
    /// Whether the tree is anybody's. If not, nobody waits there who would need the time, and the clock may have been taken apart.
    fn is_alive(&self, py: Python<'_>) -> bool {
        let anchor = self.anchor.get();
        anchor.is_some_and(|anchor| anchor.bind(py).upgrade().is_some())
    }

    #[cold]
    fn read(&self, py: Python<'_>) -> PyResult<()> {
        let callable = (self.callable.borrow(py).as_ref()).map(|callable| callable.clone_ref(py));
        let Some(callable) = callable else {
            return Ok(());
        };
        let told = callable.bind(py).call0()?;
        let seconds: f64 = told.extract().map_err(|_| {
            PyTypeError::new_err(format!(
                "clock must return a number of seconds, got {}",
                errors::describe(&told)
            ))
        })?;
        if !seconds.is_finite() || seconds < 0.0 {
            return Err(PyValueError::new_err(format!(
                "clock must return a finite number of seconds from 0, got {}",
                errors::describe(&told)
            )));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "finite and not negative; saturates at the last moment there is"
        )]
        self.shown
            .set(Time::from_nanos((seconds * 1e9).round() as u64));
        Ok(())
    }
}

/// By this a lease keeps its tree: one reference to what is shared, whose own references are counted under the GIL. To count
/// those of an `Arc` takes a locked instruction each, which is more than all the rest of making a lease and dropping it.
///
/// It shows the collector nothing, so that a lease is not the collector's to see either.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(super) struct Keeper(pub(super) Arc<Shared>);

/// By this the collector knows the Python objects of a tree: each node holds one reference to it, where the tree itself
/// is shared in ways that it cannot see.
#[pyclass(frozen, weakref, module = "headrace._core")]
#[derive(Debug)]
pub(super) struct Anchor(Arc<Shared>);

impl Anchor {
    pub(super) fn new(py: Python<'_>, shared: &Arc<Shared>) -> PyResult<Py<Self>> {
        let anchor = Bound::new(py, Self(Arc::clone(shared)))?;
        if let Some(given) = &shared.clock {
            let weak = PyWeakrefReference::new(anchor.as_any())?.unbind();
            given.anchor.set(weak).expect("a tree has one anchor");
        }
        Ok(anchor.unbind())
    }
}

#[pymethods]
impl Anchor {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| {
            let Some(given) = &self.0.clock else {
                return Ok(());
            };
            match given.callable.peek_for_gc().as_deref() {
                Some(Some(callable)) => visit(callable),
                _ => Ok(()),
            }
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        if let Some(given) = &self.0.clock {
            let callable = given.callable.borrow(py).take();
            drop(callable);
        }
    }
}
