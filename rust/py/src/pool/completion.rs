//! The end of an attempt and of a task: results, errors, retries and the last event. `task_body.rs` and `submitted.rs`
//! call these methods of `Engine`.

use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit, PyTimeoutError};
use pyo3::intern;
use pyo3::prelude::*;

use super::engine::PyEngine;
use super::envelope::{EventKind, Fields, PyEnvelope};
use super::journaled::Ended;
use super::registry::{Running, Waiting};
use super::task_record::TaskRecord;
use super::timers::Expiry;
use crate::runtime::asyncio;

/// The cancellation state of an attempt when it ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stopping {
    cancel_requested: bool,
    is_disturbed: bool,
    has_emitted: bool,
}

impl From<Running> for Stopping {
    fn from(running: Running) -> Self {
        Self {
            cancel_requested: running.cancel_requested,
            is_disturbed: running.is_disturbed,
            has_emitted: running.has_emitted,
        }
    }
}

impl PyEngine {
    /// Remove an attempt that has stopped on the event loop. It still holds its capacity.
    #[inline]
    fn stopped(
        &self,
        py: Python<'_>,
        record: &mut TaskRecord,
        error: Option<&PyErr>,
    ) -> PyResult<Running> {
        let running = self.registry.remove_running(py, record.id);
        self.clear_timer(py, record);
        if self.client.reports() {
            let timed_out = (running.as_ref()).is_some_and(|running| running.timed_out);
            self.report(py, record, error, timed_out)?;
        }
        Ok(running.unwrap_or_default())
    }

    /// Report the outcome of an attempt to the adaptive limits and the breakers of its path. Its capacity is released if that fails.
    #[cold]
    pub(super) fn report(
        &self,
        py: Python<'_>,
        record: &mut TaskRecord,
        error: Option<&PyErr>,
        timed_out: bool,
    ) -> PyResult<()> {
        let reported = record.report(py, error, timed_out);
        if reported.is_err() {
            self.free(py, record)?;
        }
        reported
    }

    /// Release the capacity of a task whose work has stopped, and its slot of the executor.
    #[inline]
    pub(super) fn free(&self, py: Python<'_>, record: &mut TaskRecord) -> PyResult<()> {
        self.release(py, record)?;
        self.release_slot(py, record)
    }

    /// Release the capacity of a task.
    #[inline]
    fn release(&self, py: Python<'_>, record: &mut TaskRecord) -> PyResult<()> {
        if self.journal.get().is_some() {
            self.note_spend(py, record)?;
        }
        record.release(py)
    }

    /// Handle the result of an attempt. If the last step cancelled its own asyncio task, asyncio discards the result.
    pub(super) fn returned(
        slf: &Bound<'_, Self>,
        mut record: TaskRecord,
        value: &Bound<'_, PyAny>,
        task: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let mut running = this.stopped(py, &mut record, None)?;
        this.release(py, &mut record)?;
        let task = task
            .cloned()
            .or_else(|| (running.task.take()).map(|task| task.into_bound(py)))
            .or_else(|| asyncio::current_task_of(this.event_loop(py)));
        if let Some(task) = task
            && let Some(error) = asyncio::pending_cancellation(&task)?
        {
            let error = this.as_timeout(py, &record, &running, PyErr::from_value(error))?;
            return Self::failed_attempt(slf, record, error, running.into()).map(drop);
        }
        Self::completed(slf, record, value)
    }

    /// Handle the error of an attempt on the event loop. Return whether its asyncio task must raise the error too.
    pub(super) fn raised(
        slf: &Bound<'_, Self>,
        mut record: TaskRecord,
        error: PyErr,
    ) -> PyResult<bool> {
        let py = slf.py();
        let running = slf.get().stopped(py, &mut record, Some(&error))?;
        let error = slf.get().as_timeout(py, &record, &running, error)?;
        Self::failed_attempt(slf, record, error, running.into())
    }

    /// End a task with a value.
    pub(super) fn completed(
        slf: &Bound<'_, Self>,
        mut record: TaskRecord,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let now = this.now(py)?;
        this.keep_result(py, &mut record, value)?;
        if record.has_left() {
            return this.end(py, &mut record);
        }
        this.throughput.get().note(py, now, false);
        if let Some(journal) = this.journal.get() {
            let outcome = Ended::Value(value.clone().unbind());
            match Self::record_end(slf, journal, record, outcome, now)? {
                Some(recorded) => record = recorded,
                None => return Ok(()),
            }
        }
        this.notify(py, &record, Ok(value))?;
        this.put_last_event(py, &record, Ok(value), now, false)?;
        this.end(py, &mut record)
    }

