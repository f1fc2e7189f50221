//! `TaskRecord`: the state of a task, from its acceptance to its end.
//! `start.rs`, `completion.rs`, `task_body.rs` and `submitted.rs` pass it on.

use headrace_core::capacity::adaptive::Outcome;
use pyo3::prelude::*;

use super::journaled::Journaled;
use crate::capacity::{TaskPermit, outcome_of};
use crate::object::gc::{Traverse, VisitError, Visitor, traverse};

/// The state of a task. The coroutine owns the record of a task that runs on the event loop; the registry owns all others.
#[derive(Debug)]
pub(super) struct TaskRecord {
    /// The item that was pulled.
    pub(super) item: Py<PyAny>,
    pub(super) id: u64,
    pub(super) key: Option<Py<PyAny>>,
    /// Whether the task owns its key in the run. A second task with the same key does not.
    pub(super) owns_key: bool,
    /// The capacity that the task holds.
    pub(super) grant: Option<TaskPermit>,
    /// The time at which the task was accepted.
    pub(super) queued: f64,
    /// The time of the last call.
    pub(super) started: Option<f64>,
    /// The number of calls.
    pub(super) attempt: u64,
    /// The deadline of the timer: a queue timeout, the timeout of an attempt, or the delay before a retry.
    pub(super) deadline: Option<f64>,
    /// The output slot, in an ordered run.
    pub(super) slot: Option<u64>,
    pub(super) options: Option<Box<TaskOptions>>,
}

/// The options of a task besides its cost and key.
#[derive(Debug, Default)]
pub(super) struct TaskOptions {
    pub(super) timeout: Option<TimeLimit>,
    pub(super) queue_timeout: Option<TimeLimit>,
    pub(super) retry: Option<Py<PyAny>>,
    pub(super) on_complete: Option<Py<PyAny>>,
    pub(super) on_error: Option<Py<PyAny>>,
    /// `None` for priority 0.
    pub(super) priority: Option<Py<PyAny>>,
    /// The executor that runs the task; `None` for the event loop.
    pub(super) executor: Option<Target>,
    /// The slot of the executor, which the task needs before it requests its capacity.
    pub(super) executor_slot: ExecutorSlot,
    /// The time for which the capacity was cooled down before the task was accepted, if it has a queue timeout.
    pub(super) cooled_before: f64,
    /// The sum of the delays after throttled answers; `None` before the first one.
    pub(super) throttled: Option<f64>,
    /// Whether other tasks with the same key in the cache of the run wait for the result of the task.
    pub(super) leads: bool,
    /// Whether the task has ended, and its call goes on for others: see `left_call.rs`.
    pub(super) has_left: bool,
    /// The part of the task in the journal of the run.
    pub(super) journaled: Option<Box<Journaled>>,
}

/// The slot of a task in the executor that the user has passed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum ExecutorSlot {
    #[default]
    None,
    Held,
    /// Held by a task that waits for its capacity. The tasks of other runs may use it meanwhile.
    Lent,
}

/// An executor of a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Target {
    /// The threads that the run creates for the tasks that need one.
    Threads,
    /// The executor that the user has passed.
    Given,
}

impl Target {
    /// Return whether the user has passed the executor: this identifies it in Python.
    pub(super) fn is_given(self) -> bool {
        self == Self::Given
    }
}

/// A finite number of seconds.
#[derive(Debug)]
pub(super) struct TimeLimit {
    pub(super) seconds: f64,
    /// The object that the user passed, for messages.
    pub(super) given: Py<PyAny>,
}

impl TimeLimit {
    /// Return the limit, or `None` if there is none: for Python's `None` or an infinite number.
    pub(super) fn of(given: Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        if given.is_none() {
            return Ok(None);
        }
        let seconds: f64 = given.extract()?;
        Ok(seconds.is_finite().then(|| Self {
            seconds,
            given: given.unbind(),
        }))
    }

    pub(super) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            seconds: self.seconds,
            given: self.given.clone_ref(py),
        }
    }
}

impl TaskRecord {
    pub(super) fn priority(&self) -> Option<&Py<PyAny>> {
        self.options.as_ref()?.priority.as_ref()
    }

