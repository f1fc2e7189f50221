//! The cache of a run: which tasks get a stored result, which wait for an equal call, and which make the call.
//! `start.rs` and `completion.rs` call these methods of `Engine`; without a cache they do nothing.
//!
//! 1. An accepted task that may be called is looked up ([`PyEngine::look_up`]). A stored result is delivered at once, and the task
//!    requests no capacity. If an equal call is under way, the task *follows* it: it waits in the registry, without a request for
//!    capacity. Otherwise it *leads*: it is called like any other task.
//! 2. Where a leader ends, its result is stored and reaches the followers, which are then delivered ([`PyEngine::deliver_cached`]).
//! 3. If a leader fails, or is cancelled or given back before its call, its followers are looked up again, in their order: the first one
//!    leads.
//! 4. If a leader ends during its call, by a cancellation or its timeout, the call goes on for the others: see `left_call.rs`.
//!
//! The policy, `headrace.pool.cache_policy`, has the flights: a flight of this run may have followers elsewhere.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::engine::PyEngine;
use super::registry::Waiting;
use super::request::Request;
use super::task_record::TaskRecord;
use crate::object::gc::traverse;

/// The cache of a run.
#[derive(Debug)]
pub(super) struct RunCache {
    /// See `headrace.pool.cache_policy`.
    pub(super) policy: Py<PyAny>,
    /// Whether the store accepts results. Otherwise no new task is called.
    pub(super) has_room: AtomicBool,
}

traverse!(RunCache { policy });

impl RunCache {
    pub(super) fn new(policy: Py<PyAny>) -> Self {
        Self {
            policy,
            has_room: AtomicBool::new(true),
        }
    }
}

impl PyEngine {
    /// Look up a task before its capacity is requested. Return it if it leads; otherwise it follows or has ended.
    #[cold]
    pub(super) fn look_up(
        slf: &Bound<'_, Self>,
        cache: &RunCache,
        mut record: TaskRecord,
    ) -> PyResult<Option<TaskRecord>> {
        if record.leads() {
            return Ok(Some(record));
        }
        let py = slf.py();
        let this = slf.get();
        let arguments = (record.id, record.key(py), &record.item);
        let found = (cache.policy.bind(py)).call_method1(intern!(py, "look_up"), arguments);
        let found = match found {
            Ok(found) => found,
            Err(error) => return Self::refuse(slf, record, error).map(|()| None),
        };
        if let Ok(hit) = found.cast::<PyTuple>() {
            let value = hit.get_item(0)?;
            return Self::deliver_cached(slf, record, &value).map(|()| None);
        }
        if found.is_truthy()? {
            record.set_leads();
            return Ok(Some(record));
        }
        this.release_slot(py, &mut record)?;
        let id = record.id;
        let request = Request::Flight {
            policy: cache.policy.clone_ref(py),
            id,
            deadline: None,
        };
        this.registry
            .add_waiting(py, Waiting::new(record, Some(request), true));
        if found.is_none() {
            Self::limit_wait(slf, id)?;
        }
        Ok(None)
    }

    /// End a task with a result that it was not called for.
    fn deliver_cached(
        slf: &Bound<'_, Self>,
        mut record: TaskRecord,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        this.clear_timer(py, &mut record);
        this.release_slot(py, &mut record)?;
        if let Some(journal) = this.journal.get() {
            match Self::record_start(slf, journal, record)? {
                Some(begun) => record = begun,
                None => return Ok(()),
            }
        }
        Self::completed(slf, record, value)
    }

    /// Remove a task that follows a call from the registry.
    fn take_follower(&self, py: Python<'_>, id: u64) -> Option<Box<Waiting>> {
        if !self.registry.follows(py, id) {
            return None;
        }
        let waiting = self.registry.remove_waiting(py, id)?;
        self.clear_wait(py, id, waiting.request.as_ref());
        Some(waiting)
    }

    /// End a task that follows a call with the result of that.
    pub(super) fn land(slf: &Bound<'_, Self>, id: u64, value: &Bound<'_, PyAny>) -> PyResult<()> {
        match slf.get().take_follower(slf.py(), id) {
            Some(waiting) => Self::deliver_cached(slf, waiting.record, value),
            None => Ok(()),
        }
    }

    /// Look up a task again that follows a call without a result. If it leads, request its capacity.
    pub(super) fn follow_again(slf: &Bound<'_, Self>, id: u64) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let (Some(cache), Some(waiting)) = (this.cache.get(), this.take_follower(py, id)) else {
            return Ok(());
        };
        if let Some(record) = Self::look_up(slf, cache, waiting.record)? {
            Self::queue(slf, record)?;
        }
        this.wake(py)
    }

    /// Return the cache if the task leads; it does no longer.
    #[inline]
    fn take_lead(&self, record: &mut TaskRecord) -> Option<&RunCache> {
        self.cache.get().filter(|_| record.take_leads())
    }

    /// Store the result of a call that leads, and deliver it to the followers.
    #[inline]
    pub(super) fn keep_result(
        &self,
        py: Python<'_>,
        record: &mut TaskRecord,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        match self.take_lead(record) {
            Some(cache) => (cache.policy.bind(py))
                .call_method1(intern!(py, "keep"), (record.id, value))
                .map(drop),
            None => Ok(()),
        }
    }

    /// End the flight of a task that leads, without a result.
    #[inline]
    pub(super) fn end_flight(
        &self,
        py: Python<'_>,
        record: &mut TaskRecord,
        error: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        match self.take_lead(record) {
            Some(cache) => (cache.policy.bind(py))
                .call_method1(intern!(py, "fail"), (record.id, error))
                .map(drop),
            None => Ok(()),
        }
    }

    /// Mark the context of a call that leads, so that a call inside it that would wait for it is recognised.
    #[inline]
    pub(super) fn mark_flight(
        &self,
        py: Python<'_>,
        record: &TaskRecord,
        context: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        match self.cache.get() {
            Some(cache) if record.leads() => (cache.policy.bind(py))
                .call_method1(intern!(py, "mark"), (record.id, context))
                .map(drop),
            _ => Ok(()),
        }
    }

    /// Set whether the store of the cache accepts results.
    pub(super) fn set_store_room(&self, py: Python<'_>, has_room: bool) -> PyResult<()> {
        if let Some(cache) = self.cache.get() {
            cache.has_room.store(has_room, Relaxed);
        }
        self.wake(py)
    }
}
