//! Under whose name a source runs: a task and a context of its own.
//!
//! A source is stepped inside the consumer's pull, yet it must find itself in its own task: a
//! context variable that it set, an `asyncio.timeout` or a task group that it holds open belong to
//! it alone. So each step *enters* its [`Identity`]: the loop's current task becomes the source's,
//! and its context is entered; leaving undoes both.
//!
//! Where a loop keeps its current task is CPython's own business: in a dictionary that `_asyncio`
//! shows (3.11 to 3.13), behind `_swap_current_task` (from 3.12), or behind `_leave_task` and
//! `_enter_task`. The first that is there and is found to work is used. The first two are [private](crate::runtime::private_layout): they are
//! tried at import, and again on the loop that needs one.

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyModule};

use super::step::Where;
use crate::errors;
use crate::object::gc::traverse;
use crate::runtime::asyncio;
use crate::runtime::asyncio::InContext;
use crate::runtime::blocking_wait::this_thread;
use crate::runtime::private_layout::Layout;
use crate::runtime::yield_budget;

/// Exchanging the current task by `_swap_current_task`. The fallback is `_leave_task` and `_enter_task`, which asyncio documents for
/// those who write their own tasks.
pub(crate) static SWAP: Layout = Layout::new("swap_current_task", swaps);

/// A task, and the context in which everything of a source runs.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) task: Py<PyAny>,
    pub(super) context: Py<PyAny>,
}

impl Identity {
    /// A task for a coroutine, in a copy of the context of now. Not by the loop's factory, which
    /// might start it before anybody knows of it.
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

    /// Whether somebody asked it to end and has not withdrawn that.
    pub(super) fn is_cancelled(&self, py: Python<'_>) -> bool {
        self.task
            .bind(py)
            .call_method0(intern!(py, "cancelling"))
            .and_then(|count| count.is_truthy())
            .unwrap_or(false)
    }

    /// Runs something as this source. In a callback of its own the context is entered already.
    pub(super) fn run<T>(
        &self,
        event_loop: &Bound<'_, PyAny>,
        from: Where,
        run: impl FnOnce() -> PyResult<T>,
    ) -> PyResult<T> {
        let py = event_loop.py();
        let mut entered = Entered::default();
        entered.enter(event_loop, self.task.bind(py).clone(), from == Where::Pull)?;
        let _context = if from == Where::Callback {
            None
        } else {
            Some(InContext::enter(self.context.bind(py))?)
        };
        run()
    }
}

traverse!(Identity { task, context });

/// The task that is the loop's current one, if it is another than the one that runs; until this is
/// dropped. It is filled in where it stands, since what was just written is slow to be moved.
#[derive(Debug, Default)]
pub(crate) struct Entered<'py> {
    /// The way, the loop and the task.
    inside: Option<(&'static Way, Bound<'py, PyAny>, Bound<'py, PyAny>)>,
    /// The one that runs.
    outer: Option<Bound<'py, PyAny>>,
    /// What the source spends is the consumer's time.
    lent: Option<yield_budget::Lent>,
}

impl<'py> Entered<'py> {
    /// Goes on as this task.
    #[inline]
    pub(crate) fn enter(
        &mut self,
        event_loop: &Bound<'py, PyAny>,
        task: Bound<'py, PyAny>,
        in_a_pull: bool,
    ) -> PyResult<()> {
        if let Some((way, event_loop, known)) = &mut self.inside {
            way.switch(event_loop, known, &task)?;
            *known = task;
            return Ok(());
        }
        let way = Way::of(event_loop)?;
        self.outer = way.enter(event_loop, &task)?;
        self.inside = Some((way, event_loop.clone(), task));
        match &self.outer {
            Some(outer) => self.lent = Some(yield_budget::lend(outer)),
            None if in_a_pull => check(event_loop)?,
            None => {}
        }
        Ok(())
    }

    /// Goes on as the one that runs.
    #[inline]
    pub(super) fn leave(&mut self) {
        self.lent = None;
        if let Some((way, event_loop, task)) = self.inside.take()
            && let Err(error) = way.leave(&event_loop, &task, self.outer.as_ref())
        {
            error.write_unraisable(event_loop.py(), Some(&task));
        }
        self.outer = None;
    }
}

impl Drop for Entered<'_> {
    #[inline]
    fn drop(&mut self) {
        self.leave();
    }
}

/// Nobody's step: a callback of this loop, or the step of a task of another one.
#[cold]
fn check(event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = event_loop.py();
    if asyncio::running_loop(py)?.is(event_loop) {
        Ok(())
    } else {
        Err(wrong_loop(py))
    }
}

/// Refuses any loop but this one, which that thread ran when it was met.
pub(super) fn check_loop(event_loop: &Bound<'_, PyAny>, thread: u64) -> PyResult<()> {
    if thread == this_thread() && is_seen_to_run(event_loop)? {
        Ok(())
    } else {
        check(event_loop)
    }
}

/// Whether a step of a task of this loop can be seen to run, in whichever thread: if that is this one, there is no need to ask.
fn is_seen_to_run(event_loop: &Bound<'_, PyAny>) -> PyResult<bool> {
    match WAY.get(event_loop.py()) {
        Some(Way::Dict(tasks)) => tasks.bind(event_loop.py()).contains(event_loop),
        _ => Ok(false),
    }
}