    pub(super) fn timeout(&self) -> Option<&TimeLimit> {
        self.options.as_ref()?.timeout.as_ref()
    }

    pub(super) fn retry(&self) -> Option<&Py<PyAny>> {
        self.options.as_ref()?.retry.as_ref()
    }

    pub(super) fn journaled_mut(&mut self) -> Option<&mut Journaled> {
        self.options.as_mut()?.journaled.as_deref_mut()
    }

    pub(super) fn take_journaled(&mut self) -> Option<Box<Journaled>> {
        self.options.as_mut()?.journaled.take()
    }

    pub(super) fn leads(&self) -> bool {
        self.options.as_ref().is_some_and(|options| options.leads)
    }

    pub(super) fn set_leads(&mut self) {
        self.options.get_or_insert_default().leads = true;
    }

    /// Return whether the task leads, the first time.
    pub(super) fn take_leads(&mut self) -> bool {
        (self.options.as_mut()).is_some_and(|options| std::mem::take(&mut options.leads))
    }

    pub(super) fn has_left(&self) -> bool {
        (self.options.as_ref()).is_some_and(|options| options.has_left)
    }

    /// Return the sum of the delays after throttled answers, if there was one.
    pub(super) fn throttled(&self) -> Option<f64> {
        self.options.as_ref()?.throttled
    }

    #[inline]
    pub(super) fn executor(&self) -> Option<Target> {
        (self.options.as_ref()).and_then(|options| options.executor)
    }

    /// Return whether the task lacks the slot that it needs.
    pub(super) fn lacks_slot(&self) -> bool {
        (self.options.as_ref()).is_some_and(|options| {
            options.executor == Some(Target::Given) && options.executor_slot == ExecutorSlot::None
        })
    }

    pub(super) fn set_slot(&mut self) {
        if let Some(options) = &mut self.options {
            options.executor_slot = ExecutorSlot::Held;
        }
    }

    /// Replace the state of the slot, if it is `old`. Return whether it was.
    pub(super) fn replace_executor_slot(&mut self, old: ExecutorSlot, new: ExecutorSlot) -> bool {
        match &mut self.options {
            Some(options) if options.executor_slot == old => {
                options.executor_slot = new;
                true
            }
            _ => false,
        }
    }

    /// Take the slot of the task.
    pub(super) fn take_executor_slot(&mut self) -> ExecutorSlot {
        let options = self.options.as_mut();
        options.map_or(ExecutorSlot::None, |options| {
            std::mem::take(&mut options.executor_slot)
        })
    }

    /// Report the outcome of an attempt, before its capacity is released, to the adaptive limits and the breakers of the path.
    #[cold]
    pub(super) fn report(
        &self,
        py: Python<'_>,
        error: Option<&PyErr>,
        timed_out: bool,
    ) -> PyResult<()> {
        let Some(grant) = &self.grant else {
            return Ok(());
        };
        let outcome = match error {
            _ if timed_out => Outcome::TimedOut,
            None => Outcome::Done,
            Some(error) => {
                grant.report_stated(py, error.value(py))?;
                let retry = (self.options.as_ref()).and_then(|options| options.retry.as_ref());
                match outcome_of(py, error.value(py), retry)? {
                    Some(outcome) => outcome,
                    None => return Ok(()),
                }
            }
        };
        grant.report(py, outcome)
    }

    /// Release the capacity of the task.
    #[inline]
    pub(super) fn release(&mut self, py: Python<'_>) -> PyResult<()> {
        match self.grant.take() {
            Some(mut grant) => grant.release(py),
            None => Ok(()),
        }
    }

    pub(super) fn key<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.key.as_ref().map(|key| key.bind(py).clone())
    }
}

impl Traverse for TaskRecord {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        visit(&self.item)?;
        self.key.traverse(visit)?;
        self.options.traverse(visit)?;
        let lease = self.grant.as_ref().and_then(TaskPermit::lease);
        lease.map_or(Ok(()), visit)
    }
}

traverse!(TaskOptions {
    timeout,
    queue_timeout,
    retry,
    on_complete,
    on_error,
    priority
});
traverse!(TimeLimit { given });
