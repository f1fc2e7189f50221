//! A call that goes on after its task has ended: others wait for its result, in a cache, so that it is not paid for twice.
//! `engine.rs`, `timers.rs` and `cached.rs` call these methods of `Engine`.
//!
//! A task that leads in a cache may be cancelled, or exceed its timeout, during its call. If others wait for the call, the record of the
//! task is split:
//!
//! 1. The task ends at once, with its event, key, place in the order, hooks and journal.
//! 2. The call keeps the id, the capacity, the slot of its executor and the retries. It stays in the registry, so the run does not end
//!    before it. Its result goes to the cache; it reports no event. It has no timeout of its own any more.
//! 3. From then on, the timeout of each task that waits for the call limits its wait ([`PyEngine::limit_wait`]).
//! 4. When no task waits for the call any more, the cache stops it. Its capacity is released when it has stopped.
//!
//! A call is not left at a timeout after which it may be made again. At the end of the run, calls are stopped, whether others wait or not.
//! A task that is cancelled by its own step stops its call, because that step has the record.

use pyo3::exceptions::PyTimeoutError;
use pyo3::intern;
use pyo3::prelude::*;

use super::cached::RunCache;
use super::engine::PyEngine;
use super::registry::{Entry, Running};
use super::request::Request;
use super::task_body::TaskBody;
use super::task_record::{TaskOptions, TaskRecord};
use super::timers::Expiry;
use crate::asyncio_task::TaskCoroutine;
use crate::coroutine::Native;
use crate::runtime::asyncio;

impl PyEngine {
    /// Cancel a task, or with `call` its call, too. Return whether the run has it.
    pub(super) fn cancel_or_leave(slf: &Bound<'_, Self>, id: u64, call: bool) -> PyResult<bool> {
        if !call {
            if slf.get().has_left(slf.py(), id) {
                return Ok(false);
            }
            if Self::leave_call(slf, id, false)? {
                return Ok(true);
            }
        }
        Self::cancel_task(slf, id)
    }

    /// Return whether the task has ended before its call.
    fn has_left(&self, py: Python<'_>, id: u64) -> bool {
        let look = |entry: &Entry| match entry {
            Entry::Running(running) => running.has_left,
            Entry::Waiting(waiting) => waiting.record.has_left(),
        };
        self.registry.with_entry(py, id, look).unwrap_or(false)
    }

    /// End a running task that leads, if others wait for its call. Return whether it has ended.
    pub(super) fn leave_call(slf: &Bound<'_, Self>, id: u64, timed_out: bool) -> PyResult<bool> {
        let py = slf.py();
        let this = slf.get();
        let Some(cache) = this.cache.get().filter(|_| !this.is_ending()) else {
            return Ok(false);
        };
        let split = this.with_call(py, id, |record| {
            this.split(py, cache, record, timed_out).transpose()
        });
        let Some((task, error)) = split.transpose()? else {
            return Ok(false);
        };
        let mark = |running: &mut Running| running.has_left = true;
        this.registry.with_running(py, id, mark);
        (cache.policy.bind(py)).call_method1(intern!(py, "leave_call"), (id,))?;
        Self::fail(slf, task, error, false)?;
        Ok(true)
    }

    /// Call `change` with the record of a call that is not being stopped. Return `None` during a step of the call.
    fn with_call<T>(
        &self,
        py: Python<'_>,
        id: u64,
        change: impl FnOnce(&mut TaskRecord) -> Option<PyResult<T>>,
    ) -> Option<PyResult<T>> {
        let task = self.registry.with_running(py, id, |running| {
            if running.cancel_requested || running.timed_out || running.has_left {
                return None;
            }
            let handle = (running.submitted.as_ref()).map(|work| work.handle.is_some());
            match (&running.task, handle) {
                (Some(task), _) => Some(Some(task.clone_ref(py))),
                (None, Some(true)) => Some(None),
                _ => None,
            }
        });
        let Some(task) = task.flatten()? else {
            // `change` calls Python, which must not happen while the registry is borrowed, so the entry is taken out.
            let mut running = self.registry.remove_running(py, id)?;
            let result = (running.submitted.as_mut()).and_then(|work| change(&mut work.record));
            self.registry.add_running(py, id, running);
            return result;
        };
        let coroutine = match task.bind(py).call_method0(intern!(py, "get_coro")) {
            Ok(coroutine) => coroutine,
            Err(error) => return Some(Err(error)),
        };
        let lent = Native::<TaskCoroutine<TaskBody>>::alter(&coroutine, |coroutine| {
            coroutine.body_mut().and_then(TaskBody::lend)
        });
        let mut record = lent.flatten()?;
        let result = change(&mut record);
        // The event loop takes no step meanwhile.
        Native::<TaskCoroutine<TaskBody>>::alter(&coroutine, |coroutine| {
            if let Some(body) = coroutine.body_mut() {
                body.take_back(record);
            }
        });
        result
    }

