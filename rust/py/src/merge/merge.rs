//! `PyMerge`: the sources of a merge and the methods that Python calls. `headrace/pull/_combination.py` makes it.

use std::sync::atomic::AtomicBool;

use headrace_core::sync::Key;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::callbacks::{LoopAction, LoopCallback};
use super::source::{SourceState, Status, adapt};
use super::state::{ErrorPolicy, EventLoop, Phase, State};
use super::task_context::{check_loop, wrong_loop};
use crate::coroutine::unpin;
use crate::errors;
use crate::object::gc::{self, Traverse};
use crate::object::gil_cell::GilCell;
use crate::object::int_setting::check_int;
use crate::pull::cycle;
use crate::pull::link::PyPullLink;
use crate::runtime::asyncio;
use crate::runtime::blocking_wait::this_thread;
use crate::runtime::fork_guard::ProcessId;

/// Source streams that are read as one, see the [module](super).
#[pyclass(name = "Merge", frozen, weakref, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyMerge {
    pub(super) home: ProcessId,
    pub(super) owner: String,
    pub(super) prefetch: usize,
    pub(super) error_policy: ErrorPolicy,
    /// Called with the merge, returns the awaitable that closes it.
    pub(super) closer: Py<PyAny>,
    /// Whether a stream that reads from this merge has been pulled; see `pull/cycle.rs`.
    pub(crate) is_attached: AtomicBool,
    pub(super) state: GilCell<State>,
}

impl PyMerge {
    /// Return the name of the stream in messages.
    pub(crate) fn owner(&self) -> &str {
        &self.owner
    }

    /// List all sources in any state.
    pub(crate) fn all<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyAny>> {
        let state = self.state.borrow(py);
        let sources = state.in_order();
        sources.map(|entry| entry.source.bind(py).clone()).collect()
    }
}

#[pymethods]
impl PyMerge {
    #[new]
    #[pyo3(signature = (owner, closer, *, prefetch, errors))]
    fn new(
        owner: String,
        closer: &Bound<'_, PyAny>,
        prefetch: &Bound<'_, PyAny>,
        errors: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let error_policy = match errors.extract::<&str>() {
            Ok("raise") => ErrorPolicy::Raise,
            Ok("skip") => ErrorPolicy::Skip,
            Ok("stop") => ErrorPolicy::Stop,
            _ => {
                return Err(PyValueError::new_err(format!(
                    "errors must be \"raise\", \"skip\" or \"stop\", got {}",
                    errors::describe(errors)
                )));
            }
        };
        let prefetch = usize::try_from(check_int("prefetch", 1, prefetch)?).unwrap_or(usize::MAX);
        Ok(Self {
            home: ProcessId::current(),
            owner,
            prefetch,
            error_policy,
            closer: closer.clone().unbind(),
            is_attached: AtomicBool::new(false),
            state: GilCell::default(),
        })
    }

    /// Add a source, which the next pull polls, and return its number. `label` is empty or one object (which may be
    /// `None`). Without a label the source is named by its number, and its items are delivered without a label.
    #[pyo3(signature = (source, *label, is_given = false, is_cutoff = false))]
    fn add(
        slf: &Bound<'_, Self>,
        source: &Bound<'_, PyAny>,
        label: &Bound<'_, PyTuple>,
        is_given: bool,
        is_cutoff: bool,
    ) -> PyResult<usize> {
        let py = slf.py();
        let this = slf.get();
        this.home.check(py, "stream")?;
        // Marks the source as attached. Afterwards a source that reads from this merge can be recognised.
        let (adapter, is_foreign) = adapt(source)?;
        if let Ok(link) = source.cast::<PyPullLink>() {
            cycle::reject_cycle(slf, link)?;
        }
        let number = this.state.borrow(py).added;
        let is_labelled = !label.is_empty();
        let name = if is_labelled {
            label.get_item(0)?
        } else {
            number.into_pyobject(py)?.into_any()
        };
        let mut entry = SourceState::new(
            source.clone().unbind(),
            number,
            name.unbind(),
            is_labelled,
            adapter,
            is_foreign,
        );
        entry.is_given = is_given;
        entry.is_cutoff = is_cutoff;
        // A prompt source is polled late, which would defeat reading ahead.
        entry.is_prompt = this.prefetch == 1;
        let futures = {
            let mut state = this.state.borrow(py);
            if state.phase != Phase::Open {
                drop(state);
                return Err(errors::refused(
                    py,
                    "ClosedError",
                    "the stream has ended or was closed; no source can be added any more",
                    source.clone(),
                ));
            }
            state.added += 1;
            state.add_source(entry);
            state.wake(None)
        };
        wake(py, futures);
        Ok(number)
    }

