//! `SourceState`: one source of a merge. `State` holds one for each source.

use std::collections::VecDeque;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::task_context::TaskContext;
use crate::object::gc::traverse;
use crate::object::iterative_drop::IterativeDrop;
use crate::pull::link::PyPullLink;
use crate::source::{AnySource, PyAsyncIterSource, PyIterSource, Wait, async_gen};

/// The outcome of polling a source.
#[derive(Debug)]
pub(super) enum Outcome {
    Item(Py<PyAny>),
    /// It raised. The next poll shows whether it continues.
    Error(Box<PyErr>),
    /// It has ended.
    End,
}

/// Whether a source is to be polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PollState {
    No,
    /// Poll it when no item is ready, or together with others.
    Idle,
    /// Poll it in the next pull.
    Requested,
}

/// The execution status of a source.
#[derive(Debug)]
pub(super) enum Status {
    /// Not computing an item: it has not started, or it is suspended at its `yield`.
    Paused,
    /// A step of it is on the stack.
    Running,
    /// Computing an item. It waits for the future, or for one iteration of the event loop if there is none.
    Waiting {
        wait: Box<Wait>,
        future: Option<Py<PyAny>>,
    },
}

impl Status {
    /// Set the status. The old one nearly always owns nothing.
    #[inline]
    pub(super) fn replace(&mut self, next: Self) {
        let old = std::mem::replace(self, next);
        if matches!(old, Self::Waiting { .. }) {
            drop(old);
        } else {
            // Nothing has to be dropped, which the compiler does not see by itself.
            std::mem::forget(old);
        }
    }
}

/// An async generator, its task and its context.
pub(super) type Running<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>);

/// One source.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a source may be labelled, closing, removed, ... in any combination"
)]
pub(super) struct SourceState {
    /// Its name in messages: its label, or its number.
    pub(super) name: Py<PyAny>,
    /// The number of sources added before it.
    pub(super) number: usize,
    pub(super) is_labelled: bool,
    pub(super) is_cutoff: bool,
    /// Given at construction: a restart keeps it.
    pub(super) is_given: bool,
    pub(super) adapter: AnySource,
    /// Stepped under a task of its own.
    pub(super) is_foreign: bool,
    pub(super) task_context: Option<TaskContext>,
    /// The future that its task waits for.
    pub(super) parked_on: Option<Py<PyAny>>,
    /// The done callback for its futures, in a tuple of arguments.
    pub(super) callback: Option<Py<PyTuple>>,
    /// The keyword arguments of `add_done_callback`: `{"context": context}`.
    pub(super) keywords: Option<Py<PyDict>>,
    pub(super) status: Status,
    /// Outcomes that were not taken yet.
    pub(super) queue: VecDeque<Outcome>,
    /// The number of its entries in the list `ready`.
    pub(super) hints: usize,
    /// The list that it is in, of those to be polled.
    pub(super) poll_state: PollState,
    /// It has never waited: polling it early gains nothing.
    pub(super) is_prompt: bool,
    /// The cancellation of its task that was not thrown into it yet.
    pub(super) cancellation: Option<PyErr>,
    /// It gives no further items.
    pub(super) has_ended: bool,
    /// Its end is the last outcome in its queue.
    pub(super) holds_end: bool,
    /// Its closing was requested.
    pub(super) is_closing: bool,
    /// Its task was cancelled in order to close it.
    pub(super) was_cancelled: bool,
    /// Closed, and its task has ended.
    pub(super) is_closed: bool,
    /// Its end was taken, or it was removed.
    pub(super) is_done: bool,
    /// The last round in which it gave an item.
    pub(super) round: u64,
    /// The object that the user passed.
    pub(super) source: IterativeDrop<PyAny>,
}

impl SourceState {
    pub(super) fn new(
        source: Py<PyAny>,
        number: usize,
        name: Py<PyAny>,
        is_labelled: bool,
        adapter: AnySource,
        is_foreign: bool,
    ) -> Self {
        Self {
            name,
            number,
            is_labelled,
            is_cutoff: false,
            is_given: false,
            adapter,
            is_foreign,
            task_context: None,
            parked_on: None,
            callback: None,
            keywords: None,
            status: Status::Paused,
            queue: VecDeque::new(),
            hints: 0,
            poll_state: PollState::No,
            is_prompt: false,
            cancellation: None,
            has_ended: false,
            holds_end: false,
            is_closing: false,
            was_cancelled: false,
            is_closed: false,
            is_done: false,
            round: 0,
            source: source.into(),
        }
    }

