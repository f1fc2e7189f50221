//! The few things of `asyncio` that the core calls, looked up once.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

static GET_RUNNING_LOOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static PEEK_RUNNING_LOOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static CURRENT_TASK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static CANCELLED_ERROR: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

fn lookup<'py>(
    cell: &'static PyOnceLock<Py<PyAny>>,
    py: Python<'py>,
    name: &str,
) -> PyResult<&'py Bound<'py, PyAny>> {
    Ok(cell
        .get_or_try_init(py, || {
            PyResult::Ok(py.import("asyncio")?.getattr(name)?.unbind())
        })?
        .bind(py))
}

/// The running loop, or the `RuntimeError` that says that there is none.
pub(crate) fn running_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    lookup(&GET_RUNNING_LOOP, py, "get_running_loop")?.call0()
}

/// The running loop, if there is one.
pub(crate) fn running(py: Python<'_>) -> Option<Bound<'_, PyAny>> {
    let event_loop = lookup(&PEEK_RUNNING_LOOP, py, "_get_running_loop")
        .ok()?
        .call0()
        .ok()?;
    (!event_loop.is_none()).then_some(event_loop)
}

/// The task that runs now, if a loop runs and it runs a task.
pub(crate) fn current_task(py: Python<'_>) -> Option<Bound<'_, PyAny>> {
    let task = lookup(&CURRENT_TASK, py, "current_task")
        .ok()?
        .call0()
        .ok()?;
    (!task.is_none()).then_some(task)
}

/// `asyncio.CancelledError`.
pub(crate) fn cancelled_error(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    lookup(&CANCELLED_ERROR, py, "CancelledError")
}

/// Whether an error is a cancellation by its type; who asked for it is another question
/// ([`Cancels`]).
pub(crate) fn is_cancelled_error(py: Python<'_>, error: &PyErr) -> bool {
    cancelled_error(py).is_ok_and(|class| error.is_instance(py, class))
}

/// How often the driving task had been asked to cancel when a pull began to wait.
///
/// A pull counts as cancelled only if that number rose meanwhile: a `CancelledError` that a
/// callable raises by itself, or gets from a future which somebody else cancelled, is an error like
/// any other.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cancels(Option<usize>);

impl Cancels {
    /// The number now.
    pub(crate) fn now(py: Python<'_>) -> Self {
        Self(current_task(py).and_then(|task| {
            task.call_method0(intern!(py, "cancelling"))
                .ok()?
                .extract()
                .ok()
        }))
    }

    /// Whether it rose since. Where there is no task to ask, a cancellation counts as one from
    /// outside.
    pub(crate) fn rose_since(self, py: Python<'_>) -> bool {
        match (self.0, Self::now(py).0) {
            (Some(before), Some(now)) => now > before,
            (None, Some(now)) => now > 0,
            (_, None) => true,
        }
    }
}
