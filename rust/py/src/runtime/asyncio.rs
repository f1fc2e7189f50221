//! The functions of `asyncio` that the core calls, looked up once.
//! Pulls, merges, `task_id.rs` and the futures of `coroutine` call them.

use std::cell::RefCell;

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyWeakrefMethods, PyWeakrefReference};

use crate::object::fast_attr::Field;
use crate::runtime::private_layout::{self, Layout};

/// Recognising the loop of this thread by its `_thread_id`. The fallback calls asyncio each time.
pub(crate) static LOOP_THREAD: Layout = Layout::new("loop_thread", has_thread_of_its_run);

/// Reading and writing the current task in `_current_tasks`. The fallback is `asyncio.current_task`, with `_enter_task` and
/// `_leave_task`, which asyncio documents for task implementations.
pub(crate) static CURRENT_TASKS: Layout = Layout::new("current_tasks", has_dictionary_of_tasks);

/// Detecting a change of the current task by the version of that dictionary. The fallback looks the task up each time.
pub(crate) static TASK_STEPS: Layout = Layout::new("current_tasks_version", has_versions);

/// The dictionary of the current tasks; set by the self-test.
static TASKS: PyOnceLock<Py<PyDict>> = PyOnceLock::new();

/// An attribute of `asyncio`, imported at the first use.
macro_rules! from_asyncio {
    ($py:expr, $name:literal) => {{
        static ATTRIBUTE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        ATTRIBUTE.import($py, "asyncio", $name)
    }};
}

/// Return the running loop. Without one, the error is `RuntimeError`.
pub(crate) fn running_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    from_asyncio!(py, "get_running_loop")?.call0()
}

/// Return the running loop, if there is one.
pub(crate) fn running(py: Python<'_>) -> Option<Bound<'_, PyAny>> {
    let event_loop = from_asyncio!(py, "_get_running_loop").ok()?.call0().ok()?;
    (!event_loop.is_none()).then_some(event_loop)
}

/// Return the current task, if an event loop runs one in this thread.
pub(crate) fn current_task(py: Python<'_>) -> Option<Bound<'_, PyAny>> {
    #[cfg(not(Py_3_14))]
    {
        current_task_of(&running_here(py)?).filter(|task| !task.is_none())
    }
    #[cfg(Py_3_14)]
    {
        let task = from_asyncio!(py, "current_task").ok()?;
        let task = task.call0().ok()?;
        (!task.is_none()).then_some(task)
    }
}

/// Return the current task of this event loop, which runs in this thread.
#[inline]
pub(crate) fn current_task_of<'py>(event_loop: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    // Up to 3.11 `asyncio.current_task` is Python code over a dictionary, which exists up to 3.13.
    #[cfg(not(Py_3_14))]
    {
        let py = event_loop.py();
        if let Some(tasks) = current_tasks(py) {
            return tasks.get_item(event_loop).ok()?;
        }
        let task = from_asyncio!(py, "current_task").ok()?;
        task.call1((event_loop,))
            .ok()
            .filter(|task| !task.is_none())
    }
    #[cfg(Py_3_14)]
    current_task(event_loop.py())
}

/// Return the dictionary of the current tasks by their loops, if this interpreter keeps them in one.
#[inline]
pub(crate) fn current_tasks(py: Python<'_>) -> Option<&Bound<'_, PyDict>> {
    TASKS.get(py).map(|tasks| tasks.bind(py))
}

/// Return a number that changes whenever a task starts or ends a step, in any thread; `None` where CPython has no such
/// number.
///
/// While the number and the thread are the same, the [current task](current_task) is the same too.
#[inline]
pub(crate) fn steps(py: Python<'_>) -> Option<u64> {
    if TASK_STEPS.is_used() {
        current_tasks(py).and_then(version_of)
    } else {
        None
    }
}

/// The version of a dictionary, which changes with each change of the dictionary.
#[cfg_attr(
    not(Py_3_14),
    expect(clippy::unnecessary_wraps, reason = "there is no version from 3.14 on")
)]
#[inline]
fn version_of(dictionary: &Bound<'_, PyDict>) -> Option<u64> {
    #[cfg(not(Py_3_14))]
    {
        let dictionary = dictionary.as_ptr().cast::<pyo3::ffi::PyDictObject>();
        #[allow(
            deprecated,
            reason = "the field exists up to 3.13; 3.14 is handled below"
        )]
        // SAFETY: a live dictionary, and the GIL is held.
        Some(unsafe { (*dictionary).ma_version_tag })
    }
    #[cfg(Py_3_14)]
    {
        let _ = dictionary;
        None
    }
}

