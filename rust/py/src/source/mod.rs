//! Feeds: where the items of a line come from.
//!
//! | feed | items | a cancelled pull |
//! |---|---|---|
//! | [`StoreFeed`] | a `deque`, drained from one end | never waits |
//! | [`CacheFeed`] | one value, once a cycle | never waits |
//! | [`IterFeed`] | a sync iterable | never waits |
//! | [`LinesFeed`] | the lines of a file, read by other threads | the line stays in its batch |
//! | [`QueueFeed`] | a buffer of the core | the item stays in the buffer |
//! | [`ForeignFeed`] | any async iterable | as that source has it |
//! | [`MergeFeed`] | many sources | what came stays with its source |

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
use crate::merge::MergeFeed;
use crate::object::gc::traverse;
pub(crate) use async_iter::ForeignFeed;
pub(crate) use buffer::QueueFeed;
pub(crate) use deque::StoreFeed;
pub(crate) use iter::IterFeed;
pub(crate) use lines::{LinesFeed, register_closing};
pub(crate) use once::CacheFeed;

/// What asking a feed came to.
#[derive(Debug)]
pub(crate) enum Drawn<'py> {
    /// An item.
    Item(Bound<'py, PyAny>),
    /// No more.
    End,
    /// Not yet: hand this object up to the task, and come back with the wait. Boxed, so that an
    /// item is a pointer and no more.
    Wait(Box<Wait>, Bound<'py, PyAny>),
}

/// What a draw waits for.
#[derive(Debug)]
pub(crate) enum Wait {
    /// A buffer of the core.
    Core(Pending<Get<Py<PyAny>>>),
    /// A batch of lines that is being read.
    Batch(Parked),
    /// The awaitable that a foreign `__anext__` returned.
    Inner(Inner),
    /// An async generator that is driven without one.
    Agen,
    /// A merge, by what wakes its pull; or a turn of the loop, if there is nothing.
    Merge { waiter: Option<Py<PyAny>> },
}

traverse!(enum Wait { Core(pending), Batch(parked), Inner(inner), Agen, Merge { waiter } });

traverse!(
    enum AnyFeed {
        Store(feed),
        Cache(feed),
        Lines(feed),
        Iter(feed),
        Queue(feed),
        Foreign(feed),
        Merge(feed),
    }
);

/// Any feed.
#[derive(Debug)]
pub(crate) enum AnyFeed {
    Store(Py<StoreFeed>),
    Cache(Py<CacheFeed>),
    Lines(Py<LinesFeed>),
    Iter(Py<IterFeed>),
    Queue(Py<QueueFeed>),
    Foreign(Py<ForeignFeed>),
    Merge(Py<MergeFeed>),
}

impl AnyFeed {
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(feed) = object.cast_exact::<StoreFeed>() {
            Ok(Self::Store(feed.clone().unbind()))
        } else if let Ok(feed) = object.cast_exact::<CacheFeed>() {
            Ok(Self::Cache(feed.clone().unbind()))
        } else if let Ok(feed) = object.cast_exact::<LinesFeed>() {
            Ok(Self::Lines(feed.clone().unbind()))
        } else if let Ok(feed) = object.cast_exact::<IterFeed>() {
            Ok(Self::Iter(feed.clone().unbind()))
        } else if let Ok(feed) = object.cast_exact::<QueueFeed>() {
            Ok(Self::Queue(feed.clone().unbind()))
        } else if let Ok(feed) = object.cast_exact::<ForeignFeed>() {
            Ok(Self::Foreign(feed.clone().unbind()))
        } else if let Ok(feed) = object.cast_exact::<MergeFeed>() {
            Ok(Self::Merge(feed.clone().unbind()))
        } else {
            Err(crate::errors::wrong_type(
                "origin",
                "a pull object or a feed of headrace",
                object,
            ))
        }
    }

    /// Over any iterable, sync or async, that a kernel hands on.
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
            Ok(Self::Foreign(Py::new(py, ForeignFeed::over(iterable))?))
        } else if is_sync {
            Ok(Self::Iter(Py::new(py, IterFeed::over(iterable))?))
        } else {
            Err(PyTypeError::new_err(format!(
                "only an iterable or an async iterable can be flattened, got {}",
                crate::errors::describe(iterable)
            )))
        }
    }

    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Store(feed) => Self::Store(feed.clone_ref(py)),
            Self::Cache(feed) => Self::Cache(feed.clone_ref(py)),
            Self::Lines(feed) => Self::Lines(feed.clone_ref(py)),
            Self::Iter(feed) => Self::Iter(feed.clone_ref(py)),
            Self::Queue(feed) => Self::Queue(feed.clone_ref(py)),
            Self::Foreign(feed) => Self::Foreign(feed.clone_ref(py)),
            Self::Merge(feed) => Self::Merge(feed.clone_ref(py)),
        }
    }

    pub(crate) fn as_any(&self) -> &Py<PyAny> {
        match self {
            Self::Store(feed) => feed.as_any(),
            Self::Cache(feed) => feed.as_any(),
            Self::Lines(feed) => feed.as_any(),
            Self::Iter(feed) => feed.as_any(),
            Self::Queue(feed) => feed.as_any(),
            Self::Foreign(feed) => feed.as_any(),
            Self::Merge(feed) => feed.as_any(),
        }
    }

    /// The next item, if there is one now: the short way. If there is none, [`Self::draw`] must be
    /// asked next, and says why.
    #[expect(clippy::inline_always, reason = "it is a part of the driver's loop")]
    #[inline(always)]
    pub(crate) fn ready<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        match self {
            Self::Store(feed) => feed.get().ready(py),
            Self::Cache(feed) => feed.get().ready(py),
            Self::Lines(feed) => feed.get().ready(py),
            Self::Iter(feed) => feed.get().ready(py),
            Self::Queue(feed) => feed.get().ready(py),
            Self::Merge(feed) => feed.get().ready(py),
            Self::Foreign(_) => None,
        }
    }

    /// Asks for the next item, after [`Self::ready`] had none.
    #[inline(never)]
    pub(crate) fn draw<'py>(&self, py: Python<'py>) -> PyResult<Drawn<'py>> {
        match self {
            Self::Store(feed) => Ok(feed.get().draw(py)),
            Self::Cache(feed) => Ok(feed.get().draw(py)),
            Self::Lines(feed) => feed.get().draw(py),
            Self::Iter(feed) => feed.get().draw(py),
            Self::Queue(feed) => feed.get().draw(py),
            Self::Foreign(feed) => feed.get().draw(py),
            Self::Merge(feed) => feed.get().draw(py),
        }
    }

    /// Goes on with a draw that waited, with what the task sent or threw.
    pub(crate) fn resume<'py>(
        &self,
        wait: Wait,
        sent: Result<&Bound<'py, PyAny>, PyErr>,
        py: Python<'py>,
    ) -> PyResult<Drawn<'py>> {
        match (self, wait) {
            (Self::Queue(feed), Wait::Core(pending)) => match sent {
                Ok(_) => feed.get().wait(py, pending),
                // Dropping the wait gives up its place; the item is still in the buffer.
                Err(error) => Err(error),
            },
            (Self::Lines(feed), Wait::Batch(parked)) => match sent {
                Ok(_) => feed.get().resume(py, parked),
                // The batch waits for the next pull.
                Err(error) => Err(error),
            },
            (Self::Foreign(feed), wait) => feed.get().resume(wait, sent, py),
            (Self::Merge(feed), Wait::Merge { waiter }) => {
                feed.get().resume(py, waiter.as_ref(), sent)
            }
            _ => unreachable!("a feed is resumed with a wait of its own kind"),
        }
    }

    /// A pull that waited for this feed was cancelled, and the cancellation reached the source.
    pub(crate) fn cancelled(&self, py: Python<'_>) {
        if let Self::Foreign(feed) = self {
            feed.get().cancelled(py);
        }
    }

    /// A pull that waited for this feed will never go on.
    pub(crate) fn abandon(&self, py: Python<'_>, wait: Wait) {
        if let (Self::Merge(feed), Wait::Merge { waiter }) = (self, &wait) {
            feed.get().abandon(py, waiter.as_ref());
        }
        match self {
            Self::Foreign(feed) => feed.get().abandon(py, wait),
            _ => drop(wait),
        }
    }

    /// Throws an error into a source that stands between two items.
    pub(crate) fn strike<'py>(&self, py: Python<'py>, error: PyErr) -> PyResult<Drawn<'py>> {
        match self {
            Self::Foreign(feed) => feed.get().strike(py, error),
            _ => Err(error),
        }
    }

    /// Whether a source that stands between two items hears of what is thrown into it.
    pub(crate) fn can_throw(&self, py: Python<'_>) -> bool {
        matches!(self, Self::Foreign(feed) if feed.get().can_throw(py))
    }

    /// Whether there is an iterator: one that could not even be made never will.
    pub(crate) fn has_begun(&self, py: Python<'_>) -> bool {
        match self {
            Self::Foreign(feed) => feed.get().has_begun(py),
            Self::Iter(feed) => feed.get().has_begun(py),
            Self::Store(_) | Self::Cache(_) | Self::Lines(_) | Self::Queue(_) | Self::Merge(_) => {
                true
            }
        }
    }

    /// Starts a new cycle, or says why the source cannot.
    pub(crate) fn restart(&self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Store(_) => Ok(()),
            Self::Cache(feed) => {
                feed.get().restart(py);
                Ok(())
            }
            Self::Lines(feed) => {
                feed.get().restart(py);
                Ok(())
            }
            Self::Iter(feed) => feed.get().restart(py),
            Self::Queue(feed) => feed.get().restart(),
            Self::Foreign(feed) => feed.get().restart(py),
            Self::Merge(feed) => feed.get().restart(py),
        }
    }

    /// Ends the source. What it returns is to be awaited, if there is anything to await.
    pub(crate) fn close<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self {
            Self::Store(_) | Self::Cache(_) => Ok(None),
            Self::Lines(feed) => feed.get().close(py),
            Self::Iter(feed) => feed.get().close(py).map(|()| None),
            Self::Queue(feed) => feed.get().close(py).map(|()| None),
            Self::Foreign(feed) => feed.get().close(py),
            Self::Merge(feed) => feed.get().close(py).map(Some),
        }
    }
}
