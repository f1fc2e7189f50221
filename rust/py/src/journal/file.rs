//! `JournalFile`: an open journal. `headrace/journal/journal.py` opens it, and `pool/journaled.rs` writes the calls of a run to it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use headrace_core::journal::compact::compact;
use headrace_core::journal::{Claim, Journal, OpenError, Options, Outcome, Record, Status};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::key;
use super::sync::{Sync, Syncer};
use super::value::{self, Stored};
use crate::coroutine::operation::Ready;
use crate::errors;
use crate::object::gil_cell::GilCell;
use crate::runtime::blocking_pool::checked_path;
use crate::runtime::fork_guard::ProcessId;

/// A journal that this process has opened. Its description is in `headrace.journal`.
#[pyclass(name = "JournalFile", frozen, weakref, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyJournalFile {
    process: ProcessId,
    path: PathBuf,
    /// `None` after `close`.
    journal: GilCell<Option<Journal>>,
    syncer: Arc<Syncer>,
}

/// A call that was claimed, and its end if it has ended before.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) claim: Claim,
    /// The payload of its [`Record::End`].
    pub(crate) ended: Option<Vec<u8>>,
}

/// The end of a call that an earlier run has recorded.
#[derive(Debug)]
pub(crate) enum Replay<'py> {
    Returned(Bound<'py, PyAny>),
    /// The description of its error.
    Failed(Bound<'py, PyAny>),
    /// It has returned a result that could not be stored.
    Unstored,
}

#[pymethods]
impl PyJournalFile {
    /// Open or create a journal. Reads it whole. If `syncs`, the start of a new file is put on disk.
    #[new]
    fn new(py: Python<'_>, path: PathBuf, skips_damage: bool, syncs: bool) -> PyResult<Self> {
        let path = checked_path(path)?;
        let opened = py.detach(|| {
            let options = Options {
                skips_damage,
                syncs_start: syncs,
            };
            let journal = Journal::open(&path, options)?;
            let file = journal.file()?;
            Ok::<(Journal, File), OpenError>((journal, file))
        });
        let (journal, file) = opened.map_err(|error| open_error(py, &path, &error))?;
        let syncer = Syncer::new(path.clone(), file);
        syncer.note_written(journal.length());
        syncer.note_reached(journal.synced());
        Ok(Self {
            process: ProcessId::current(),
            path,
            journal: GilCell::new(Some(journal)),
            syncer,
        })
    }

    /// The version of the last pass, and whether the user has stated it; `None` for a new journal.
    #[getter]
    fn version(&self, py: Python<'_>) -> PyResult<Option<(bool, String)>> {
        self.with(py, |journal| {
            let version = journal.version();
            version.map(|(is_explicit, version)| (is_explicit, version.to_owned()))
        })
    }

    /// The number of calls that have ended.
    #[getter]
    fn ended(&self, py: Python<'_>) -> PyResult<usize> {
        self.with(py, |journal| journal.ended())
    }

    /// The number of bytes of the file.
    #[getter]
    fn length(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |journal| journal.length())
    }

    /// The number of bytes that are known to be on disk.
    #[getter]
    #[pyo3(name = "synced")]
    fn synced_length(&self) -> u64 {
        self.syncer.reached()
    }

    /// The memory of the index in bytes.
    #[getter]
    fn memory(&self, py: Python<'_>) -> PyResult<usize> {
        self.with(py, |journal| journal.memory())
    }

    /// The damaged bytes that were skipped, as pairs of their first offset and the offset behind them.
    #[getter]
    fn damage(&self, py: Python<'_>) -> PyResult<Vec<(u64, u64)>> {
        self.with(py, |journal| {
            let damage = journal.damage().iter();
            damage.map(|damage| (damage.start, damage.end)).collect()
        })
    }

    /// The sums of what the ended calls were charged, by the name of the budget.
    #[getter]
    fn spend<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let spend = self.with(py, |journal| journal.spend().clone())?;
        let amounts = PyDict::new(py);
        for (name, amount) in spend {
            amounts.set_item(name, amount)?;
        }
        Ok(amounts)
    }

    /// The keys of the calls that have begun and not ended, in the order of the file.
    #[getter]
    fn in_flight<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let payloads = self.with(py, |journal| journal.in_flight())?;
        let payloads = payloads.map_err(|error| errors::os_error(py, &self.path, &error))?;
        let keys = payloads.iter().filter_map(|payload| {
            let identity = Record::decode(payload)?.identity()?;
            Some(key::decode(py, identity.key))
        });
        keys.collect()
    }

    /// Record that a pass begins with this version of the function.
    fn run(&self, py: Python<'_>, version: &str, is_explicit: bool) -> PyResult<()> {
        self.write(py, |journal| journal.run(now(), is_explicit, version))
    }

    /// Store a value under a key, once. Return whether it was stored.
    fn store(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let mut encoded = Vec::new();
        key::encode(&mut encoded, key)?;
        if self.write(py, |journal| journal.has_ended(&encoded))? {
            return Ok(false);
        }
        let stored = Stored::encode(value)?;
        let Claimed { mut claim, .. } = self.claim(key)?;
        let stored = self.end(py, &mut claim, Status::Returned, 0, &stored, &[]);
        if stored.is_err() {
            self.unclaim(py, &claim)?;
        }
        stored.map(|_| true)
    }

    /// Wait until all that was written is on disk.
    fn sync<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let length = self.with(py, |journal| journal.length())?;
        let syncer = Arc::clone(&self.syncer);
        Ready::make(py, Sync { syncer, length })
    }

    /// Free the lock between two runs. If `syncs`, put the file on disk before.
    fn unlock(&self, py: Python<'_>, syncs: bool) -> PyResult<()> {
        let synced = if syncs {
            py.detach(|| self.syncer.sync_now())
        } else {
            Ok(())
        };
        self.with(py, Journal::unlock)?;
        synced.map_err(|error| errors::os_error(py, &self.path, &error))
    }

    /// Take the lock again. Raises a `JournalError` if the file was changed meanwhile.
    fn relock(&self, py: Python<'_>) -> PyResult<()> {
        let locked = self.with(py, |journal| journal.relock(&self.path))?;
        locked.map_err(|error| open_error(py, &self.path, &error))
    }

    /// Close the file and free its lock. If `syncs`, put it on disk before. Idempotent.
    fn close(&self, py: Python<'_>, syncs: bool) -> PyResult<()> {
        let journal = self.journal.borrow(py).take();
        let Some(mut journal) = journal.filter(|_| self.process.is_current()) else {
            // In a forked child, dropping closes only its own descriptors.
            return Ok(());
        };
        let synced = py.detach(|| {
            let synced = if syncs {
                self.syncer.sync_now()
            } else {
                Ok(())
            };
            if syncs && synced.is_ok() {
                // A note for the next open, which has all records without it.
                let _ = journal.mark_synced(self.syncer.reached());
            }
            journal.unlock();
            drop(journal);
            synced
        });
        synced.map_err(|error| errors::os_error(py, &self.path, &error))
    }

    #[getter]
    fn is_closed(&self, py: Python<'_>) -> bool {
        self.journal.borrow(py).is_none()
    }

    /// Remove what a resume does not need from a journal that is not in use. Return its lengths before and after.
    #[staticmethod]
    #[pyo3(name = "compact")]
    fn compacted(py: Python<'_>, path: PathBuf, skips_damage: bool) -> PyResult<(u64, u64)> {
        let path = checked_path(path)?;
        let options = Options {
            skips_damage,
            syncs_start: true,
        };
        let done = py.detach(|| compact(&path, options, now()));
        done.map_err(|error| open_error(py, &path, &error))
    }
}

