//! Python's exceptions as the core raises them. The classes live in `headrace.errors`, where people
//! import them from.

use std::borrow::Cow;

use pyo3::exceptions::{
    PyException, PyGeneratorExit, PyRuntimeError, PyStopAsyncIteration, PyStopIteration,
    PyTypeError, PyValueError,
};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;

static ERRORS: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

fn class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    ERRORS
        .get_or_try_init(py, || PyResult::Ok(py.import("headrace.errors")?.unbind()))?
        .bind(py)
        .getattr(name)
}

fn make(py: Python<'_>, name: &str, message: &str) -> PyErr {
    match class(py, name).and_then(|class| class.call1((message,))) {
        Ok(value) => raised(value),
        Err(error) => error,
    }
}

/// An exception that is there already, as `raise` raises it: with what is being handled at that moment as its context.
/// [`PyErr::from_value`] leaves the context as it is, which is for what was raised before.
fn raised(value: Bound<'_, PyAny>) -> PyErr {
    PyErr::from_type(value.get_type(), value.unbind())
}

/// An error that stays where CPython keeps it, in the thread's state.
///
/// Where an item passes every few nanoseconds, a result that could hold a [`PyErr`] is handed over by
/// memory, and one that cannot by registers. The caller takes the error out with [`Raised::fetch`].
#[derive(Debug)]
#[must_use = "the error is still set"]
pub(crate) struct Raised;

impl Raised {
    /// Sets an error.
    #[cold]
    pub(crate) fn set(py: Python<'_>, error: PyErr) -> Self {
        error.restore(py);
        Self
    }

    /// Sets the error of a result, if it is one.
    #[inline]
    pub(crate) fn lower<T>(py: Python<'_>, result: PyResult<T>) -> Result<T, Self> {
        result.map_err(|error| Self::set(py, error))
    }

    /// Takes the error out.
    #[cold]
    #[expect(clippy::unused_self, reason = "it is the proof that an error is set")]
    pub(crate) fn fetch(self, py: Python<'_>) -> PyErr {
        PyErr::fetch(py)
    }
}

/// `ClosedError`, without an item.
pub(crate) fn closed(py: Python<'_>, message: &str) -> PyErr {
    make(py, "ClosedError", message)
}

/// `WouldBlock`, without an item.
pub(crate) fn would_block(py: Python<'_>, message: &str) -> PyErr {
    make(py, "WouldBlock", message)
}

/// `ClosedError` or `WouldBlock` that gives a refused item back to its owner.
pub(crate) fn refused(py: Python<'_>, name: &str, message: &str, item: Bound<'_, PyAny>) -> PyErr {
    let keywords = pyo3::types::PyDict::new(py);
    let value = keywords
        .set_item(intern!(py, "item"), item)
        .and_then(|()| class(py, name)?.call((message,), Some(&keywords)));
    match value {
        Ok(value) => raised(value),
        Err(error) => error,
    }
}

/// `SourceCancelledError`.
pub(crate) fn source_cancelled(py: Python<'_>) -> PyErr {
    make(
        py,
        "SourceCancelledError",
        "a cancelled pull ended this async generator; items may be lost. \
         Give it a task of its own, `SourceIterObj(generator).prefetch(1)`, or write the source as an iterator, \
         so that a pull can be cancelled safely",
    )
}

/// `SourceCancelledError`, for a source that was cancelled in its own task.
pub(crate) fn source_was_cancelled(py: Python<'_>, message: &str) -> PyErr {
    make(py, "SourceCancelledError", message)
}

/// `BrokenError`.
pub(crate) fn broken(py: Python<'_>, what: &str) -> PyErr {
    make(
        py,
        "BrokenError",
        &format!(
            "this {what} was left in doubt by an earlier failure inside headrace; make a new one"
        ),
    )
}

/// `BudgetExhausted`.
pub(crate) fn budget_exhausted(py: Python<'_>, message: &str) -> PyErr {
    make(py, "BudgetExhausted", message)
}

/// `WouldDeadlock`.
pub(crate) fn would_deadlock(py: Python<'_>, message: &str) -> PyErr {
    make(py, "WouldDeadlock", message)
}

