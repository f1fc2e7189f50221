//! Runs the steps of a source under the source's own task and context.
//! `step.rs` and `yielding.rs` enter and leave it around each step.
//!
//! A source is stepped inside the consumer's pull, but must see its own task as the current one. A context variable that it
//! set, an `asyncio.timeout` or a task group that it holds open belong to the source alone. So each step enters the source's
//! [`TaskContext`]: it makes the source's task the current task of the event loop, and enters its context. Leaving restores
//! both.
//!
//! The storage of the current task is private to CPython: a dictionary that `_asyncio` exposes (3.11 to 3.13), the function
//! `_swap_current_task` (from 3.12), or the functions `_leave_task` and `_enter_task`. The first one that exists and passes a
//! self-test is used. The first two are [private](crate::runtime::private_layout): they are tested at import, and again on the
//! event loop that needs one.

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyModule};

use super::step::StepFrom;
use crate::errors;
use crate::object::gc::traverse;
use crate::runtime::asyncio;
use crate::runtime::asyncio::InContext;
use crate::runtime::blocking_wait::this_thread;
use crate::runtime::private_layout::Layout;
use crate::runtime::yield_budget;

/// Swapping the current task by `_swap_current_task`. The fallback is `_leave_task` and `_enter_task`, which asyncio documents
/// for custom tasks.
pub(crate) static SWAP: Layout = Layout::new("swap_current_task", swaps);

/// The task and the context in which a source runs.
#[derive(Debug)]
pub(super) struct TaskContext {
    pub(super) task: Py<PyAny>,
    pub(super) context: Py<PyAny>,
}

impl TaskContext {
    /// Create a task for a coroutine, in a copy of the current context. Does not use the event loop's task factory,
    /// which might start the task before it is registered.
    pub(super) fn new(
        event_loop: &Bound<'_, PyAny>,
        coroutine: &Bound<'_, PyAny>,
        name: &str,
    ) -> PyResult<Self> {
        let py = event_loop.py();
        let context = asyncio::copy_context(py)?;
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "loop"), event_loop)?;
        keywords.set_item(intern!(py, "context"), &context)?;
        keywords.set_item(intern!(py, "name"), name)?;
        let task = asyncio::task_type(py)?.call((coroutine,), Some(&keywords))?;
        Ok(Self {
            task: task.unbind(),
            context: context.unbind(),
        })
    }

    pub(super) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            task: self.task.clone_ref(py),
            context: self.context.clone_ref(py),
        }
    }

    /// Return whether the task has a pending cancellation request.
    pub(super) fn is_cancelled(&self, py: Python<'_>) -> bool {
        self.task
            .bind(py)
            .call_method0(intern!(py, "cancelling"))
            .and_then(|count| count.is_truthy())
            .unwrap_or(false)
    }

    /// Run a function as this source. The source's own callback has entered the context already.
    pub(super) fn run<T>(
        &self,
        event_loop: &Bound<'_, PyAny>,
        from: StepFrom,
        run: impl FnOnce() -> PyResult<T>,
    ) -> PyResult<T> {
        let py = event_loop.py();
        let mut guard = TaskGuard::default();
        guard.enter(
            event_loop,
            self.task.bind(py).clone(),
            from == StepFrom::Pull,
        )?;
        let _context = if from == StepFrom::Callback {
            None
        } else {
            Some(InContext::enter(self.context.bind(py))?)
        };
        run()
    }
}

traverse!(TaskContext { task, context });

/// Makes another task the current task of the event loop until it is dropped.
///
/// `enter` fills in the fields in place: moving a guard right after it was written is slow.
#[derive(Debug, Default)]
pub(crate) struct TaskGuard<'py> {
    /// The method, the event loop and the current task.
    inside: Option<(&'static TaskSwap, Bound<'py, PyAny>, Bound<'py, PyAny>)>,
    /// The task that is really running.
    outer: Option<Bound<'py, PyAny>>,
    /// Charges the source's time to the consumer's budget.
    lent: Option<yield_budget::Lent>,
}