    /// Return the source with this number, if it has not ended.
    fn source(&self, py: Python<'_>, number: usize) -> Option<Py<PyAny>> {
        let state = self.state.borrow(py);
        let key = *state.order.get(state.index_of(number)?)?;
        let entry = state.sources.get(key).filter(|entry| entry.is_present())?;
        Some(entry.source.clone_ref(py))
    }

    /// List the pull streams among the sources that restart with the merge. The caller restarts them, without
    /// recursion: they may be merges themselves.
    fn restarting<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        self.check_idle(py)?;
        let is_stream = |entry: &SourceState| entry.source.bind(py).is_instance_of::<PyPullLink>();
        let restarts = |entry: &SourceState| entry.is_given && is_stream(entry);
        self.list(py, restarts, |entry| entry.source.clone_ref(py))
    }

    /// List the sources that have not ended, in the order in which they were added.
    fn sources<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        self.list(py, SourceState::is_present, |entry| {
            entry.source.clone_ref(py)
        })
    }

    /// List the labels of [`Self::sources`].
    fn labels<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        self.list(py, SourceState::is_present, |entry| {
            entry.name.clone_ref(py)
        })
    }

    /// Return whether an object is one of the sources that have not ended.
    fn holds(&self, source: &Bound<'_, PyAny>) -> bool {
        let state = self.state.borrow(source.py());
        state.members.contains_key(&source.as_ptr().addr())
    }

    /// Return the number of sources that have not ended.
    #[getter]
    fn size(&self, py: Python<'_>) -> usize {
        let state = self.state.borrow(py);
        state.in_order().filter(|entry| entry.is_present()).count()
    }

    /// Return whether a source has a task that has not ended.
    #[getter]
    fn is_running(&self, py: Python<'_>) -> bool {
        !self.state.borrow(py).tasks.is_empty()
    }

    /// Remove a source and start closing it. Returns the task that closes it, if there is one.
    fn remove<'py>(
        slf: &Bound<'py, Self>,
        source: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Py<PyAny>>> {
        let py = slf.py();
        let this = slf.get();
        this.check(py)?;
        let found = {
            let state = this.state.borrow(py);
            let is_it = |key: &Key| {
                let entry = state.sources.get(*key);
                entry.is_some_and(|entry| !entry.is_done && entry.source.is(source))
            };
            let member = state.members.get(&source.as_ptr().addr()).copied();
            // `members` lacks a source that has ended and whose end was not taken.
            member
                .filter(is_it)
                .or_else(|| state.order.iter().copied().find(is_it))
        };
        let Some(key) = found else {
            return Err(PyValueError::new_err(format!(
                "source must be one of the sources, got {}",
                errors::describe(source)
            )));
        };
        let (left, futures) = {
            let mut state = this.state.borrow(py);
            let left = state.discard(key);
            state.remove_from_order(key);
            state.changes += 1;
            (left, state.wake(None))
        };
        drop(left);
        wake(py, futures);
        Self::at(slf, key).close()?;
        let task = Self::at(slf, key).with(|entry| entry.task(py));
        Self::at(slf, key).forget();
        Ok(task.flatten())
    }

    /// Take the error of closing a removed source.
    fn take_removal_error(&self, source: &Bound<'_, PyAny>) -> Option<PyErr> {
        let mut state = self.state.borrow(source.py());
        let index = state
            .removed_errors
            .iter()
            .position(|(removed, _)| removed.is(source))?;
        let (_, error) = state.removed_errors.swap_remove(index);
        Some(error)
    }

    /// Start closing all sources, and return the tasks that close them.
    fn start_closing<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyList>> {
        let py = slf.py();
        slf.get().check(py)?;
        Self::close_all(slf)?;
        let state = slf.get().state.borrow(py);
        let sources = state.sources.iter();
        let tasks: Vec<_> = sources.filter_map(|entry| entry.task(py)).collect();
        drop(state);
        PyList::new(py, tasks)
    }

    /// Take the errors of closing all sources.
    fn closing_errors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let errors = self.take_errors(py);
        PyList::new(py, errors.into_iter().map(|error| error.into_value(py)))
    }

    /// Handle a dropped stream: close all sources in the next iteration of its event loop. May be called from any
    /// thread and from a finaliser.
    fn abandon(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let Some(event_loop) = slf.get().known_loop(py) else {
            return Ok(());
        };
        let (is_busy, callbacks) = {
            let mut state = slf.get().state.borrow(py);
            let waits = |entry: &SourceState| matches!(entry.status, Status::Waiting { .. });
            let is_busy = !state.tasks.is_empty() || state.sources.iter().any(waits);
            (is_busy, state.callbacks())
        };
        // They refer to the merge: dropping them breaks the reference cycle.
        drop(callbacks);
        if !is_busy {
            return Ok(());
        }
        if asyncio::is_closed(&event_loop)? {
            return unpin(&event_loop, slf);
        }
        let callback = LoopCallback::make(slf, LoopAction::CloseAbandoned)?;
        event_loop.call_method1(intern!(py, "call_soon_threadsafe"), (callback,))?;
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| {
            self.closer.traverse(visit)?;
            self.state.traverse(visit)
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        drop(self.state.take(py));
    }
}

