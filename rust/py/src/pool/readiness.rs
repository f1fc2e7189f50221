//! The conditions under which a run may pull and call tasks, and the gate that its feeder awaits until they hold.
//! `feeder.rs`, `start.rs` and `completion.rs` check them, as methods of `Engine`.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use pyo3::intern;
use pyo3::prelude::*;

use super::engine::PyEngine;
use super::task_record::Target;

/// The state of a run, set from Python.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Whether new tasks may be called.
    pub(super) accepts: AtomicBool,
    /// Whether waiting tasks may request their capacity.
    pub(super) grants: AtomicBool,
    /// Whether retries are disabled.
    pub(super) is_ending: AtomicBool,
    /// Whether the policy is notified when only `watched_number` tasks are left.
    pub(super) is_watched: AtomicBool,
    /// The number of tasks that may wait for the end of the run.
    pub(super) watched_number: AtomicUsize,
    /// Whether the threads of the run were started.
    pub(super) has_threads: AtomicBool,
    /// Whether the executor that the user has passed was started.
    pub(super) has_given: AtomicBool,
    /// Whether the held task waits for a slot of its executor.
    pub(super) lacks_slot: AtomicBool,
}

impl State {
    pub(super) fn executor_of(&self, is_given: bool) -> &AtomicBool {
        if is_given {
            &self.has_given
        } else {
            &self.has_threads
        }
    }
}

impl PyEngine {
    /// Return whether an accepted task (`more` is 0) or `more` new tasks may be called, apart from their capacity.
    #[inline]
    pub(super) fn may_start(&self, py: Python<'_>, more: usize) -> bool {
        self.may_call(py, more) && self.events.get().has_room(py, None)
    }

    /// Return the same as `may_start`, ignoring the space for unread events.
    #[inline]
    fn may_call(&self, py: Python<'_>, more: usize) -> bool {
        self.state.accepts.load(Relaxed)
            && self.registry.backing_off(py) < self.most_backing_off
            && self.may_look_up(py)
            && !self.events.get().is_window_full(py, more)
            && (self.journal.get()).is_none_or(|journal| journal.has_room(py))
    }

    /// Return whether the cache of the run, if it has one, allows another task.
    #[inline]
    fn may_look_up(&self, py: Python<'_>) -> bool {
        (self.cache.get()).is_none_or(|cache| {
            cache.has_room.load(Relaxed) && self.registry.following(py) < self.most_backing_off
        })
    }

    /// Return the number of tasks that have not ended, or whose events wait for a sync of the journal.
    #[inline]
    pub(super) fn tasks_left_number(&self, py: Python<'_>) -> usize {
        let unsynced = (self.journal.get()).map_or(0, |journal| journal.unsynced(py));
        self.registry.len(py) + unsynced
    }

    /// Return whether the feeder can continue, ignoring the space for unread events.
    pub(super) fn is_ready(&self, py: Python<'_>) -> bool {
        if self.held.load(Relaxed) != 0 {
            return !self.state.lacks_slot.load(Relaxed) && self.may_call(py, 0);
        }
        self.registry.queued(py) < self.lookahead && self.may_call(py, 1)
    }

    /// Wake the feeder if it can continue.
    #[inline]
    pub(super) fn wake(&self, py: Python<'_>) -> PyResult<()> {
        let is_shut = self.gate.borrow(py).is_some();
        if !is_shut || !self.is_ready(py) {
            return Ok(());
        }
        let gate = self.gate.borrow(py).take();
        let Some(gate) = gate else {
            return Ok(());
        };
        let gate = gate.bind(py);
        if gate.call_method0(intern!(py, "done"))?.is_truthy()? {
            return Ok(());
        }
        gate.call_method1(intern!(py, "set_result"), (py.None(),))
            .map(drop)
    }

    pub(super) fn is_ending(&self) -> bool {
        self.state.is_ending.load(Relaxed)
    }

    pub(super) fn grants(&self) -> bool {
        self.state.grants.load(Relaxed)
    }

    /// Return whether an executor was started.
    pub(super) fn is_started(&self, executor: Target) -> bool {
        self.state.executor_of(executor.is_given()).load(Relaxed)
    }

    /// Return the executor that the held task needs, if it was not started.
    pub(super) fn missing_executor(&self, py: Python<'_>) -> Option<Target> {
        let held = self.held.load(Relaxed);
        let executor = self
            .registry
            .with_waiting(py, held, |waiting| waiting.record.executor());
        executor
            .flatten()
            .filter(|executor| !self.is_started(*executor))
    }

    /// Return whether the policy must be notified that the last tasks have ended; only once.
    #[inline]
    pub(super) fn take_idle(&self, py: Python<'_>) -> bool {
        let is_idle = self.state.is_watched.load(Relaxed)
            && self.tasks_left_number(py) <= self.state.watched_number.load(Relaxed);
        if is_idle {
            self.state.is_watched.store(false, Relaxed);
        }
        is_idle
    }

    pub(super) fn set_held(&self, id: u64) {
        self.held.store(id, Relaxed);
    }

    /// Return the id of the held task if it can be called now. It is then no longer held.
    pub(super) fn take_held(&self, py: Python<'_>) -> PyResult<Option<u64>> {
        let held = self.held.load(Relaxed);
        if held == 0 || !self.may_start(py, 0) || self.missing_executor(py).is_some() {
            return Ok(None);
        }
        if !self.try_slot_of(py, held)? {
            self.state.lacks_slot.store(true, Relaxed);
            return Ok(None);
        }
        self.held.store(0, Relaxed);
        Ok(Some(held))
    }

    pub(super) fn is_holding(&self) -> bool {
        self.held.load(Relaxed) != 0
    }

    /// Clear the held task, if it is this one.
    pub(super) fn unhold(&self, id: u64) {
        if self.held.load(Relaxed) == id {
            self.held.store(0, Relaxed);
            self.state.lacks_slot.store(false, Relaxed);
        }
    }

    /// Return whether a task needs only capacity, and has not requested it.
    pub(super) fn lacks_request(&self, py: Python<'_>, id: u64) -> bool {
        (self.registry)
            .with_waiting(py, id, |waiting| {
                waiting.is_due && waiting.request.is_none()
            })
            .unwrap_or(false)
    }
}
