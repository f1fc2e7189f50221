//! The journal of a run: which calls are replayed, and which starts and ends are recorded.
//! `start.rs` and `completion.rs` call these methods of `Engine`; without a journal they do nothing.
//!
//! 1. An accepted item claims its key ([`PyEngine::replay`]). If an earlier run has recorded its end, that is delivered: the task is
//!    not called, and requests no capacity.
//! 2. Before the first call of a task, its start is written ([`PyEngine::record_start`]). If that fails, it is not called.
//! 3. When a task has ended, its end is written ([`PyEngine::record_end`]). With `durability="disk"`, the event waits until a sync
//!    covers it ([`PyEngine::deliver_synced`]); the capacity does not. Such tasks are bounded by [`MOST_UNSYNCED`].
//!
//! A cancelled task has not ended for the journal, nor has one with a fatal error. The policy decides which errors are recorded.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use headrace_core::journal::record::append_spend;
use headrace_core::journal::{Claim, Status};
use pyo3::exceptions::{PyException, PyOSError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::engine::PyEngine;
use super::task_record::TaskRecord;
use crate::journal::{PyJournalFile, Replay, Stored, key_of};
use crate::object::gc::traverse;
use crate::object::gil_cell::GilCell;

/// The number of ended tasks whose events wait for a sync at which no more tasks are called.
const MOST_UNSYNCED: usize = 1024;

/// The journal of a run.
#[derive(Debug)]
pub(super) struct RunJournal {
    file: Py<PyJournalFile>,
    /// The decisions that are left to Python: see `headrace.pool.journal_policy`.
    policy: Py<PyAny>,
    /// Returns the key of an item.
    key_of: Py<PyAny>,
    /// Whether an event waits until the end of its task is on disk.
    waits_for_disk: bool,
    /// Whether tasks that have failed in an earlier run are called again.
    calls_failed: bool,
    /// Whether tasks whose results could not be stored are called again.
    calls_unstored: bool,
    /// The names of the budgets on the path of the capacity.
    budgets: Vec<String>,
    unsynced: GilCell<VecDeque<Unsynced>>,
    /// The number of tasks that were replayed.
    replayed: AtomicUsize,
    /// Whether the policy runs the sync.
    is_syncing: AtomicBool,
}

/// A task that has ended and waits for a sync.
#[derive(Debug)]
struct Unsynced {
    record: TaskRecord,
    outcome: Ended,
    now: f64,
    /// The length of the journal with its end.
    length: u64,
}

/// The outcome of a task that has ended.
#[derive(Debug)]
pub(super) enum Ended {
    Value(Py<PyAny>),
    Error(Py<PyAny>),
}

/// The part of a task in the journal.
#[derive(Debug)]
pub(super) struct Journaled {
    claim: Claim,
    /// Whether its start was written.
    has_begun: bool,
    /// The amounts that its attempts were charged to budgets.
    spend: Vec<(usize, f64)>,
}

traverse!(Unsynced { record, outcome });
traverse!(
    enum Ended {
        Value(object),
        Error(object),
    }
);

traverse!(RunJournal {
    file,
    policy,
    key_of,
    unsynced
});

impl RunJournal {
    /// Make the journal of a run from the options that `headrace.journal` passes.
    pub(super) fn new(options: &Bound<'_, PyDict>) -> PyResult<Self> {
        let py = options.py();
        let get = |name| {
            let value = options.get_item(name)?;
            value.ok_or_else(|| PyTypeError::new_err(format!("the journal has no {name}")))
        };
        Ok(Self {
            file: get(intern!(py, "file"))?
                .cast_into::<PyJournalFile>()?
                .unbind(),
            policy: get(intern!(py, "policy"))?.unbind(),
            key_of: get(intern!(py, "key_of"))?.unbind(),
            waits_for_disk: get(intern!(py, "waits_for_disk"))?.is_truthy()?,
            calls_failed: get(intern!(py, "calls_failed"))?.is_truthy()?,
            calls_unstored: get(intern!(py, "calls_unstored"))?.is_truthy()?,
            budgets: get(intern!(py, "budgets"))?.extract()?,
            unsynced: GilCell::default(),
            replayed: AtomicUsize::new(0),
            is_syncing: AtomicBool::new(false),
        })
    }

    /// Return the number of tasks that have ended and wait for a sync.
    pub(super) fn unsynced(&self, py: Python<'_>) -> usize {
        self.unsynced.borrow(py).len()
    }

    /// Return the number of tasks that were replayed.
    pub(super) fn replayed(&self) -> usize {
        self.replayed.load(Relaxed)
    }

    pub(super) fn has_room(&self, py: Python<'_>) -> bool {
        self.unsynced(py) < MOST_UNSYNCED
    }

    pub(super) fn clear(&self, py: Python<'_>) {
        let unsynced = std::mem::take(&mut *self.unsynced.borrow(py));
        drop(unsynced);
    }

    fn unclaim(&self, py: Python<'_>, journaled: &Journaled) -> PyResult<()> {
        self.file.get().unclaim(py, &journaled.claim)
    }
}

impl PyEngine {
    /// Claim the key of an accepted task. Return `None` if an earlier run has recorded its end, which is then delivered.
    #[cold]
    pub(super) fn replay(
        slf: &Bound<'_, Self>,
        journal: &RunJournal,
        mut record: TaskRecord,
    ) -> PyResult<Option<TaskRecord>> {
        let py = slf.py();
        let this = slf.get();
        let claimed = (journal.key_of.bind(py))
            .call1((&record.item,))
            .and_then(|key| journal.file.get().claim(&key));
        let claimed = match claimed {
            Ok(claimed) => claimed,
            Err(error) if error.is_instance_of::<PyOSError>(py) => {
                return Self::give_up(slf, journal, record, &error).map(|()| None);
            }
            Err(error) => return Self::refuse(slf, record, error).map(|()| None),
        };
        let replay = match claimed.replay(py) {
            Ok(replay) => replay,
            // Its pickle cannot be read, for example because a class is gone.
            Err(error) => return Self::refuse(slf, record, error).map(|()| None),
        };
        let journaled = Journaled {
            claim: claimed.claim,
            has_begun: false,
            spend: Vec::new(),
        };
        let calls = match &replay {
            None => true,
            Some((Replay::Returned(_), _)) => false,
            Some((Replay::Failed(_), _)) => journal.calls_failed,
            Some((Replay::Unstored, _)) => journal.calls_unstored,
        };
        let options = record.options.get_or_insert_default();
        options.journaled = Some(Box::new(journaled));
        let Some((replay, attempts)) = replay.filter(|_| !calls) else {
            return Ok(Some(record));
        };
        let now = this.now(py)?;
        record.attempt = attempts;
        let policy = journal.policy.bind(py);
        let outcome = match replay {
            Replay::Returned(value) => Ended::Value(value.unbind()),
            Replay::Failed(described) => {
                let arguments = (described, attempts);
                let error = policy.call_method1(intern!(py, "recorded_error"), arguments)?;
                Ended::Error(error.unbind())
            }
            Replay::Unstored => {
                let arguments = (record.id, record.key(py));
                let error = policy.call_method1(intern!(py, "unstored"), arguments)?;
                return Self::give_up(slf, journal, record, &PyErr::from_value(error))
                    .map(|()| None);
            }
        };
        journal.replayed.fetch_add(1, Relaxed);
        this.throughput
            .get()
            .note(py, now, matches!(outcome, Ended::Error(_)));
        this.conclude(py, record, &outcome, now, true)?;
        Ok(None)
    }

    /// Write the start of a task before its first call. If that fails, keep its item for the next run, and return `None`.
    #[cold]
    pub(super) fn record_start(
        slf: &Bound<'_, Self>,
        journal: &RunJournal,
        mut record: TaskRecord,
    ) -> PyResult<Option<TaskRecord>> {
        let py = slf.py();
        let Some(journaled) = record.journaled_mut().filter(|task| !task.has_begun) else {
            return Ok(Some(record));
        };
        match journal.file.get().begin(py, &mut journaled.claim) {
            Ok(()) => {
                journaled.has_begun = true;
                Ok(Some(record))
            }
            Err(error) => Self::give_up(slf, journal, record, &error).map(|()| None),
        }
    }

    /// Keep the item of a task that was not called for the next run, and stop this run, which cannot use its journal.
    fn give_up(
        slf: &Bound<'_, Self>,
        journal: &RunJournal,
        mut record: TaskRecord,
        error: &PyErr,
    ) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        this.clear_timer(py, &mut record);
        this.free(py, &mut record)?;
        this.forget(py, &mut record)?;
        (this.policy.bind(py)).call_method1(intern!(py, "keep"), (record.id, &record.item))?;
        this.end(py, &mut record)?;
        (journal.policy.bind(py)).call_method1(intern!(py, "failed"), (error.value(py),))?;
        Ok(())
    }

    /// Give the claim of a task back whose item goes to the next run.
    #[inline]
    pub(super) fn forget(&self, py: Python<'_>, record: &mut TaskRecord) -> PyResult<()> {
        match (self.journal.get(), record.take_journaled()) {
            (Some(journal), Some(journaled)) => journal.unclaim(py, &journaled),
            _ => Ok(()),
        }
    }

    /// Add the amounts that an attempt is charged to budgets, before its capacity is released.
    #[cold]
    pub(super) fn note_spend(&self, py: Python<'_>, record: &mut TaskRecord) -> PyResult<()> {
        let Some(journal) = self.journal.get() else {
            return Ok(());
        };
        if journal.budgets.is_empty() {
            return Ok(());
        }
        let Some(cost) = record.grant.as_ref().map(|grant| grant.cost(py)) else {
            return Ok(());
        };
        let cost = cost?;
        let Some(journaled) = record.journaled_mut() else {
            return Ok(());
        };
        for (place, name) in journal.budgets.iter().enumerate() {
            if let Some(amount) = cost.get_item(name)? {
                journaled.spend.push((place, amount.extract()?));
            }
        }
        Ok(())
    }

    /// Write the end of a task. Return the task if its event can be delivered now; otherwise it waits for a sync.
    #[cold]
    pub(super) fn record_end(
        slf: &Bound<'_, Self>,
        journal: &RunJournal,
        mut record: TaskRecord,
        outcome: Ended,
        now: f64,
    ) -> PyResult<Option<TaskRecord>> {
        let py = slf.py();
        let policy = journal.policy.bind(py);
        let (id, key, attempts) = (record.id, record.key(py), record.attempt);
        let retry = record.retry().map(|retry| retry.clone_ref(py));
        let Some(journaled) = record.journaled_mut().filter(|task| task.has_begun) else {
            return Ok(Some(record));
        };
        let described;
        let (status, stored) = match &outcome {
            Ended::Value(value) => match Stored::encode(value.bind(py)) {
                Ok(stored) => (Status::Returned, stored),
                Err(error) if error.is_instance_of::<PyException>(py) => {
                    let arguments = (id, &key, error.into_value(py));
                    policy.call_method1(intern!(py, "cannot_store"), arguments)?;
                    (Status::Unstored, Stored::nothing())
                }
                Err(error) => return Err(error),
            },
            Ended::Error(error) => {
                let arguments = (id, &key, error, retry);
                let text = policy.call_method1(intern!(py, "error_to_record"), arguments)?;
                let Some(text) = text.extract::<Option<String>>()? else {
                    return Ok(Some(record));
                };
                described = text;
                (Status::Failed, Stored::json(&described))
            }
        };
        let mut spend = Vec::new();
        for (place, amount) in &journaled.spend {
            append_spend(&mut spend, &journal.budgets[*place], *amount);
        }
        let file = journal.file.get();
        let claim = &mut journaled.claim;
        match file.end(py, claim, status, attempts, &stored, &spend) {
            Ok(length) if journal.waits_for_disk => {
                if let Ended::Error(error) = &outcome {
                    // Before the sync, so that the limits on failures stop the run in time.
                    let retry = record.retry().map(|retry| retry.clone_ref(py));
                    let arguments = (id, &key, error, retry);
                    (slf.get().policy.bind(py)).call_method1(intern!(py, "failed"), arguments)?;
                }
                let unsynced = Unsynced {
                    record,
                    outcome,
                    now,
                    length,
                };
                journal.unsynced.borrow(py).push_back(unsynced);
                if !journal.is_syncing.swap(true, Relaxed) {
                    policy.call_method0(intern!(py, "start_sync"))?;
                }
                Ok(None)
            }
            Ok(_) => Ok(Some(record)),
            Err(error) => {
                let arguments = (error.into_value(py), key_of(py, claim)?);
                policy.call_method1(intern!(py, "failed"), arguments)?;
                Ok(Some(record))
            }
        }
    }

    /// Deliver the events of the tasks whose ends are on disk; after a failed sync, of all. Return the keys of those whose ends are not,
    /// and whether tasks wait for another sync.
    pub(super) fn deliver_synced(
        &self,
        py: Python<'_>,
        has_failed: bool,
    ) -> PyResult<(Vec<Py<PyAny>>, bool)> {
        let mut unrecorded = Vec::new();
        let Some(journal) = self.journal.get() else {
            return Ok((unrecorded, false));
        };
        let file = journal.file.get();
        let reached = file.synced(py);
        if has_failed {
            file.refuse_writes(py);
        }
        loop {
            let next = {
                let mut unsynced = journal.unsynced.borrow(py);
                let is_due = |task: &Unsynced| has_failed || task.length <= reached;
                if unsynced.front().is_some_and(is_due) {
                    unsynced.pop_front()
                } else {
                    None
                }
            };
            let Some(Unsynced {
                mut record,
                outcome,
                now,
                length,
            }) = next
            else {
                break;
            };
            if length > reached
                && let Some(journaled) = record.journaled_mut()
            {
                unrecorded.push(key_of(py, &journaled.claim)?.unbind());
            }
            self.conclude(py, record, &outcome, now, false)?;
        }
        let goes_on = journal.unsynced(py) > 0;
        journal.is_syncing.store(goes_on, Relaxed);
        self.wake(py)?;
        Ok((unrecorded, goes_on))
    }
}
