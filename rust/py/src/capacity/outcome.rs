//! Outcomes of work, for adaptive limits and breakers: `lease.rs` reports those of user code, and the pool those of its tasks.

use headrace_core::capacity::adaptive::Outcome;
use pyo3::exceptions::{PyException, PyTimeoutError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyMapping, PyString};

use super::lease::PyLease;
use crate::errors;

/// Return the outcome of work that raised an error; `None` if it says nothing about a server, as a cancellation and other errors that are
/// no `Exception`. `headrace.task` classifies the others, by the `Retry` of the task if it has one.
#[cold]
pub(crate) fn outcome_of(
    py: Python<'_>,
    error: &Bound<'_, PyAny>,
    retry: Option<&Py<PyAny>>,
) -> PyResult<Option<Outcome>> {
    if error.is_instance_of::<PyTimeoutError>() {
        return Ok(Some(Outcome::TimedOut));
    }
    if !error.is_instance_of::<PyException>() {
        return Ok(None);
    }
    let module = py.import(intern!(py, "headrace.task._outcome"))?;
    let kind = module.call_method1(intern!(py, "outcome_of"), (error, retry))?;
    Ok(match &*kind.extract::<PyBackedStr>()? {
        "throttled" => Some(Outcome::Throttled),
        "timed_out" => Some(Outcome::TimedOut),
        "rejected" => Some(Outcome::Rejected),
        "failed" => Some(Outcome::Failed),
        _ => None,
    })
}

/// Return whether a lease is that of the current task of a pool.
pub(super) fn is_current(lease: &Bound<'_, PyLease>) -> PyResult<bool> {
    let py = lease.py();
    let module = py.import(intern!(py, "headrace.task._outcome"))?;
    (module.call_method1(intern!(py, "is_current"), (lease,))?).is_truthy()
}

/// Refuse headers that are no mapping of strings.
pub(super) fn check_headers(headers: &Bound<'_, PyAny>) -> PyResult<()> {
    let Ok(mapping) = headers.cast::<PyMapping>() else {
        return Err(errors::wrong_type(
            "headers",
            "mapping of names to values, or None",
            headers,
        ));
    };
    for name in mapping.try_iter()? {
        let name = name?;
        if !name.is_instance_of::<PyString>() {
            return Err(errors::wrong_type("the names of headers", "string", &name));
        }
    }
    Ok(())
}
