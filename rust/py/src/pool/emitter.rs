//! `PyEmitter`: the object through which a task that yields values reports them.
//! `task_body.rs` and `submitted.rs` make it. `stream` in `executor/loop.py` calls it.

use std::sync::atomic::Ordering::Relaxed;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;
use pyo3::{PyTraverseError, PyVisit};

use super::engine::PyEngine;
use super::envelope::{EventKind, Fields, PyEnvelope};
use super::task_record::TaskRecord;

/// The reporter of the yielded values of one attempt.
#[pyclass(name = "Emitter", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyEmitter {
    engine: Py<PyEngine>,
    id: u64,
    key: Option<Py<PyAny>>,
    attempt: u64,
    queued: f64,
    started: Option<f64>,
    slot: Option<u64>,
}

impl PyEmitter {
    pub(super) fn make<'py>(
        engine: &Bound<'py, PyEngine>,
        record: &TaskRecord,
    ) -> PyResult<Bound<'py, Self>> {
        let py = engine.py();
        let emitter = Self {
            engine: engine.clone().unbind(),
            id: record.id,
            key: record.key(py).map(Bound::unbind),
            attempt: record.attempt,
            queued: record.queued,
            started: record.started,
            slot: record.slot,
        };
        Bound::new(py, emitter)
    }
}

#[pymethods]
impl PyEmitter {
    /// The name of the task.
    #[getter]
    fn name<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        self.engine
            .get()
            .name_of(py, self.id, self.key.as_ref().map(|key| key.bind(py)))
    }

    /// Report a value. Return an awaitable if the task must wait for space before its next step.
    fn emit<'py>(&self, py: Python<'py>, value: Py<PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let engine = self.engine.get();
        let fields = Fields {
            task_id: self.id,
            key: self.key.as_ref().map(|key| key.clone_ref(py)),
            kind: Some(EventKind::Intermediate.object(py)?.clone_ref(py)),
            value: Some(value),
            error: None,
            attempt: self.attempt,
            queued: self.queued,
            started: self.started,
            finished: None,
            replayed: false,
        };
        let envelope = PyEnvelope::make(py, fields)?.into_any();
        let (is_stopping, has_left) = engine.registry.note_progress(py, self.id);
        if has_left && !is_stopping {
            return Ok(None);
        }
        let events = engine.events.get();
        // In a run that was left, a task that never waits must be suspended, so that it can be cancelled.
        let accepts = !is_stopping && !events.shut.load(Relaxed);
        if accepts && events.has_room(py, self.slot) {
            return events.put_at(py, self.slot, envelope).map(|()| None);
        }
        let arguments = (envelope, self.slot, is_stopping);
        (engine.policy.bind(py))
            .call_method1(intern!(py, "emit"), arguments)
            .map(Some)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.engine)?;
        self.key.as_ref().map_or(Ok(()), |key| visit.call(key))
    }
}
