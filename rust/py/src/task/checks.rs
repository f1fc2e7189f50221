//! Checks of the options of a task that recognise common values without Python. Other values may be valid as well: Python checks them.

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyFunction, PyInt};

/// Return whether a cost is a positive number, or a dict of such, of builtin types. Python checks all others.
pub(super) fn is_plain_cost(cost: &Bound<'_, PyAny>) -> bool {
    match cost.cast_exact::<PyDict>() {
        Ok(amounts) => {
            !amounts.is_empty() && amounts.iter().all(|(_, amount)| is_plain_amount(&amount))
        }
        Err(_) => is_plain_amount(cost),
    }
}

fn is_plain_amount(amount: &Bound<'_, PyAny>) -> bool {
    if amount.is_exact_instance_of::<PyInt>() {
        return amount.extract::<i64>().is_ok_and(|amount| amount > 0);
    }
    amount.cast_exact::<PyFloat>().is_ok_and(|amount| {
        let amount = amount.value();
        amount > 0.0 && amount.is_finite()
    })
}

/// Return whether a time limit is a positive number of a builtin type. Python checks all others.
pub(super) fn is_time_limit(limit: &Bound<'_, PyAny>) -> bool {
    let is_number =
        limit.is_exact_instance_of::<PyInt>() || limit.is_exact_instance_of::<PyFloat>();
    is_number && limit.extract::<f64>().is_ok_and(|seconds| seconds > 0.0)
}

/// Return whether a hook is certainly a plain function: defined by `def`, and not marked as a coroutine function.
pub(super) fn is_plain_function(hook: &Bound<'_, PyAny>) -> PyResult<bool> {
    is_function_without(ffi::CO_COROUTINE, hook)
}

/// Return whether a callable certainly may be called in a thread: defined by `def`, and not async.
pub(super) fn is_blocking_function(fn_: &Bound<'_, PyAny>) -> PyResult<bool> {
    is_function_without(ffi::CO_COROUTINE | ffi::CO_ASYNC_GENERATOR, fn_)
}

/// Return whether a callable is defined by `def`, not marked as a coroutine function, and has none of these flags.
fn is_function_without(flags: i32, callable: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = callable.py();
    if !callable.is_exact_instance_of::<PyFunction>() {
        return Ok(false);
    }
    let found: i32 = (callable.getattr(intern!(py, "__code__"))?)
        .getattr(intern!(py, "co_flags"))?
        .extract()?;
    let is_marked = callable
        .getattr_opt(intern!(py, "_is_coroutine_mark"))?
        .is_some();
    Ok(found & flags == 0 && !is_marked)
}
