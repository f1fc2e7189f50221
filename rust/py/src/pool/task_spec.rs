//! `TaskSpec`: the function, cost, key and options of a task, read from an item.
//! `engine.rs` reads it; `start.rs` and `request.rs` use it.

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};

use super::task_body::Call;
use super::task_record::{Target, TaskOptions, TimeLimit};
use crate::object::fast_attr::Field;

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
    pub(super) fn of(
        item: &Bound<'py, PyAny>,
        task_class: &Bound<'py, PyType>,
        defaults: &Defaults,
    ) -> PyResult<Option<Self>> {
        let py = item.py();
        if !is_instance(item, task_class) {
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
        }
        let key = KEY.get(item)?;
        let args = ARGS.get(item)?.cast_into::<PyTuple>()?;
        let options = if IS_SIMPLE.get(item)?.is_truthy()? {
            defaults.options(py)
        } else {
            Some(Box::new(read_options(item, defaults)?))
        };
        Ok(Some(Self {
            call: Call {
                fn_: FN.get(item)?.unbind(),
                args: (!args.is_empty()).then(|| args.unbind()),
                has_own_context: true,
                has_lease: false,
            },
            key: (!key.is_none()).then_some(key),
            cost: Some(COST.get(item)?),
            context: Some(CONTEXT.get(item)?),
            options,
        }))
    }
}

// The attributes that are read for each task.
static KEY: Field = Field::new("key");
static ARGS: Field = Field::new("args");
static IS_SIMPLE: Field = Field::new("is_simple");
static FN: Field = Field::new("fn");
static COST: Field = Field::new("cost");
static CONTEXT: Field = Field::new("context");

fn read_options(item: &Bound<'_, PyAny>, defaults: &Defaults) -> PyResult<TaskOptions> {
    let py = item.py();
    let given = |name| PyResult::Ok(Some(item.getattr(name)?).filter(|value| !value.is_none()));
    let timeout = match given(intern!(py, "timeout"))? {
        // An infinite timeout overrides that of the runner.
        Some(timeout) => TimeLimit::of(timeout)?,
        None => defaults.timeout.as_ref().map(|limit| limit.clone_ref(py)),
    };
    let retry = match given(intern!(py, "retry"))? {
        Some(retry) => Some(retry.unbind()),
        None => defaults.retry.as_ref().map(|retry| retry.clone_ref(py)),
    };
    let priority = item.getattr(intern!(py, "priority"))?;
    let needs_thread = item.getattr(intern!(py, "thread"))?.is_truthy()?;
    Ok(TaskOptions {
        timeout,
        queue_timeout: TimeLimit::of(item.getattr(intern!(py, "queue_timeout"))?)?,
        retry,
        on_complete: given(intern!(py, "on_complete"))?.map(Bound::unbind),
        on_error: given(intern!(py, "on_error"))?.map(Bound::unbind),
        priority: priority.is_truthy()?.then(|| priority.unbind()),
        executor: if needs_thread {
            Some(Target::Threads)
        } else {
            defaults.executor
        },
        has_slot: false,
    })
}

/// Return whether an object is an instance of a class, ignoring its `__class__`.
#[inline]
fn is_instance(object: &Bound<'_, PyAny>, class: &Bound<'_, PyType>) -> bool {
    // SAFETY: two live objects, and `class` is a type.
    unsafe { ffi::PyObject_TypeCheck(object.as_ptr(), class.as_type_ptr()) != 0 }
}