/// `ForkError`.
pub(crate) fn forked(py: Python<'_>, message: &str) -> PyErr {
    make(py, "ForkError", message)
}

/// `WrongLoopError`.
pub(crate) fn wrong_loop(py: Python<'_>, message: &str) -> PyErr {
    make(py, "WrongLoopError", message)
}

/// The `CancelledError` by which a stream that closes cancels its pull. Nobody asked the task for it, so
/// it is known by what it says: a subclass would not pass `asyncio.TaskGroup`.
pub(crate) fn closing(py: Python<'_>) -> PyErr {
    let made = crate::runtime::asyncio::cancelled_error(py)
        .and_then(|kind| kind.call1((class(py, "CLOSING")?,)));
    match made {
        Ok(value) => PyErr::from_value(value),
        Err(error) => error,
    }
}

/// Whether an error is one of [`closing`].
pub(crate) fn is_closing(py: Python<'_>, error: &PyErr) -> bool {
    crate::runtime::asyncio::is_cancelled_error(py, error)
        && class(py, "CLOSING").is_ok_and(|closing| {
            let said = error.value(py).getattr(intern!(py, "args"));
            said.and_then(|args| args.get_item(0))
                .is_ok_and(|said| said.is(&closing))
        })
}

/// `StopAsyncIteration`.
pub(crate) fn end() -> PyErr {
    PyStopAsyncIteration::new_err(())
}

/// An error as it leaves a callable of the user, on its way to whoever pulls or pushes.
///
/// The three exceptions by which iteration itself speaks would be taken for something else there,
/// so they become a `RuntimeError` with the original as its cause (PEP 479). Any other stays the
/// object it is and gets one note, once for each operator.
#[cold]
pub(crate) fn from_callable(
    py: Python<'_>,
    error: PyErr,
    operator: &str,
    parameter: &str,
) -> PyErr {
    let speaks = error.is_instance_of::<PyStopIteration>(py)
        || error.is_instance_of::<PyStopAsyncIteration>(py)
        || error.is_instance_of::<PyGeneratorExit>(py);
    if speaks {
        let name = error
            .get_type(py)
            .name()
            .map_or_else(|_| "StopIteration".to_owned(), |name| name.to_string());
        let wrapped = PyRuntimeError::new_err(format!("{parameter} of {operator} raised {name}"));
        wrapped.set_cause(py, Some(error));
        return wrapped;
    }
    if error.is_instance_of::<PyException>(py) {
        // An exception that takes no note still has to arrive.
        let _ = note(py, &error, &format!("raised by {parameter} of {operator}"));
    }
    error
}

/// Adds a note that is not there yet.
pub(crate) fn note(py: Python<'_>, error: &PyErr, text: &str) -> PyResult<()> {
    let value = error.value(py);
    let there = match value.getattr_opt(intern!(py, "__notes__"))? {
        Some(notes) => notes.contains(text)?,
        None => false,
    };
    if !there {
        value.call_method1(intern!(py, "add_note"), (text,))?;
    }
    Ok(())
}

/// `TypeError: <parameter> must be <what>, got 3 (int)`.
pub(crate) fn wrong_type(parameter: &str, what: &str, value: &Bound<'_, PyAny>) -> PyErr {
    PyTypeError::new_err(format!(
        "{parameter} must be {what}, got {}",
        describe(value)
    ))
}

/// The text of a string that a user gave. One with a lone surrogate is no text.
pub(crate) fn text<'a>(parameter: &str, value: &'a Bound<'_, PyString>) -> PyResult<Cow<'a, str>> {
    value.to_cow().map_err(|_| {
        PyValueError::new_err(format!(
            "{parameter} must be text that can be encoded, without a lone surrogate, got {}",
            describe(value)
        ))
    })
}

/// `3 (int)`: a value and its type, for a message.
pub(crate) fn describe(value: &Bound<'_, PyAny>) -> String {
    let mut shown = value
        .repr()
        .map_or_else(|_| "<unprintable>".to_owned(), |repr| repr.to_string());
    if let Some((end, _)) = shown.char_indices().nth(80) {
        shown.truncate(end);
        shown.push('…');
    }
    match value.get_type().name() {
        Ok(name) => format!("{shown} ({name})"),
        Err(_) => shown,
    }
}