    /// Deliver the outcome of a task that has ended, later than its end.
    #[cold]
    pub(super) fn conclude(
        &self,
        py: Python<'_>,
        mut record: TaskRecord,
        outcome: &Ended,
        now: f64,
        is_replayed: bool,
    ) -> PyResult<()> {
        let outcome = match outcome {
            Ended::Value(value) => Ok(value.bind(py)),
            Ended::Error(error) => Err(error.bind(py)),
        };
        self.notify(py, &record, outcome)?;
        self.put_last_event(py, &record, outcome, now, is_replayed)?;
        if let Err(error) = outcome
            && is_replayed
        {
            (self.policy.bind(py)).call_method1(intern!(py, "failed_before"), (error,))?;
        }
        self.end(py, &mut record)
    }

    /// Put the last event of a task.
    #[inline]
    fn put_last_event(
        &self,
        py: Python<'_>,
        record: &TaskRecord,
        outcome: Result<&Bound<'_, PyAny>, &Bound<'_, PyAny>>,
        now: f64,
        replayed: bool,
    ) -> PyResult<()> {
        let kind = match outcome {
            Ok(_) => EventKind::Final,
            Err(_) => EventKind::Error,
        };
        let fields = Fields {
            task_id: record.id,
            key: record.key(py).map(Bound::unbind),
            kind: Some(kind.object(py)?.clone_ref(py)),
            value: outcome.ok().map(|value| value.clone().unbind()),
            error: outcome.err().map(|error| error.clone().unbind()),
            attempt: record.attempt,
            queued: record.queued,
            started: record.started,
            finished: Some(now),
            replayed,
        };
        let envelope = PyEnvelope::make(py, fields)?.into_any();
        self.events.get().put_at(py, record.slot, envelope)
    }

    /// Call a task again after an error, or end it. Return whether its asyncio task must raise the error too.
    ///
    /// The policy is called before the capacity is released: after a throttled answer it cools the capacity down, so that the release
    /// calls no other task.
    pub(super) fn failed_attempt(
        slf: &Bound<'_, Self>,
        mut record: TaskRecord,
        error: PyErr,
        stopping: Stopping,
    ) -> PyResult<bool> {
        let py = slf.py();
        let this = slf.get();
        let retry = (record.options.as_ref()).and_then(|options| options.retry.as_ref());
        let may_retry = !stopping.cancel_requested
            && !this.is_ending()
            && record.attempt > 0
            && !ends_program(py, &error);
        if !may_retry || (retry.is_none() && !this.cools_down) {
            this.free(py, &mut record)?;
            return Self::fail(slf, record, error, stopping.is_disturbed);
        }
        let arguments = (
            record.id,
            record.key(py),
            retry,
            error.value(py),
            record.attempt,
            record.throttled().unwrap_or(0.0),
            stopping.has_emitted,
        );
        let decision = (this.policy.bind(py))
            .call_method1(intern!(py, "after_error"), arguments)
            .and_then(|decision| decision.extract::<Option<(bool, f64)>>());
        this.free(py, &mut record)?;
        match decision {
            Ok(Some((true, throttled))) => {
                Self::call_again(slf, record, throttled)?;
                Ok(true)
            }
            Ok(Some((false, delay))) => {
                Self::back_off(slf, record, delay)?;
                Ok(true)
            }
            Ok(None) => Self::fail(slf, record, error, stopping.is_disturbed),
            // A `CancelledError` that the retry policy raises is also an error of the task: it cancels nothing.
            Err(failure) => {
                failure.set_cause(py, Some(error));
                Self::fail(slf, record, failure, stopping.is_disturbed)
            }
        }
    }

    /// Queue a task again, in its place, after a throttled answer. The answer costs no attempt.
    #[cold]
    fn call_again(slf: &Bound<'_, Self>, mut record: TaskRecord, throttled: f64) -> PyResult<()> {
        record.attempt -= 1;
        record.options.get_or_insert_default().throttled = Some(throttled);
        Self::queue(slf, record)?;
        slf.get().wake(slf.py())
    }

    /// Start the delay before the next attempt of a task.
    fn back_off(slf: &Bound<'_, Self>, mut record: TaskRecord, delay: f64) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let deadline = this.now(py)? + delay;
        let result = Self::set_timer(slf, &mut record, deadline, Expiry::Retry);
        this.registry
            .add_waiting(py, Waiting::new(record, None, false));
        this.wake(py)?;
        result
    }

