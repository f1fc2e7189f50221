//! `Request`: the request of a task for its capacity.
//! `Registry` holds it while its task waits; `feeder.rs` and `start.rs` call these methods of `Engine`.
//!
//! The wait queue of the capacity orders the requests of a run by priority, then by arrival. A request is driven in one of three ways:
//!
//! - By the feeder, for the task that was pulled last, if the look-ahead is one. Nothing is pulled meanwhile. The step of the feeder
//!   that receives the lease starts the task and continues with the next item.
//! - By callbacks on the future that it awaits, for any other task.
//! - By an asyncio task of its own, if a subclass of the capacity overrides how a lease is acquired.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3::{PyTraverseError, PyVisit};

use super::engine::PyEngine;
use super::registry::Waiting;
use super::task_record::TaskRecord;
use super::task_spec::TaskSpec;
use crate::capacity::{Next, RunUsage, TaskPermit};
use crate::coroutine::{PyFuture, Step, delegate};
use crate::object::gc::traverse;

/// A pending request for capacity.
#[derive(Debug)]
pub(super) enum Request {
    /// An awaitable of the core that returns a lease, and the object that it awaits.
    Driven {
        awaitable: Py<PyAny>,
        awaited: Option<Py<PyAny>>,
        by_feeder: bool,
    },
    /// The asyncio task that waits for the lease.
    Task(Py<PyAny>),
    /// No request: the task waits for the result of an equal call, in the cache of the run with this policy. Once that call has lost its
    /// first task, the wait has a deadline, if the task has a timeout.
    Flight {
        policy: Py<PyAny>,
        id: u64,
        deadline: Option<f64>,
    },
}

traverse!(enum Request { Driven { awaitable, awaited }, Task(task), Flight { policy } });

impl Request {
    /// Leave the wait queue, and release capacity that was granted meanwhile.
    fn cancel(self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Driven {
                awaitable,
                awaited,
                by_feeder,
            } => {
                (awaitable.bind(py)).call_method0(intern!(py, "close"))?;
                // Wake the feeder, because its request is gone. A bare yield has no future and resumes by itself.
                match awaited {
                    Some(awaited) if by_feeder => match awaited.bind(py).cast::<PyFuture>() {
                        Ok(awaited) => PyFuture::wake(awaited),
                        Err(_) => Ok(()),
                    },
                    _ => Ok(()),
                }
            }
            Self::Task(task) => (task.bind(py))
                .call_method0(intern!(py, "cancel"))
                .map(drop),
            Self::Flight { policy, id, .. } => (policy.bind(py))
                .call_method1(intern!(py, "leave"), (id,))
                .map(drop),
        }
    }
}

/// The result of a request, or of one step of it.
#[derive(Debug)]
pub(super) enum Requested<'py> {
    /// The task was called with its capacity, or it ended with an error.
    Settled,
    /// The feeder drives the request.
    OfFeeder,
    /// The request waits for this object.
    Waits(Bound<'py, PyAny>),
    /// The request was withdrawn, or is driven by callbacks or an asyncio task.
    Elsewhere,
}

