//! Creating the asyncio tasks in which tasks run.

use std::fmt::Write;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::object::gc::traverse;
use crate::object::gil_cell::GilCell;
use crate::runtime::asyncio;

/// See the top of this file.
#[derive(Debug, Default)]
pub(super) struct TaskFactory {
    /// The keyword arguments of an asyncio task, to be filled in anew for each; not there while one is made.
    keywords: GilCell<Option<Py<PyDict>>>,
}

/// The options of an asyncio task.
pub(super) struct Options<'a, 'py> {
    pub(super) event_loop: &'a Bound<'py, PyAny>,
    pub(super) name: &'a Bound<'py, PyString>,
    pub(super) context: &'a Bound<'py, PyAny>,
    /// Whether it is to have its first step when it is made, which CPython can from 3.12 on.
    pub(super) is_eager: bool,
}

impl TaskFactory {
    /// A new asyncio task; one that is eager may be done. `context` is one that may be kept.
    pub(super) fn make<'py>(
        &self,
        coroutine: &Bound<'py, PyAny>,
        options: &Options<'_, 'py>,
        context: &Py<PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = coroutine.py();
        // Taken out, since that first step may make another.
        let kept = self.keywords.borrow(py).take();
        let keywords = match kept {
            Some(keywords) => keywords.into_bound(py),
            None => first(options)?,
        };
        keywords.set_item(intern!(py, "name"), options.name)?;
        keywords.set_item(intern!(py, "context"), options.context)?;
        let task = asyncio::task_type(py)?.call((coroutine,), Some(&keywords))?;
        // What is in the context of the task is to go with it.
        keywords.set_item(intern!(py, "context"), context)?;
        let other = self.keywords.borrow(py).replace(keywords.unbind());
        drop(other);
        Ok(task)
    }
}

traverse!(TaskFactory { keywords });

/// The keyword arguments that are those of each.
#[cold]
fn first<'py>(options: &Options<'_, 'py>) -> PyResult<Bound<'py, PyDict>> {
    let py = options.event_loop.py();
    let keywords = PyDict::new(py);
    keywords.set_item(intern!(py, "loop"), options.event_loop)?;
    if options.is_eager {
        keywords.set_item(intern!(py, "eager_start"), true)?;
    }
    Ok(keywords)
}

/// The name of the asyncio task of a task without a key; `pool` is the name of its runner.
pub(super) fn name_of<'py>(py: Python<'py>, pool: &str, id: u64) -> Bound<'py, PyString> {
    // In one go, which takes half the time of `format!`.
    let mut name = String::with_capacity(pool.len() + 32);
    name.push_str(pool);
    name.push_str(": task ");
    let _ = write!(name, "{id}");
    PyString::new(py, &name)
}
