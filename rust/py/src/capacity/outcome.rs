//! Outcomes of work, for adaptive limits and breakers: `lease.rs` reports those of user code, and the pool those of its tasks.

use headrace_core::capacity::PermitId;
use headrace_core::capacity::adaptive::Outcome;
use headrace_core::capacity::auto_rate::StatedLimit;
use pyo3::exceptions::{PyException, PyTimeoutError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyMapping, PyString};

use super::lease::PyLease;
use super::tree::TreeHandle;
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

/// Report the limits that the headers of an answer state, or else the error of the call, to the auto rates of a permit's path. Without
/// such a rate nothing is read.
pub(super) fn report_stated(
    py: Python<'_>,
    handle: &TreeHandle,
    permit: PermitId,
    headers: Option<&Bound<'_, PyAny>>,
    error: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    if headers.is_none() && error.is_none() {
        return Ok(());
    }
    let rates = handle.peek().auto_rates(permit);
    if rates.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = (rates.iter())
        .map(|&rate| handle.peek().resource_name(rate).to_string())
        .collect();
    let module = py.import(intern!(py, "headrace.task._stated_limits"))?;
    let found = module.call_method1(intern!(py, "stated_limits"), (names, headers, error))?;
    let found: Vec<Option<(f64, f64, f64)>> = found.extract()?;
    let stated: Vec<_> = (rates.into_iter().zip(found))
        .filter_map(|(rate, found)| {
            let (limit, remaining, reset) = found?;
            let stated = StatedLimit {
                limit,
                remaining,
                reset,
            };
            Some((rate, stated))
        })
        .collect();
    if !stated.is_empty() {
        handle.enter(py)?.report_stated(permit, &stated);
    }
    Ok(())
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