impl PyEngine {
    /// Request the capacity of a task, and call the task if it is granted at once. `pulled` is the current time for a task from the
    /// feeder, otherwise `None`.
    pub(super) fn request<'py>(
        slf: &Bound<'py, Self>,
        spec: TaskSpec<'py>,
        mut record: TaskRecord,
        pulled: Option<f64>,
    ) -> PyResult<Requested<'py>> {
        let py = slf.py();
        let this = slf.get();
        let cost = spec.cost.as_ref();
        let by_feeder = pulled.is_some() && this.lookahead == 1;
        let next = match record.priority() {
            _ if record.throttled().is_some() => this.client.request_in_front(py, cost, record.id),
            Some(priority) => {
                this.client.clear(py);
                this.acquire_by_priority(py, cost, priority)
            }
            None if by_feeder => this.client.next(py, cost, || RunUsage {
                running: this.registry.running(py),
                waiting: this.registry.requests(py),
            }),
            // A retried task also joins the end of the wait queue.
            None => this.client.request(py, cost),
        };
        match next {
            Ok(Next::Granted(grant)) => {
                record.grant = Some(grant);
                Self::start(slf, spec, record, pulled)?;
                Ok(Requested::Settled)
            }
            Ok(Next::Pending(awaitable)) => {
                let id = record.id;
                let request = Request::Driven {
                    awaitable: awaitable.unbind(),
                    awaited: None,
                    by_feeder,
                };
                this.add_request(py, record, request)?;
                if by_feeder {
                    return Ok(Requested::OfFeeder);
                }
                Self::drive(slf, id)?;
                Ok(Requested::Elsewhere)
            }
            Ok(Next::Unsupported) => {
                let arguments = (record.id, cost, record.priority());
                let task = (this.policy.bind(py)).call_method1(intern!(py, "acquire"), arguments);
                match task {
                    Ok(task) => this.add_request(py, record, Request::Task(task.unbind()))?,
                    Err(error) => Self::refuse(slf, record, error)?,
                }
                Ok(Requested::Elsewhere)
            }
            // A `CancelledError` that a cost raises is also an error of the task: it cancels nothing.
            Err(error) => {
                Self::refuse(slf, record, error)?;
                Ok(Requested::Settled)
            }
        }
    }

    fn add_request(
        &self,
        py: Python<'_>,
        mut record: TaskRecord,
        request: Request,
    ) -> PyResult<()> {
        let lent = self.lend_slot(py, &mut record);
        self.registry
            .add_waiting(py, Waiting::new(record, Some(request), true));
        lent
    }

    #[cold]
    fn acquire_by_priority<'py>(
        &self,
        py: Python<'py>,
        cost: Option<&Bound<'py, PyAny>>,
        priority: &Py<PyAny>,
    ) -> PyResult<Next<'py>> {
        if !self.client.is_native() {
            return self.client.request(py, cost);
        }
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "owner"), py.None())?;
        keywords.set_item(intern!(py, "priority"), priority)?;
        let acquire = self.capacity.bind(py).getattr(intern!(py, "acquire"))?;
        let awaitable = match cost {
            Some(cost) => acquire.call((cost,), Some(&keywords)),
            None => acquire.call((), Some(&keywords)),
        }?;
        match delegate::send(&awaitable, py.None().bind(py))? {
            Step::Return(lease) => Ok(Next::Granted(TaskPermit::Lease(lease.unbind()))),
            // The awaited object is dropped here, because the next step of the awaitable yields the current one.
            Step::Yield(_) => Ok(Next::Pending(awaitable)),
        }
    }

    /// Take one step of the request of a task, and call the task if the step returns its lease.
    ///
    /// `of_feeder` is whether the feeder drives the request. `pause()` and `resume()` in one event-loop iteration replace such a request by
    /// one that callbacks drive, before the feeder is resumed.
    pub(super) fn step_request<'py>(
        slf: &Bound<'py, Self>,
        id: u64,
        of_feeder: bool,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<Requested<'py>> {
        let py = slf.py();
        let registry = &slf.get().registry;
        let awaitable = registry.with_waiting(py, id, |waiting| match &waiting.request {
            Some(Request::Driven {
                awaitable,
                by_feeder,
                ..
            }) if *by_feeder == of_feeder => Some(awaitable.clone_ref(py)),
            _ => None,
        });
        let Some(awaitable) = awaitable.flatten() else {
            return Ok(Requested::Elsewhere);
        };
        match delegate::send(awaitable.bind(py), value) {
            Ok(Step::Yield(awaited)) => {
                let old = registry.with_waiting(py, id, |waiting| match &mut waiting.request {
                    Some(Request::Driven { awaited: field, .. }) => {
                        field.replace(awaited.clone().unbind())
                    }
                    _ => None,
                });
                drop(old);
                Ok(Requested::Waits(awaited))
            }
            Ok(Step::Return(lease)) => {
                Self::grant(slf, id, lease.unbind())?;
                Ok(Requested::Settled)
            }
            Err(error) => {
                if let Some(waiting) = registry.remove_waiting(py, id) {
                    Self::refuse(slf, waiting.record, error)?;
                }
                Ok(Requested::Settled)
            }
        }
    }

    /// Drive a request by callbacks.
    pub(super) fn drive(slf: &Bound<'_, Self>, id: u64) -> PyResult<()> {
        let py = slf.py();
        let Requested::Waits(awaited) = Self::step_request(slf, id, false, py.None().bind(py))?
        else {
            return Ok(());
        };
        let resume = PyResume {
            engine: slf.clone().unbind(),
            id,
        };
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "context"), &slf.get().context)?;
        if awaited.is_none() {
            let event_loop = slf.get().event_loop(py);
            let arguments = (resume, py.None());
            event_loop.call_method(intern!(py, "call_soon"), arguments, Some(&keywords))?;
        } else {
            let name = intern!(py, "add_done_callback");
            awaited.call_method(name, (resume,), Some(&keywords))?;
        }
        Ok(())
    }

    /// Return whether this asyncio task waits for the capacity of a task.
    pub(super) fn waits_for(&self, py: Python<'_>, id: u64, task: &Bound<'_, PyAny>) -> bool {
        (self.registry)
            .with_waiting(py, id, |waiting| match &waiting.request {
                Some(Request::Task(of)) => of.is(task),
                _ => false,
            })
            .unwrap_or(false)
    }

    /// Return whether something that other tasks hold may help a waiting task: capacity, a slot of its executor, or an equal call.
    pub(super) fn may_need_release(&self, py: Python<'_>, id: u64) -> PyResult<bool> {
        let item = (self.registry).with_waiting(py, id, |waiting| match &waiting.request {
            Some(Request::Driven { .. }) => Some(waiting.record.item.clone_ref(py)),
            _ => None,
        });
        match item.flatten() {
            Some(item) if self.client.is_native() => {
                let cost = self.spec_of(item.bind(py))?.cost;
                self.capacity.get().release_helps(py, cost.as_ref())
            }
            _ => Ok(true),
        }
    }

    /// Call a task whose capacity was granted. Return whether the task still waited for it.
    pub(super) fn grant(slf: &Bound<'_, Self>, id: u64, lease: Py<PyAny>) -> PyResult<bool> {
        let py = slf.py();
        let this = slf.get();
        let mut grant = TaskPermit::Lease(lease);
        let Some(waiting) = this.registry.remove_waiting(py, id) else {
            return grant.release(py).map(|()| false);
        };
        let mut record = waiting.record;
        let reclaimed = this.reclaim_slot(py, &mut record);
        match reclaimed.and_then(|()| this.spec_of(record.item.bind(py))) {
            Ok(spec) => {
                record.grant = Some(grant);
                Self::start(slf, spec, record, None)?;
            }
            Err(error) => {
                grant.release(py)?;
                Self::refuse(slf, record, error)?;
            }
        }
        Ok(true)
    }

    /// Request the capacity of a task that waits without a request.
    pub(super) fn request_again(slf: &Bound<'_, Self>, id: u64) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        if !this.try_slot_of(py, id)? {
            this.slotless.borrow(py).push_back(id);
        } else if let Some(waiting) = this.registry.remove_waiting(py, id) {
            let record = waiting.record;
            match this.spec_of(record.item.bind(py)) {
                Ok(spec) => Self::request(slf, spec, record, None).map(drop),
                Err(error) => Self::refuse(slf, record, error),
            }?;
        }
        // If this is the task that the consumer reads next, tasks that wait for space may continue.
        this.events.get().wake_next(py)
    }

    /// Queue a task that has no request, and request its capacity unless the run is paused.
    pub(super) fn queue(slf: &Bound<'_, Self>, record: TaskRecord) -> PyResult<()> {
        let this = slf.get();
        let id = record.id;
        this.registry
            .add_waiting(slf.py(), Waiting::new(record, None, true));
        if this.grants() {
            Self::request_again(slf, id)
        } else {
            Ok(())
        }
    }

    /// Request the capacity of a task whose delay before a retry is over.
    pub(super) fn retry(slf: &Bound<'_, Self>, id: u64) -> PyResult<()> {
        let py = slf.py();
        let registry = &slf.get().registry;
        registry.with_waiting(py, id, |waiting| {
            waiting.is_due = true;
            waiting.record.deadline = None;
        });
        if slf.get().grants() {
            Self::request_again(slf, id)
        } else {
            Ok(())
        }
    }

    /// Cancel the request of a task. The task stays in the registry, without a slot of its executor.
    pub(super) fn cancel_request(&self, py: Python<'_>, id: u64) -> PyResult<()> {
        let slot =
            (self.registry).with_waiting(py, id, |waiting| waiting.record.take_executor_slot());
        self.return_slot(py, slot.unwrap_or_default())?;
        match self.registry.take_request(py, id) {
            Some(request) => {
                self.clear_wait(py, id, Some(&request));
                request.cancel(py)
            }
            None => Ok(()),
        }
    }

    /// Remove a waiting task from the registry, with its request and its timer.
    pub(super) fn withdraw(slf: &Bound<'_, Self>, id: u64) -> PyResult<Option<Box<Waiting>>> {
        let py = slf.py();
        let this = slf.get();
        this.cancel_request(py, id)?;
        let Some(mut waiting) = this.registry.remove_waiting(py, id) else {
            return Ok(None);
        };
        this.clear_timer(py, &mut waiting.record);
        this.unhold(id);
        Ok(Some(waiting))
    }
}

/// The callback that continues a request when the future that it awaits is done.
#[pyclass(name = "Resume", frozen, module = "headrace._core")]
#[derive(Debug)]
struct PyResume {
    engine: Py<PyEngine>,
    id: u64,
}

#[pymethods]
impl PyResume {
    fn __call__(&self, py: Python<'_>, _future: &Bound<'_, PyAny>) -> PyResult<()> {
        PyEngine::drive(self.engine.bind(py), self.id)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.engine)
    }
}
