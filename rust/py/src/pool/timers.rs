//! The timers of a run: timeouts, delays before retries, queue timeouts and limits of waits, with one handle on the event loop.
//! `PyEngine` holds them. `start.rs`, `completion.rs`, `submitted.rs` and `left_call.rs` set and clear them; `request.rs` clears them.
//!
//! A task has at most one timer at a time, and one more while it waits for a call that was left. The queue is sorted by deadline. Adding or removing a timer is O(log n) in the number of
//! timers. Removing a timer does not change the handle; a handle that fires too early is set again. Therefore tasks with the same
//! long timeout add no work to the event loop.

use std::collections::BTreeMap;
use std::collections::btree_map::OccupiedEntry;

use pyo3::exceptions::PyTimeoutError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::engine::PyEngine;
use super::registry::{Running, Waiting};
use super::task_record::TaskRecord;
use crate::object::gc::{Traverse, VisitError, Visitor};

/// A queue timeout with less than this many seconds left is over: both clocks round.
const LEAST_REST: f64 = 1e-6;

/// The action at a deadline.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expiry {
    QueueTimeout,
    Timeout,
    Retry,
    /// Of the wait for a call that was left.
    Wait,
}

/// The timers of a run, by deadline and task id.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeMap<(u64, u64), Expiry>,
    /// The deadline and the handle on the event loop.
    armed: Option<(f64, Py<PyAny>)>,
}

/// Map a time to an integer, keeping the order of times.
fn sortable(time: f64) -> u64 {
    let bits = time.to_bits();
    bits ^ if bits >> 63 == 1 { u64::MAX } else { 1 << 63 }
}

fn time_of(sortable: u64) -> f64 {
    f64::from_bits(
        sortable
            ^ if sortable >> 63 == 1 {
                1 << 63
            } else {
                u64::MAX
            },
    )
}

impl PyEngine {
    /// Set the timer of a task.
    pub(super) fn set_timer(
        slf: &Bound<'_, Self>,
        record: &mut TaskRecord,
        deadline: f64,
        expiry: Expiry,
    ) -> PyResult<()> {
        record.deadline = Some(deadline);
        Self::add_timer(slf, record.id, deadline, expiry)
    }

    /// Add a timer, which `remove_timer` removes.
    pub(super) fn add_timer(
        slf: &Bound<'_, Self>,
        id: u64,
        deadline: f64,
        expiry: Expiry,
    ) -> PyResult<()> {
        let py = slf.py();
        let key = (sortable(deadline), id);
        let is_armed = {
            let mut timers = slf.get().timers.borrow(py);
            timers.queue.insert(key, expiry);
            (timers.armed.as_ref()).is_some_and(|(armed, _)| *armed <= deadline)
        };
        if is_armed {
            return Ok(());
        }
        Self::arm(slf, deadline)
    }

    /// Remove the timer of a task.
    #[inline]
    pub(super) fn clear_timer(&self, py: Python<'_>, record: &mut TaskRecord) {
        if let Some(deadline) = record.deadline.take() {
            self.remove_timer(py, record.id, deadline);
        }
    }

    pub(super) fn remove_timer(&self, py: Python<'_>, id: u64, deadline: f64) {
        (self.timers.borrow(py).queue).remove(&(sortable(deadline), id));
    }

    /// Cancel the handle on the event loop.
    pub(super) fn disarm(&self, py: Python<'_>) -> PyResult<()> {
        let armed = self.timers.borrow(py).armed.take();
        match armed {
            Some((_, handle)) => (handle.bind(py))
                .call_method0(intern!(py, "cancel"))
                .map(drop),
            None => Ok(()),
        }
    }

    #[cold]
    fn arm(slf: &Bound<'_, Self>, deadline: f64) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        this.disarm(py)?;
        let keywords = PyDict::new(py);
        // Without a context, the callback would run in that of the current task.
        keywords.set_item(intern!(py, "context"), &this.context)?;
        let callback = slf.getattr(intern!(py, "on_timer"))?;
        let handle = this.event_loop(py).call_method(
            intern!(py, "call_at"),
            (deadline, callback),
            Some(&keywords),
        )?;
        let old = (this.timers.borrow(py).armed).replace((deadline, handle.unbind()));
        drop(old);
        Ok(())
    }

