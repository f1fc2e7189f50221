//! Lists the tasks of a run, for `headrace.explain()` and the warning of stuck trees.

use pyo3::prelude::*;

use super::engine::PyEngine;
use super::registry::{Entry, Running, Waiting};
use super::request::Request;
use super::task_body::TaskBody;
use super::task_record::TaskRecord;
use crate::asyncio_task::TaskCoroutine;
use crate::coroutine::Native;

/// A task: id, state, key, the times of its acceptance, of its last call and of its timer, the number of calls, the number of its
/// permit, and the asyncio task that runs it.
type Facts = (
    u64,
    &'static str,
    Option<Py<PyAny>>,
    Option<f64>,
    Option<f64>,
    Option<f64>,
    u64,
    Option<u64>,
    Option<Py<PyAny>>,
);

/// List the tasks of a run, in the order in which they were accepted.
///
/// The states are `"running"`, `"stepping"` (the event loop executes it now, so only its asyncio task and its start are known),
/// `"submitted"` (an executor runs it), `"requesting"` (it waits for its capacity), `"following"` (it waits for an equal call), `"held"` (it waits until a task may be called) and
/// `"backing off"`.
#[pyfunction]
pub(super) fn engine_tasks(py: Python<'_>, engine: &Bound<'_, PyEngine>) -> PyResult<Vec<Facts>> {
    let ids = engine.get().registry.ids(py);
    facts_of(py, engine.get(), ids)
}

/// List the running tasks that have made no progress for `seconds` and were not listed before. A task makes progress when it is called
/// and when it yields a value.
#[pyfunction]
pub(super) fn engine_stalled(
    py: Python<'_>,
    engine: &Bound<'_, PyEngine>,
    seconds: f64,
) -> PyResult<Vec<Facts>> {
    let now = engine.get().now(py)?;
    let registry = &engine.get().registry;
    let ids = registry.ids(py).into_iter().filter(|&id| {
        let is_stalled = registry.with_running(py, id, |running| running.is_stalled(now, seconds));
        is_stalled.unwrap_or(false)
    });
    let ids = ids.collect();
    facts_of(py, engine.get(), ids)
}

impl Running {
    /// Return whether a call has made no progress, once for each such time.
    fn is_stalled(&mut self, now: f64, seconds: f64) -> bool {
        if std::mem::take(&mut self.has_progressed) {
            self.since = now;
            self.is_reported = false;
        }
        let called = (self.submitted.as_ref()).map_or(Some(self.since), |work| work.record.started);
        let since = called.map(|called| called.max(self.since));
        !self.is_reported
            && since.is_some_and(|since| now - since >= seconds)
            && !std::mem::replace(&mut self.is_reported, true)
    }
}

fn facts_of(py: Python<'_>, engine: &PyEngine, ids: Vec<u64>) -> PyResult<Vec<Facts>> {
    let registry = &engine.registry;
    let mut found = Vec::new();
    for id in ids {
        let facts = registry.with_entry(py, id, |entry| match entry {
            Entry::Running(running) => of_running(py, id, running),
            Entry::Waiting(waiting) => of_waiting(py, waiting),
        });
        let Some(mut facts) = facts else {
            continue;
        };
        if facts.1 == "stepping"
            && let Some(task) = &facts.8
        {
            // Outside the borrow, since it calls Python.
            let coroutine = task.bind(py).call_method0(pyo3::intern!(py, "get_coro"))?;
            let record = Native::<TaskCoroutine<TaskBody>>::peek(&coroutine, |coroutine| {
                (coroutine.body().and_then(TaskBody::record))
                    .map(|record| of_record(py, "running", record))
            });
            if let Some(known) = record.flatten() {
                let task = facts.8.take();
                facts = (
                    known.0, known.1, known.2, known.3, known.4, known.5, known.6, known.7, task,
                );
            }
        }
        found.push(facts);
    }
    Ok(found)
}

fn of_record(py: Python<'_>, state: &'static str, record: &TaskRecord) -> Facts {
    (
        record.id,
        state,
        record.key.as_ref().map(|key| key.clone_ref(py)),
        Some(record.queued),
        record.started,
        record.deadline,
        record.attempt,
        record.grant.as_ref().map(|grant| grant.number(py)),
        None,
    )
}

fn of_running(py: Python<'_>, id: u64, running: &Running) -> Facts {
    if let Some(work) = &running.submitted {
        return of_record(py, "submitted", &work.record);
    }
    let task = running.task.as_ref().map(|task| task.clone_ref(py));
    let since = Some(running.since);
    (id, "stepping", None, None, since, None, 0, None, task)
}

fn of_waiting(py: Python<'_>, waiting: &Waiting) -> Facts {
    let state = match &waiting.request {
        _ if !waiting.is_due => "backing off",
        Some(Request::Driven { .. } | Request::Task(_)) => "requesting",
        Some(Request::Flight { .. }) => "following",
        None => "held",
    };
    of_record(py, state, &waiting.record)
}
