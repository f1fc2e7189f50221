//! The work of an executor: tasks that do not run on the event loop of the pool. `start.rs` submits such a task.
//!
//! The engine uses an executor only through its protocol (`headrace.pool.executor`). It submits a task with a listener. The executor
//! notifies the listener of the call, of values, and of exactly one result. The capacity is held until that result, even if the executor
//! does not know the state of the work meanwhile. A task counts as running from its submission, and its timeout starts with its call.
//!
//! Work that was lost before it began is submitted again, which is no attempt. It requests its capacity and its slot anew, in the next
//! event-loop iteration, so that an executor without workers does not block the event loop.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3::{PyTraverseError, PyVisit};

use super::emitter::PyEmitter;
use super::engine::PyEngine;
use super::registry::{Running, Submitted, Waiting};
use super::task_record::{ExecutorSlot, Target, TaskRecord};
use super::timers::Expiry;
use crate::capacity::{TaskPermit, is_number};
use crate::object::gil_cell::GilCell;
use crate::runtime::asyncio::is_cancelled_error;

/// The listener of one attempt of a task. Notifications have no effect after the attempt has ended or its work was detached.
#[pyclass(name = "Listener", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyListener {
    engine: Py<PyEngine>,
    id: u64,
    /// `None` until the task was called.
    emitter: GilCell<Option<Py<PyEmitter>>>,
    name: Py<PyAny>,
    /// Whether the task has a lease to settle.
    has_lease: bool,
    /// Whether the result was reported. The same task may run again, with another listener.
    has_ended: AtomicBool,
}

#[pymethods]
impl PyListener {
    #[getter]
    fn name(&self, py: Python<'_>) -> Py<PyAny> {
        self.name.clone_ref(py)
    }

    #[getter]
    fn has_lease(&self) -> bool {
        self.has_lease
    }

    fn called(&self, py: Python<'_>) -> PyResult<()> {
        let engine = self.engine.bind(py);
        let now = engine.get().now(py)?;
        if self.has_ended.load(Relaxed) {
            return Ok(());
        }
        // Setting a timer calls Python, which must not happen while the registry is borrowed, so the entry is taken out.
        let Some(mut running) = engine.get().registry.remove_running(py, self.id) else {
            return Ok(());
        };
        let result = match &mut running.submitted {
            Some(work) => self.start(engine, &mut work.record, now),
            None => Ok(()),
        };
        engine.get().registry.add_running(py, self.id, running);
        result
    }

    fn emit<'py>(&self, py: Python<'py>, value: Py<PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let emitter = (self.emitter.borrow(py).as_ref()).map(|emitter| emitter.clone_ref(py));
        match emitter {
            _ if self.has_ended.load(Relaxed) => Ok(py.None().into_bound(py)),
            Some(emitter) => emitter.bind(py).call_method1(intern!(py, "emit"), (value,)),
            None => Ok(py.None().into_bound(py)),
        }
    }

    fn returned(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let engine = self.engine.bind(py);
        let Some((mut record, running, _)) = self.take(py, None)? else {
            return Ok(());
        };
        engine.get().free(py, &mut record)?;
        if running.timed_out && !engine.get().can_cancel_at(py, record.executor())? {
            // The executor could not stop the work at its timeout, so it returned late.
            let error = engine.get().timeout_error(py, &record)?;
            return PyEngine::failed_attempt(engine, record, error, running.into()).map(drop);
        }
        PyEngine::completed(engine, record, value)
    }

    fn raised(&self, py: Python<'_>, error: Bound<'_, PyAny>) -> PyResult<()> {
        let engine = self.engine.bind(py);
        let error = PyErr::from_value(error);
        let Some((mut record, running, is_recalled)) = self.take(py, Some(&error))? else {
            return Ok(());
        };
        let never_began = (engine.get().policy.bind(py))
            .call_method1(intern!(py, "never_began"), (error.value(py),))?
            .is_truthy()?;
        let is_uncalled = record.attempt == 0 || (never_began && record.attempt == 1);
        if is_recalled && is_uncalled && (never_began || is_cancelled_error(py, &error)) {
            engine.get().free(py, &mut record)?;
            engine.get().forget(py, &mut record)?;
            let arguments = (record.id, &record.item);
            (engine.get().policy.bind(py)).call_method1(intern!(py, "keep"), arguments)?;
            return engine.get().end(py, &mut record);
        }
        if never_began {
            engine.get().free(py, &mut record)?;
            if self.emitter.borrow(py).is_some() {
                // The executor has reported the call too early.
                record.attempt -= 1;
                record.started = None;
            }
            if !running.cancel_requested && !engine.get().is_ending() {
                return PyEngine::place_again(engine, record);
            }
            return PyEngine::fail(engine, record, error, running.is_disturbed).map(drop);
        }
        let error = engine.get().as_timeout(py, &record, &running, error)?;
        PyEngine::failed_attempt(engine, record, error, running.into()).map(drop)
    }

    /// Settle the lease of the task.
    fn settle(&self, py: Python<'_>, amounts: &Bound<'_, PyDict>) -> PyResult<()> {
        let engine = self.engine.get();
        if self.has_ended.load(Relaxed) {
            return Ok(());
        }
        let lease = engine.registry.with_running(py, self.id, |running| {
            let work = running.submitted.as_ref()?;
            let lease = work.record.grant.as_ref().and_then(TaskPermit::lease)?;
            Some(lease.clone_ref(py))
        });
        match lease.flatten() {
            Some(lease) => (lease.bind(py))
                .call_method(intern!(py, "settle"), (), Some(amounts))
                .map(drop),
            None => Err(PyRuntimeError::new_err(
                "this task has no lease to settle: give it a cost that names the resources, as in cost={\"slots\": 1}",
            )),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.engine)?;
        if let Some(Some(emitter)) = self.emitter.peek_for_gc().as_deref() {
            visit.call(emitter)?;
        }
        visit.call(&self.name)
    }
}

