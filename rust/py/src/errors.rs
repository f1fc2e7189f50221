//! The Python exceptions that the core raises. `headrace.errors` defines the classes.
//! Most modules of this crate raise through it.

use std::borrow::Cow;
use std::io;
use std::path::Path;

use pyo3::exceptions::{
    PyException, PyGeneratorExit, PyOSError, PyRuntimeError, PyStopAsyncIteration, PyStopIteration,
    PyTypeError, PyValueError,
};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PyString};

static ERRORS: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

fn class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    ERRORS
        .get_or_try_init(py, || PyResult::Ok(py.import("headrace.errors")?.unbind()))?
        .bind(py)
        .getattr(name)
}

fn make(py: Python<'_>, name: &str, message: &str) -> PyErr {
    let value = class(py, name).and_then(|class| class.call1((message,)));
    value.map_or_else(|error| error, raised)
}

/// Raise an existing exception as `raise` does: the exception that is being handled becomes its context.
/// [`PyErr::from_value`] keeps the context, which is right for an exception that was raised before.
fn raised(value: Bound<'_, PyAny>) -> PyErr {
    PyErr::from_type(value.get_type(), value.unbind())
}

/// Proof that an error is set in CPython's thread state.
///
/// A result that could hold a [`PyErr`] is returned in memory; one with this error fits registers, which matters where an item
/// passes every few nanoseconds. The caller takes the error out with [`RaisedError::fetch`].
#[derive(Debug)]
#[must_use = "the error is still set"]
pub(crate) struct RaisedError;

impl RaisedError {
    /// Set an error.
    #[cold]
    pub(crate) fn set(py: Python<'_>, error: PyErr) -> Self {
        error.restore(py);
        Self
    }

    /// Set the error of a result, if there is one.
    #[inline]
    pub(crate) fn set_from<T>(py: Python<'_>, result: PyResult<T>) -> Result<T, Self> {
        result.map_err(|error| Self::set(py, error))
    }

    /// Take the error out of the thread state.
    #[cold]
    #[expect(clippy::unused_self, reason = "it is the proof that an error is set")]
    pub(crate) fn fetch(self, py: Python<'_>) -> PyErr {
        PyErr::fetch(py)
    }
}

