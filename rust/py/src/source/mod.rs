//! Sources: the first stage of a pull pipeline.
//!
//! | source | items | effect of a cancelled pull |
//! |---|---|---|
//! | [`PyDequeSource`] | a `deque`, drained from one end | none: never waits |
//! | [`PyOnceSource`] | one value, once until a restart | none: never waits |
//! | [`PyIterSource`] | a sync iterable | none: never waits |
//! | [`PyLinesSource`] | the lines of a file, read by other threads | the line stays in its batch |
//! | [`PyBufferSource`] | a buffer of the core | the item stays in the buffer |
//! | [`PyAsyncIterSource`] | any async iterable | defined by that source |
//! | [`PyMergeView`] | many sources | items stay with their sources |

pub(crate) mod async_gen;
mod async_iter;
mod buffer;
mod deque;
mod iter;
mod lines;
mod once;

use headrace_core::buffer::Get;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::coroutine::{Inner, Parked, Pending};
use crate::merge::PyMergeView;
use crate::object::class_enum::class_enum;
use crate::object::gc::traverse;
pub(crate) use async_iter::PyAsyncIterSource;
pub(crate) use buffer::PyBufferSource;
pub(crate) use deque::PyDequeSource;
pub(crate) use iter::PyIterSource;
pub(crate) use lines::{PyLinesSource, register_closing};
pub(crate) use once::PyOnceSource;

