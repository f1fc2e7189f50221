//! The registry of a run: every task that was accepted and has not ended, by its id. `Engine` holds it.

use std::collections::{HashMap, hash_map};

use headrace_core::capacity::PermitId;
use headrace_core::sync::BuildIntHasher;
use pyo3::intern;
use pyo3::prelude::*;

use super::request::Request;
use super::task_record::TaskRecord;
use crate::object::gc::{Traverse, VisitError, Visitor, traverse};
use crate::object::gil_cell::GilCell;
use crate::runtime::asyncio;

/// The state of a task that was called and has not stopped.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent")]
pub(super) struct Running {
    /// The asyncio task in which the task runs; `None` during its first step, and for work of an executor.
    pub(super) task: Option<Py<PyAny>>,
    /// The work that an executor runs. The record of any other task is in its coroutine.
    pub(super) submitted: Option<Box<Submitted>>,
    /// The permit of its capacity; `None` for work of an executor.
    pub(super) permit: Option<PermitId>,
    /// Whether the task was cancelled, which also disables its retries.
    pub(super) cancel_requested: bool,
    /// Whether the cancellation reached work that had not ended by itself.
    pub(super) is_disturbed: bool,
    /// Whether the current attempt has exceeded its timeout.
    pub(super) timed_out: bool,
    /// Whether its task has ended, and the call goes on for others.
    pub(super) has_left: bool,
    /// Whether the current attempt has reported a value.
    pub(super) has_emitted: bool,
    /// The time at which it was called, or of the scan that last noticed a value of it; 0 for work of an executor.
    pub(super) since: f64,
    /// Whether it has yielded a value since the last scan for calls without progress.
    pub(super) has_progressed: bool,
    /// Whether it was reported as a call without progress.
    pub(super) is_reported: bool,
}

/// The work of a task that was submitted to an executor.
#[derive(Debug)]
pub(super) struct Submitted {
    pub(super) record: TaskRecord,
    /// `None` until `submit` has returned.
    pub(super) handle: Option<Py<PyAny>>,
    /// Whether the end of the run cancelled the task before it was called. If it is never called, the next run gets it.
    pub(super) is_recalled: bool,
}

traverse!(Submitted { record, handle });

/// The state of a task that does not run. It was never called, or it failed and will be retried.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) record: TaskRecord,
    /// The pending request for capacity, or the wait for an equal call.
    pub(super) request: Option<Request>,
    /// Whether the task needs only capacity. False during the delay before a retry.
    pub(super) is_due: bool,
}

impl Waiting {
    pub(super) fn new(record: TaskRecord, request: Option<Request>, is_due: bool) -> Self {
        Self {
            record,
            request,
            is_due,
        }
    }

    /// Return whether the task was never called.
    pub(super) fn is_queued(&self) -> bool {
        let record = &self.record;
        record.attempt == 0 && record.throttled().is_none() && !record.has_left()
    }

    /// Return whether the task waits for the result of an equal call.
    pub(super) fn follows(&self) -> bool {
        matches!(self.request, Some(Request::Flight { .. }))
    }

    /// Return whether the task has requested its capacity.
    fn is_requesting(&self) -> bool {
        self.request.is_some() && !self.follows()
    }
}

traverse!(Waiting { record, request });

#[derive(Debug)]
pub(super) enum Entry {
    Running(Running),
    Waiting(Box<Waiting>),
}

traverse!(
    enum Entry {
        Running(running),
        Waiting(waiting),
    }
);

traverse!(Running { task, submitted });

/// The tasks of a run, by id.
#[derive(Debug, Default)]
pub(super) struct Registry(GilCell<Tasks>);

#[derive(Debug, Default)]
struct Tasks {
    entries: HashMap<u64, Entry, BuildIntHasher>,
    queued: usize,
    backing_off: usize,
    /// The number of tasks that wait for the results of equal calls.
    following: usize,
    /// The number of requests for capacity.
    requests: usize,
}

impl Tasks {
    fn running_mut(&mut self, id: u64) -> Option<&mut Running> {
        match self.entries.get_mut(&id) {
            Some(Entry::Running(running)) => Some(running),
            _ => None,
        }
    }

    fn waiting_mut(&mut self, id: u64) -> Option<&mut Waiting> {
        match self.entries.get_mut(&id) {
            Some(Entry::Waiting(waiting)) => Some(waiting),
            _ => None,
        }
    }

    fn count(&mut self, is_queued: bool, follows: bool) -> &mut usize {
        if follows {
            &mut self.following
        } else if is_queued {
            &mut self.queued
        } else {
            &mut self.backing_off
        }
    }
}

/// The object that stops a running task: its asyncio task, or the handle of its executor.
#[derive(Debug)]
pub(super) enum Stoppable {
    Task(Py<PyAny>),
    Handle(Py<PyAny>),
}