/// Declares a function for each exception that only has a message.
macro_rules! with_message {
    ($($(#[$attribute:meta])* $function:ident: $class:literal;)+) => {
        $(#[doc = concat!("`", $class, "`.")] $(#[$attribute])*
        pub(crate) fn $function(py: Python<'_>, message: &str) -> PyErr {
            make(py, $class, message)
        })+
    };
}

with_message! {
    /// Without an item.
    closed: "ClosedError";
    /// Without an item.
    would_block: "WouldBlock";
    /// For a source that was cancelled in its own task.
    source_was_cancelled: "SourceCancelledError";
    budget_exhausted: "BudgetExhausted";
    would_deadlock: "WouldDeadlock";
    forked: "ForkError";
    wrong_loop: "WrongLoopError";
    journal: "JournalError";
}

/// `ClosedError` or `WouldBlock`, with the refused item for its owner.
pub(crate) fn refused(py: Python<'_>, name: &str, message: &str, item: Bound<'_, PyAny>) -> PyErr {
    let keywords = pyo3::types::PyDict::new(py);
    let value = keywords
        .set_item(intern!(py, "item"), item)
        .and_then(|()| class(py, name)?.call((message,), Some(&keywords)));
    value.map_or_else(|error| error, raised)
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

/// `BrokenError`.
pub(crate) fn broken(py: Python<'_>, kind: &str) -> PyErr {
    make(
        py,
        "BrokenError",
        &format!(
            "this {kind} was left in doubt by an earlier failure inside headrace; make a new one"
        ),
    )
}

/// Return the `CancelledError` with which a closing stream cancels its pull. The task was not cancelled, so the error
/// is recognised by its message. (`asyncio.TaskGroup` would not accept a subclass.)
pub(crate) fn closing(py: Python<'_>) -> PyErr {
    let made = crate::runtime::asyncio::cancelled_error(py)
        .and_then(|kind| kind.call1((class(py, "CLOSING")?,)));
    made.map_or_else(|error| error, PyErr::from_value)
}

/// Return whether an error is one of [`closing`].
pub(crate) fn is_closing(py: Python<'_>, error: &PyErr) -> bool {
    crate::runtime::asyncio::is_cancelled_error(py, error)
        && class(py, "CLOSING").is_ok_and(|closing| {
            let message = error.value(py).getattr(intern!(py, "args"));
            message
                .and_then(|args| args.get_item(0))
                .is_ok_and(|message| message.is(&closing))
        })
}

/// Return the `OSError` subclass of an error of the system, with the name of the file.
#[cold]
pub(crate) fn os_error(py: Python<'_>, path: &Path, error: &io::Error) -> PyErr {
    let Some(number) = error.raw_os_error() else {
        return PyOSError::new_err(format!("{}: {error}", path.display()));
    };
    let made = py
        .import("os")
        .and_then(|os| os.call_method1("strerror", (number,)))
        .and_then(|text| {
            py.get_type::<PyOSError>()
                .call1((number, text, path.as_os_str()))
        });
    made.map_or_else(|error| error, PyErr::from_value)
}

/// `StopAsyncIteration`.
pub(crate) fn end() -> PyErr {
    PyStopAsyncIteration::new_err(())
}

/// Prepare an error of a user's callable for the caller that pulls or pushes.
///
/// The three exceptions of the iteration protocol would be misread by the caller, so they become a `RuntimeError` with the original
/// as its cause (PEP 479). Any other exception is kept and gets a note with the callable, such as
/// `key of PullDedupeObj`, and the item, if that is known.
#[cold]
pub(crate) fn from_callable(
    py: Python<'_>,
    error: PyErr,
    callable: &str,
    item: Option<&Bound<'_, PyAny>>,
) -> PyErr {
    let is_protocol = error.is_instance_of::<PyStopIteration>(py)
        || error.is_instance_of::<PyStopAsyncIteration>(py)
        || error.is_instance_of::<PyGeneratorExit>(py);
    if is_protocol {
        let name = error
            .get_type(py)
            .name()
            .map_or_else(|_| "StopIteration".to_owned(), |name| name.to_string());
        let wrapped = PyRuntimeError::new_err(format!("{callable} raised {name}"));
        wrapped.set_cause(py, Some(error));
        return wrapped;
    }
    if error.is_instance_of::<PyException>(py) {
        // An exception that accepts no note is raised without it.
        let beginning = format!("raised by {callable}");
        let _ = match item.and_then(short_repr) {
            None => note(py, &error, &beginning),
            Some(item) => note_item(py, &error, &format!("{beginning}: item "), &item),
        };
    }
    error
}

/// Return the `repr` of an item, on one line and shortened.
fn short_repr(item: &Bound<'_, PyAny>) -> Option<String> {
    let reprs = item.py().import("headrace._internal.reprs").ok()?;
    let shown = reprs.call_method1(intern!(item.py(), "short_repr"), (item,));
    shown.ok()?.extract().ok()
}

/// The maximum number of notes of one operator on an exception.
const MAX_NOTES: usize = 8;

/// Add a note that names an item, unless the exception has it. An exception that is raised again for other items, such as one that
/// several calls share, keeps the first notes and the last one.
fn note_item(py: Python<'_>, error: &PyErr, beginning: &str, item: &str) -> PyResult<()> {
    let notes = error.value(py).getattr_opt(intern!(py, "__notes__"))?;
    if let Some(notes) = notes.as_ref().and_then(|notes| notes.cast::<PyList>().ok()) {
        let is_of_operator = |note: &Bound<'_, PyAny>| {
            (note.cast::<PyString>())
                .is_ok_and(|note| note.to_string_lossy().starts_with(beginning))
        };
        let places = (0..notes.len())
            .filter(|&place| (notes.get_item(place)).is_ok_and(|note| is_of_operator(&note)));
        let places: Vec<usize> = places.collect();
        if let Some(&last) = places.get(MAX_NOTES - 1) {
            return notes.set_item(last, format!("{beginning}{item}"));
        }
    }
    note(py, error, &format!("{beginning}{item}"))
}

/// Add a note unless the exception has it.
pub(crate) fn note(py: Python<'_>, error: &PyErr, text: &str) -> PyResult<()> {
    let value = error.value(py);
    let has_note = match value.getattr_opt(intern!(py, "__notes__"))? {
        Some(notes) => notes.contains(text)?,
        None => false,
    };
    if !has_note {
        value.call_method1(intern!(py, "add_note"), (text,))?;
    }
    Ok(())
}

/// `TypeError: <parameter> must be <expected>, got 3 (int)`.
pub(crate) fn wrong_type(parameter: &str, expected: &str, value: &Bound<'_, PyAny>) -> PyErr {
    PyTypeError::new_err(format!(
        "{parameter} must be {expected}, got {}",
        describe(value)
    ))
}

/// `ValueError: <parameter> must <condition>, got 3 (int)`.
#[cold]
pub(crate) fn wrong_value(parameter: &str, condition: &str, value: &Bound<'_, PyAny>) -> PyErr {
    PyValueError::new_err(format!(
        "{parameter} must {condition}, got {}",
        describe(value)
    ))
}

/// Return the text of a string parameter. A string with a lone surrogate cannot be encoded.
pub(crate) fn text<'a>(parameter: &str, value: &'a Bound<'_, PyString>) -> PyResult<Cow<'a, str>> {
    value.to_cow().map_err(|_| {
        PyValueError::new_err(format!(
            "{parameter} must be text that can be encoded, without a lone surrogate, got {}",
            describe(value)
        ))
    })
}

/// Format a value and its type for a message: `3 (int)`.
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