/// Return the running loop, if there is one, without the system call that `asyncio` may make to find it.
///
/// A loop of `asyncio` stores the number of the thread that runs it in `_thread_id`, as an object made for that run. If it is still
/// the same object that this thread read before, the loop runs here and has not stopped since. (If another loop runs inside it, which
/// `asyncio` forbids, the result is the outer loop.)
pub(crate) fn running_here(py: Python<'_>) -> Option<Bound<'_, PyAny>> {
    let seen = RUN.with_borrow(|run| {
        let (event_loop, thread) = run.as_ref()?;
        Some((event_loop.bind(py).upgrade()?, thread.clone_ref(py)))
    });
    if let Some((event_loop, thread)) = seen
        && is_run_by(&event_loop, &thread)
    {
        return Some(event_loop);
    }
    let event_loop = running(py)?;
    if LOOP_THREAD.is_used()
        && let Some(thread) = thread_of(&event_loop)
    {
        let reference = PyWeakrefReference::new(&event_loop).ok()?.unbind();
        let old = RUN.replace(Some((reference, thread.unbind())));
        drop(old);
    }
    Some(event_loop)
}

/// Return whether this loop is known to run in this thread, without a call into `asyncio`.
pub(crate) fn is_known_to_run_here(event_loop: &Bound<'_, PyAny>) -> bool {
    let py = event_loop.py();
    let seen = RUN.with_borrow(|run| {
        let (known, thread) = run.as_ref()?;
        let known = known.bind(py).upgrade()?;
        known.is(event_loop).then(|| thread.clone_ref(py))
    });
    seen.is_some_and(|thread| is_run_by(event_loop, &thread))
}

/// Return whether the `_thread_id` of a loop is still this object.
fn is_run_by(event_loop: &Bound<'_, PyAny>, thread: &Py<PyAny>) -> bool {
    thread_of(event_loop).is_some_and(|now| now.is(thread))
}

fn thread_of<'py>(event_loop: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    let thread = event_loop.getattr(intern!(event_loop.py(), "_thread_id"));
    thread.ok().filter(|thread| !thread.is_none())
}

thread_local! {
    /// The loop that this thread ran last, and its `_thread_id`. In a forked child the loop of the parent still has that number, although
    /// it does not run there: see [`forget_run`].
    static RUN: RefCell<Option<(Py<PyWeakrefReference>, Py<PyAny>)>> = const { RefCell::new(None) };
}

/// Forget the loop that this thread ran last, in a forked child.
pub(crate) fn forget_run() {
    let old = RUN.take();
    drop(old);
}

/// Return whether a loop is closed.
pub(crate) fn is_closed(event_loop: &Bound<'_, PyAny>) -> PyResult<bool> {
    event_loop
        .call_method0(intern!(event_loop.py(), "is_closed"))?
        .is_truthy()
}

/// Cancel the awaited object of a task, from any thread. A future may be used only in the thread of its event loop. In
/// a closed event loop there is nothing to cancel.
pub(crate) fn cancel(awaited: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = awaited.py();
    // A bare `None` has no `cancel`: its task continues in the next event-loop iteration.
    let Some(cancel) = awaited.getattr_opt(intern!(py, "cancel"))? else {
        return Ok(());
    };
    if let Some(get_loop) = awaited.getattr_opt(intern!(py, "get_loop"))? {
        let its_own = get_loop.call0()?;
        if !running(py).is_some_and(|here| here.is(&its_own)) {
            let scheduled = its_own.call_method1(intern!(py, "call_soon_threadsafe"), (cancel,));
            // Checked afterwards: its own thread may close the event loop at any moment.
            return match scheduled {
                Err(_) if is_closed(&its_own)? => Ok(()),
                scheduled => scheduled.map(drop),
            };
        }
    }
    cancel.call0().map(drop)
}

/// `asyncio.CancelledError`.
pub(crate) fn cancelled_error(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    from_asyncio!(py, "CancelledError")
}

/// `asyncio.Task`.
pub(crate) fn task_type(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    from_asyncio!(py, "Task")
}