/// Wake waiting pulls.
pub(super) fn wake(py: Python<'_>, futures: Vec<Py<PyAny>>) {
    for future in futures {
        resolve(future.bind(py));
    }
}

/// Resolve a future unless it is done.
pub(super) fn resolve(future: &Bound<'_, PyAny>) {
    let py = future.py();
    if let Err(error) = future.call_method1(intern!(py, "set_result"), (py.None(),)) {
        let is_done = future
            .call_method0(intern!(py, "done"))
            .and_then(|done| done.is_truthy())
            .unwrap_or(false);
        // A cancelled future needs no result, and in a closed event loop no task waits for one. Report any other error.
        if !is_done && !error.is_instance_of::<PyRuntimeError>(py) {
            error.write_unraisable(py, Some(future));
        }
    }
}

impl PyMerge {
    /// Fail in a forked child, in another event loop, and in a source that would wait for itself.
    pub(super) fn check(&self, py: Python<'_>) -> PyResult<()> {
        self.home.check(py, "stream")?;
        if self.is_own(py) {
            return Err(own_source_error());
        }
        if let Some(known) = self.known_loop(py)
            && self.state.borrow(py).live > 0
            && !asyncio::running_loop(py)?.is(&known)
        {
            return Err(wrong_loop(py));
        }
        Ok(())
    }

    /// Return whether the current task is that of a source.
    pub(crate) fn is_own(&self, py: Python<'_>) -> bool {
        asyncio::current_task(py)
            .is_some_and(|task| self.state.borrow(py).tasks.contains(&task.as_ptr().addr()))
    }

    pub(super) fn known_loop<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let state = self.state.borrow(py);
        let known = state.event_loop.as_ref()?;
        Some(known.object.bind(py).clone())
    }

    /// Return the event loop, if sources have tasks on it.
    #[inline]
    pub(super) fn busy_loop<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let state = self.state.borrow(py);
        let known = state.event_loop.as_ref()?;
        (!state.tasks.is_empty()).then(|| known.object.bind(py).clone())
    }

    /// Fail unless `event_loop`, which drives the merge, is running in this thread.
    pub(super) fn check_loop(&self, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
        let state = self.state.borrow(event_loop.py());
        let thread = state.event_loop.as_ref().map_or(0, |known| known.thread);
        drop(state);
        check_loop(event_loop, thread)
    }

    /// Return the event loop that drives the merge: the running one of the first call.
    pub(super) fn event_loop<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.loop_object(py, |known| &known.object)
    }

    /// Return that event loop, or one of its methods.
    pub(super) fn loop_object<'py>(
        &self,
        py: Python<'py>,
        object: impl Fn(&EventLoop) -> &Py<PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if let Some(known) = &self.state.borrow(py).event_loop {
            return Ok(object(known).bind(py).clone());
        }
        let running = asyncio::running_loop(py)?;
        let event_loop = EventLoop {
            thread: this_thread(),
            call_soon: running.getattr(intern!(py, "call_soon"))?.unbind(),
            create_future: running.getattr(intern!(py, "create_future"))?.unbind(),
            object: running.unbind(),
        };
        let found = object(&event_loop).bind(py).clone();
        self.state.borrow(py).event_loop = Some(event_loop);
        Ok(found)
    }

    /// Create a future of that loop, marked as being awaited.
    pub(super) fn future<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let future = self
            .loop_object(py, |known| &known.create_future)?
            .call0()?;
        future.setattr(intern!(py, "_asyncio_future_blocking"), true)?;
        Ok(future)
    }

    /// List a part of each source that passes the filter, in the order in which the sources were added.
    fn list<'py>(
        &self,
        py: Python<'py>,
        filter: impl Fn(&SourceState) -> bool,
        part: impl Fn(&SourceState) -> Py<PyAny>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let parts: Vec<_> = {
            let state = self.state.borrow(py);
            let sources = state.in_order().filter(|entry| filter(entry));
            sources.map(part).collect()
        };
        PyTuple::new(py, parts)
    }

    /// Return the awaitable that closes the merge.
    pub(super) fn closing<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.get().closer.bind(slf.py()).call1((slf,))
    }

    pub(super) fn take_errors(&self, py: Python<'_>) -> Vec<PyErr> {
        std::mem::take(&mut self.state.borrow(py).errors)
    }
}

/// Create the error of a source that pulls or closes its own merge.
pub(crate) fn own_source_error() -> PyErr {
    PyRuntimeError::new_err(
        "a source cannot pull or close the merge that it is part of: it would wait for itself",
    )
}
