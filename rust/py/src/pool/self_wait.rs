//! Finds the permit of the task that is running, for a request of that task that has to wait: `capacity/task_holding.rs`.
//!
//! A permit of a pool has no owner, because most tasks never request more. The asyncio task is looked up among the running tasks of the
//! run around the caller. That is the run of the context variable, whose marker refers to the engine. A run whose tasks cost one
//! slot each has at most as many running tasks as slots. If more of them run than the request has slots, the others hold too much for
//! a task that waits for itself alone, so nothing is looked up.

use std::sync::atomic::Ordering::Relaxed;

use headrace_core::capacity::PermitId;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use super::engine::PyEngine;
use super::registry::Registry;
use super::task_body::TaskBody;
use crate::asyncio_task::TaskCoroutine;
use crate::capacity::TaskHolding;
use crate::coroutine::Native;
use crate::runtime::asyncio;

/// The context variable that marks code inside a run.
static INSIDE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Store the context variable, which is the same for all runs.
pub(super) fn set_variable(variable: &Bound<'_, PyAny>) {
    INSIDE.get_or_init(variable.py(), || variable.clone().unbind());
}

/// Find the permit of the current task, unless a wait for `slots` cannot be one for its own release.
pub(super) fn find(py: Python<'_>, slots: u64) -> PyResult<Option<TaskHolding>> {
    let Some(engine) = engine_around(py)? else {
        return Ok(None);
    };
    let this = engine.get();
    let running = u64::try_from(this.registry.running(py)).unwrap_or(u64::MAX);
    if running > slots && !this.has_costs.load(Relaxed) {
        return Ok(None);
    }
    let Some(task) = asyncio::current_task(py) else {
        return Ok(None);
    };
    let coroutine = task.call_method0(intern!(py, "get_coro"))?;
    if !Native::<TaskCoroutine<TaskBody>>::is(&coroutine) {
        return Ok(None);
    }
    let permit = this.registry.permit_of(py, &task);
    Ok(permit.map(|permit| TaskHolding {
        capacity: this.capacity.clone_ref(py),
        permit,
    }))
}

/// Return the engine of the innermost run around the caller.
fn engine_around(py: Python<'_>) -> PyResult<Option<Bound<'_, PyEngine>>> {
    let Some(variable) = INSIDE.get(py) else {
        return Ok(None);
    };
    // SAFETY: attached, and a live context variable; the value is an owned reference, or null.
    let inside = unsafe {
        let mut value = std::ptr::null_mut();
        if ffi::PyContextVar_Get(variable.as_ptr(), std::ptr::null_mut(), &raw mut value) < 0 {
            return Err(PyErr::fetch(py));
        }
        Bound::from_owned_ptr_or_opt(py, value)
    };
    let Some(inside) = inside.filter(|inside| !inside.is_none()) else {
        return Ok(None);
    };
    let engine = inside.call_method0(intern!(py, "engine"))?;
    Ok(engine.cast_into::<PyEngine>().ok())
}

impl Registry {
    /// Return the permit of a running task, by its asyncio task. A task in its first step has none yet; if several are, none is found.
    fn permit_of(&self, py: Python<'_>, task: &Bound<'_, PyAny>) -> Option<PermitId> {
        self.look_at_running(py, |all| {
            let (mut first_steps, mut permit) = (0, None);
            for running in all.filter(|running| running.submitted.is_none()) {
                match &running.task {
                    Some(known) if known.is(task) => return running.permit,
                    Some(_) => {}
                    None => {
                        first_steps += 1;
                        permit = running.permit;
                    }
                }
            }
            permit.filter(|_| first_steps == 1)
        })
    }
}