    /// End a task with an error. Return whether its asyncio task must raise the error too.
    pub(super) fn fail(
        slf: &Bound<'_, Self>,
        mut record: TaskRecord,
        error: PyErr,
        is_disturbed: bool,
    ) -> PyResult<bool> {
        let py = slf.py();
        let this = slf.get();
        let policy = this.policy.bind(py);
        this.release(py, &mut record)?;
        this.clear_timer(py, &mut record);
        let value = error.into_value(py).into_bound(py).into_any();
        if ends_program(py, &PyErr::from_value(value.clone())) {
            // asyncio would raise it out of the running event loop before the run was closed.
            if !record.has_left() {
                this.notify(py, &record, Err(&value))?;
            }
            this.end(py, &mut record)?;
            policy.call_method1(intern!(py, "interrupt"), (value,))?;
            return Ok(false);
        }
        let arguments = (
            record.id,
            record.key(py),
            &value,
            is_disturbed,
            &record.item,
        );
        let reported = policy.call_method1(intern!(py, "describe_error"), arguments)?;
        let now = this.now(py)?;
        // The error of a task that was never called is not that of the call.
        let shared = (record.attempt > 0).then_some(&reported);
        this.end_flight(py, &mut record, shared)?;
        if record.has_left() {
            this.end(py, &mut record)?;
            return Ok(reported.is(&value));
        }
        this.throughput.get().note(py, now, true);
        if let Some(journal) = this.journal.get() {
            let outcome = Ended::Error(reported.clone().unbind());
            match Self::record_end(slf, journal, record, outcome, now)? {
                Some(recorded) => record = recorded,
                None => return Ok(reported.is(&value)),
            }
        }
        this.notify(py, &record, Err(&reported))?;
        this.put_last_event(py, &record, Err(&reported), now, false)?;
        let arguments = (record.id, record.key(py), &reported, record.retry());
        policy.call_method1(intern!(py, "failed"), arguments)?;
        this.end(py, &mut record)?;
        // The policy replaces an error that an asyncio task cannot raise, such as `StopIteration`.
        Ok(reported.is(&value))
    }

    /// Call the hook of a task and the outcome listener of the source.
    #[inline]
    fn notify(
        &self,
        py: Python<'_>,
        record: &TaskRecord,
        outcome: Result<&Bound<'_, PyAny>, &Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (Ok(object) | Err(object)) = outcome;
        let hook = record.options.as_ref().and_then(|options| match outcome {
            Ok(_) => options.on_complete.as_ref(),
            Err(_) => options.on_error.as_ref(),
        });
        if let Some(hook) = hook
            && let Err(failure) = hook.bind(py).call1((object,))
        {
            let arguments = (record.id, record.key(py), failure.into_value(py));
            (self.policy.bind(py)).call_method1(intern!(py, "hook_raised"), arguments)?;
        }
        let Some(listener) = &self.outcome_listener else {
            return Ok(());
        };
        let method = if outcome.is_ok() {
            intern!(py, "completed")
        } else {
            intern!(py, "failed")
        };
        if let Err(failure) = (listener.bind(py)).call_method1(method, (&record.item, object)) {
            let arguments = (record.id, record.key(py), failure.into_value(py));
            (self.policy.bind(py)).call_method1(intern!(py, "listener_raised"), arguments)?;
        }
        Ok(())
    }

    /// Remove the key and the slot of a task that has ended, and wake the feeder.
    #[inline]
    pub(super) fn end(&self, py: Python<'_>, record: &mut TaskRecord) -> PyResult<()> {
        if record.owns_key
            && let Some(key) = &record.key
        {
            // If the hash or a comparison of the key raises, no other task can find the entry.
            let _ = self.keys.bind(py).del_item(key);
        }
        self.end_flight(py, record, None)?;
        if let Some(slot) = record.slot {
            self.events.get().leave(py, slot)?;
        }
        self.wake(py)?;
        if self.take_idle(py) {
            (self.policy.bind(py)).call_method0(intern!(py, "idle"))?;
        }
        Ok(())
    }

    /// Return the error of an attempt, which is a `TimeoutError` if its timeout cancelled it.
    pub(super) fn as_timeout(
        &self,
        py: Python<'_>,
        record: &TaskRecord,
        running: &Running,
        error: PyErr,
    ) -> PyResult<PyErr> {
        if !running.timed_out || !asyncio::is_cancelled_error(py, &error) {
            return Ok(error);
        }
        let timeout = self.timeout_error(py, record)?;
        timeout.set_cause(py, Some(error));
        Ok(timeout)
    }

    pub(super) fn timeout_error(&self, py: Python<'_>, record: &TaskRecord) -> PyResult<PyErr> {
        let name = self.describe(py, record)?;
        let limit = record.timeout().map(|limit| limit.given.bind(py).str());
        Ok(PyTimeoutError::new_err(format!(
            "{name} ran longer than its timeout of {} s",
            limit
                .transpose()?
                .map_or_else(String::new, |limit| limit.to_string())
        )))
    }
}

/// Return whether asyncio raises this error out of the event loop.
pub(super) fn ends_program(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyKeyboardInterrupt>(py) || error.is_instance_of::<PySystemExit>(py)
}
