//! Closing sources, each by its task.

use pyo3::intern;
use pyo3::prelude::*;

use super::merge::{Merge, own_source, resolve, wake};
use super::source::{Key, Slot, Status};
use super::state::Phase;
use crate::coroutine::{Inner, unpin};
use crate::source::AnySource;

impl Merge {
    /// Begins to close a source.
    pub(super) fn close(slf: &Bound<'_, Self>, key: Key) -> PyResult<()> {
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
    pub(super) fn release(slf: &Bound<'_, Self>, key: Key) -> PyResult<()> {
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
            AnySource::Iter(feed) => {
                let error = feed.get().close(py).err();
                Self::gone(slf, key, error);
            }
            _ if has_task => {
                if let Some(parking) = parking {
                    resolve(parking.bind(py));
                }
            }
            AnySource::AsyncIter(feed) if !feed.get().can_close(py)? => Self::gone(slf, key, None),
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
        if is_last
            && let Some(event_loop) = this.known_loop(py)
            && let Err(error) = unpin(&event_loop, slf)
        {
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
            state.leave(key);
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
}
