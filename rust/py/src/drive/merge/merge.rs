//! `Merge`: the sources that are taken as one, and what drives them.

use std::collections::{HashSet, VecDeque};

use pyo3::exceptions::{PyException, PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PySet, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::anchor::Anchor;
use super::identity::{Entered, Identity, InContext, wrong_loop};
use super::resumption::{Errand, Note, Resumption};
use super::slot::{Key, Outcome, Slot, Slots, Status};
use crate::asyncio;
use crate::awaitable::Inner;
use crate::drive::budget;
use crate::drive::pull::link::PullLink;
use crate::errors;
use crate::feed::{AnyFeed, Drawn, ForeignFeed, IterFeed, Wait, agen};
use crate::fork::Home;
use crate::gc;
use crate::gil::GilCell;
use crate::number::whole;

/// What becomes of an error of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnError {
    /// A pull raises it, and the stream goes on.
    Raise,
    /// It is dropped.
    Skip,
    /// A pull raises it, and it was the last one.
    Stop,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    #[default]
    Open,
    /// Everything is being closed, or is closed.
    Closed,
}

/// Where a step is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// Inside a pull.
    Pull,
    /// In a callback of the loop, which has entered the source's context.
    Callback,
    /// In a step of the source's own task.
    Task,
}

/// A pull that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) future: Py<PyAny>,
    /// Only this source will do.
    pub(super) target: Option<Key>,
}

/// Everything of a merge that changes.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "what the views ask for is independent of one another"
)]
pub(super) struct State {
    pub(super) slots: Slots,
    /// The sources, in the order in which they were given and added.
    pub(super) order: Vec<Key>,
    /// Those to be asked by the next pull.
    pub(super) wanted: VecDeque<Key>,
    /// Those that have something, in the order in which it came, for who takes what is first. Some
    /// may have been emptied by somebody else meanwhile.
    pub(super) ready: VecDeque<Key>,
    pub(super) keeps_ready: bool,
    /// Whose turn it is, for who takes them in turn.
    pub(super) ring: VecDeque<Key>,
    pub(super) keeps_ring: bool,
    /// Nobody is asked but the head of the ring.
    pub(super) asks_head_only: bool,
    pub(super) waiters: Vec<Waiter>,
    /// Those, cutoffs aside, whose end was not taken yet.
    pub(super) active: usize,
    /// Those that are not closed yet.
    pub(super) live: usize,
    /// A cutoff gave something.
    pub(super) is_cut: bool,
    /// Errors that belong to no item: those of closing a source that ended.
    pub(super) complaints: VecDeque<PyErr>,
    /// Errors of closing everything.
    errors: Vec<PyErr>,
    /// Errors of closing those that were removed.
    parted: Vec<(Py<PyAny>, PyErr)>,
    pub(super) phase: Phase,
    event_loop: Option<Py<PyAny>>,
    call_soon: Option<Py<PyAny>>,
    create_future: Option<Py<PyAny>>,
    /// The tasks of the sources, by address.
    tasks: HashSet<usize>,
    /// What they are taken from, by address: all that have not ended.
    members: HashSet<usize>,
    given: usize,
    /// Counts the changes of the list of sources.
    pub(super) changes: u64,
    is_inspecting: bool,
}

/// See the top of this room.
#[pyclass(frozen, weakref, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct Merge {
    home: Home,
    owner: String,
    eager: usize,
    pub(super) on_error: OnError,
    /// Called with this, gives what is awaited to close it.
    closer: Py<PyAny>,
    pub(super) state: GilCell<State>,
}

#[pymethods]
impl Merge {
    #[new]
    #[pyo3(signature = (owner, closer, *, eager, on_error))]
    fn new(
        owner: String,
        closer: &Bound<'_, PyAny>,
        eager: &Bound<'_, PyAny>,
        on_error: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let on_error = match on_error.extract::<&str>() {
            Ok("raise") => OnError::Raise,
            Ok("skip") => OnError::Skip,
            Ok("stop") => OnError::Stop,
            _ => {
                return Err(PyValueError::new_err(format!(
                    "on_error must be \"raise\", \"skip\" or \"stop\", got {}",
                    errors::describe(on_error)
                )));
            }
        };
        let eager = usize::try_from(whole("eager", 1, eager)?).unwrap_or(usize::MAX);
        Ok(Self {
            home: Home::here(),
            owner,
            eager,
            on_error,
            closer: closer.clone().unbind(),
            state: GilCell::default(),
        })
    }