impl Registry {
    /// Return the number of all tasks.
    pub(super) fn len(&self, py: Python<'_>) -> usize {
        self.0.borrow(py).entries.len()
    }

    /// Return the number of running tasks.
    #[inline]
    pub(super) fn running(&self, py: Python<'_>) -> usize {
        let tasks = self.0.borrow(py);
        tasks.entries.len() - tasks.queued - tasks.backing_off - tasks.following
    }

    /// Call `look` with all running tasks.
    pub(super) fn look_at_running<T>(
        &self,
        py: Python<'_>,
        look: impl FnOnce(&mut dyn Iterator<Item = &Running>) -> T,
    ) -> T {
        let tasks = self.0.borrow(py);
        look(&mut tasks.entries.values().filter_map(|entry| match entry {
            Entry::Running(running) => Some(running),
            Entry::Waiting(_) => None,
        }))
    }

    /// Return the number of tasks that were never called, without those that follow.
    #[inline]
    pub(super) fn queued(&self, py: Python<'_>) -> usize {
        self.0.borrow(py).queued
    }

    /// Return the number of tasks that wait for the results of equal calls.
    #[inline]
    pub(super) fn following(&self, py: Python<'_>) -> usize {
        self.0.borrow(py).following
    }

    /// Return the number of tasks that will be retried.
    #[inline]
    pub(super) fn backing_off(&self, py: Python<'_>) -> usize {
        self.0.borrow(py).backing_off
    }