/// The result of polling a source for one item.
#[derive(Debug)]
pub(crate) enum SourcePoll<'py> {
    /// An item.
    Item(Bound<'py, PyAny>),
    /// There are no more items.
    End,
    /// No item yet: yield the object to the task, then resume with the wait. Boxed, to keep an item as small as a pointer.
    Wait(Box<Wait>, Bound<'py, PyAny>),
}

/// The reason that a poll waits.
#[derive(Debug)]
pub(crate) enum Wait {
    /// An item of a buffer of the core.
    Core(Pending<Get<Py<PyAny>>>),
    /// A batch of lines that another thread reads.
    Batch(Parked),
    /// The awaitable that a foreign `__anext__` returned.
    Inner(Inner),
    /// An async generator that is driven without an awaitable.
    Agen,
    /// A merge: the future that wakes its pull; without one, the next event-loop iteration.
    Merge { waiter: Option<Py<PyAny>> },
}

traverse!(enum Wait { Core(pending), Batch(parked), Inner(inner), Agen, Merge { waiter } });

class_enum! {
    /// Any source.
    pub(crate) enum AnySource: ("origin", "a pull object or a source of headrace") {
        Deque(PyDequeSource),
        Once(PyOnceSource),
        Lines(PyLinesSource),
        Iter(PyIterSource),
        Buffer(PyBufferSource),
        AsyncIter(PyAsyncIterSource),
        Merge(PyMergeView),
    }
}

impl AnySource {
    /// Make a source of an iterable, sync or async, whose items a kernel emits.
    pub(crate) fn over(iterable: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = iterable.py();
        // SAFETY: reading the slots of a live type.
        let (is_async, is_sync) = unsafe {
            let kind = ffi::Py_TYPE(iterable.as_ptr());
            let methods = (*kind).tp_as_async;
            let is_async = !methods.is_null() && (*methods).am_aiter.is_some();
            let is_sync =
                (*kind).tp_iter.is_some() || ffi::PySequence_Check(iterable.as_ptr()) != 0;
            (is_async, is_sync)
        };
        if is_async {
            Ok(Self::AsyncIter(Py::new(
                py,
                PyAsyncIterSource::over(iterable),
            )?))
        } else if is_sync {
            Ok(Self::Iter(Py::new(py, PyIterSource::over(iterable))?))
        } else {
            Err(PyTypeError::new_err(format!(
                "only an iterable or an async iterable can be flattened, got {}",
                crate::errors::describe(iterable)
            )))
        }
    }

    /// Return the next item if it is available immediately: the fast path. After a `None`, call [`Self::poll_next`] for
    /// the reason.
    #[expect(clippy::inline_always, reason = "it is part of the driver's loop")]
    #[inline(always)]
    pub(crate) fn ready<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        match self {
            Self::Deque(source) => source.get().ready(py),
            Self::Once(source) => source.get().ready(py),
            Self::Lines(source) => source.get().ready(py),
            Self::Iter(source) => source.get().ready(py),
            Self::Buffer(source) => source.get().ready(py),
            Self::Merge(source) => source.get().ready(py),
            Self::AsyncIter(_) => None,
        }
    }

    /// Poll for the next item, after [`Self::ready`] returned `None`.
    #[inline(never)]
    pub(crate) fn poll_next<'py>(&self, py: Python<'py>) -> PyResult<SourcePoll<'py>> {
        match self {
            Self::Deque(source) => Ok(source.get().poll_next(py)),
            Self::Once(source) => Ok(source.get().poll_next(py)),
            Self::Lines(source) => source.get().poll_next(py),
            Self::Iter(source) => source.get().poll_next(py),
            Self::Buffer(source) => source.get().poll_next(py),
            Self::AsyncIter(source) => source.get().poll_next(py),
            Self::Merge(source) => source.get().poll_next(py),
        }
    }

    /// Resume a poll that waited, with the value that the task sent or the error that it threw.
    pub(crate) fn resume<'py>(
        &self,
        wait: Wait,
        sent: Result<&Bound<'py, PyAny>, PyErr>,
        py: Python<'py>,
    ) -> PyResult<SourcePoll<'py>> {
        match (self, wait) {
            (Self::Buffer(source), Wait::Core(pending)) => {
                // After an error, dropping the wait leaves the wait queue; the item is still in the buffer.
                sent?;
                source.get().wait(py, pending)
            }
            (Self::Lines(source), Wait::Batch(parked)) => {
                drop(parked);
                // After an error, the batch waits for the next pull.
                sent?;
                source.get().poll_next(py)
            }
            (Self::AsyncIter(source), wait) => source.get().resume(wait, sent, py),
            (Self::Merge(source), Wait::Merge { waiter }) => {
                source.get().resume(py, waiter.as_ref(), sent)
            }
            _ => unreachable!("a source is resumed with a wait that it returned"),
        }
    }

    /// Record that a waiting pull was cancelled and that the cancellation reached the source.
    pub(crate) fn cancelled(&self, py: Python<'_>) {
        if let Self::AsyncIter(source) = self {
            source.get().cancelled(py);
        }
    }

    /// Release the wait of a pull that will never be resumed.
    pub(crate) fn abandon(&self, py: Python<'_>, wait: Wait) {
        match (self, wait) {
            (Self::Merge(source), Wait::Merge { waiter }) => {
                source.get().abandon(py, waiter.as_ref());
            }
            (Self::AsyncIter(source), wait) => source.get().abandon(py, wait),
            (_, wait) => drop(wait),
        }
    }

    /// Throw an error into a source that is suspended between two items.
    pub(crate) fn throw<'py>(&self, py: Python<'py>, error: PyErr) -> PyResult<SourcePoll<'py>> {
        match self {
            Self::AsyncIter(source) => source.get().throw(py, error),
            _ => Err(error),
        }
    }

    /// Return whether an error can be thrown into the source while it is suspended between two items.
    pub(crate) fn can_throw(&self, py: Python<'_>) -> bool {
        matches!(self, Self::AsyncIter(source) if source.get().can_throw(py))
    }

    /// Return whether the iterator was made. If making it failed, it never will be.
    pub(crate) fn has_begun(&self, py: Python<'_>) -> bool {
        match self {
            Self::AsyncIter(source) => source.get().has_begun(py),
            Self::Iter(source) => source.get().has_begun(py),
            _ => true,
        }
    }

    /// Restart the source, or return the error that says why it cannot.
    pub(crate) fn restart(&self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Deque(_) => {}
            Self::Once(source) => source.get().restart(py),
            Self::Lines(source) => source.get().restart(py),
            Self::Iter(source) => source.get().restart(py)?,
            Self::Buffer(source) => source.get().restart()?,
            Self::AsyncIter(source) => source.get().restart(py)?,
            Self::Merge(source) => source.get().restart(py)?,
        }
        Ok(())
    }

    /// End the source. Returns an awaitable if there is anything to wait for.
    pub(crate) fn close<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self {
            Self::Deque(_) | Self::Once(_) => Ok(None),
            Self::Lines(source) => source.get().close(py),
            Self::Iter(source) => source.get().close(py).map(|()| None),
            Self::Buffer(source) => source.get().close(py).map(|()| None),
            Self::AsyncIter(source) => source.get().close(py),
            Self::Merge(source) => source.get().close(py).map(Some),
        }
    }
}
