//! What the nodes of one tree share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use headrace_core::sched::{ManualClock, Resource, Settings, Time, Tree};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::alarm::LoopAlarm;
use crate::errors;
use crate::fork::Home;
use crate::gc;
use crate::gil::GilCell;

/// What a loop's timer is late by costs no quota, up to this: a millisecond, by which loops round, and what keeps a busy one.
const LATENESS: Duration = Duration::from_millis(50);

/// A tree with its clock and the alarms of the loops that wait for it.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) home: Home,
    pub(super) core: Arc<Tree>,
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
                    shown: Arc::clone(&shown),
                };
                (Settings::with_clock(shown), Some(given))
            }
            Some(clock) => return Err(errors::wrong_type("clock", "callable or None", clock)),
        };
        settings.lateness = LATENESS;
        Ok(Self {
            home: Home::here(),
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

    /// The tree, if it may be used here, with its clock set to the time of now.
    #[inline]
    pub(super) fn enter(&self, py: Python<'_>) -> PyResult<&Arc<Tree>> {
        self.home.check(py, "capacity")?;
        if self.core.is_broken() {
            return Err(errors::broken(py, "capacity"));
        }
        if let Some(given) = &self.clock {
            given.read(py)?;
        }
        Ok(&self.core)
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
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(super) struct Anchor(pub(super) Arc<Shared>);

#[pymethods]
impl Anchor {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::show(&visit, |see| {
            let Some(given) = &self.0.clock else {
                return Ok(());
            };
            match given.callable.peek_for_gc().as_deref() {
                Some(Some(callable)) => see(callable),
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