/// `asyncio.CancelledError`, with the message of the cancellation.
pub(crate) fn cancellation(py: Python<'_>, message: Option<Py<PyAny>>) -> PyErr {
    let made = cancelled_error(py).and_then(|kind| match message {
        Some(message) if !message.is_none(py) => kind.call1((message,)),
        _ => kind.call0(),
    });
    made.map_or_else(|error| error, PyErr::from_value)
}

/// Return the `CancelledError` of an asyncio task that was cancelled during its last step. No later step would raise it.
pub(crate) fn pending_cancellation<'py>(
    task: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    static MUST_CANCEL: Field = Field::new("_must_cancel");
    let py = task.py();
    let must = match MUST_CANCEL.read(task) {
        Some(must) => must?,
        None => task
            .getattr_opt(intern!(py, "_must_cancel"))?
            .ok_or_else(|| {
                PyRuntimeError::new_err(
                    "this interpreter's asyncio.Task has no _must_cancel, which headrace needs",
                )
            })?,
    };
    if must.is_truthy()? {
        return task
            .call_method0(intern!(py, "_make_cancelled_error"))
            .map(Some);
    }
    Ok(None)
}

/// `asyncio.InvalidStateError`.
#[cold]
pub(crate) fn invalid_state(py: Python<'_>, message: &str) -> PyErr {
    let made = from_asyncio!(py, "InvalidStateError");
    let made = made.and_then(|kind| kind.call1((message,)));
    made.map_or_else(|error| error, PyErr::from_value)
}

/// `contextvars.copy_context()`.
pub(crate) fn copy_context(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: the thread is attached; it returns an owned reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, pyo3::ffi::PyContext_CopyCurrent()) }
}

/// A context that is entered until this is dropped.
pub(crate) struct InContext<'a, 'py>(&'a Bound<'py, PyAny>);

impl<'a, 'py> InContext<'a, 'py> {
    #[inline]
    pub(crate) fn enter(context: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        // SAFETY: attached, and a live object; CPython refuses an object that is no context.
        match unsafe { pyo3::ffi::PyContext_Enter(context.as_ptr()) } {
            0 => Ok(Self(context)),
            _ => Err(PyErr::fetch(context.py())),
        }
    }
}

impl Drop for InContext<'_, '_> {
    fn drop(&mut self) {
        // SAFETY: it is the context that was entered last on this thread: the code inside has left its own contexts.
        if unsafe { pyo3::ffi::PyContext_Exit(self.0.as_ptr()) } != 0 {
            PyErr::fetch(self.0.py()).write_unraisable(self.0.py(), Some(self.0));
        }
    }
}

/// Return whether each wake-up must be a callback of its own, for an event loop that shuffles its callbacks.
pub(crate) fn is_one_by_one(event_loop: &Bound<'_, PyAny>) -> PyResult<bool> {
    event_loop.hasattr(intern!(event_loop.py(), "_wakes_one_by_one"))
}

/// Return whether the type of an error is that of a cancellation. [`Cancels`] tells whether the task was cancelled.
pub(crate) fn is_cancelled_error(py: Python<'_>, error: &PyErr) -> bool {
    cancelled_error(py).is_ok_and(|class| error.is_instance(py, class))
}

/// The number of cancellation requests of the driving task when a pull started to wait.
///
/// A pull counts as cancelled only if that number has risen. A `CancelledError` that a callable raises by itself, or gets from a
/// cancelled future, is an ordinary error.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cancels(Option<usize>);

impl Cancels {
    /// Return the current number.
    pub(crate) fn now(py: Python<'_>) -> Self {
        Self(current_task(py).and_then(|task| {
            task.call_method0(intern!(py, "cancelling"))
                .ok()?
                .extract()
                .ok()
        }))
    }

    /// Return whether the number has risen. Without a task, each cancellation counts.
    pub(crate) fn rose_since(self, py: Python<'_>) -> bool {
        match (self.0, Self::now(py).0) {
            (Some(before), Some(now)) => now > before,
            (None, Some(now)) => now > 0,
            (_, None) => true,
        }
    }
}

