//! The engine of a run: one object that starts, stops, times out, retries and reports all of its tasks.
//! `headrace/pool/run.py` makes one for each run.

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use pyo3::{PyTraverseError, PyVisit};

use super::cached::RunCache;
use super::event_queue::PyEventQueue;
use super::feeder::Feeder;
use super::journaled::RunJournal;
use super::readiness::State;
use super::registry::Registry;
use super::self_wait;
use super::task_ids::PyTaskIds;
use super::task_names::TaskNames;
use super::task_record::{Target, TaskRecord, TimeLimit};
use super::task_spec::{Defaults, TaskSpec};
use super::throughput::PyThroughput;
use super::timers::Timers;
use crate::asyncio_task::TaskFactory;
use crate::capacity::{CapacityClient, PyCapacity, PyPermitPrefetch};
use crate::coroutine::Native;
use crate::object::gc::{self, Traverse};
use crate::object::gil_cell::GilCell;
use crate::pull::source_pull::PulledSource;
use crate::runtime::clock::Clock;

/// The engine of one run: see the [module](super).
#[pyclass(name = "Engine", frozen, weakref, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyEngine {
    /// The decisions that are left to Python: see `headrace.pool.policy`.
    pub(super) policy: Py<PyAny>,
    names: TaskNames,
    pub(super) source: PulledSource,
    /// The source, if it is notified of the outcome of its items.
    pub(super) outcome_listener: Option<Py<PyAny>>,
    pub(super) capacity: Py<PyCapacity>,
    pub(super) client: CapacityClient,
    clock: Clock,
    /// The context of the run, for bare callables and for callbacks.
    pub(super) context: Py<PyAny>,
    /// The context variable that marks code inside a run, and its value for this run.
    pub(super) inside_variable: Py<PyAny>,
    pub(super) inside: Py<PyAny>,
    /// The context variable of `current_lease()`.
    pub(super) lease_variable: Py<PyAny>,
    pub(super) events: Py<PyEventQueue>,
    pub(super) ids: Py<PyTaskIds>,
    /// The ids of the tasks by their keys.
    pub(super) keys: Py<PyDict>,
    pub(super) throughput: Py<PyThroughput>,
    defaults: Defaults,
    /// The maximum number of pulled tasks that were never called.
    pub(super) lookahead: usize,
    /// The number of tasks in the delay before a retry at which no new task is called.
    pub(super) most_backing_off: usize,
    /// Whether a throttled answer cools the capacity down.
    pub(super) cools_down: bool,
    pub(super) factory: TaskFactory,
    /// Whether a task had a cost of its own.
    pub(super) has_costs: AtomicBool,
    /// Whether each step of a task is timed.
    pub(super) is_debug: bool,
    pub(super) registry: Registry,
    pub(super) timers: GilCell<Timers>,
    /// The future that the feeder waits for until a task may be pulled and called.
    pub(super) gate: GilCell<Option<Py<PyAny>>>,
    /// The id of the held task, which was pulled and cannot be called yet; 0 if there is none.
    pub(super) held: AtomicU64,
    pub(super) state: State,
    /// The ids of tasks that need a slot of their executor to be called again, in FIFO order.
    pub(super) slotless: GilCell<VecDeque<u64>>,
    /// Set when the run has opened its journal.
    pub(super) journal: OnceLock<RunJournal>,
    /// Set at the start of the run.
    pub(super) cache: OnceLock<RunCache>,
}

