//! `Merge`: the sources that are taken as one, and what drives them.

use std::sync::atomic::AtomicBool;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::callbacks::{Errand, Note};
use super::source::{Key, Slot, Status};
use super::source_task::Anchor;
use super::state::{ErrorPolicy, Phase, State};
use super::task_context::{Identity, check_loop, wrong_loop};
use crate::coroutine::{pin_to_loop, unpin};
use crate::errors;
use crate::object::gc::{self, Traverse};
use crate::object::gil_cell::GilCell;
use crate::object::int_setting::check_int;
use crate::pull::cycle;
use crate::pull::link::PyPullLink;
use crate::runtime::asyncio;
use crate::runtime::blocking_wait::this_thread;
use crate::runtime::fork_guard::ProcessId;
use crate::source::{AnySource, PyAsyncIterSource, PyIterSource};

/// See the top of this room.
#[pyclass(frozen, weakref, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct Merge {
    pub(super) home: ProcessId,
    pub(super) owner: String,
    pub(super) prefetch: usize,
    pub(super) error_policy: ErrorPolicy,
    /// Called with this, gives what is awaited to close it.
    pub(super) closer: Py<PyAny>,
    /// Whether something pulls a stream that takes from it, or did; see `pull/cycle.rs`.
    pub(crate) is_attached: AtomicBool,
    pub(super) state: GilCell<State>,
}

impl Merge {
    /// The name of the owner of the sources, for messages.
    pub(crate) fn owner(&self) -> &str {
        &self.owner
    }

    /// All sources, whatever their state.
    pub(crate) fn all<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyAny>> {
        let state = self.state.borrow(py);
        let sources = state.in_order();
        sources.map(|slot| slot.source.bind(py).clone()).collect()
    }
}

#[pymethods]
impl Merge {
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

