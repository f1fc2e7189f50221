//! `TaskFactory`: the construction of the asyncio tasks in which tasks run.
//! `Engine` holds it, and `start.rs` makes each task with it.

use std::fmt::Write;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::object::gc::traverse;
use crate::object::gil_cell::GilCell;
use crate::runtime::asyncio;

/// The factory of a run. It reuses one dictionary of keyword arguments.
#[derive(Debug, Default)]
pub(super) struct TaskFactory {
    /// The keyword arguments of an asyncio task, updated for each one; `None` while an asyncio task is being made.
    keywords: GilCell<Option<Py<PyDict>>>,
}

/// The options of an asyncio task.
pub(super) struct Options<'a, 'py> {
    pub(super) event_loop: &'a Bound<'py, PyAny>,
    pub(super) name: &'a Bound<'py, PyString>,
    pub(super) context: &'a Bound<'py, PyAny>,
    /// Whether the asyncio task takes its first step while it is made, which CPython supports from 3.12 on.
    pub(super) is_eager: bool,
}

impl TaskFactory {
    /// Return a new asyncio task; an eager one may already be done. `context` replaces that of the task in the reused arguments.
    pub(super) fn make<'py>(
        &self,
        coroutine: &Bound<'py, PyAny>,
        options: &Options<'_, 'py>,
        context: &Py<PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = coroutine.py();
        // The first step of an eager task may make another asyncio task, so the dictionary is taken out.
        let kept = self.keywords.borrow(py).take();
        let keywords = match kept {
            Some(keywords) => keywords.into_bound(py),
            None => shared_keywords(options)?,
        };
        keywords.set_item(intern!(py, "name"), options.name)?;
        keywords.set_item(intern!(py, "context"), options.context)?;
        let task = asyncio::task_type(py)?.call((coroutine,), Some(&keywords))?;
        // A reference to the context of the task would keep its variables alive after its end.
        keywords.set_item(intern!(py, "context"), context)?;
        let other = self.keywords.borrow(py).replace(keywords.unbind());
        drop(other);
        Ok(task)
    }
}

traverse!(TaskFactory { keywords });

/// Return the keyword arguments that all asyncio tasks of a run share.
#[cold]
fn shared_keywords<'py>(options: &Options<'_, 'py>) -> PyResult<Bound<'py, PyDict>> {
    let py = options.event_loop.py();
    let keywords = PyDict::new(py);
    keywords.set_item(intern!(py, "loop"), options.event_loop)?;
    if options.is_eager {
        keywords.set_item(intern!(py, "eager_start"), true)?;
    }
    Ok(keywords)
}

/// Return the name of the asyncio task of a task without a key; `pool` is the name of its runner.
pub(super) fn name_of<'py>(py: Python<'py>, pool: &str, id: u64) -> Bound<'py, PyString> {
    // One allocation takes half the time of `format!`.
    let mut name = String::with_capacity(pool.len() + 32);
    name.push_str(pool);
    name.push_str(": task ");
    let _ = write!(name, "{id}");
    PyString::new(py, &name)
}
