//! The path from an item of the source to the first step of its task.
//! `feeder.rs` and `request.rs` call these methods of `Engine`.

use std::sync::atomic::Ordering::Relaxed;

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::engine::PyEngine;
use super::registry::{Running, Waiting};
use super::request::Requested;
use super::task_body::{Call, TaskBody};
use super::task_record::TaskRecord;
use super::task_spec::TaskSpec;
use super::timers::Expiry;
use crate::asyncio_task::Options;
use crate::capacity::is_number;

/// The result of admitting an item.
#[derive(Debug)]
pub(super) enum Admitted {
    /// The task was called, or ended with an error, at this time.
    Settled(f64),
    /// The feeder drives the request of the task with this id.
    OfFeeder(u64),
    /// The task waits for its capacity or for space.
    Waits,
}

impl PyEngine {
    /// Accept an item as a task of the run. Return `None` if the task ended with an error.
    fn accept<'py>(
        slf: &Bound<'py, Self>,
        item: &Bound<'py, PyAny>,
        now: f64,
    ) -> PyResult<Option<(TaskRecord, TaskSpec<'py>)>> {
        let py = item.py();
        let this = slf.get();
        let id = this.ids.get().next();
        let mut record = TaskRecord {
            item: item.clone().unbind(),
            id,
            key: None,
            owns_key: false,
            grant: None,
            queued: now,
            started: None,
            attempt: 0,
            deadline: None,
            slot: this.events.get().new_slot(py, id),
            options: None,
        };
        let mut spec = match this.spec_of(item) {
            Ok(spec) => spec,
            Err(error) => return Self::refuse(slf, record, error).map(|()| None),
        };
        record.options = spec.options.take();
        if let Some(key) = spec.key.take()
            && let Err(error) = this.claim(&mut record, &key)
        {
            return Self::refuse(slf, record, error).map(|()| None);
        }
        if let Some(journal) = this.journal.get() {
            match Self::replay(slf, journal, record)? {
                Some(called) => record = called,
                None => return Ok(None),
            }
        }
        Self::start_queue_timeout(slf, &mut record)?;
        Ok(Some((record, spec)))
    }

    fn start_queue_timeout(slf: &Bound<'_, Self>, record: &mut TaskRecord) -> PyResult<()> {
        let limit = (record.options.as_ref()).and_then(|options| options.queue_timeout.as_ref());
        match limit.map(|limit| limit.seconds) {
            Some(seconds) => {
                let deadline = record.queued + seconds;
                let py = slf.py();
                let cooled = slf.get().capacity.get().cooled(py).unwrap_or_default();
                if let Some(options) = &mut record.options {
                    options.cooled_before = cooled.total;
                }
                Self::set_timer(slf, record, deadline, Expiry::QueueTimeout)
            }
            None => Ok(()),
        }
    }

    /// Assign a task its key, or return an error if another task has that key.
    ///
    /// A key is a user's object whose hash, comparison and `str()` may raise. Such an error ends only this task.
    fn claim(&self, record: &mut TaskRecord, key: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = key.py();
        record.key = Some(key.clone().unbind());
        let id = record.id.into_pyobject(py)?;
        let keys = self.keys.bind(py);
        // SAFETY: attached, and three live objects; the result is borrowed, or null with an exception.
        let owner = unsafe {
            let owner = ffi::PyDict_SetDefault(keys.as_ptr(), key.as_ptr(), id.as_ptr());
            Bound::from_borrowed_ptr_or_err(py, owner)?
        };
        if owner.is(&id) {
            record.owns_key = true;
            return Ok(());
        }
        let error = (self.policy.bind(py)).call_method1(intern!(py, "key_error"), (key, owner))?;
        Err(PyErr::from_value(error))
    }

    /// End a task that cannot be called or retried.
    pub(super) fn refuse(
        slf: &Bound<'_, Self>,
        mut record: TaskRecord,
        error: PyErr,
    ) -> PyResult<()> {
        slf.get().release_slot(slf.py(), &mut record)?;
        Self::fail(slf, record, error, false).map(drop)
    }

    /// Accept an item, and call its task if there is space and capacity.
    pub(super) fn admit<'py>(
        slf: &Bound<'py, Self>,
        item: &Bound<'py, PyAny>,
    ) -> PyResult<Admitted> {
        let py = item.py();
        let this = slf.get();
        // Checked before `accept` adds the slot of the task, which would count as used.
        let may_start = this.may_start(py, 1);
        let now = this.now(py)?;
        let Some((mut record, spec)) = Self::accept(slf, item, now)? else {
            return Ok(Admitted::Settled(now));
        };
        if !may_start {
            this.hold(py, record);
            return Ok(Admitted::Waits);
        }
        if let Some(cache) = this.cache.get() {
            match Self::look_up(slf, cache, record)? {
                Some(leader) => record = leader,
                None => return Ok(Admitted::Settled(now)),
            }
        }
        if !this.can_submit(py, &mut record)? {
            this.hold(py, record);
            return Ok(Admitted::Waits);
        }
        Self::request_pulled(slf, spec, record, now)
    }

    /// Request the capacity of a task for the feeder.
    #[inline]
    fn request_pulled<'py>(
        slf: &Bound<'py, Self>,
        spec: TaskSpec<'py>,
        record: TaskRecord,
        now: f64,
    ) -> PyResult<Admitted> {
        let id = record.id;
        Ok(match Self::request(slf, spec, record, Some(now))? {
            Requested::Settled => Admitted::Settled(now),
            Requested::OfFeeder => Admitted::OfFeeder(id),
            Requested::Waits(_) | Requested::Elsewhere => Admitted::Waits,
        })
    }

    /// Hold a task that was pulled and cannot be called yet.
    #[cold]
    fn hold(&self, py: Python<'_>, record: TaskRecord) {
        self.set_held(record.id);
        self.registry
            .add_waiting(py, Waiting::new(record, None, true));
    }

    /// Request the capacity of the task that was held.
    pub(super) fn admit_held(slf: &Bound<'_, Self>, id: u64) -> PyResult<Admitted> {
        let py = slf.py();
        let this = slf.get();
        let now = this.now(py)?;
        let Some(waiting) = this.registry.remove_waiting(py, id) else {
            return Ok(Admitted::Settled(now));
        };
        let mut record = waiting.record;
        if let Some(cache) = this.cache.get() {
            match Self::look_up(slf, cache, record)? {
                Some(leader) => record = leader,
                None => return Ok(Admitted::Settled(now)),
            }
        }
        match this.spec_of(record.item.bind(py)) {
            Ok(spec) => Self::request_pulled(slf, spec, record, now),
            Err(error) => Self::refuse(slf, record, error).map(|()| Admitted::Settled(now)),
        }
    }

    /// Call a task whose capacity was granted. `now` is the current time, if known.
    pub(super) fn start<'py>(
        slf: &Bound<'py, Self>,
        spec: TaskSpec<'py>,
        mut record: TaskRecord,
        now: Option<f64>,
    ) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        this.clear_timer(py, &mut record);
        if let Some(journal) = this.journal.get() {
            match Self::record_start(slf, journal, record)? {
                Some(begun) => record = begun,
                None => return Ok(()),
            }
        }
        if record.executor().is_some() {
            return Self::submit(slf, spec.cost.as_ref(), record);
        }
        let name = match this.describe(py, &record) {
            Ok(name) => name,
            // The `str()` of the key raised an error such as `KeyboardInterrupt` or `CancelledError`.
            Err(error) => return Self::refuse(slf, record, error),
        };
        let context = spec.context.as_ref().unwrap_or(this.context.bind(py));
        // SAFETY: attached, and a live object; CPython refuses an object that is no context.
        let context =
            unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_Copy(context.as_ptr()))? };
        this.mark_flight(py, &record, &context)?;
        let mut call = spec.call;
        // A lease whose cost is a bare number has nothing to settle, so the task avoids the cost of the context variable.
        call.has_lease = spec.cost.as_ref().is_some_and(|cost| {
            this.has_costs.store(true, Relaxed);
            !is_number(cost)
        });
        let now = match now {
            Some(now) => now,
            None => this.now(py)?,
        };
        record.attempt += 1;
        record.started = Some(now);
        if let Some(seconds) = record.timeout().map(|limit| limit.seconds) {
            Self::set_timer(slf, &mut record, now + seconds, Expiry::Timeout)?;
        }
        this.start_task(slf, call, record, &name, &context)
    }

    /// Create the asyncio task and take its first step.
    fn start_task<'py>(
        &self,
        slf: &Bound<'py, Self>,
        call: Call,
        record: TaskRecord,
        name: &Bound<'py, PyString>,
        context: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        let py = slf.py();
        let id = record.id;
        let running = Running {
            permit: record.grant.as_ref().and_then(|grant| grant.id(py)),
            since: record.started.unwrap_or_default(),
            has_left: record.has_left(),
            ..Running::default()
        };
        let body = TaskBody::new(slf.clone().unbind(), call, record);
        self.registry.add_running(py, id, running);
        let task = self.factory.start(py, body, &Options { name, context })?;
        if self.registry.set_task(py, id, task.clone().unbind()) {
            let reached = task.call_method0(intern!(py, "cancel"))?.is_truthy()?;
            self.registry
                .with_running(py, id, |running| running.is_disturbed |= reached);
        }
        Ok(())
    }

    /// Cancel a task without a retry. A task that does not run ends at once; any other ends when it has stopped.
    pub(super) fn cancel_task(slf: &Bound<'_, Self>, id: u64) -> PyResult<bool> {
        let py = slf.py();
        let this = slf.get();
        let mark = |running: &mut Running| !std::mem::replace(&mut running.cancel_requested, true);
        if this.registry.stop(py, id, mark)? {
            return Ok(true);
        }
        let Some(waiting) = Self::withdraw(slf, id)? else {
            return Ok(false);
        };
        let error = this.cancellation_of(py, &waiting.record)?;
        Self::fail(slf, waiting.record, error, false)?;
        Ok(true)
    }
}