#[pymethods]
impl PyEngine {
    #[new]
    #[pyo3(signature = (policy, *, task_prefix, source, has_executor, outcome_listener, capacity, event_loop, clock, context, inside_variable, inside, lease_variable, events, ids, throughput, timeout, retry, lookahead, most_backing_off, cools_down, debug))]
    #[expect(clippy::too_many_arguments, reason = "they are the parts of a run")]
    fn new(
        py: Python<'_>,
        policy: Py<PyAny>,
        task_prefix: &str,
        source: &Bound<'_, PyAny>,
        has_executor: bool,
        outcome_listener: Option<Py<PyAny>>,
        capacity: Bound<'_, PyCapacity>,
        event_loop: &Bound<'_, PyAny>,
        clock: &Bound<'_, PyAny>,
        context: Py<PyAny>,
        inside_variable: Py<PyAny>,
        inside: Py<PyAny>,
        lease_variable: Py<PyAny>,
        events: Py<PyEventQueue>,
        ids: Py<PyTaskIds>,
        throughput: Py<PyThroughput>,
        timeout: Bound<'_, PyAny>,
        retry: Option<Py<PyAny>>,
        lookahead: usize,
        most_backing_off: usize,
        cools_down: bool,
        debug: bool,
    ) -> PyResult<Self> {
        self_wait::set_variable(inside_variable.bind(py));
        let prefetch = Bound::new(py, PyPermitPrefetch::new(capacity.clone().unbind()))?.unbind();
        Ok(Self {
            policy,
            names: TaskNames::new(task_prefix),
            source: PulledSource::new(source),
            outcome_listener,
            client: CapacityClient::new(capacity.as_any(), prefetch)?,
            capacity: capacity.unbind(),
            clock: Clock::of(clock)?,
            context,
            inside_variable,
            inside,
            lease_variable,
            events,
            ids,
            keys: PyDict::new(py).unbind(),
            throughput,
            defaults: Defaults {
                is_empty: !has_executor && timeout.is_none() && retry.is_none(),
                timeout: TimeLimit::of(timeout)?,
                retry,
                executor: has_executor.then_some(Target::Given),
            },
            lookahead,
            most_backing_off,
            cools_down,
            factory: TaskFactory::new(event_loop),
            has_costs: AtomicBool::new(false),
            is_debug: debug,
            registry: Registry::default(),
            timers: GilCell::default(),
            gate: GilCell::default(),
            held: AtomicU64::new(0),
            state: State::default(),
            slotless: GilCell::default(),
            journal: OnceLock::new(),
            cache: OnceLock::new(),
        })
    }

    /// Pull items, first those of `kept`, and call their tasks. Return when no more tasks can be called now.
    ///
    /// Raises the errors of the source. Cancel-safe: no item is lost.
    fn feed(slf: Bound<'_, Self>, kept: Py<PyAny>) -> PyResult<Bound<'_, PyAny>> {
        let py = slf.py();
        Native::alloc(py, || Feeder::new(slf.unbind(), kept))
    }

    /// Return a future that is resolved when a task may be pulled and called; `None` if it may be now.
    fn gate(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        if self.is_ready(py) {
            return Ok(None);
        }
        let gate = (self.event_loop(py))
            .call_method0(intern!(py, "create_future"))?
            .unbind();
        let old = self.gate.borrow(py).replace(gate.clone_ref(py));
        drop(old);
        Ok(Some(gate))
    }

    /// Set whether new tasks may be called, whether waiting tasks may request their capacity, and whether retries are disabled.
    fn set_state(
        slf: &Bound<'_, Self>,
        accepts: bool,
        grants: bool,
        is_ending: bool,
    ) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        this.state.accepts.store(accepts, Relaxed);
        this.state.is_ending.store(is_ending, Relaxed);
        if !accepts {
            this.client.clear(py);
        }
        let granted = this.state.grants.swap(grants, Relaxed);
        if granted != grants {
            let waiting = this.registry.ids(py);
            for id in waiting {
                if !grants {
                    if !this.registry.follows(py, id) {
                        this.cancel_request(py, id)?;
                    }
                } else if this.held.load(Relaxed) != id && this.lacks_request(py, id) {
                    Self::request_again(slf, id)?;
                }
            }
        }
        this.wake(py)
    }

    /// Record that an executor of the run was started.
    fn set_executor_started(&self, is_given: bool) {
        self.state.executor_of(is_given).store(true, Relaxed);
    }

    /// Return whether the held task needs an executor that was not started: `None` if not, otherwise whether the user has passed it.
    fn needs_executor(&self, py: Python<'_>) -> Option<bool> {
        self.missing_executor(py).map(Target::is_given)
    }

    /// Continue the tasks that wait for a slot of their executor.
    fn on_slots(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::continue_slotless(slf)
    }

    /// Remove the tasks that were never called. Return their ids and items.
    fn give_back(slf: &Bound<'_, Self>) -> PyResult<Vec<(u64, Py<PyAny>)>> {
        let py = slf.py();
        let this = slf.get();
        let mut given = Vec::new();
        for id in this.registry.ids(py) {
            let is_queued = (this.registry)
                .with_waiting(py, id, |waiting| waiting.is_queued())
                .unwrap_or(false);
            if is_queued && let Some(waiting) = Self::withdraw(slf, id)? {
                let mut record = waiting.record;
                this.forget(py, &mut record)?;
                this.end(py, &mut record)?;
                given.push((id, record.item));
            }
        }
        Ok(given)
    }