    /// Adds a source, which the next pull asks. `label`: one object of any kind, `None` too;
    /// without one the source is called by its number, and its items come bare. Gives that number.
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
        // Notes that the source is pulled: after it a source that is a stream of this merge shows.
        let (feed, is_foreign) = over(source)?;
        if let Ok(link) = source.cast::<PyPullLink>() {
            cycle::reject_cycle(slf, link)?;
        }
        let number = this.state.borrow(py).given;
        let is_labelled = !label.is_empty();
        let name = if is_labelled {
            label.get_item(0)?
        } else {
            number.into_pyobject(py)?.into_any()
        };
        let mut slot = Slot::new(
            source.clone().unbind(),
            number,
            name.unbind(),
            is_labelled,
            feed,
            is_foreign,
        );
        slot.is_given = is_given;
        slot.is_cutoff = is_cutoff;
        // What is to be read ahead is read as soon as it may be.
        slot.is_prompt = this.prefetch == 1;
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
            state.given += 1;
            state.enter(slot);
            state.wake(None)
        };
        wake(py, futures);
        Ok(number)
    }

    /// The source with this number, if it has not come to its end.
    fn source(&self, py: Python<'_>, number: usize) -> Option<Py<PyAny>> {
        let state = self.state.borrow(py);
        let key = *state.order.get(state.place_of(number)?)?;
        let slot = state.slots.get(key).filter(|slot| slot.is_present())?;
        Some(slot.source.clone_ref(py))
    }

    /// The pull streams among the sources that begin a new cycle with it, which is the caller's
    /// business: they may be merges themselves, of merges.
    fn restarting<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        self.check_idle(py)?;
        let streams: Vec<_> = {
            let state = self.state.borrow(py);
            state
                .in_order()
                .filter(|slot| slot.is_given && slot.source.bind(py).is_instance_of::<PyPullLink>())
                .map(|slot| slot.source.clone_ref(py))
                .collect()
        };
        PyTuple::new(py, streams)
    }

    /// The sources that have not come to their end, in the order in which they were given.
    fn sources<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let sources: Vec<_> = self
            .state
            .borrow(py)
            .present()
            .map(|slot| slot.source.clone_ref(py))
            .collect();
        PyTuple::new(py, sources)
    }

    /// Their labels, in the same order.
    fn labels<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let labels: Vec<_> = self
            .state
            .borrow(py)
            .present()
            .map(|slot| slot.name.clone_ref(py))
            .collect();
        PyTuple::new(py, labels)
    }

    /// Whether something is one of them.
    fn holds(&self, source: &Bound<'_, PyAny>) -> bool {
        let state = self.state.borrow(source.py());
        state.members.contains_key(&source.as_ptr().addr())
    }

    /// How many they are.
    #[getter]
    fn size(&self, py: Python<'_>) -> usize {
        self.state.borrow(py).present().count()
    }

    /// Whether a source has a task that has not ended.
    #[getter]
    fn is_running(&self, py: Python<'_>) -> bool {
        !self.state.borrow(py).tasks.is_empty()
    }

    /// Takes a source out and begins to close it; gives the task that does so, if there is one.
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
                let slot = state.slots.get(*key);
                slot.is_some_and(|slot| !slot.is_done && slot.source.is(source))
            };
            let member = state.members.get(&source.as_ptr().addr()).copied();
            // One that has ended, and whose end was not taken, is looked for.
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
            let left = state.dismiss(key);
            state.leave(key);
            state.changes += 1;
            (left, state.wake(None))
        };
        drop(left);
        wake(py, futures);
        Self::close(slf, key)?;
        let task = this.task(py, key);
        this.retire(py, key);
        Ok(task)
    }

    /// The error of closing a source that was removed, once.
    fn parting_error(&self, source: &Bound<'_, PyAny>) -> Option<PyErr> {
        let mut state = self.state.borrow(source.py());
        let place = state
            .parted
            .iter()
            .position(|(parted, _)| parted.is(source))?;
        let (_, error) = state.parted.swap_remove(place);
        Some(error)
    }

    /// Begins to close everything, and gives the tasks that do.
    fn shut<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyList>> {
        let py = slf.py();
        slf.get().check(py)?;
        Self::close_all(slf)?;
        let state = slf.get().state.borrow(py);
        let tasks: Vec<_> = state
            .slots
            .iter()
            .filter_map(|slot| slot.identity.as_ref())
            .map(|identity| identity.task.clone_ref(py))
            .collect();
        drop(state);
        PyList::new(py, tasks)
    }

    /// What was raised when everything was closed, once.
    fn errors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let errors = self.take_errors(py);
        PyList::new(py, errors.into_iter().map(|error| error.into_value(py)))
    }

    /// Nobody holds the stream any more: closes everything in the next turn of its loop. From any
    /// thread, also from a finaliser.
    fn abandon(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let Some(event_loop) = slf.get().known_loop(py) else {
            return Ok(());
        };
        let (is_busy, callbacks) = {
            let mut state = slf.get().state.borrow(py);
            let waits = |slot: &Slot| matches!(slot.status, Status::Waiting { .. });
            let is_busy = !state.tasks.is_empty() || state.slots.iter().any(waits);
            (is_busy, state.callbacks())
        };
        // They refer to the merge, which need not wait for the collector.
        drop(callbacks);
        if !is_busy {
            return Ok(());
        }
        if asyncio::is_closed(&event_loop)? {
            return unpin(&event_loop, slf);
        }
        let note = Note {
            merge: slf.clone().unbind(),
            errand: Errand::LetGo,
        };
        event_loop.call_method1(intern!(py, "call_soon_threadsafe"), (Py::new(py, note)?,))?;
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.closer)?;
        let Some(state) = self.state.peek_for_gc() else {
            return Ok(());
        };
        gc::visit(&visit, |visit| {
            for slot in state.slots.iter() {
                slot.traverse(visit)?;
            }
            for waiter in &state.waiters {
                visit(&waiter.future)?;
            }
            for (source, _) in &state.parted {
                visit(source)?;
            }
            for reference in [&state.event_loop, &state.call_soon, &state.create_future]
                .into_iter()
                .flatten()
            {
                visit(reference)?;
            }
            Ok(())
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        let old = std::mem::take(&mut *self.state.borrow(py));
        drop(old);
    }
}

/// The feed over a source, and whether it has to be stepped under a task of its own.
pub(super) fn over(source: &Bound<'_, PyAny>) -> PyResult<(AnySource, bool)> {
    let py = source.py();
    if let Ok(link) = source.cast::<PyPullLink>() {
        let feed = Py::new(py, PyAsyncIterSource::over(source))?;
        return Ok((AnySource::AsyncIter(feed), !PyPullLink::is_plain(link)?));
    }
    let kind = source.get_type();
    if kind.hasattr(intern!(py, "__aiter__"))? {
        let feed = Py::new(py, PyAsyncIterSource::over(source))?;
        return Ok((AnySource::AsyncIter(feed), true));
    }
    Ok((
        AnySource::Iter(Py::new(py, PyIterSource::over(source))?),
        false,
    ))
}

/// Lets pulls that wait go on.
pub(super) fn wake(py: Python<'_>, futures: Vec<Py<PyAny>>) {
    for future in futures {
        resolve(future.bind(py));
    }
}