/// Return whether the `_thread_id` of a loop is `None` exactly while the loop does not run, as the public `is_running`
/// reports it.
fn has_thread_of_its_run(py: Python<'_>) -> PyResult<bool> {
    // A loop without a selector: it opens nothing and never runs.
    let probe = py.import("asyncio")?.getattr("BaseEventLoop")?.call0()?;
    let is_running = || probe.call_method0("is_running")?.is_truthy();
    let is_known = (|| {
        let is_idle = probe.getattr("_thread_id")?.is_none() && !is_running()?;
        // A new object, as asyncio stores it.
        let thread = py.import("threading")?.call_method0("get_ident")?;
        probe.setattr("_thread_id", &thread)?;
        let is_known = is_running()? && probe.getattr("_thread_id")?.is(&thread);
        PyResult::Ok(is_idle && is_known)
    })();
    // In any case the loop must not seem to run, and must be closed before it is collected.
    probe.setattr("_thread_id", py.None())?;
    let is_idle = !is_running()?;
    probe.call_method0("close")?;
    Ok(is_known? && is_idle)
}

/// The functions with which asyncio changes the current task, and the dictionary in which it may store the task.
struct TaskFunctions<'py> {
    enter: Bound<'py, PyAny>,
    leave: Bound<'py, PyAny>,
    current: Bound<'py, PyAny>,
    tasks: Bound<'py, PyDict>,
}

impl<'py> TaskFunctions<'py> {
    fn find(py: Python<'py>) -> PyResult<Self> {
        let module = py.import("asyncio.tasks")?;
        Ok(Self {
            enter: module.getattr("_enter_task")?,
            leave: module.getattr("_leave_task")?,
            current: module.getattr("current_task")?,
            tasks: module
                .getattr("_current_tasks")?
                .cast_into_exact::<PyDict>()?,
        })
    }

    /// Call `run` with a new loop and two new tasks, and check that it leaves nothing behind.
    fn try_out(
        &self,
        run: impl FnOnce(&Bound<'py, PyAny>, [&Bound<'py, PyAny>; 2]) -> PyResult<bool>,
    ) -> PyResult<bool> {
        let object = self.tasks.py().get_type::<PyAny>();
        let (event_loop, one, other) = (object.call0()?, object.call0()?, object.call0()?);
        let result = run(&event_loop, [&one, &other]);
        if self.tasks.contains(&event_loop)? {
            self.tasks.del_item(&event_loop)?;
            return Ok(false);
        }
        result
    }
}

/// Return whether the dictionary contains asyncio's current task.
fn has_dictionary_of_tasks(py: Python<'_>) -> PyResult<bool> {
    if cfg!(Py_3_14) {
        return Ok(false);
    }
    let asyncio = TaskFunctions::find(py)?;
    let is_known = asyncio.try_out(|event_loop, [one, other]| {
        let in_dictionary = || asyncio.tasks.get_item(event_loop);
        let current = || asyncio.current.call1((event_loop,));
        asyncio.enter.call1((event_loop, one))?;
        let is_entered = in_dictionary()?.is_some_and(|task| task.is(one)) && current()?.is(one);
        asyncio.tasks.set_item(event_loop, other)?;
        let is_replaced = current()?.is(other);
        asyncio.leave.call1((event_loop, other))?;
        Ok(is_entered && is_replaced && in_dictionary()?.is_none() && current()?.is_none())
    })?;
    if is_known {
        // The only place that sets it.
        let _ = TASKS.set(py, asyncio.tasks.unbind());
    }
    Ok(is_known)
}

/// Return whether the version of that dictionary changes with each change of the current task, and only then.
fn has_versions(py: Python<'_>) -> PyResult<bool> {
    if cfg!(Py_3_14) || !CURRENT_TASKS.is_used() {
        return Ok(false);
    }
    if !private_layout::has_layout_of::<pyo3::ffi::PyDictObject>(&py.get_type::<PyDict>())? {
        return Ok(false);
    }
    let asyncio = TaskFunctions::find(py)?;
    asyncio.try_out(|event_loop, [one, other]| {
        let version = || version_of(&asyncio.tasks);
        let mut versions = vec![version()];
        asyncio.enter.call1((event_loop, one))?;
        versions.push(version());
        // Reading changes nothing.
        asyncio.current.call1((event_loop,))?;
        let is_still = versions.last() == Some(&version());
        asyncio.tasks.set_item(event_loop, other)?;
        versions.push(version());
        asyncio.leave.call1((event_loop, other))?;
        versions.push(version());
        // The contents are as at the start, but they changed in between.
        asyncio.enter.call1((event_loop, one))?;
        asyncio.leave.call1((event_loop, one))?;
        versions.push(version());
        let count = versions.len();
        versions.sort_unstable();
        versions.dedup();
        Ok(is_still && versions.len() == count && !versions.contains(&None))
    })
}