impl PyListener {
    /// Start the attempt of a task that is being called.
    fn start(
        &self,
        engine: &Bound<'_, PyEngine>,
        record: &mut TaskRecord,
        now: f64,
    ) -> PyResult<()> {
        record.attempt += 1;
        record.started = Some(now);
        let emitter = PyEmitter::make(engine, record)?.unbind();
        *self.emitter.borrow(engine.py()) = Some(emitter);
        match record.timeout().map(|limit| limit.seconds) {
            Some(seconds) => PyEngine::set_timer(engine, record, now + seconds, Expiry::Timeout),
            None => Ok(()),
        }
    }

    /// Take the record and the state of work that has stopped. It still holds its capacity and its slot.
    ///
    /// The last value is whether the work was recalled.
    fn take(
        &self,
        py: Python<'_>,
        error: Option<&PyErr>,
    ) -> PyResult<Option<(TaskRecord, Running, bool)>> {
        let engine = self.engine.get();
        if self.has_ended.swap(true, Relaxed) {
            return Ok(None);
        }
        let is_submitted = (engine.registry)
            .with_running(py, self.id, |running| running.submitted.is_some())
            .unwrap_or(false);
        if !is_submitted {
            return Ok(None);
        }
        let Some(mut running) = engine.registry.remove_running(py, self.id) else {
            return Ok(None);
        };
        let Some(work) = running.submitted.take() else {
            return Ok(None);
        };
        let is_recalled = work.is_recalled;
        let mut record = work.record;
        engine.clear_timer(py, &mut record);
        if engine.client.reports() {
            engine.report(py, &mut record, error, running.timed_out)?;
        }
        Ok(Some((record, running, is_recalled)))
    }
}

/// The callback that releases the capacity and the slot of detached work when it has stopped. Any thread may call it.
#[pyclass(name = "Release", frozen, module = "headrace._core")]
#[derive(Debug)]
struct PyRelease {
    grant: GilCell<Option<TaskPermit>>,
    slot: GilCell<Option<Py<PyAny>>>,
}

#[pymethods]
impl PyRelease {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let (grant, slot) = (self.grant.borrow(py).take(), self.slot.borrow(py).take());
        if let Some(slot) = slot {
            slot.bind(py).call0()?;
        }
        grant.map_or(Ok(()), |mut grant| grant.release(py))
    }
}

