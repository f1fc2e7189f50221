//! Steps of sources: asking them, and what comes of it.

use std::cell::RefMut;

use pyo3::exceptions::PyException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyNone;

use super::merge::{Merge, wake};
use super::source::{Key, Outcome, Running, Status};
use super::state::{ErrorPolicy, State};
use super::task_context::{Entered, Identity};
use crate::runtime::asyncio;
use crate::runtime::asyncio::InContext;
use crate::runtime::yield_budget;
use crate::source::{AnyFeed, Drawn, async_gen};

/// Where a step is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    /// Inside a pull.
    Pull,
    /// In a callback of the loop, which has entered the source's context.
    Callback,
    /// In the callback of the loop for all that rested.
    Turn,
    /// In a step of the source's own task.
    Task,
}

impl Merge {
    /// Asks everybody who is wanted. `true`: let the loop have a turn first.
    ///
    /// Async generators that have begun, which is what most sources are, go a way of their own: one
    /// after another, with the consumer's task restored after the last of them only.
    #[inline]
    pub(super) fn ask(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let py = slf.py();
        let this = slf.get();
        let mut entered = Entered::default();
        // Behind `entered`, so that it is let go of before that leaves.
        let mut state = this.state.borrow(py);
        if state.wanted.is_empty() {
            return Ok(false);
        }
        // Where there is none yet, no source has begun.
        let event_loop = state.event_loop.as_ref().map(|it| it.bind(py).clone());
        loop {
            let is_paid = state.use_paid();
            let Some((key, slot)) = state.next_wanted(this.prefetch) else {
                return Ok(false);
            };
            if !is_paid && yield_budget::spend(py) {
                state.want_first(key);
                return Ok(true);
            }
            let running = event_loop
                .as_ref()
                .and_then(|event_loop| Some((event_loop, slot.run(py)?)));
            drop(state);
            let gone_on = if let Some((event_loop, running)) = running {
                match Self::run(slf, key, running, &mut entered, event_loop, true) {
                    Ok(Some(after)) => {
                        state = after;
                        continue;
                    }
                    Ok(None) => Ok(()),
                    Err(error) => Err(error),
                }
            } else {
                entered.leave();
                Self::step(slf, key, Where::Pull, None)
            };
            if let Err(error) = gone_on {
                this.state.borrow(py).want(key);
                return Err(error);
            }
            if yield_budget::take_rested() {
                return Ok(true);
            }
            state = this.state.borrow(py);
        }
    }

    /// Steps a generator that is marked as running. If it gave an item, it is still the one that is
    /// entered, and the state comes back borrowed.
    #[expect(clippy::inline_always, reason = "it is the body of two loops")]
    #[inline(always)]
    pub(super) fn run<'a, 'py>(
        slf: &'a Bound<'py, Self>,
        key: Key,
        (agen, task, context): Running<'py>,
        entered: &mut Entered<'py>,
        event_loop: &Bound<'py, PyAny>,
        in_a_pull: bool,
    ) -> PyResult<Option<RefMut<'a, State>>> {
        let py = slf.py();
        let this = slf.get();
        let inside = match entered.enter(event_loop, task, in_a_pull) {
            Ok(()) => InContext::enter(&context),
            Err(error) => Err(error),
        };
        let inside = match inside {
            Ok(inside) => inside,
            Err(error) => {
                this.stand(py, key);
                return Err(error);
            }
        };
        let stepped = async_gen::step(&agen, PyNone::get(py).as_any());
        drop(inside);
        if let Ok(async_gen::Stepped::Item(item)) = stepped {
            let mut state = this.state.borrow(py);
            if let Err(item) = state.accept(key, item, this.prefetch) {
                drop(state);
                Self::came(slf, key, Outcome::Item(item.unbind()))?;
                state = this.state.borrow(py);
            }
            return Ok(Some(state));
        }
        entered.leave();
        Self::went(slf, key, stepped)?;
        Ok(None)
    }

    /// What the step of a generator came to, other than an item.
    #[cold]
    pub(super) fn went(
        slf: &Bound<'_, Self>,
        key: Key,
        stepped: PyResult<async_gen::Stepped<'_>>,
    ) -> PyResult<()> {
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
                Some(error) => Self::step(slf, key, Where::Pull, Some(error)),
            },
            Ok(Drawn::End) => Self::ended(slf, key),
            Ok(Drawn::Item(item)) => Self::came(slf, key, Outcome::Item(item.unbind())),
            Err(error) => Self::failed(slf, key, identity.as_ref(), &feed, error),
        }
    }

    /// One step of a source: up to its next item, its end, or a wait.
    pub(super) fn step(
        slf: &Bound<'_, Self>,
        key: Key,
        from: Where,
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
                (Some(identity), Where::Pull | Where::Callback | Where::Turn) => {
                    let event_loop = this.event_loop(py)?;
                    identity.run(&event_loop, from, draw)
                }
                // A native source that is polled in place spends what the pull has.
                (None, Where::Pull) => {
                    let _lent = yield_budget::lend_on(py);
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

    pub(super) fn stand(&self, py: Python<'_>, key: Key) {
        if let Some(slot) = self.state.borrow(py).slots.get_mut(key) {
            slot.status = Status::Standing;
        }
    }

    /// An item, or an error that is not the end of its source.
    #[inline]
    pub(super) fn came(slf: &Bound<'_, Self>, key: Key, outcome: Outcome) -> PyResult<()> {
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
            if this.prefetch > 1 {
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
    pub(super) fn ended(slf: &Bound<'_, Self>, key: Key) -> PyResult<()> {
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
    pub(super) fn failed(
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
        if this.error_policy == ErrorPolicy::Skip && error.is_instance_of::<PyException>(py) {
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
    pub(super) fn came_out(slf: &Bound<'_, Self>, key: Key) -> PyResult<()> {
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

    pub(super) fn may_be_asked(&self, py: Python<'_>, key: Key) -> bool {
        let state = self.state.borrow(py);
        let slot = state.slots.get(key);
        slot.is_some_and(|slot| slot.may_be_asked(self.prefetch))
    }

    pub(super) fn set_struck(&self, py: Python<'_>, key: Key, error: Option<PyErr>) {
        let old = match self.state.borrow(py).slots.get_mut(key) {
            Some(slot) => std::mem::replace(&mut slot.struck, error),
            None => error,
        };
        drop(old);
    }
}