impl PyJournalFile {
    fn with<T>(&self, py: Python<'_>, look: impl FnOnce(&mut Journal) -> T) -> PyResult<T> {
        self.process.check(py, "journal")?;
        match &mut *self.journal.borrow(py) {
            Some(journal) => Ok(look(journal)),
            None => Err(PyRuntimeError::new_err(format!(
                "{}: this journal is closed",
                self.path.display()
            ))),
        }
    }

    /// Write to the journal.
    fn write<T>(
        &self,
        py: Python<'_>,
        write: impl FnOnce(&mut Journal) -> io::Result<T>,
    ) -> PyResult<T> {
        let written = self.with(py, |journal| {
            let written = write(journal)?;
            self.syncer.note_written(journal.length());
            Ok(written)
        })?;
        written.map_err(|error| errors::os_error(py, &self.path, &error))
    }

    /// Claim the next call with a key.
    pub(crate) fn claim(&self, key: &Bound<'_, PyAny>) -> PyResult<Claimed> {
        let py = key.py();
        let mut encoded = Vec::new();
        key::encode(&mut encoded, key)?;
        self.write(py, |journal| {
            let (claim, ended) = journal.claim(&encoded)?;
            Ok(Claimed { claim, ended })
        })
    }

    /// Give a claim back.
    pub(crate) fn unclaim(&self, py: Python<'_>, claim: &Claim) -> PyResult<()> {
        self.write(py, |journal| journal.unclaim(claim))
    }