impl PyEngine {
    /// Submit a task to its executor.
    pub(super) fn submit(
        slf: &Bound<'_, Self>,
        cost: Option<&Bound<'_, PyAny>>,
        record: TaskRecord,
    ) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let id = record.id;
        let name = match this.describe(py, &record) {
            Ok(name) => name,
            Err(error) => return Self::refuse(slf, record, error),
        };
        let lease = (record.grant.as_ref().and_then(TaskPermit::lease))
            .filter(|_| cost.is_some_and(|cost| !is_number(cost)))
            .map(|lease| lease.clone_ref(py));
        let listener = PyListener {
            engine: slf.clone().unbind(),
            id,
            emitter: GilCell::default(),
            name: name.into_any().unbind(),
            has_lease: lease.is_some(),
            has_ended: AtomicBool::new(false),
        };
        let listener = Bound::new(py, listener)?;
        let item = record.item.clone_ref(py);
        let is_given = record.executor().is_some_and(Target::is_given);
        let running = Running {
            has_left: record.has_left(),
            submitted: Some(Box::new(Submitted {
                record,
                handle: None,
                is_recalled: false,
            })),
            ..Running::default()
        };
        this.registry.add_running(py, id, running);
        let arguments = (is_given, id, item, lease, &listener);
        let submitted = (this.policy.bind(py)).call_method1(intern!(py, "submit"), arguments);
        match submitted {
            Ok(handle) => {
                let cancelled = this.registry.with_running(py, id, |running| {
                    if let Some(work) = &mut running.submitted {
                        work.handle = Some(handle.clone().unbind());
                    }
                    running.cancel_requested
                });
                if cancelled == Some(true) {
                    handle.call_method0(intern!(py, "cancel"))?;
                }
                Ok(())
            }
            Err(error) => listener
                .get()
                .raised(py, error.into_value(py).into_bound(py).into_any()),
        }
    }

    /// Mark a task that was submitted and not called, before the end of the run cancels it. Return whether it is such a task.
    pub(super) fn recall(&self, py: Python<'_>, id: u64) -> bool {
        let recalled = self.registry.with_running(py, id, |running| {
            let work = running.submitted.as_mut()?;
            work.is_recalled =
                work.record.attempt == 0 && !running.cancel_requested && !running.has_left;
            Some(work.is_recalled)
        });
        recalled.flatten().unwrap_or(false)
    }

    /// Submit work that was lost before it began again.
    fn place_again(slf: &Bound<'_, Self>, mut record: TaskRecord) -> PyResult<()> {
        let now = slf.get().now(slf.py())?;
        let result = Self::set_timer(slf, &mut record, now, Expiry::Retry);
        slf.get()
            .registry
            .add_waiting(slf.py(), Waiting::new(record, None, false));
        result
    }

    /// Return whether an executor can cancel work; true for the event loop.
    fn can_cancel_at(&self, py: Python<'_>, executor: Option<Target>) -> PyResult<bool> {
        match executor {
            None => Ok(true),
            Some(executor) => (self.policy.bind(py))
                .call_method1(intern!(py, "can_cancel"), (executor.is_given(),))?
                .is_truthy(),
        }
    }

    /// Return the id of the task whose work is the caller, if an executor runs that.
    pub(super) fn submitted_caller(&self, py: Python<'_>) -> PyResult<Option<u64>> {
        for (id, handle) in self.registry.submitted(py) {
            let is_inside = match handle {
                Some(handle) => (handle.bind(py))
                    .call_method0(intern!(py, "inside"))?
                    .is_truthy()?,
                // No other code runs during `submit`, so the caller is a first step in it.
                None => true,
            };
            if is_inside {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Return whether a task can be cancelled.
    pub(super) fn can_cancel(&self, py: Python<'_>, id: u64) -> PyResult<bool> {
        let executor = self.registry.with_running(py, id, |running| {
            let work = running.submitted.as_ref()?;
            work.record.executor()
        });
        self.can_cancel_at(py, executor.flatten())
    }

    /// Detach running work that cannot be cancelled; its capacity is held until it ends. Return whether there was such work.
    pub(super) fn detach(slf: &Bound<'_, Self>, id: u64) -> PyResult<bool> {
        let py = slf.py();
        let this = slf.get();
        let is_submitted = (this.registry)
            .with_running(py, id, |running| {
                (running.submitted.as_ref()).is_some_and(|work| work.handle.is_some())
            })
            .unwrap_or(false);
        if !is_submitted || this.can_cancel(py, id)? {
            return Ok(false);
        }
        let running = this.registry.remove_running(py, id);
        let Some(work) = running.and_then(|running| running.submitted) else {
            return Ok(false);
        };
        let mut record = work.record;
        // The work has not ended, so the journal has no end of it.
        record.take_journaled();
        this.clear_timer(py, &mut record);
        let slot = if record.take_executor_slot() == ExecutorSlot::Held {
            let slot = (this.policy.bind(py)).call_method0(intern!(py, "slot_returner"))?;
            Some(slot.unbind())
        } else {
            None
        };
        let release = PyRelease {
            grant: GilCell::new(record.grant.take()),
            slot: GilCell::new(slot),
        };
        let release = Bound::new(py, release)?;
        if let Some(handle) = work.handle {
            (handle.bind(py)).call_method1(intern!(py, "leave"), (release,))?;
        }
        let name = this.describe(py, &record)?;
        let error = (this.policy.bind(py)).call_method1(intern!(py, "left_running"), (name,))?;
        Self::fail(slf, record, PyErr::from_value(error), false)?;
        Ok(true)
    }
}
