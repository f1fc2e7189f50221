//! `JournalReader`: the records of a journal, for `headrace journal` and sources that replay one. It takes no lock.

use std::fs::File;
use std::path::PathBuf;

use headrace_core::journal::record::spends;
use headrace_core::journal::scan::{Scan, Step};
use headrace_core::journal::{Record, Status};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use super::file::open_error;
use super::key;
use crate::errors;
use crate::object::gil_cell::GilCell;
use crate::runtime::blocking_pool::checked_path;

/// Reads the records in the order of the file: an iterator of tuples that begin with the kind of the record and its offset.
///
/// | kind | further fields |
/// |---|---|
/// | `"run"` | time, version, whether the user has stated it |
/// | `"start"` | time, key, occurrence |
/// | `"end"` | time, key, occurrence, status, attempts, format, stored bytes, amounts by budget |
/// | `"damage"` | the offset behind the damaged bytes, whether they are a torn tail |
#[pyclass(name = "JournalReader", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(super) struct PyJournalReader {
    path: PathBuf,
    scan: GilCell<Scan>,
}

#[pymethods]
impl PyJournalReader {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let path = checked_path(path)?;
        let scan = File::open(&path)
            .map_err(Into::into)
            .and_then(|file| Scan::new(&file))
            .map_err(|error| open_error(py, &path, &error))?;
        Ok(Self {
            path,
            scan: GilCell::new(scan),
        })
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        loop {
            let (offset, payload) = {
                let mut scan = self.scan.borrow(py);
                match scan.step() {
                    Ok(Step::Frame { offset, payload }) => (offset, payload.to_vec()),
                    Ok(Step::Damage(damage)) => {
                        let fields = ("damage", damage.start, damage.end, damage.is_torn_tail);
                        drop(scan);
                        return fields.into_bound_py_any(py).map(Some);
                    }
                    Ok(Step::End) => return Ok(None),
                    Err(error) => {
                        drop(scan);
                        return Err(errors::os_error(py, &self.path, &error));
                    }
                }
            };
            let fields = match Record::decode(&payload) {
                Some(Record::Run {
                    time,
                    is_explicit,
                    version,
                }) => ("run", offset, time, version, is_explicit).into_bound_py_any(py)?,
                Some(Record::Start { time, identity }) => {
                    let key = key::decode(py, identity.key)?;
                    ("start", offset, time, key, identity.occurrence).into_bound_py_any(py)?
                }
                Some(Record::End(end)) => {
                    let status = match end.status {
                        Status::Returned => "returned",
                        Status::Failed => "failed",
                        Status::Unstored => "unstored",
                    };
                    let amounts = PyDict::new(py);
                    for (name, amount) in spends(end.spend) {
                        amounts.set_item(name, amount)?;
                    }
                    let key = key::decode(py, end.identity.key)?;
                    let stored = PyBytes::new(py, end.value);
                    let (occurrence, attempts) = (end.identity.occurrence, end.attempts);
                    (
                        "end", offset, end.time, key, occurrence, status, attempts, end.format,
                        stored, amounts,
                    )
                        .into_bound_py_any(py)?
                }
                Some(Record::Synced(_)) | None => continue,
            };
            return Ok(Some(fields));
        }
    }
}