    /// Return whether it has not ended.
    pub(super) fn is_present(&self) -> bool {
        !self.has_ended && !self.is_closing && !self.is_done && !self.is_cutoff
    }

    /// Return whether it may be polled for another item.
    #[inline]
    pub(super) fn can_poll(&self, prefetch: usize) -> bool {
        matches!(self.status, Status::Paused)
            && !self.has_ended
            && !self.is_closing
            && self.queue.len() < prefetch
    }

    /// Return whether its next outcome is an item without a label.
    #[inline]
    pub(super) fn has_bare_item(&self) -> bool {
        !self.is_labelled && matches!(self.queue.front(), Some(Outcome::Item(_)))
    }

    /// Return whether it has yielded to the event loop and waits for no future.
    pub(super) fn is_yielding(&self) -> bool {
        matches!(self.status, Status::Waiting { future: None, .. })
    }

    /// Return its task, if it has one.
    pub(super) fn task(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let task_context = self.task_context.as_ref()?;
        Some(task_context.task.clone_ref(py))
    }

    /// Return the task and context under which it is stepped. A source that is polled in place has a task only to be
    /// closed.
    pub(super) fn own_context(&self, py: Python<'_>) -> Option<TaskContext> {
        let task_context = self.task_context.as_ref().filter(|_| self.is_foreign)?;
        Some(task_context.clone_ref(py))
    }

    /// Mark a source as running and return its generator, task and context. `None` unless it is a started async
    /// generator without a pending cancellation, which is paused or has yielded.
    #[expect(clippy::inline_always, reason = "it is part of two loops")]
    #[inline(always)]
    pub(super) fn run<'py>(&mut self, py: Python<'py>) -> Option<Running<'py>> {
        let AnySource::AsyncIter(adapter) = &self.adapter else {
            return None;
        };
        let task_context = self.task_context.as_ref()?;
        if self.cancellation.is_some() || !self.is_foreign {
            return None;
        }
        let has_yielded = match &self.status {
            Status::Paused => false,
            Status::Waiting { wait, future: None } if matches!(**wait, Wait::Agen) => true,
            Status::Waiting { .. } | Status::Running => return None,
        };
        let agen = adapter.get().running_agen(py)?;
        if has_yielded {
            async_gen::wake(&agen);
        }
        self.status.replace(Status::Running);
        Some((
            agen,
            task_context.task.bind(py).clone(),
            task_context.context.bind(py).clone(),
        ))
    }

    /// Create the state that the source had before its first pull.
    pub(super) fn renewed(&self, py: Python<'_>) -> Self {
        let mut fresh = Self::new(
            self.source.clone_ref(py),
            self.number,
            self.name.clone_ref(py),
            self.is_labelled,
            self.adapter.clone_ref(py),
            self.is_foreign,
        );
        fresh.is_cutoff = self.is_cutoff;
        fresh.is_given = self.is_given;
        fresh.is_prompt = self.is_prompt;
        fresh
    }
}

traverse!(SourceState {
    source,
    name,
    adapter,
    task_context,
    parked_on,
    callback,
    keywords,
    status,
    queue
});

traverse!(
    enum Status {
        Paused,
        Running,
        Waiting { wait, future },
    }
);

traverse!(
    enum Outcome {
        Item(item),
        Error(_),
        End,
    }
);

/// Adapt a source. Also returns whether it must be stepped under a task of its own.
pub(super) fn adapt(source: &Bound<'_, PyAny>) -> PyResult<(AnySource, bool)> {
    let py = source.py();
    if let Ok(link) = source.cast::<PyPullLink>() {
        let adapter = Py::new(py, PyAsyncIterSource::over(source))?;
        return Ok((AnySource::AsyncIter(adapter), !PyPullLink::is_plain(link)?));
    }
    let kind = source.get_type();
    if kind.hasattr(intern!(py, "__aiter__"))? {
        let adapter = Py::new(py, PyAsyncIterSource::over(source))?;
        return Ok((AnySource::AsyncIter(adapter), true));
    }
    Ok((
        AnySource::Iter(Py::new(py, PyIterSource::over(source))?),
        false,
    ))
}