    /// Remove the tasks that were never called, and return their ids and items. Cancel those that wait for another call.
    fn halt(slf: &Bound<'_, Self>) -> PyResult<Vec<(u64, Py<PyAny>)>> {
        let given = Self::give_back(slf)?;
        let py = slf.py();
        for id in slf.get().registry.ids(py) {
            if slf.get().recall(py, id) || slf.get().registry.is_waiting(py, id) {
                Self::cancel_task(slf, id)?;
            }
        }
        Ok(given)
    }

    /// Cancel a task; its call goes on while others wait for it, except with `call`. Return whether the run has it.
    #[pyo3(signature = (task_id, *, call = false))]
    fn cancel(slf: &Bound<'_, Self>, task_id: u64, call: bool) -> PyResult<bool> {
        Self::cancel_or_leave(slf, task_id, call)
    }

    /// Cancel all tasks.
    fn cancel_all(slf: &Bound<'_, Self>) -> PyResult<()> {
        for id in slf.get().registry.ids(slf.py()) {
            slf.get().recall(slf.py(), id);
            Self::cancel_task(slf, id)?;
        }
        Ok(())
    }

    /// Detach the running work that cannot be cancelled. Return the ids.
    fn detach_all(slf: &Bound<'_, Self>) -> PyResult<Vec<u64>> {
        let mut detached = Vec::new();
        for id in slf.get().registry.ids(slf.py()) {
            if Self::detach(slf, id)? {
                detached.push(id);
            }
        }
        Ok(detached)
    }

    /// Call a task whose lease was acquired. Return whether the task still waited for it.
    fn granted(
        slf: &Bound<'_, Self>,
        task_id: u64,
        task: &Bound<'_, PyAny>,
        lease: Py<PyAny>,
    ) -> PyResult<bool> {
        if !slf.get().waits_for(slf.py(), task_id, task) {
            return Ok(false);
        }
        Self::grant(slf, task_id, lease)
    }

    /// End a task whose lease could not be acquired. Return whether the task still waited for it.
    fn denied(
        slf: &Bound<'_, Self>,
        task_id: u64,
        task: &Bound<'_, PyAny>,
        error: Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let py = slf.py();
        if !slf.get().waits_for(py, task_id, task) {
            return Ok(false);
        }
        if let Some(waiting) = slf.get().registry.remove_waiting(py, task_id) {
            Self::refuse(slf, waiting.record, PyErr::from_value(error))?;
        }
        Ok(true)
    }

    #[getter]
    fn running(&self, py: Python<'_>) -> usize {
        self.registry.running(py)
    }

    #[getter]
    fn queued(&self, py: Python<'_>) -> usize {
        self.registry.queued(py) + self.registry.following(py)
    }

    #[getter]
    fn backing_off(&self, py: Python<'_>) -> usize {
        self.registry.backing_off(py)
    }

    /// Return whether a task needs only capacity.
    fn lacks_capacity(&self, py: Python<'_>, task_id: u64) -> bool {
        let is_due = (self.registry).with_waiting(py, task_id, |waiting| waiting.is_due);
        self.grants() && is_due.unwrap_or(false)
    }

    /// Return whether something that other tasks hold may help a task that needs only capacity.
    fn release_helps(&self, py: Python<'_>, task_id: u64) -> PyResult<bool> {
        self.may_need_release(py, task_id)
    }

    /// Return whether the run has tasks. If so, the policy's `idle` is called once, when one of them has ended and `number` are left.
    fn watch(&self, py: Python<'_>, number: usize) -> bool {
        let has_tasks = self.tasks_left_number(py) > 0;
        self.state.watched_number.store(number, Relaxed);
        self.state.is_watched.store(has_tasks, Relaxed);
        has_tasks
    }

    /// Return the id of the task of the run that is the caller, or `None`. Call it on the thread of the event loop.
    fn caller(&self, py: Python<'_>) -> PyResult<Option<u64>> {
        match self.registry.caller(py) {
            Some(id) => Ok(Some(id)),
            None => self.submitted_caller(py),
        }
    }

    /// Return the ids of all tasks, each with whether the task can be cancelled.
    fn tasks_left(&self, py: Python<'_>) -> PyResult<Vec<(u64, bool)>> {
        let ids = self.registry.ids(py);
        let left = ids.into_iter();
        left.map(|id| Ok((id, self.can_cancel(py, id)?))).collect()
    }

    /// End the prefetch of permits.
    fn clear_prefetch(&self, py: Python<'_>) {
        self.client.clear(py);
    }

