//! `TaskProgressEnvelope`: one event of one task, as the consumer gets it. `completion.rs` and `emitter.rs` make it.

use pyo3::basic::CompareOp;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyTuple, PyType};
use pyo3::{PyTraverseError, PyVisit};

use crate::object::freelist;
use crate::object::freelist::{Dropped, Filling, FreeList, Pooled};

/// The immutable event of a task. Its documentation is in `headrace.pool.events`.
#[pyclass(
    frozen,
    generic,
    weakref,
    module = "headrace",
    name = "TaskProgressEnvelope"
)]
#[derive(Debug)]
pub(crate) struct PyEnvelope(Filling<Fields>);

#[derive(Debug)]
pub(super) struct Fields {
    pub(super) task_id: u64,
    /// The key of the task. `None` in this and the other optional fields is `None` in Python too.
    pub(super) key: Option<Py<PyAny>>,
    /// A member of `EnvelopeType`; `None` only in an object on the free list.
    pub(super) kind: Option<Py<PyAny>>,
    pub(super) value: Option<Py<PyAny>>,
    pub(super) error: Option<Py<PyAny>>,
    pub(super) attempt: u64,
    pub(super) queued: f64,
    pub(super) started: Option<f64>,
    pub(super) finished: Option<f64>,
    /// Whether an earlier run has recorded the event.
    pub(super) replayed: bool,
}

static FREE_LIST: FreeList = FreeList::new();

impl Pooled for PyEnvelope {
    fn free_list() -> &'static FreeList {
        &FREE_LIST
    }

    #[inline]
    fn recycle(&self, dropped: &mut Dropped) -> bool {
        // SAFETY: the last reference to the object is gone.
        let fields = unsafe { self.0.get_mut() };
        dropped.push(fields.key.take());
        dropped.push(fields.kind.take());
        dropped.push(fields.value.take());
        dropped.push(fields.error.take());
        true
    }
}

/// The names of the fields in Python, in the order of the constructor.
const NAMES: [&str; 10] = [
    "task_id", "key", "type", "value", "error", "attempt", "queued", "started", "finished",
    "replayed",
];

#[pymethods]
impl PyEnvelope {
    #[classattr]
    #[pyo3(name = "__match_args__")]
    fn match_args(py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
        PyTuple::new(py, NAMES)
    }

    #[new]
    #[pyo3(signature = (task_id, key, r#type, value, error, attempt, queued, started, finished, replayed = false))]
    #[expect(clippy::too_many_arguments, reason = "they are its fields")]
    fn new(
        task_id: u64,
        key: Option<Py<PyAny>>,
        r#type: Py<PyAny>,
        value: Option<Py<PyAny>>,
        error: Option<Py<PyAny>>,
        attempt: u64,
        queued: f64,
        started: Option<f64>,
        finished: Option<f64>,
        replayed: bool,
    ) -> Self {
        Self(Filling::new(Fields {
            task_id,
            key,
            kind: Some(r#type),
            value,
            error,
            attempt,
            queued,
            started,
            finished,
            replayed,
        }))
    }

    /// The number of the task in its runner, counted from 1 in the order in which tasks are accepted.
    #[getter]
    fn task_id(&self) -> u64 {
        self.0.get().task_id
    }

    /// The `key` of the `Task`; None for a bare callable.
    #[getter]
    fn key(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        shared(py, self.0.get().key.as_ref())
    }

    /// The type of the event.
    #[getter]
    fn r#type(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        shared(py, self.0.get().kind.as_ref())
    }

    /// The value that the task yielded or ended with; None in an `ERROR`.
    #[getter]
    fn value(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        shared(py, self.0.get().value.as_ref())
    }

    /// The exception object that the task raised; None unless this is an `ERROR`.
    #[getter]
    fn error(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        shared(py, self.0.get().error.as_ref())
    }

    /// The number of the call of the task, counted from 1; 0 if the task was never called.
    #[getter]
    fn attempt(&self) -> u64 {
        self.0.get().attempt
    }

    /// The time at which the runner accepted the task.
    #[getter]
    fn queued(&self) -> f64 {
        self.0.get().queued
    }

    /// The time at which the task was called, after its capacity was granted; None if it was never called.
    #[getter]
    fn started(&self) -> Option<f64> {
        self.0.get().started
    }