    /// Adds a source, which the next pull asks. `name`: its label; without one it is called by its
    /// number, and its items come bare.
    #[pyo3(signature = (source, name = None, *, is_given = false, is_cutoff = false))]
    fn add(
        slf: &Bound<'_, Self>,
        source: &Bound<'_, PyAny>,
        name: Option<&Bound<'_, PyAny>>,
        is_given: bool,
        is_cutoff: bool,
    ) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        this.home.check(py, "stream")?;
        let (feed, is_foreign) = over(source)?;
        let number = this.state.borrow(py).given;
        let is_labelled = name.is_some();
        let name = match name {
            Some(name) => name.clone(),
            None => number.into_pyobject(py)?.into_any(),
        };
        let mut slot = Slot::new(
            source.clone().unbind(),
            name.unbind(),
            is_labelled,
            feed,
            is_foreign,
        );
        slot.is_given = is_given;
        slot.is_cutoff = is_cutoff;
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
        Ok(())
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
        state.members.contains(&source.as_ptr().addr())
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
            state.order.iter().copied().find(|key| {
                state
                    .slots
                    .get(*key)
                    .is_some_and(|slot| !slot.is_done && slot.source.is(source))
            })
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
            state.order.retain(|other| *other != key);
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
        if event_loop
            .call_method0(intern!(py, "is_closed"))?
            .is_truthy()?
        {
            roots(py)?.discard(slf)?;
            return Ok(());
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
        gc::show(&visit, |see| {
            for slot in state.slots.iter() {
                slot.traverse(see)?;
            }
            for waiter in &state.waiters {
                see(&waiter.future)?;
            }
            for (source, _) in &state.parted {
                see(source)?;
            }
            for reference in [&state.event_loop, &state.call_soon, &state.create_future]
                .into_iter()
                .flatten()
            {
                see(reference)?;
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
fn over(source: &Bound<'_, PyAny>) -> PyResult<(AnyFeed, bool)> {
    let py = source.py();
    if let Ok(link) = source.cast::<PullLink>() {
        let feed = Py::new(py, ForeignFeed::over(source))?;
        return Ok((AnyFeed::Foreign(feed), !PullLink::is_plain(link)?));
    }
    let kind = source.get_type();
    if kind.hasattr(intern!(py, "__aiter__"))? {
        let feed = Py::new(py, ForeignFeed::over(source))?;
        return Ok((AnyFeed::Foreign(feed), true));
    }
    Ok((AnyFeed::Iter(Py::new(py, IterFeed::over(source))?), false))
}

/// Merges with tasks: somebody has to hold those, as a loop holds its tasks only weakly.
fn roots(py: Python<'_>) -> PyResult<&Bound<'_, PySet>> {
    static ROOTS: PyOnceLock<Py<PySet>> = PyOnceLock::new();
    Ok(ROOTS
        .get_or_try_init(py, || PyResult::Ok(PySet::empty(py)?.unbind()))?
        .bind(py))
}

/// Lets pulls that wait go on.
pub(super) fn wake(py: Python<'_>, futures: Vec<Py<PyAny>>) {
    for future in futures {
        resolve(future.bind(py));
    }
}

/// Resolves a future, if it is still pending.
fn resolve(future: &Bound<'_, PyAny>) {
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

impl State {
    /// The sources that have not come to their end.
    fn present(&self) -> impl Iterator<Item = &Slot> {
        self.order
            .iter()
            .filter_map(|key| self.slots.get(*key))
            .filter(|slot| !slot.has_ended && !slot.is_closing && !slot.is_done && !slot.is_cutoff)
    }

    /// Takes the callbacks of those that wait for nothing.
    fn callbacks(&mut self) -> Vec<Py<PyTuple>> {
        self.slots
            .iter_mut()
            .filter(|slot| matches!(slot.status, Status::Standing))
            .filter_map(|slot| slot.resumption.take())
            .collect()
    }

    /// A source comes in.
    fn enter(&mut self, slot: Slot) {
        let is_cutoff = slot.is_cutoff;
        self.changes += 1;
        self.members.insert(slot.source.as_ptr().addr());
        let key = self.slots.insert(slot);
        self.order.push(key);
        self.enlist(key, is_cutoff);
    }

    /// A source begins.
    fn enlist(&mut self, key: Key, is_cutoff: bool) {
        self.live += 1;
        self.active += usize::from(!is_cutoff);
        if self.keeps_ring {
            self.ring.push_back(key);
        }
        if !self.asks_head_only {
            self.want(key);
        }
    }

    /// The next one to be asked.
    #[inline]
    fn next_wanted(&mut self, eager: usize) -> Option<Key> {
        loop {
            let key = self.wanted.pop_front()?;
            if let Some(slot) = self.slots.get_mut(key) {
                slot.is_wanted = false;
                if slot.may_be_asked(eager) {
                    return Some(key);
                }
            }
        }
    }

    /// It is to be asked by the next pull.
    #[inline]
    pub(super) fn want(&mut self, key: Key) {
        if let Some(slot) = self.slots.get_mut(key)
            && !slot.is_wanted
        {
            slot.is_wanted = true;
            self.wanted.push_back(key);
        }
    }

    /// An item came of a source, and nothing else is to be seen to. Gives it back if something is.
    #[inline]
    fn accept<'py>(
        &mut self,
        key: Key,
        item: Bound<'py, PyAny>,
        eager: usize,
    ) -> Result<(), Bound<'py, PyAny>> {
        let Some(slot) = self.slots.get_mut(key) else {
            return Err(item);
        };
        if slot.is_closing || slot.is_cutoff || eager > 1 || !self.waiters.is_empty() {
            return Err(item);
        }
        slot.status = Status::Standing;
        slot.queue.push_back(Outcome::Item(item.unbind()));
        if self.keeps_ready && slot.hints < slot.queue.len() {
            slot.hints += 1;
            self.ready.push_back(key);
        }
        Ok(())
    }

    /// Something came of a source. Gives whom to wake.
    #[inline]
    fn push(&mut self, key: Key, outcome: Outcome) -> Vec<Py<PyAny>> {
        let is_end = matches!(outcome, Outcome::End);
        let Some(slot) = self.slots.get_mut(key) else {
            return Vec::new();
        };
        if slot.is_cutoff && !matches!(outcome, Outcome::Error(_)) {
            if is_end {
                return Vec::new();
            }
            self.is_cut = true;
            return self.wake(None);
        }
        slot.queue.push_back(outcome);
        if self.keeps_ready && slot.hints < slot.queue.len() {
            slot.hints += 1;
            self.ready.push_back(key);
        }
        if self.waiters.is_empty() {
            return Vec::new();
        }
        self.wake((!is_end).then_some(key))
    }

    /// Those who wait for a source, or for anything; all of them without one.
    #[must_use]
    pub(super) fn wake(&mut self, key: Option<Key>) -> Vec<Py<PyAny>> {
        let concerns = |waiter: &Waiter| match (waiter.target, key) {
            (Some(target), Some(key)) => target == key,
            _ => true,
        };
        let (woken, rest) = std::mem::take(&mut self.waiters)
            .into_iter()
            .partition::<Vec<_>, _>(concerns);
        self.waiters = rest;
        woken.into_iter().map(|waiter| waiter.future).collect()
    }

    /// The consumer is through with a source. Gives what it had.
    #[must_use]
    pub(super) fn dismiss(&mut self, key: Key) -> VecDeque<Outcome> {
        let Some(slot) = self.slots.get_mut(key) else {
            return VecDeque::new();
        };
        if !slot.has_ended {
            self.members.remove(&slot.source.as_ptr().addr());
        }
        if !slot.is_done {
            slot.is_done = true;
            self.active -= usize::from(!slot.is_cutoff);
        }
        std::mem::take(&mut slot.queue)
    }
}

impl Merge {
    /// Refuses a fork, the wrong loop, and a source that would wait for itself.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
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

    fn known_loop<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let state = self.state.borrow(py);
        state
            .event_loop
            .as_ref()
            .map(|known| known.bind(py).clone())
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

    fn task(&self, py: Python<'_>, key: Key) -> Option<Py<PyAny>> {
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

    /// Asks everybody who is wanted. `true`: let the loop have a turn first.
    ///
    /// Async generators that have begun, which is what most sources are, go a way of their own: one
    /// after another, with the consumer's task restored after the last of them only.
    #[inline]
    pub(super) fn ask(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let py = slf.py();
        let this = slf.get();
        let none = py.None().into_bound(py);
        let mut entered = Entered::default();
        let mut is_first = true;
        loop {
            let mut state = this.state.borrow(py);
            let Some(key) = state.next_wanted(this.eager) else {
                return Ok(false);
            };
            // The first is what the pull itself has paid for.
            if !is_first && budget::spend(py) {
                state.want(key);
                state.wanted.rotate_right(1);
                return Ok(true);
            }
            is_first = false;
            let State {
                slots, event_loop, ..
            } = &mut *state;
            let (Some((agen, task, context)), Some(event_loop)) = (
                slots.get_mut(key).and_then(|slot| slot.run(py)),
                event_loop.as_ref(),
            ) else {
                drop(state);
                entered.leave();
                if let Err(error) = Self::step(slf, key, From::Pull, None) {
                    this.state.borrow(py).want(key);
                    return Err(error);
                }
                if budget::take_rested() {
                    return Ok(true);
                }
                continue;
            };
            let event_loop = event_loop.bind(py).clone();
            drop(state);
            let inside = match entered.enter(&event_loop, task, true) {
                Ok(()) => InContext::enter(&context),
                Err(error) => Err(error),
            };
            let inside = match inside {
                Ok(inside) => inside,
                Err(error) => {
                    this.stand(py, key);
                    this.state.borrow(py).want(key);
                    return Err(error);
                }
            };
            let stepped = agen::step(&agen, &none);
            drop(inside);
            if let Ok(agen::Stepped::Item(item)) = stepped {
                let accepted = this.state.borrow(py).accept(key, item, this.eager);
                if let Err(item) = accepted {
                    Self::came(slf, key, Outcome::Item(item.unbind()))?;
                }
            } else {
                entered.leave();
                Self::went(slf, key, stepped)?;
                if budget::take_rested() {
                    return Ok(true);
                }
            }
        }
    }

    /// What the step of a generator came to, other than an item.
    #[cold]
    fn went(slf: &Bound<'_, Self>, key: Key, stepped: PyResult<agen::Stepped<'_>>) -> PyResult<()> {
        let py = slf.py();
        let (feed, identity) = {
            let state = slf.get().state.borrow(py);
            let Some(slot) = state.slots.get(key) else {
                return Ok(());
            };
            let identity = slot.identity.as_ref();
            (
                slot.feed.clone_ref(py),
                identity.map(|identity| identity.clone_ref(py)),
            )
        };
        let AnyFeed::Foreign(foreign) = &feed else {
            unreachable!("only a foreign source is an async generator")
        };
        match foreign.get().agen_step(stepped) {
            Ok(Drawn::Wait(wait, object)) => match Self::suspend(slf, key, wait, &object)? {
                None => Ok(()),
                Some(error) => Self::step(slf, key, From::Pull, Some(error)),
            },
            Ok(Drawn::End) => Self::ended(slf, key),
            Ok(Drawn::Item(item)) => Self::came(slf, key, Outcome::Item(item.unbind())),
            Err(error) => Self::failed(slf, key, identity.as_ref(), &feed, error),
        }
    }

    /// One step of a source: up to its next item, its end, or a wait.
    fn step(
        slf: &Bound<'_, Self>,
        key: Key,
        from: From,
        mut thrown: Option<PyErr>,
    ) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        loop {
            let (feed, mut identity, wait, is_foreign, struck) = {
                let mut state = this.state.borrow(py);
                let Some(slot) = state.slots.get_mut(key) else {
                    return Ok(());
                };
                if matches!(slot.status, Status::Running) {
                    return Ok(());
                }
                let status = std::mem::replace(&mut slot.status, Status::Running);
                let identity = match &slot.identity {
                    Some(identity) if slot.is_foreign => Some(identity.clone_ref(py)),
                    _ => None,
                };
                (
                    slot.feed.clone_ref(py),
                    identity,
                    status,
                    slot.is_foreign,
                    slot.struck.take(),
                )
            };
            if is_foreign && identity.is_none() {
                match Self::incarnate(slf, key) {
                    Ok(made) => identity = Some(made),
                    Err(error) => {
                        this.stand(py, key);
                        return Err(error);
                    }
                }
            }
            if struck.is_some()
                && thrown.is_none()
                && identity
                    .as_ref()
                    .is_some_and(|identity| identity.is_cancelled(py))
            {
                thrown = struck;
            }
            let error = thrown.take();
            let draw = || {
                Ok(match (wait, error) {
                    (Status::Waiting { wait, .. }, None) => {
                        feed.resume(*wait, Ok(&py.None().into_bound(py)), py)
                    }
                    (Status::Waiting { wait, .. }, Some(error)) => {
                        feed.resume(*wait, Err(error), py)
                    }
                    (_, None) => match feed.ready(py) {
                        Some(item) => Ok(Drawn::Item(item)),
                        None => feed.draw(py),
                    },
                    (_, Some(error)) => feed.strike(py, error),
                })
            };
            let drawn = match (&identity, from) {
                (Some(identity), From::Pull | From::Callback) => {
                    let event_loop = this.event_loop(py)?;
                    identity.run(&event_loop, from == From::Callback, draw)
                }
                // A native source that is polled in place spends what the pull has.
                (None, From::Pull) => {
                    let _lent = budget::lend_on(py);
                    draw()
                }
                _ => draw(),
            };
            let drawn = match drawn {
                Ok(drawn) => drawn,
                // It was not stepped at all.
                Err(error) => {
                    this.stand(py, key);
                    return Err(error);
                }
            };
            match drawn {
                Ok(Drawn::Item(item)) => {
                    return Self::came(slf, key, Outcome::Item(item.unbind()));
                }
                Ok(Drawn::End) => return Self::ended(slf, key),
                Ok(Drawn::Wait(wait, object)) => match Self::suspend(slf, key, wait, &object)? {
                    None => return Ok(()),
                    Some(error) => thrown = Some(error),
                },
                Err(error) => return Self::failed(slf, key, identity.as_ref(), &feed, error),
            }
        }
    }

    fn stand(&self, py: Python<'_>, key: Key) {
        if let Some(slot) = self.state.borrow(py).slots.get_mut(key) {
            slot.status = Status::Standing;
        }
    }

    /// An item, or an error that is not the end of its source.
    #[inline]
    fn came(slf: &Bound<'_, Self>, key: Key, outcome: Outcome) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let futures = {
            let mut state = this.state.borrow(py);
            let Some(slot) = state.slots.get_mut(key) else {
                return Ok(());
            };
            slot.status = Status::Standing;
            if slot.is_closing {
                drop(state);
                drop(outcome);
                return Self::came_out(slf, key);
            }
            let futures = state.push(key, outcome);
            if this.eager > 1 {
                state.want(key);
            }
            futures
        };
        if !futures.is_empty() {
            wake(py, futures);
        }
        Ok(())
    }

    /// A source came to its end: it is closed at once.
    fn ended(slf: &Bound<'_, Self>, key: Key) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let futures = {
            let mut state = this.state.borrow(py);
            let Some(slot) = state.slots.get_mut(key) else {
                return Ok(());
            };
            slot.status = Status::Standing;
            slot.has_ended = true;
            if slot.is_closing {
                drop(state);
                return Self::came_out(slf, key);
            }
            let source = slot.source.as_ptr().addr();
            state.members.remove(&source);
            state.push(key, Outcome::End)
        };
        wake(py, futures);
        Self::close(slf, key)
    }

    /// A source raised.
    fn failed(
        slf: &Bound<'_, Self>,
        key: Key,
        identity: Option<&Identity>,
        feed: &AnyFeed,
        error: PyErr,
    ) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let is_cancelled = asyncio::is_cancelled_error(py, &error);
        let (is_closing, was_cancelled) = this
            .state
            .borrow(py)
            .slots
            .get(key)
            .map_or((true, false), |slot| (slot.is_closing, slot.was_cancelled));
        if is_closing {
            // A pull that was cancelled in order to close its source says that it was.
            let is_ours = is_cancelled && was_cancelled;
            if identity.is_some() && !is_ours {
                let error = this.named(py, key, error);
                this.blame(py, key, error);
            }
            this.stand(py, key);
            return Self::came_out(slf, key);
        }
        let was_killed = is_cancelled && identity.is_some_and(|identity| identity.is_cancelled(py));
        let error = this.named(py, key, error);
        if this.on_error == OnError::Skip && error.is_instance_of::<PyException>(py) {
            let futures = {
                let mut state = this.state.borrow(py);
                if let Some(slot) = state.slots.get_mut(key) {
                    slot.status = Status::Standing;
                }
                state.want(key);
                state.wake(Some(key))
            };
            wake(py, futures);
        } else {
            Self::came(slf, key, Outcome::Error(Box::new(error)))?;
        }
        // One that cannot even begin would raise for ever; one that was cancelled from outside is
        // not to be asked again.
        if was_killed || !feed.has_begun(py) {
            return Self::ended(slf, key);
        }
        Ok(())
    }

    /// A source that was inside an item when it was to be closed has come out of it.
    fn came_out(slf: &Bound<'_, Self>, key: Key) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let task = {
            let mut state = this.state.borrow(py);
            let Some(slot) = state.slots.get_mut(key) else {
                return Ok(());
            };
            if !slot.is_foreign {
                return Ok(());
            }
            let was_cancelled = std::mem::take(&mut slot.was_cancelled);
            match &slot.identity {
                Some(identity) if was_cancelled => Some(identity.task.clone_ref(py)),
                _ => None,
            }
        };
        if let Some(task) = task {
            // What closes the source finds a task that nobody cancels.
            task.bind(py).call_method0(intern!(py, "uncancel"))?;
        }
        Self::release(slf, key)
    }

    /// A source waits for `object`. Gives an error to be thrown into it if that cannot be awaited.
    fn suspend(
        slf: &Bound<'_, Self>,
        key: Key,
        wait: Box<Wait>,
        object: &Bound<'_, PyAny>,
    ) -> PyResult<Option<PyErr>> {
        let py = slf.py();
        let this = slf.get();
        let event_loop = this.event_loop(py)?;
        let refused = if object.is_none() {
            None
        } else {
            refuse(&event_loop, object)?
        };
        let awaits = (!object.is_none() && refused.is_none()).then(|| object.clone().unbind());
        let (resumption, keywords, call_soon, struck) = {
            let mut state = this.state.borrow(py);
            let call_soon = state.call_soon.as_ref().map(|call| call.clone_ref(py));
            let Some(slot) = state.slots.get_mut(key) else {
                return Ok(None);
            };
            slot.status = Status::Waiting {
                wait,
                future: awaits,
            };
            let keywords = match &slot.identity {
                Some(identity) if slot.is_foreign => Some(identity.keywords.clone_ref(py)),
                _ => None,
            };
            (
                slot.resumption.as_ref().map(|known| known.clone_ref(py)),
                keywords,
                call_soon,
                slot.struck.as_ref().map(|error| error.clone_ref(py)),
            )
        };
        if refused.is_some() {
            return Ok(refused);
        }
        let resumption = match resumption {
            Some(known) => known.into_bound(py),
            None => Self::resumption(slf, key)?,
        };
        let keywords = keywords.as_ref().map(|keywords| keywords.bind(py));
        if object.is_none() {
            if let Some(call_soon) = call_soon {
                call_soon.bind(py).call(resumption, keywords)?;
            }
            return Ok(None);
        }
        object.setattr(intern!(py, "_asyncio_future_blocking"), false)?;
        object
            .getattr(intern!(py, "add_done_callback"))?
            .call(resumption, keywords)?;
        if let Some(struck) = struck
            && cancel(object, &struck)?
        {
            this.set_struck(py, key, None);
        }
        Ok(None)
    }

    /// The callback of a source, made when it first waits.
    #[cold]
    fn resumption<'py>(slf: &Bound<'py, Self>, key: Key) -> PyResult<Bound<'py, PyTuple>> {
        let py = slf.py();
        let merge = slf.clone().unbind();
        let made = PyTuple::new(py, [Py::new(py, Resumption { merge, key })?])?;
        if let Some(slot) = slf.get().state.borrow(py).slots.get_mut(key) {
            slot.resumption = Some(made.clone().unbind());
        }
        Ok(made)
    }

    fn may_be_asked(&self, py: Python<'_>, key: Key) -> bool {
        let state = self.state.borrow(py);
        let slot = state.slots.get(key);
        slot.is_some_and(|slot| slot.may_be_asked(self.eager))
    }

    fn set_struck(&self, py: Python<'_>, key: Key, error: Option<PyErr>) {
        let old = match self.state.borrow(py).slots.get_mut(key) {
            Some(slot) => std::mem::replace(&mut slot.struck, error),
            None => error,
        };
        drop(old);
    }

    /// What a source waited for is there.
    pub(super) fn resume(slf: &Bound<'_, Self>, key: Key) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let future = {
            let state = this.state.borrow(py);
            match state.slots.get(key).map(|slot| &slot.status) {
                Some(Status::Waiting { future, .. }) => {
                    future.as_ref().map(|future| future.clone_ref(py))
                }
                _ => return Ok(()),
            }
        };
        let thrown =
            future.and_then(|future| future.bind(py).call_method0(intern!(py, "result")).err());
        Self::step(slf, key, From::Callback, thrown)?;
        // What is to be read ahead is read now: nobody may pull for a while.
        while this.eager > 1 && this.may_be_asked(py, key) {
            Self::step(slf, key, From::Callback, None)?;
        }
        Ok(())
    }

    /// Gives a source its task and its context.
    fn incarnate(slf: &Bound<'_, Self>, key: Key) -> PyResult<Identity> {
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
            roots(py)?.add(slf)?;
        }
        Ok(identity)
    }

    /// By what a source goes in a message.
    fn title(&self, py: Python<'_>, key: Key) -> String {
        let known = {
            let state = self.state.borrow(py);
            state
                .slots
                .get(key)
                .map(|slot| (slot.source.clone_ref(py), slot.name.clone_ref(py)))
        };
        let Some((source, name)) = known else {
            return format!("a source of {}", self.owner);
        };
        let source = source.bind(py);
        let kind = source
            .getattr(intern!(py, "__qualname__"))
            .or_else(|_| source.get_type().qualname().map(Bound::into_any));
        let kind = kind.map_or_else(|_| String::new(), |kind| kind.to_string());
        let name = name
            .bind(py)
            .repr()
            .map_or_else(|_| "?".to_owned(), |name| name.to_string());
        format!("source {name} of {}, {kind}", self.owner)
    }

    /// An error with a note that names its source, and never one that looks as if the consumer was
    /// cancelled.
    fn named(&self, py: Python<'_>, key: Key, error: PyErr) -> PyErr {
        let title = self.title(py, key);
        let error = if asyncio::is_cancelled_error(py, &error) {
            let instead = errors::source_was_cancelled(py, &format!("{title} was cancelled"));
            instead.set_cause(py, Some(error));
            instead
        } else {
            error
        };
        // An exception that takes no note still has to arrive.
        let _ = errors::note(py, &error, &format!("raised by {title}"));
        error
    }

    /// An error of closing: for whoever closes, or for the next pull.
    fn blame(&self, py: Python<'_>, key: Key, error: PyErr) {
        let futures = {
            let mut state = self.state.borrow(py);
            let removed = state
                .slots
                .get(key)
                .filter(|slot| slot.is_done && !slot.has_ended)
                .map(|slot| slot.source.clone_ref(py));
            if state.phase == Phase::Closed {
                state.errors.push(error);
                Vec::new()
            } else if let Some(source) = removed {
                state.parted.push((source, error));
                Vec::new()
            } else if self.on_error == OnError::Skip && error.is_instance_of::<PyException>(py) {
                Vec::new()
            } else {
                state.complaints.push_back(error);
                state.wake(None)
            }
        };
        wake(py, futures);
    }

    /// Begins to close a source.
    fn close(slf: &Bound<'_, Self>, key: Key) -> PyResult<()> {
        let py = slf.py();
        let task = {
            let mut state = slf.get().state.borrow(py);
            let Some(slot) = state.slots.get_mut(key) else {
                return Ok(());
            };
            if slot.is_closing {
                return Ok(());
            }
            match (&slot.status, &slot.identity) {
                (Status::Running, _) => {
                    drop(state);
                    return Err(own_source());
                }
                // It is cancelled in its own task, and closed once it has come out.
                (Status::Waiting { .. }, Some(identity)) if slot.is_foreign => {
                    let task = identity.task.clone_ref(py);
                    slot.is_closing = true;
                    slot.was_cancelled = true;
                    Some(task)
                }
                _ => {
                    slot.is_closing = true;
                    None
                }
            }
        };
        match task {
            Some(task) => task.bind(py).call_method0(intern!(py, "cancel")).map(drop),
            None => Self::release(slf, key),
        }
    }

    /// A source that is inside nothing is closed: by its task, which is made now if it has none.
    fn release(slf: &Bound<'_, Self>, key: Key) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let (feed, has_task, parking) = {
            let state = this.state.borrow(py);
            let Some(slot) = state.slots.get(key) else {
                return Ok(());
            };
            (
                slot.feed.clone_ref(py),
                slot.identity.is_some(),
                slot.parking.as_ref().map(|future| future.clone_ref(py)),
            )
        };
        match feed {
            AnyFeed::Iter(feed) => {
                let error = feed.get().close(py).err();
                Self::gone(slf, key, error);
            }
            _ if has_task => {
                if let Some(parking) = parking {
                    resolve(parking.bind(py));
                }
            }
            AnyFeed::Foreign(feed) if !feed.get().can_close(py)? => Self::gone(slf, key, None),
            _ => {
                Self::incarnate(slf, key)?;
            }
        }
        Ok(())
    }

    /// Closes everything. What was not taken is dropped.
    pub(super) fn close_all(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let (keys, left, futures) = {
            let mut state = this.state.borrow(py);
            state.phase = Phase::Closed;
            let keys: Vec<Key> = state.order.clone();
            let left: Vec<_> = keys.iter().map(|key| state.dismiss(*key)).collect();
            (keys, left, state.wake(None))
        };
        drop(left);
        wake(py, futures);
        // One that cannot be closed does not keep the others from it.
        keys.into_iter()
            .map(|key| Self::close(slf, key))
            .fold(Ok(()), Result::and)
    }

    /// Nobody holds the stream any more: sources with a task are closed in it, and nobody waits for
    /// the others, which are whosever else they are.
    pub(super) fn let_go(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let (left, foreign) = {
            let mut state = slf.get().state.borrow(py);
            state.phase = Phase::Closed;
            let mut foreign = Vec::new();
            let mut left = Vec::new();
            for key in state.order.clone() {
                let queue = state.dismiss(key);
                let Some(slot) = state.slots.get_mut(key) else {
                    continue;
                };
                if slot.identity.is_some() {
                    foreign.push(key);
                    left.push((queue, None));
                } else {
                    slot.has_ended = true;
                    let status = std::mem::replace(&mut slot.status, Status::Standing);
                    left.push((queue, Some((status, slot.resumption.take()))));
                }
            }
            (left, foreign)
        };
        drop(left);
        foreign
            .into_iter()
            .map(|key| Self::close(slf, key))
            .fold(Ok(()), Result::and)
    }

    /// A source is closed.
    pub(super) fn gone(slf: &Bound<'_, Self>, key: Key, error: Option<PyErr>) {
        let py = slf.py();
        let this = slf.get();
        if let Some(error) = error {
            let error = this.named(py, key, error);
            this.blame(py, key, error);
        }
        let (old, futures, is_last) = {
            let mut state = this.state.borrow(py);
            let Some(slot) = state.slots.get_mut(key) else {
                return;
            };
            if std::mem::replace(&mut slot.is_gone, true) {
                return;
            }
            let old = (
                slot.identity.take(),
                slot.parking.take(),
                slot.resumption.take(),
            );
            let had_task = old
                .0
                .as_ref()
                .is_some_and(|identity| state.tasks.remove(&identity.task.as_ptr().addr()));
            state.live -= 1;
            let futures = if state.live == 0 {
                state.wake(None)
            } else {
                Vec::new()
            };
            (old, futures, had_task && state.tasks.is_empty())
        };
        drop(old);
        wake(py, futures);
        this.retire(py, key);
        if is_last && let Err(error) = roots(py).and_then(|roots| roots.discard(slf)) {
            error.write_unraisable(py, Some(slf.as_any()));
        }
    }

    /// Forgets a source that was added and is through.
    pub(super) fn retire(&self, py: Python<'_>, key: Key) {
        let old = {
            let mut state = self.state.borrow(py);
            let keeps =
                |slot: &Slot| !slot.is_gone || !slot.is_done || (slot.is_given && slot.has_ended);
            if state.slots.get(key).is_none_or(keeps) || state.phase == Phase::Closed {
                return;
            }
            state.order.retain(|other| *other != key);
            state.slots.remove(key)
        };
        drop(old);
    }

    /// Whether the task of a source has to close it now.
    pub(super) fn is_to_close(slf: &Bound<'_, Self>, key: Key) -> bool {
        let state = slf.get().state.borrow(slf.py());
        state.slots.get(key).is_none_or(|slot| {
            slot.is_closing && (!slot.is_foreign || matches!(slot.status, Status::Standing))
        })
    }

    /// What the task of a source waits on while there is nothing for it to do.
    pub(super) fn park<'py>(slf: &Bound<'py, Self>, key: Key) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let this = slf.get();
        let future = this.future(py)?;
        let old = this
            .state
            .borrow(py)
            .slots
            .get_mut(key)
            .and_then(|slot| slot.parking.replace(future.clone().unbind()));
        drop(old);
        Ok(future)
    }

    /// What closes a source, if there is anything to close.
    pub(super) fn begin_to_close(slf: &Bound<'_, Self>, key: Key) -> PyResult<Option<Inner>> {
        let py = slf.py();
        let feed = match slf.get().state.borrow(py).slots.get(key) {
            Some(slot) => slot.feed.clone_ref(py),
            None => return Ok(None),
        };
        feed.close(py)?.map(Inner::of).transpose()
    }

    /// The task of a source was cancelled: passes that on into the source.
    pub(super) fn strike(slf: &Bound<'_, Self>, key: Key, error: PyErr) -> PyResult<()> {
        enum Blow {
            Cancel(Py<PyAny>),
            Keep,
            Throw,
            Hold,
        }
        let py = slf.py();
        let this = slf.get();
        let (identity, blow, feed) = {
            let state = this.state.borrow(py);
            let Some(slot) = state.slots.get(key) else {
                return Ok(());
            };
            let Some(identity) = &slot.identity else {
                return Ok(());
            };
            let blow = match &slot.status {
                _ if !slot.is_foreign => return Ok(()),
                Status::Waiting {
                    future: Some(future),
                    ..
                } => Blow::Cancel(future.clone_ref(py)),
                Status::Waiting { future: None, .. } | Status::Running => Blow::Keep,
                Status::Standing if slot.has_ended || slot.is_closing => return Ok(()),
                // What it is to hear at its `yield` may make it go on to the next, and it must not
                // run ahead by more than one item.
                Status::Standing if slot.queue.is_empty() => Blow::Throw,
                Status::Standing => Blow::Hold,
            };
            (identity.clone_ref(py), blow, slot.feed.clone_ref(py))
        };
        if !identity.is_cancelled(py) {
            // Withdrawn meanwhile, as by the end of an `asyncio.timeout` that had just struck.
            this.set_struck(py, key, None);
            return Ok(());
        }
        match blow {
            Blow::Cancel(future) => {
                if !cancel(future.bind(py), &error)? {
                    this.set_struck(py, key, Some(error));
                }
                Ok(())
            }
            Blow::Keep => {
                this.set_struck(py, key, Some(error));
                Ok(())
            }
            Blow::Throw if feed.can_throw(py) => Self::step(slf, key, From::Task, Some(error)),
            Blow::Throw | Blow::Hold => {
                this.set_struck(py, key, Some(error));
                Self::inspect_soon(slf)
            }
        }
    }

    /// Has a look, in the next turn, whether the program ends.
    fn inspect_soon(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let call_soon = {
            let mut state = slf.get().state.borrow(py);
            if std::mem::replace(&mut state.is_inspecting, true) {
                return Ok(());
            }
            state.call_soon.as_ref().map(|call| call.clone_ref(py))
        };
        if let Some(call_soon) = call_soon {
            let note = Note {
                merge: slf.clone().unbind(),
                errand: Errand::Inspect,
            };
            call_soon.bind(py).call1((Py::new(py, note)?,))?;
        }
        Ok(())
    }

    /// Where every task is cancelled, as by the end of `asyncio.run`, nobody will pull any more:
    /// sources that were to hear of their cancellation when they are asked again end now.
    pub(super) fn inspect(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        this.state.borrow(py).is_inspecting = false;
        let event_loop = this.event_loop(py)?;
        let tasks = py
            .import("asyncio")?
            .call_method1(intern!(py, "all_tasks"), (event_loop,))?;
        for task in tasks.try_iter()? {
            if !task?.call_method0(intern!(py, "cancelling"))?.is_truthy()? {
                return Ok(());
            }
        }
        let keys: Vec<Key> = {
            let state = this.state.borrow(py);
            let is_struck = |key: &Key| {
                state.slots.get(*key).is_some_and(|slot| {
                    slot.struck.is_some()
                        && !slot.is_closing
                        && matches!(slot.status, Status::Standing)
                })
            };
            state.order.iter().copied().filter(is_struck).collect()
        };
        for key in keys {
            let error = this.named(py, key, cancelled(py)?);
            Self::came(slf, key, Outcome::Error(Box::new(error)))?;
            Self::ended(slf, key)?;
        }
        Ok(())
    }

    /// Begins a new cycle with the sources that were given at first and not removed.
    pub(super) fn restart(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let (is_busy, slots) = {
            let state = this.state.borrow(py);
            let slots: Vec<_> = state
                .order
                .iter()
                .filter_map(|key| state.slots.get(*key))
                .filter(|slot| slot.is_given)
                .map(|slot| (slot.renewed(py), slot.is_cutoff))
                .collect();
            (!state.tasks.is_empty(), slots)
        };
        if is_busy {
            return Err(PyRuntimeError::new_err(
                "cannot restart while sources are open; read the stream to its end or call aclose() first",
            ));
        }
        for (slot, _) in &slots {
            let source = slot.source.bind(py);
            if source.is_instance_of::<PullLink>() {
                source.call_method0(intern!(py, "restart"))?;
                if let AnyFeed::Foreign(feed) = &slot.feed {
                    feed.get().forget(py);
                }
            } else {
                slot.feed.restart(py)?;
            }
        }
        let old = {
            let mut state = this.state.borrow(py);
            let fresh = State {
                keeps_ready: state.keeps_ready,
                keeps_ring: state.keeps_ring,
                asks_head_only: state.asks_head_only,
                given: state.given,
                ..State::default()
            };
            let old = std::mem::replace(&mut *state, fresh);
            for (slot, _) in slots {
                state.enter(slot);
            }
            old
        };
        drop(old);
        Ok(())
    }
}