impl<'py> TaskGuard<'py> {
    /// Make a task the current one.
    #[inline]
    pub(crate) fn enter(
        &mut self,
        event_loop: &Bound<'py, PyAny>,
        task: Bound<'py, PyAny>,
        in_a_pull: bool,
    ) -> PyResult<()> {
        if let Some((swap, event_loop, known)) = &mut self.inside {
            swap.replace(event_loop, known, Some(&task))?;
            *known = task;
            return Ok(());
        }
        let swap = TaskSwap::of(event_loop)?;
        self.outer = swap.enter(event_loop, &task)?;
        self.inside = Some((swap, event_loop.clone(), task));
        match &self.outer {
            Some(outer) => self.lent = Some(yield_budget::lend(outer)),
            None if in_a_pull => check(event_loop)?,
            None => {}
        }
        Ok(())
    }

    /// Restore the task that is really running.
    #[inline]
    pub(super) fn leave(&mut self) {
        self.lent = None;
        if let Some((swap, event_loop, task)) = self.inside.take()
            && let Err(error) = swap.replace(&event_loop, &task, self.outer.as_ref())
        {
            error.write_unraisable(event_loop.py(), Some(&task));
        }
        self.outer = None;
    }
}

impl Drop for TaskGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.leave();
    }
}

/// Fail unless this event loop is running. Called outside of any task of it: in its callback, or in a task of another
/// loop.
#[cold]
fn check(event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = event_loop.py();
    if asyncio::running_loop(py)?.is(event_loop) {
        Ok(())
    } else {
        Err(wrong_loop(py))
    }
}

/// Fail unless this event loop is running in this thread. `thread` ran the loop at the first call.
pub(super) fn check_loop(event_loop: &Bound<'_, PyAny>, thread: u64) -> PyResult<()> {
    if thread == this_thread() && is_known_to_run(event_loop)? {
        Ok(())
    } else {
        check(event_loop)
    }
}

/// Return whether a task of this event loop is known to run, in any thread. Cheaper than looking up the running loop.
fn is_known_to_run(event_loop: &Bound<'_, PyAny>) -> PyResult<bool> {
    match TASK_SWAP.get(event_loop.py()) {
        Some(TaskSwap::Dict(tasks)) => tasks.bind(event_loop.py()).contains(event_loop),
        _ => Ok(false),
    }
}

/// Like [`is_known_to_run`], without running Python code. Checks the first of several event loops only.
#[inline]
pub(super) fn is_first_to_run(event_loop: &Py<PyAny>, thread: u64, py: Python<'_>) -> bool {
    if thread != this_thread() {
        return false;
    }
    let Some(TaskSwap::Dict(tasks)) = TASK_SWAP.get(py) else {
        return false;
    };
    let (mut position, mut key) = (0, std::ptr::null_mut());
    // SAFETY: a live dictionary, of which the first key is borrowed, and only compared.
    let is_there = unsafe {
        ffi::PyDict_Next(
            tasks.as_ptr(),
            &raw mut position,
            &raw mut key,
            std::ptr::null_mut(),
        )
    };
    is_there != 0 && std::ptr::eq(key, event_loop.as_ptr())
}

/// Create the error of a step in another event loop.
pub(super) fn wrong_loop(py: Python<'_>) -> PyErr {
    errors::wrong_loop(
        py,
        "these sources are in use on another event loop, where their first pull was; use them there, or close them there first",
    )
}

/// A method to swap the current task of an event loop.
#[derive(Debug)]
enum TaskSwap {
    /// `asyncio.tasks._current_tasks`.
    Dict(Py<PyDict>),
    /// `_asyncio._swap_current_task`.
    Swap(Py<PyAny>),
    /// `asyncio._leave_task` and `asyncio._enter_task`.
    Calls { leave: Py<PyAny>, enter: Py<PyAny> },
}

static TASK_SWAP: PyOnceLock<TaskSwap> = PyOnceLock::new();

fn swap_current_task(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    py.import("_asyncio")?.getattr("_swap_current_task")
}

/// Swap the current task of an event loop, and swap it back.
fn swaps(py: Python<'_>) -> PyResult<bool> {
    let asyncio = py.import("asyncio")?;
    let (swap, current) = (swap_current_task(py)?, asyncio.getattr("current_task")?);
    let object = py.get_type::<PyAny>();
    let task = object.call0()?;
    let try_on = |event_loop: &Bound<'_, PyAny>| {
        let current = || current.call1((event_loop,));
        let before = current()?;
        let outer = swap.call1((event_loop, &task))?;
        let entered = current()?;
        let inner = swap.call1((event_loop, &outer))?;
        PyResult::Ok(
            outer.is(&before) && entered.is(&task) && inner.is(&task) && current()?.is(&before),
        )
    };
    if let Some(event_loop) = asyncio::running(py) {
        return try_on(&event_loop);
    }
    // CPython 3.14 and newer refuse a loop that is not running, so this one is set as running. No Python code runs meanwhile.
    let set_running = asyncio.getattr("_set_running_loop")?;
    let event_loop = object.call0()?;
    set_running.call1((&event_loop,))?;
    let is_known = try_on(&event_loop);
    set_running.call1((py.None(),))?;
    is_known
}