    /// Split the record of a call if its task may end before it. Return the part of the task, and its error.
    fn split(
        &self,
        py: Python<'_>,
        cache: &RunCache,
        record: &mut TaskRecord,
        timed_out: bool,
    ) -> PyResult<Option<(TaskRecord, PyErr)>> {
        if !record.leads() || record.attempt == 0 {
            return Ok(None);
        }
        let arguments = (record.id, record.retry(), record.attempt, timed_out);
        let may_leave =
            (cache.policy.bind(py)).call_method1(intern!(py, "may_leave"), arguments)?;
        if !may_leave.is_truthy()? {
            return Ok(None);
        }
        let error = if timed_out {
            self.timeout_error(py, record)?
        } else {
            self.cancellation_of(py, record)?
        };
        self.note_spend(py, record)?;
        self.clear_timer(py, record);
        Ok(Some((record.split(py), error)))
    }

    /// Return the error of a task that was cancelled before its end.
    pub(super) fn cancellation_of(&self, py: Python<'_>, record: &TaskRecord) -> PyResult<PyErr> {
        let name = self.describe(py, record)?;
        let message = format!("{name} was cancelled").into_pyobject(py)?;
        Ok(asyncio::cancellation(py, Some(message.into_any().unbind())))
    }

    /// Start the timeout of a task that waits for a call that was left.
    pub(super) fn limit_wait(slf: &Bound<'_, Self>, id: u64) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let now = this.now(py)?;
        let deadline = this.registry.with_waiting(py, id, |waiting| {
            let seconds = waiting.record.timeout()?.seconds;
            let deadline = now + seconds;
            // A queue timeout at the same moment has the same effect, and the same place in the queue.
            if waiting.record.deadline == Some(deadline) {
                return None;
            }
            match &mut waiting.request {
                Some(Request::Flight {
                    deadline: field, ..
                }) if field.is_none() => {
                    *field = Some(deadline);
                    Some(deadline)
                }
                _ => None,
            }
        });
        match deadline.flatten() {
            Some(deadline) => Self::add_timer(slf, id, deadline, Expiry::Wait),
            None => Ok(()),
        }
    }

    /// Remove the timer of a wait for a call that was left.
    pub(super) fn clear_wait(&self, py: Python<'_>, id: u64, request: Option<&Request>) {
        if let Some(Request::Flight {
            deadline: Some(deadline),
            ..
        }) = request
        {
            self.remove_timer(py, id, *deadline);
        }
    }

    /// End a task that has waited for a call that was left for its whole timeout.
    pub(super) fn expire_wait(slf: &Bound<'_, Self>, id: u64) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        if !this.registry.follows(py, id) {
            return Ok(());
        }
        let Some(waiting) = Self::withdraw(slf, id)? else {
            return Ok(());
        };
        let record = waiting.record;
        let name = this.describe(py, &record)?;
        let limit = record.timeout().map(|limit| limit.given.bind(py).str());
        let limit = limit.transpose()?;
        let limit = limit.map_or_else(String::new, |limit| limit.to_string());
        let error = PyTimeoutError::new_err(format!(
            "{name} waited for the call of an equal task for longer than its timeout of {limit} s"
        ));
        Self::fail(slf, record, error, false).map(drop)
    }
}

impl TaskRecord {
    /// Leave the call in this record, and return the rest of the task.
    fn split(&mut self, py: Python<'_>) -> Self {
        let options = self.options.get_or_insert_default();
        options.has_left = true;
        let of_task = TaskOptions {
            timeout: options.timeout.take(),
            retry: options.retry.as_ref().map(|retry| retry.clone_ref(py)),
            on_complete: options.on_complete.take(),
            on_error: options.on_error.take(),
            journaled: options.journaled.take(),
            ..TaskOptions::default()
        };
        Self {
            item: self.item.clone_ref(py),
            id: self.id,
            key: self.key.take(),
            owns_key: std::mem::take(&mut self.owns_key),
            grant: None,
            queued: self.queued,
            started: self.started,
            attempt: self.attempt,
            deadline: None,
            slot: self.slot.take(),
            options: Some(Box::new(of_task)),
        }
    }
}