/// Why an object that a source yielded to its task cannot be awaited.
fn refuse(event_loop: &Bound<'_, PyAny>, object: &Bound<'_, PyAny>) -> PyResult<Option<PyErr>> {
    let py = object.py();
    let complain = |what: &str| {
        Ok(Some(PyRuntimeError::new_err(format!(
            "{what}: {}",
            errors::describe(object)
        ))))
    };
    match object.getattr_opt(intern!(py, "_asyncio_future_blocking"))? {
        None => complain("a source yielded what asyncio cannot wait for"),
        Some(blocking) if !blocking.is_truthy()? => {
            complain("a source yielded a future instead of awaiting it")
        }
        Some(_) if !object.call_method0(intern!(py, "get_loop"))?.is(event_loop) => {
            complain("a source awaits a future of another event loop")
        }
        Some(_) => Ok(None),
    }
}

/// Cancels what a source waits for, with the message that its task was cancelled with.
fn cancel(future: &Bound<'_, PyAny>, error: &PyErr) -> PyResult<bool> {
    let py = future.py();
    let message = error.value(py).getattr(intern!(py, "args"))?;
    future
        .getattr(intern!(py, "cancel"))?
        .call1(message.cast_into::<PyTuple>()?)?
        .is_truthy()
}

/// A new `CancelledError`.
fn cancelled(py: Python<'_>) -> PyResult<PyErr> {
    Ok(PyErr::from_value(asyncio::cancelled_error(py)?.call0()?))
}

/// Why a pull or the closing cannot be.
pub(crate) fn own_source() -> PyErr {
    PyRuntimeError::new_err(
        "a source cannot pull or close the race that it is part of: it would wait for itself",
    )
}