impl TaskSwap {
    /// Return the method of this interpreter.
    #[inline]
    fn of(event_loop: &Bound<'_, PyAny>) -> PyResult<&'static Self> {
        match TASK_SWAP.get(event_loop.py()) {
            Some(swap) => Ok(swap),
            None => TASK_SWAP.get_or_try_init(event_loop.py(), || Self::find(event_loop)),
        }
    }

    #[cold]
    fn find(event_loop: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = event_loop.py();
        let mut candidates = Vec::new();
        if let Some(tasks) = asyncio::current_tasks(py) {
            candidates.push(Self::Dict(tasks.clone().unbind()));
        }
        if SWAP.is_used() {
            candidates.push(Self::Swap(swap_current_task(py)?.unbind()));
        }
        let tasks = PyModule::import(py, "asyncio.tasks")?;
        candidates.push(Self::Calls {
            leave: tasks.getattr("_leave_task")?.unbind(),
            enter: tasks.getattr("_enter_task")?.unbind(),
        });
        candidates.into_iter()
            .find(|swap| swap.works(event_loop).unwrap_or(false))
            .ok_or_else(|| {
                PyRuntimeError::new_err(
                    "this interpreter's asyncio keeps its current task where headrace cannot set it",
                )
            })
    }

    /// Test the method on the running event loop.
    fn works(&self, event_loop: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = event_loop.py();
        let current = || PyResult::Ok(asyncio::current_task(py));
        let before = current()?;
        let marker = PyDict::new(py).into_any();
        let outer = self.enter(event_loop, &marker)?;
        let entered = current()?.is_some_and(|task| task.is(&marker));
        self.replace(event_loop, &marker, outer.as_ref())?;
        let same = |one: Option<&Bound<'_, PyAny>>, other: Option<&Bound<'_, PyAny>>| {
            one.map(Bound::as_ptr) == other.map(Bound::as_ptr)
        };
        let after = current()?;
        Ok(entered
            && same(before.as_ref(), outer.as_ref())
            && same(before.as_ref(), after.as_ref()))
    }

    /// Make a task the current one, and return the previous one.
    #[inline]
    fn enter<'py>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        task: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = event_loop.py();
        match self {
            Self::Dict(tasks) => {
                let tasks = tasks.bind(py);
                let outer = tasks.get_item(event_loop)?;
                tasks.set_item(event_loop, task)?;
                Ok(outer)
            }
            Self::Swap(swap) => {
                let swapped = swap.bind(py).call1((event_loop, task));
                let outer = swapped.map_err(|error| {
                    // From 3.14 on CPython refuses a loop that does not run.
                    let is_ours = asyncio::running(py).is_some_and(|it| it.is(event_loop));
                    if is_ours { error } else { wrong_loop(py) }
                })?;
                Ok((!outer.is_none()).then_some(outer))
            }
            Self::Calls { leave, enter } => {
                let outer = asyncio::current_task(py);
                if let Some(outer) = &outer {
                    leave.bind(py).call1((event_loop, outer))?;
                }
                enter.bind(py).call1((event_loop, task))?;
                Ok(outer)
            }
        }
    }

    /// Replaces a task that was entered as the current one.
    #[expect(
        clippy::inline_always,
        reason = "it is part of the loop over all sources"
    )]
    #[inline(always)]
    fn replace(
        &self,
        event_loop: &Bound<'_, PyAny>,
        task: &Bound<'_, PyAny>,
        next: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let py = event_loop.py();
        match (self, next) {
            (Self::Dict(tasks), Some(next)) => tasks.bind(py).set_item(event_loop, next),
            (Self::Dict(tasks), None) => tasks.bind(py).del_item(event_loop),
            (Self::Swap(swap), next) => swap.bind(py).call1((event_loop, next)).map(drop),
            (Self::Calls { leave, enter }, next) => {
                leave.bind(py).call1((event_loop, task))?;
                match next {
                    Some(next) => enter.bind(py).call1((event_loop, next)).map(drop),
                    None => Ok(()),
                }
            }
        }
    }
}