    /// Return the ids of all tasks, in the order in which they were accepted.
    pub(super) fn ids(&self, py: Python<'_>) -> Vec<u64> {
        let mut ids: Vec<_> = self.0.borrow(py).entries.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Add a task whose first step is about to run.
    #[inline]
    pub(super) fn add_running(&self, py: Python<'_>, id: u64, running: Running) {
        let old = (self.0.borrow(py).entries).insert(id, Entry::Running(running));
        drop(old);
    }

    /// Store the asyncio task of a task after its first step. Return whether the task was cancelled during that step.
    #[inline]
    pub(super) fn set_task(&self, py: Python<'_>, id: u64, task: Py<PyAny>) -> bool {
        let mut tasks = self.0.borrow(py);
        let Some(running) = tasks.running_mut(id) else {
            drop(tasks);
            drop(task);
            return false;
        };
        running.task = Some(task);
        running.cancel_requested
    }

    /// Call `change` with a running task; return `None` if the task does not run.
    pub(super) fn with_running<T>(
        &self,
        py: Python<'_>,
        id: u64,
        change: impl FnOnce(&mut Running) -> T,
    ) -> Option<T> {
        self.0.borrow(py).running_mut(id).map(change)
    }

    /// Remove a running task that has stopped.
    #[inline]
    pub(super) fn remove_running(&self, py: Python<'_>, id: u64) -> Option<Running> {
        let mut tasks = self.0.borrow(py);
        let hash_map::Entry::Occupied(found) = tasks.entries.entry(id) else {
            return None;
        };
        if let Entry::Waiting(_) = found.get() {
            return None;
        }
        match found.remove() {
            Entry::Running(running) => Some(running),
            Entry::Waiting(_) => None,
        }
    }

    /// Call `look` with a task in any state; return `None` if it has ended.
    pub(super) fn with_entry<T>(
        &self,
        py: Python<'_>,
        id: u64,
        look: impl FnOnce(&Entry) -> T,
    ) -> Option<T> {
        self.0.borrow(py).entries.get(&id).map(look)
    }

    pub(super) fn add_waiting(&self, py: Python<'_>, waiting: Waiting) {
        let mut tasks = self.0.borrow(py);
        *tasks.count(waiting.is_queued(), waiting.follows()) += 1;
        tasks.requests += usize::from(waiting.is_requesting());
        let id = waiting.record.id;
        let old = tasks.entries.insert(id, Entry::Waiting(Box::new(waiting)));
        drop(tasks);
        drop(old);
    }

    /// Return whether a task waits.
    pub(super) fn is_waiting(&self, py: Python<'_>, id: u64) -> bool {
        self.0.borrow(py).waiting_mut(id).is_some()
    }

    /// Return whether a task waits for an equal call.
    pub(super) fn follows(&self, py: Python<'_>, id: u64) -> bool {
        self.with_waiting(py, id, |waiting| waiting.follows())
            .unwrap_or(false)
    }

    /// Call `change` with a waiting task; return `None` if the task does not wait.
    pub(super) fn with_waiting<T>(
        &self,
        py: Python<'_>,
        id: u64,
        change: impl FnOnce(&mut Waiting) -> T,
    ) -> Option<T> {
        self.0.borrow(py).waiting_mut(id).map(change)
    }

    pub(super) fn remove_waiting(&self, py: Python<'_>, id: u64) -> Option<Box<Waiting>> {
        let mut tasks = self.0.borrow(py);
        let waiting = tasks.waiting_mut(id)?;
        let (is_queued, follows) = (waiting.is_queued(), waiting.follows());
        let is_requesting = waiting.is_requesting();
        *tasks.count(is_queued, follows) -= 1;
        tasks.requests -= usize::from(is_requesting);
        match tasks.entries.remove(&id) {
            Some(Entry::Waiting(waiting)) => Some(waiting),
            _ => None,
        }
    }

    /// Take the request of a waiting task.
    pub(super) fn take_request(&self, py: Python<'_>, id: u64) -> Option<Request> {
        let mut tasks = self.0.borrow(py);
        let waiting = tasks.waiting_mut(id)?;
        let (is_queued, follows) = (waiting.is_queued(), waiting.follows());
        let is_requesting = waiting.is_requesting();
        let request = waiting.request.take();
        tasks.requests -= usize::from(is_requesting);
        if follows {
            tasks.following -= 1;
            *tasks.count(is_queued, false) += 1;
        }
        request
    }

    /// Return the number of requests for capacity.
    pub(super) fn requests(&self, py: Python<'_>) -> usize {
        self.0.borrow(py).requests
    }

    /// Return the id of the running task of the event loop that is the caller, if there is one.
    pub(super) fn caller(&self, py: Python<'_>) -> Option<u64> {
        let current = asyncio::current_task(py);
        let tasks = self.0.borrow(py);
        let mut entries = tasks.entries.iter();
        let found = entries.find(|(_, entry)| match entry {
            Entry::Running(running) if running.submitted.is_none() => {
                match (&running.task, &current) {
                    // No other code runs during a first step, so the caller is part of that step.
                    (None, _) => true,
                    (Some(task), Some(current)) => current.is(task),
                    (Some(_), None) => false,
                }
            }
            _ => false,
        });
        found.map(|(id, _)| *id)
    }

    /// Return the work of executors: the ids of its tasks and the handles, which are `None` during `submit`.
    pub(super) fn submitted(&self, py: Python<'_>) -> Vec<(u64, Option<Py<PyAny>>)> {
        let tasks = self.0.borrow(py);
        let handle = |entry: &Entry| match entry {
            Entry::Running(running) => {
                let work = running.submitted.as_ref()?;
                Some(work.handle.as_ref().map(|handle| handle.clone_ref(py)))
            }
            Entry::Waiting(_) => None,
        };
        let entries = tasks.entries.iter();
        (entries.filter_map(|(id, entry)| Some((*id, handle(entry)?)))).collect()
    }

    /// Note that a task yields a value. Return whether it is being stopped, and whether it has left its call.
    pub(super) fn note_progress(&self, py: Python<'_>, id: u64) -> (bool, bool) {
        let note = |running: &mut Running| {
            running.has_progressed = true;
            running.has_emitted = true;
            let is_stopping = running.cancel_requested || running.timed_out;
            (is_stopping, running.has_left)
        };
        self.with_running(py, id, note).unwrap_or_default()
    }

    /// Mark a running task and cancel it, unless `mark` returns false. Return whether the task runs.
    pub(super) fn stop(
        &self,
        py: Python<'_>,
        id: u64,
        mark: impl FnOnce(&mut Running) -> bool,
    ) -> PyResult<bool> {
        let found = self.with_running(py, id, |running| {
            if !mark(running) {
                return None;
            }
            let handle = (running.submitted.as_ref()).and_then(|work| work.handle.as_ref());
            match (&running.task, handle) {
                (Some(task), _) => Some(Stoppable::Task(task.clone_ref(py))),
                (None, Some(handle)) => Some(Stoppable::Handle(handle.clone_ref(py))),
                // The caller of `set_task` cancels the task after its first step.
                (None, None) => None,
            }
        });
        let Some(stoppable) = found else {
            return Ok(false);
        };
        let Some(stoppable) = stoppable else {
            return Ok(true);
        };
        let reached = stoppable.cancel(py)?;
        self.with_running(py, id, |running| running.is_disturbed |= reached);
        Ok(true)
    }

    pub(super) fn clear(&self, py: Python<'_>) {
        let tasks = std::mem::take(&mut *self.0.borrow(py));
        drop(tasks);
    }
}

impl Stoppable {
    /// Request cancellation. Return whether there was work to stop.
    fn cancel(&self, py: Python<'_>) -> PyResult<bool> {
        let (Self::Task(object) | Self::Handle(object)) = self;
        let result = object.bind(py).call_method0(intern!(py, "cancel"))?;
        match self {
            Self::Task(_) => result.is_truthy(),
            Self::Handle(_) => {
                let state = result.getattr(intern!(py, "value"))?;
                Ok(!state.eq(intern!(py, "stopped"))?)
            }
        }
    }
}

impl Traverse for Registry {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        let Some(tasks) = self.0.peek_for_gc() else {
            return Ok(());
        };
        (tasks.entries.values()).try_for_each(|entry| entry.traverse(visit))
    }
}