/// Whether the same is clear at first sight, which nothing of Python runs for: of several loops, one is seen.
#[inline]
pub(super) fn is_first_to_run(event_loop: &Py<PyAny>, thread: u64, py: Python<'_>) -> bool {
    if thread != this_thread() {
        return false;
    }
    let Some(Way::Dict(tasks)) = WAY.get(py) else {
        return false;
    };
    let (mut place, mut key) = (0, std::ptr::null_mut());
    // SAFETY: a live dictionary, of which the first key is borrowed, and only compared.
    let is_there = unsafe {
        ffi::PyDict_Next(
            tasks.as_ptr(),
            &raw mut place,
            &raw mut key,
            std::ptr::null_mut(),
        )
    };
    is_there != 0 && std::ptr::eq(key, event_loop.as_ptr())
}

/// Why a source cannot be stepped here.
pub(super) fn wrong_loop(py: Python<'_>) -> PyErr {
    errors::wrong_loop(
        py,
        "these sources are under way on another event loop, where their first pull was; use them there, or close them there first",
    )
}

/// How the current task of a loop is exchanged.
#[derive(Debug)]
enum Way {
    /// `asyncio.tasks._current_tasks`.
    Dict(Py<PyDict>),
    /// `_asyncio._swap_current_task`.
    Swap(Py<PyAny>),
    /// `asyncio._leave_task` and `asyncio._enter_task`.
    Calls { leave: Py<PyAny>, enter: Py<PyAny> },
}

static WAY: PyOnceLock<Way> = PyOnceLock::new();

fn swap_current_task(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    py.import("_asyncio")?.getattr("_swap_current_task")
}

/// Exchanges the current task of a loop, and exchanges it back.
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
    // From 3.14 on CPython refuses a loop that does not run. This one does for as long as it takes; no Python code runs meanwhile.
    let set_running = asyncio.getattr("_set_running_loop")?;
    let event_loop = object.call0()?;
    set_running.call1((&event_loop,))?;
    let is_known = try_on(&event_loop);
    set_running.call1((py.None(),))?;
    is_known
}

impl Way {
    /// The way of this interpreter.
    #[inline]
    fn of(event_loop: &Bound<'_, PyAny>) -> PyResult<&'static Self> {
        match WAY.get(event_loop.py()) {
            Some(way) => Ok(way),
            None => WAY.get_or_try_init(event_loop.py(), || Self::find(event_loop)),
        }
    }

    #[cold]
    fn find(event_loop: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = event_loop.py();
        let mut ways = Vec::new();
        if let Some(tasks) = asyncio::current_tasks(py) {
            ways.push(Self::Dict(tasks.clone().unbind()));
        }
        if SWAP.is_used() {
            ways.push(Self::Swap(swap_current_task(py)?.unbind()));
        }
        let tasks = PyModule::import(py, "asyncio.tasks")?;
        ways.push(Self::Calls {
            leave: tasks.getattr("_leave_task")?.unbind(),
            enter: tasks.getattr("_enter_task")?.unbind(),
        });
        ways.into_iter()
            .find(|way| way.works(event_loop).unwrap_or(false))
            .ok_or_else(|| {
                PyRuntimeError::new_err(
                    "this interpreter's asyncio keeps its current task where headrace cannot set it",
                )
            })
    }

    /// Tries it on the running loop.
    fn works(&self, event_loop: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = event_loop.py();
        let current = || PyResult::Ok(asyncio::current_task(py));
        let before = current()?;
        let marker = PyDict::new(py).into_any();
        let outer = self.enter(event_loop, &marker)?;
        let entered = current()?.is_some_and(|task| task.is(&marker));
        self.leave(event_loop, &marker, outer.as_ref())?;
        let same = |one: Option<&Bound<'_, PyAny>>, other: Option<&Bound<'_, PyAny>>| {
            one.map(Bound::as_ptr) == other.map(Bound::as_ptr)
        };
        let after = current()?;
        Ok(entered
            && same(before.as_ref(), outer.as_ref())
            && same(before.as_ref(), after.as_ref()))
    }

    /// Makes a task the current one, and gives the one that was.
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

    /// Makes another task of ours the current one.
    #[inline]
    fn switch(
        &self,
        event_loop: &Bound<'_, PyAny>,
        task: &Bound<'_, PyAny>,
        next: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let py = event_loop.py();
        match self {
            Self::Dict(tasks) => tasks.bind(py).set_item(event_loop, next),
            Self::Swap(swap) => swap.bind(py).call1((event_loop, next)).map(drop),
            Self::Calls { leave, enter } => {
                leave.bind(py).call1((event_loop, task))?;
                enter.bind(py).call1((event_loop, next)).map(drop)
            }
        }
    }

    /// Makes the one that was the current one again.
    #[inline]
    fn leave(
        &self,
        event_loop: &Bound<'_, PyAny>,
        task: &Bound<'_, PyAny>,
        outer: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let py = event_loop.py();
        match (self, outer) {
            (Self::Dict(tasks), Some(outer)) => tasks.bind(py).set_item(event_loop, outer),
            (Self::Dict(tasks), None) => tasks.bind(py).del_item(event_loop),
            (Self::Swap(swap), outer) => swap.bind(py).call1((event_loop, outer)).map(drop),
            (Self::Calls { leave, enter }, outer) => {
                leave.bind(py).call1((event_loop, task))?;
                match outer {
                    Some(outer) => enter.bind(py).call1((event_loop, outer)).map(drop),
                    None => Ok(()),
                }
            }
        }
    }
}