    /// Record that a call begins.
    pub(crate) fn begin(&self, py: Python<'_>, claim: &mut Claim) -> PyResult<()> {
        self.write(py, |journal| journal.begin(claim, now()))
    }

    /// Record the end of a call. Return the length that must be on disk for it to survive a power cut.
    pub(crate) fn end(
        &self,
        py: Python<'_>,
        claim: &mut Claim,
        status: Status,
        attempts: u64,
        stored: &Stored<'_>,
        spend: &[u8],
    ) -> PyResult<u64> {
        let outcome = Outcome {
            time: now(),
            status,
            attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
            format: stored.format,
            value: &stored.bytes,
            spend,
        };
        self.write(py, |journal| journal.end(claim, outcome))
    }

    /// Write nothing more, because a sync has failed.
    pub(crate) fn refuse_writes(&self, py: Python<'_>) {
        if let Some(error) = self.syncer.failure()
            && let Some(journal) = &mut *self.journal.borrow(py)
        {
            journal.refuse_writes(&error);
        }
    }

    /// The number of bytes on disk.
    pub(crate) fn synced(&self, py: Python<'_>) -> u64 {
        let reached = self.syncer.reached();
        if let Some(journal) = &mut *self.journal.borrow(py) {
            journal.note_synced(reached);
        }
        reached
    }
}

impl Drop for PyJournalFile {
    fn drop(&mut self) {
        // In a forked child the thread that may hold the lock does not exist.
        if self.process.is_current() {
            Python::attach(|py| {
                self.syncer.abandon();
                if let Some(journal) = &mut *self.journal.borrow(py) {
                    journal.unlock();
                }
            });
        }
    }
}

/// Return the key of a claimed call.
pub(crate) fn key_of<'py>(py: Python<'py>, claim: &Claim) -> PyResult<Bound<'py, PyAny>> {
    key::decode(py, claim.identity().key)
}

impl Claimed {
    /// Return the recorded end, and the number of attempts.
    pub(crate) fn replay<'py>(&self, py: Python<'py>) -> PyResult<Option<(Replay<'py>, u64)>> {
        let Some(payload) = &self.ended else {
            return Ok(None);
        };
        let Some(Record::End(end)) = Record::decode(payload) else {
            return Ok(None);
        };
        let replay = match end.status {
            Status::Returned => Replay::Returned(value::decode(py, &end)?),
            Status::Failed => Replay::Failed(value::decode(py, &end)?),
            Status::Unstored => Replay::Unstored,
        };
        Ok(Some((replay, end.attempts.into())))
    }
}

/// The wall clock, in seconds since the epoch.
fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// Return the Python exception of an error at an open: an `OSError` with the path, or a `JournalError`.
pub(super) fn open_error(py: Python<'_>, path: &Path, error: &OpenError) -> PyErr {
    let remedy = match error {
        OpenError::Io(error) => return errors::os_error(py, path, error),
        OpenError::Locked => "; wait for its end, or give this run a journal of its own",
        OpenError::Changed => "; begin with a new runner",
        OpenError::NotAJournal => "; give the path of a new file",
        OpenError::DamagedHeader | OpenError::Damaged(_) => {
            "; restore a copy, or open it with damaged=\"skip\": the calls of the damaged records are then called again"
        }
        OpenError::Version(_) => "; install a newer headrace",
    };
    let path = path.display();
    errors::journal(
        py,
        &format!("cannot open the journal {path}: {error}{remedy}"),
    )
}
