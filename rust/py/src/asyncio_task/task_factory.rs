//! `TaskFactory`: the construction of asyncio tasks, and their first step.
//! The engine of the pool holds one, and so does the driver of a concurrent `map`.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::task_coroutine::{Body, TaskCoroutine};
use crate::coroutine::Native;
use crate::merge::task_context::TaskGuard;
use crate::object::gc::traverse;
use crate::object::gil_cell::GilCell;
use crate::runtime::asyncio;
use crate::runtime::asyncio::InContext;

/// The maximum number of asyncio tasks started in one event-loop iteration, on versions where each of them stays alive until the next
/// iteration. CPython's collector runs whenever 700 more objects were created than freed; with more tasks it would run without effect.
const STARTS_PER_ITERATION: u32 = 96;

/// The factory of the asyncio tasks of one event loop. It reuses one dictionary of keyword arguments.
#[derive(Debug)]
pub(crate) struct TaskFactory {
    event_loop: Py<PyAny>,
    /// The keyword arguments of an asyncio task, updated for each one; `None` while an asyncio task is being made.
    keywords: GilCell<Option<Py<PyDict>>>,
    /// Whether CPython takes the first step of an asyncio task while it is made, which it supports from 3.12 on.
    is_eager: bool,
}

/// The options of an asyncio task.
pub(crate) struct Options<'a, 'py> {
    pub(crate) name: &'a Bound<'py, PyString>,
    pub(crate) context: &'a Bound<'py, PyAny>,
}

impl TaskFactory {
    pub(crate) fn new(event_loop: &Bound<'_, PyAny>) -> Self {
        Self {
            event_loop: event_loop.clone().unbind(),
            keywords: GilCell::default(),
            is_eager: event_loop.py().version_info() >= (3, 12),
        }
    }

    #[inline]
    pub(crate) fn event_loop<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.event_loop.bind(py)
    }

    /// Return whether no more asyncio tasks may be started in this event-loop iteration, after that many.
    #[inline]
    pub(crate) fn is_full(&self, started: u32) -> bool {
        !self.is_eager && started >= STARTS_PER_ITERATION
    }

    /// Return a new asyncio task for a body, which has taken its first step. An eager asyncio task may already be done.
    #[inline]
    pub(crate) fn start<'py, B: Body>(
        &self,
        py: Python<'py>,
        body: B,
        options: &Options<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let work = Native::alloc(py, || TaskCoroutine::new(body))?;
        let task = self.make(&work, options)?;
        if !self.is_eager {
            let mut entered = TaskGuard::default();
            entered.enter(self.event_loop.bind(py), task.clone(), true)?;
            let _context = InContext::enter(options.context)?;
            // The coroutine stores the result until the asyncio task takes its own first step.
            Native::<TaskCoroutine<B>>::drive(&work, |work| Ok(work.step_ahead(&task)))?;
        }
        Ok(task)
    }

    /// Return a new asyncio task.
    fn make<'py>(
        &self,
        coroutine: &Bound<'py, PyAny>,
        options: &Options<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = coroutine.py();
        // The first step of an eager task may make another asyncio task, so the dictionary is taken out.
        let kept = self.keywords.borrow(py).take();
        let keywords = match kept {
            Some(keywords) => keywords.into_bound(py),
            None => self.shared_keywords(py)?,
        };
        keywords.set_item(intern!(py, "name"), options.name)?;
        keywords.set_item(intern!(py, "context"), options.context)?;
        let task = asyncio::task_type(py)?.call((coroutine,), Some(&keywords))?;
        // A reference to the context of the task would keep its variables alive after its end.
        keywords.set_item(intern!(py, "context"), py.None())?;
        let other = self.keywords.borrow(py).replace(keywords.unbind());
        drop(other);
        Ok(task)
    }

    /// Return the keyword arguments that all asyncio tasks share.
    #[cold]
    fn shared_keywords<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "loop"), self.event_loop.bind(py))?;
        if self.is_eager {
            keywords.set_item(intern!(py, "eager_start"), true)?;
        }
        Ok(keywords)
    }
}

traverse!(TaskFactory {
    event_loop,
    keywords
});