    /// Handle the deadlines that have passed, in order.
    pub(super) fn expire(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let armed = this.timers.borrow(py).armed.take();
        // An event loop may call the callback slightly early.
        let armed = armed.map_or(f64::NEG_INFINITY, |(deadline, _)| deadline);
        let now = sortable(this.now(py)?.max(armed));
        let mut result = Ok(());
        loop {
            let expired = {
                let mut timers = this.timers.borrow(py);
                let first = timers.queue.first_entry();
                (first.filter(|first| first.key().0 <= now)).map(OccupiedEntry::remove_entry)
            };
            let Some(((_, id), expiry)) = expired else {
                break;
            };
            let handled = match expiry {
                Expiry::Timeout => Self::expire_call(slf, id),
                Expiry::Retry => Self::retry(slf, id),
                Expiry::QueueTimeout => Self::expire_queued(slf, id),
                Expiry::Wait => Self::expire_wait(slf, id),
            };
            // The error of one task does not affect the others.
            result = result.and(handled);
        }
        let first = {
            let timers = this.timers.borrow(py);
            let first = timers.queue.keys().next().map(|key| time_of(key.0));
            let armed = timers.armed.as_ref().map(|(armed, _)| *armed);
            first.filter(|first| armed.is_none_or(|armed| *first < armed))
        };
        match first {
            Some(deadline) => result.and(Self::arm(slf, deadline)),
            None => result,
        }
    }

    /// Stop a call that has exceeded its timeout, or end only its task if others wait for the call.
    fn expire_call(slf: &Bound<'_, Self>, id: u64) -> PyResult<()> {
        if Self::leave_call(slf, id, true)? {
            return Ok(());
        }
        let mark = |running: &mut Running| !std::mem::replace(&mut running.timed_out, true);
        slf.get().registry.stop(slf.py(), id, mark).map(drop)
    }

    /// Continue a queue timeout that did not run during a cooldown. Return whether it is over.
    fn continue_queue_timeout(slf: &Bound<'_, Self>, id: u64) -> PyResult<bool> {
        let py = slf.py();
        let this = slf.get();
        let cooled = this.capacity.get().cooled(py).unwrap_or_default();
        let now = this.now(py)?;
        let rest = |waiting: &mut Waiting| {
            let options = waiting.record.options.as_ref()?;
            let limit = options.queue_timeout.as_ref()?.seconds;
            let waited = now - waiting.record.queued - (cooled.total - options.cooled_before);
            Some(limit - waited)
        };
        let rest = this.registry.with_waiting(py, id, rest).flatten();
        let rest = rest.map_or(0.0, |rest| rest.max(0.0));
        if cooled.left == 0.0 && rest < LEAST_REST {
            return Ok(true);
        }
        // Setting a timer calls Python, which must not happen while the registry is borrowed, so the entry is taken out.
        let Some(mut waiting) = this.registry.remove_waiting(py, id) else {
            return Ok(false);
        };
        let deadline = now + cooled.left + rest;
        let result = Self::set_timer(slf, &mut waiting.record, deadline, Expiry::QueueTimeout);
        this.registry.add_waiting(py, *waiting);
        result.map(|()| false)
    }

    fn expire_queued(slf: &Bound<'_, Self>, id: u64) -> PyResult<()> {
        let py = slf.py();
        if !Self::continue_queue_timeout(slf, id)? {
            return Ok(());
        }
        let Some(waiting) = Self::withdraw(slf, id)? else {
            return Ok(());
        };
        let record = waiting.record;
        let options = record.options.as_ref();
        let limit = options.and_then(|options| options.queue_timeout.as_ref());
        let limit = limit.map_or_else(|| py.None(), |limit| limit.given.clone_ref(py));
        let name = slf.get().describe(py, &record)?;
        let error = PyTimeoutError::new_err(format!(
            "{name} waited longer than its queue_timeout of {} s",
            limit.bind(py).str()?
        ));
        Self::fail(slf, record, error, false).map(drop)
    }
}

impl Traverse for Timers {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        match &self.armed {
            Some((_, handle)) => visit(handle),
            None => Ok(()),
        }
    }
}