/// Resolves a future, if it is still pending.
pub(super) fn resolve(future: &Bound<'_, PyAny>) {
    let py = future.py();
    if let Err(error) = future.call_method1(intern!(py, "set_result"), (py.None(),)) {
        let is_done = future
            .call_method0(intern!(py, "done"))
            .and_then(|done| done.is_truthy())
            .unwrap_or(false);
        // One that was cancelled needs nobody. If the loop is closed nobody runs who could wait.
        // Anything else should be seen.
        if !is_done && !error.is_instance_of::<PyRuntimeError>(py) {
            error.write_unraisable(py, Some(future));
        }
    }
}

impl Merge {
    /// Refuses a fork, the wrong loop, and a source that would wait for itself.
    pub(super) fn check(&self, py: Python<'_>) -> PyResult<()> {
        self.home.check(py, "stream")?;
        if self.is_own(py) {
            return Err(own_source());
        }
        if let Some(known) = self.known_loop(py)
            && self.state.borrow(py).live > 0
            && !asyncio::running_loop(py)?.is(&known)
        {
            return Err(wrong_loop(py));
        }
        Ok(())
    }

    /// Whether one of its sources runs now.
    pub(crate) fn is_own(&self, py: Python<'_>) -> bool {
        asyncio::current_task(py)
            .is_some_and(|task| self.state.borrow(py).tasks.contains(&task.as_ptr().addr()))
    }

    pub(super) fn known_loop<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let state = self.state.borrow(py);
        state
            .event_loop
            .as_ref()
            .map(|known| known.bind(py).clone())
    }

    /// The loop on which sources of it have tasks.
    #[inline]
    pub(super) fn busy_loop<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let state = self.state.borrow(py);
        let known = state.event_loop.as_ref()?;
        (!state.tasks.is_empty()).then(|| known.bind(py).clone())
    }

    /// Refuses a pull that is about to wait in any loop but this one, which drives it.
    pub(super) fn check_loop(&self, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
        let thread = self.state.borrow(event_loop.py()).thread;
        check_loop(event_loop, thread)
    }

    /// The loop that drives it, from the first time that one is needed.
    pub(super) fn event_loop<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if let Some(known) = self.known_loop(py) {
            return Ok(known);
        }
        let running = asyncio::running_loop(py)?;
        let call_soon = running.getattr(intern!(py, "call_soon"))?;
        let create_future = running.getattr(intern!(py, "create_future"))?;
        let mut state = self.state.borrow(py);
        state.event_loop = Some(running.clone().unbind());
        state.thread = this_thread();
        state.call_soon = Some(call_soon.unbind());
        state.create_future = Some(create_future.unbind());
        Ok(running)
    }

    /// A future of that loop, marked as being awaited.
    pub(super) fn future<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let event_loop = self.event_loop(py)?;
        let known = self
            .state
            .borrow(py)
            .create_future
            .as_ref()
            .map(|create| create.clone_ref(py));
        let future = match known {
            Some(create) => create.bind(py).call0()?,
            None => event_loop.call_method0(intern!(py, "create_future"))?,
        };
        future.setattr(intern!(py, "_asyncio_future_blocking"), true)?;
        Ok(future)
    }

    pub(super) fn task(&self, py: Python<'_>, key: Key) -> Option<Py<PyAny>> {
        let state = self.state.borrow(py);
        let identity = state.slots.get(key)?.identity.as_ref()?;
        Some(identity.task.clone_ref(py))
    }

    /// What awaiting closes everything.
    pub(super) fn closing<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.get().closer.bind(slf.py()).call1((slf,))
    }

    pub(super) fn take_errors(&self, py: Python<'_>) -> Vec<PyErr> {
        std::mem::take(&mut self.state.borrow(py).errors)
    }

    /// Gives a source its task and its context.
    pub(super) fn incarnate(slf: &Bound<'_, Self>, key: Key) -> PyResult<Identity> {
        let py = slf.py();
        let this = slf.get();
        let event_loop = this.event_loop(py)?;
        if !asyncio::running_loop(py)?.is(&event_loop) {
            return Err(wrong_loop(py));
        }
        let anchor = Anchor::make(slf, key)?;
        let identity = Identity::new(&event_loop, &anchor, &this.title(py, key))?;
        let kept = identity.clone_ref(py);
        let is_first = {
            let mut state = this.state.borrow(py);
            state.tasks.insert(identity.task.as_ptr().addr());
            if let Some(slot) = state.slots.get_mut(key) {
                slot.identity = Some(kept);
            }
            state.tasks.len() == 1
        };
        if is_first {
            // Somebody has to hold it, as a loop holds its tasks only weakly.
            pin_to_loop(&event_loop, slf)?;
        }
        Ok(identity)
    }
}

/// Why a pull or the closing cannot be.
pub(crate) fn own_source() -> PyErr {
    PyRuntimeError::new_err(
        "a source cannot pull or close the merge that it is part of: it would wait for itself",
    )
}