    /// The time at which the task ended; None in an `INTERMEDIATE`.
    #[getter]
    fn finished(&self) -> Option<f64> {
        self.0.get().finished
    }

    /// Return whether the outcome comes from the journal of an earlier run: the task was not called in this one.
    #[getter]
    fn replayed(&self) -> bool {
        self.0.get().replayed
    }

    fn __richcmp__(
        &self,
        py: Python<'_>,
        other: &Bound<'_, PyAny>,
        op: CompareOp,
    ) -> PyResult<Py<PyAny>> {
        let Ok(other) = other.cast::<Self>() else {
            return Ok(py.NotImplemented());
        };
        match op {
            CompareOp::Eq | CompareOp::Ne => {
                let fields = self.fields(py)?;
                let compared = fields.rich_compare(other.get().fields(py)?, op)?;
                Ok(compared.unbind())
            }
            _ => Ok(py.NotImplemented()),
        }
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        self.fields(py)?.hash()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let fields = self.fields(py)?;
        let shown = NAMES
            .iter()
            .zip(fields.iter())
            .map(|(name, field)| Ok(format!("{name}={}", field.repr()?)))
            .collect::<PyResult<Vec<_>>>()?;
        Ok(format!("TaskProgressEnvelope({})", shown.join(", ")))
    }

    fn __reduce__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyType>, Bound<'py, PyTuple>)> {
        Ok((py.get_type::<Self>(), self.fields(py)?))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let fields = self.0.get();
        let held = [&fields.kind, &fields.key, &fields.value, &fields.error];
        for held in held.into_iter().flatten() {
            visit.call(held)?;
        }
        Ok(())
    }
}

impl PyEnvelope {
    /// Return an envelope with these fields, reusing an object from the free list if there is one.
    #[inline]
    pub(super) fn make(py: Python<'_>, fields: Fields) -> PyResult<Bound<'_, Self>> {
        let Some(envelope) = FREE_LIST.take::<Self>(py) else {
            return Bound::new(py, Self(Filling::new(fields)));
        };
        // SAFETY: no other code has a reference to the object yet.
        unsafe { *envelope.get().0.get_mut() = fields };
        freelist::track(&envelope);
        Ok(envelope)
    }

    /// Return the final value or the error of the task; `None` if this is not its last envelope.
    #[inline]
    pub(super) fn outcome<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<Option<Result<Bound<'py, PyAny>, Bound<'py, PyAny>>>> {
        let fields = self.0.get();
        if let Some(error) = &fields.error {
            return Ok(Some(Err(error.bind(py).clone())));
        }
        let last = EventKind::Final.object(py)?;
        if !fields.kind.as_ref().is_some_and(|kind| kind.is(last)) {
            return Ok(None);
        }
        let value = fields.value.as_ref().map(|value| value.bind(py).clone());
        Ok(Some(Ok(value.unwrap_or_else(|| py.None().into_bound(py)))))
    }

    fn fields<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let fields = self.0.get();
        (
            fields.task_id,
            self.key(py),
            self.r#type(py),
            self.value(py),
            self.error(py),
            fields.attempt,
            fields.queued,
            fields.started,
            fields.finished,
            fields.replayed,
        )
            .into_pyobject(py)
    }
}

/// A member of `EnvelopeType`.
#[derive(Clone, Copy, Debug)]
pub(super) enum EventKind {
    Intermediate,
    Final,
    Error,
}

impl EventKind {
    pub(super) fn object(self, py: Python<'_>) -> PyResult<&Py<PyAny>> {
        static KINDS: PyOnceLock<[Py<PyAny>; 3]> = PyOnceLock::new();
        let kinds = KINDS.get_or_try_init(py, || {
            let class = py.import("headrace.pool.events")?.getattr("EnvelopeType")?;
            let kind = |name| PyResult::Ok(class.getattr(name)?.unbind());
            PyResult::Ok([kind("INTERMEDIATE")?, kind("FINAL")?, kind("ERROR")?])
        })?;
        Ok(&kinds[self as usize])
    }
}

fn shared(py: Python<'_>, object: Option<&Py<PyAny>>) -> Option<Py<PyAny>> {
    object.map(|object| object.clone_ref(py))
}
