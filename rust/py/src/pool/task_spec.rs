//! `TaskSpec`: the function, cost, key and options of a task, read from an item.
//! `engine.rs` reads it; `start.rs` and `request.rs` use it.

use pyo3::prelude::*;

use super::task_body::Call;
use super::task_record::{Target, TaskOptions, TimeLimit};
use crate::task::base::{Options, PyTaskBase};

/// The specification of a task.
#[derive(Debug)]
pub(super) struct TaskSpec<'py> {
    pub(super) call: Call,
    pub(super) key: Option<Bound<'py, PyAny>>,
    /// `None` for one slot.
    pub(super) cost: Option<Bound<'py, PyAny>>,
    /// The context in which the task was created; `None` for a bare callable, which uses the context of the run.
    pub(super) context: Option<Bound<'py, PyAny>>,
    pub(super) options: Option<Box<TaskOptions>>,
}

/// The options of a runner that its tasks may override.
#[derive(Debug)]
pub(super) struct Defaults {
    pub(super) timeout: Option<TimeLimit>,
    pub(super) retry: Option<Py<PyAny>>,
    /// The executor of the tasks that do not need a thread.
    pub(super) executor: Option<Target>,
    /// Whether there are no defaults.
    pub(super) is_empty: bool,
}

impl Defaults {
    fn options(&self, py: Python<'_>) -> Option<Box<TaskOptions>> {
        if self.is_empty {
            return None;
        }
        Some(Box::new(TaskOptions {
            executor: self.executor,
            timeout: self.timeout.as_ref().map(|limit| limit.clone_ref(py)),
            retry: self.retry.as_ref().map(|retry| retry.clone_ref(py)),
            ..TaskOptions::default()
        }))
    }
}

impl<'py> TaskSpec<'py> {
    /// Read the specification of an item; return `None` if the item is not a task.
    pub(super) fn of(item: &Bound<'py, PyAny>, defaults: &Defaults) -> PyResult<Option<Self>> {
        let py = item.py();
        let Ok(task) = item.cast::<PyTaskBase>() else {
            return Ok(item.is_callable().then(|| Self {
                call: Call {
                    fn_: item.clone().unbind(),
                    args: None,
                    has_own_context: false,
                    has_lease: false,
                },
                key: None,
                cost: None,
                context: None,
                options: defaults.options(py),
            }));
        };
        let task = task.get().fields()?;
        let bind = |held: &Option<Py<PyAny>>| held.as_ref().map(|held| held.bind(py).clone());
        let options = match &task.options {
            None => defaults.options(py),
            Some(options) => Some(Box::new(merge(py, options, defaults)?)),
        };
        let args = task.args.bind(py);
        Ok(Some(Self {
            call: Call {
                fn_: task.fn_.clone_ref(py),
                args: (!args.is_empty()).then(|| args.clone().unbind()),
                has_own_context: true,
                has_lease: false,
            },
            key: bind(&task.key),
            cost: bind(&task.cost),
            context: Some(task.context.bind(py).clone()),
            options,
        }))
    }
}

/// Return the options of a task, completed by those of its runner.
fn merge(py: Python<'_>, own: &Options, defaults: &Defaults) -> PyResult<TaskOptions> {
    let clone = |held: &Option<Py<PyAny>>| held.as_ref().map(|held| held.clone_ref(py));
    let limit = |given: &Option<Py<PyAny>>| match given {
        Some(given) => TimeLimit::of(given.bind(py).clone()),
        None => Ok(None),
    };
    Ok(TaskOptions {
        timeout: match &own.timeout {
            // An infinite timeout overrides that of the runner.
            Some(timeout) => TimeLimit::of(timeout.bind(py).clone())?,
            None => defaults.timeout.as_ref().map(|limit| limit.clone_ref(py)),
        },
        queue_timeout: limit(&own.queue_timeout)?,
        retry: clone(&own.retry).or_else(|| clone(&defaults.retry)),
        on_complete: clone(&own.on_complete),
        on_error: clone(&own.on_error),
        priority: clone(&own.priority),
        executor: if own.thread {
            Some(Target::Threads)
        } else {
            defaults.executor
        },
        ..TaskOptions::default()
    })
}