    /// Use a journal from now on. Call it once, before `feed`.
    fn set_journal(&self, options: &Bound<'_, PyDict>) -> PyResult<()> {
        let journal = RunJournal::new(options)?;
        let set = self.journal.set(journal);
        set.map_err(|_| PyRuntimeError::new_err("this run has a journal already"))
    }

    /// The number of tasks that the journal has replayed.
    #[getter]
    fn replayed(&self) -> usize {
        self.journal.get().map_or(0, RunJournal::replayed)
    }

    /// Use a cache from now on, by its policy. Call it once, before `feed`.
    fn set_cache(&self, policy: Py<PyAny>) -> PyResult<()> {
        let set = self.cache.set(RunCache::new(policy));
        set.map_err(|_| PyRuntimeError::new_err("this run has a cache already"))
    }

    /// End a task that waits for an equal call, with the result of that.
    fn landed(slf: &Bound<'_, Self>, task_id: u64, value: &Bound<'_, PyAny>) -> PyResult<()> {
        Self::land(slf, task_id, value)
    }

    /// Look up a task again that waits for an equal call, which has no result.
    fn look_up_again(slf: &Bound<'_, Self>, task_id: u64) -> PyResult<()> {
        Self::follow_again(slf, task_id)
    }

    /// Start the timeout of a task that waits for an equal call, whose own task has left it.
    fn call_was_left(slf: &Bound<'_, Self>, task_id: u64) -> PyResult<()> {
        Self::limit_wait(slf, task_id)
    }

    /// Set whether the store of the cache accepts results; without room, no new task is called.
    fn set_cache_room(&self, py: Python<'_>, has_room: bool) -> PyResult<()> {
        self.set_store_room(py, has_room)
    }

    /// Deliver the events of tasks whose ends are on disk: see `deliver_synced`.
    fn synced(&self, py: Python<'_>, has_failed: bool) -> PyResult<(Vec<Py<PyAny>>, bool)> {
        self.deliver_synced(py, has_failed)
    }

    /// Handle expired deadlines: the timer callback of the event loop.
    fn on_timer(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::expire(slf)
    }

    /// Cancel the timer on the event loop, at the end of the run.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.disarm(py)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| {
            for held in [&self.policy, &self.context, &self.inside] {
                visit(held)?;
            }
            if let Some(clock) = self.clock.callable() {
                visit(clock)?;
            }
            self.client.traverse(visit)?;
            self.capacity.traverse(visit)?;
            self.source.traverse(visit)?;
            self.outcome_listener.traverse(visit)?;
            visit(self.events.as_any())?;
            visit(self.keys.as_any())?;
            self.defaults.retry.traverse(visit)?;
            self.factory.traverse(visit)?;
            self.gate.traverse(visit)?;
            self.timers.traverse(visit)?;
            self.journal.traverse(visit)?;
            self.cache.traverse(visit)?;
            self.registry.traverse(visit)
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        self.registry.clear(py);
        if let Some(journal) = self.journal.get() {
            journal.clear(py);
        }
        let timers = std::mem::take(&mut *self.timers.borrow(py));
        let gate = self.gate.borrow(py).take();
        drop((timers, gate));
    }
}

impl PyEngine {
    #[inline]
    pub(super) fn event_loop<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.factory.event_loop(py)
    }

    /// Return the name of a task, for messages and its asyncio task.
    pub(super) fn name_of<'py>(
        &self,
        py: Python<'py>,
        id: u64,
        key: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyString>> {
        self.names.of(py, id, key)
    }

    #[inline]
    pub(super) fn describe<'py>(
        &self,
        py: Python<'py>,
        record: &TaskRecord,
    ) -> PyResult<Bound<'py, PyString>> {
        let key = record.key.as_ref().map(|key| key.bind(py));
        self.names.of(py, record.id, key)
    }

    /// Return the specification of an item, or the error of an item that is not a task.
    #[inline]
    pub(super) fn spec_of<'py>(&self, item: &Bound<'py, PyAny>) -> PyResult<TaskSpec<'py>> {
        let spec = TaskSpec::of(item, &self.defaults)?;
        spec.ok_or_else(|| self.not_a_task(item))
    }

    #[cold]
    fn not_a_task(&self, item: &Bound<'_, PyAny>) -> PyErr {
        let py = item.py();
        let error = (self.policy.bind(py)).call_method1(intern!(py, "not_a_task"), (item,));
        error.map_or_else(|failure| failure, PyErr::from_value)
    }

    #[inline]
    pub(super) fn now(&self, py: Python<'_>) -> PyResult<f64> {
        self.clock.now(py)
    }
}
