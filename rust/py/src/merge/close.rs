//! Closes sources, each in its own task.

use pyo3::intern;
use pyo3::prelude::*;

use super::merge::{PyMerge, own_source_error, resolve, wake};
use super::source::{Key, SourceState, Status};
use super::state::Phase;
use crate::coroutine::{Inner, unpin};
use crate::source::AnySource;

impl PyMerge {
    /// Starts closing a source.
    pub(super) fn close(slf: &Bound<'_, Self>, key: Key) -> PyResult<()> {
        let py = slf.py();
        let task = slf.get().with_source(py, key, |entry| {
            if entry.is_closing {
                return Ok(None);
            }
            if matches!(entry.status, Status::Running) {
                return Err(own_source_error());
            }
            entry.is_closing = true;
            // Waiting: cancelled in its own task, and closed when the cancelled step has ended.
            entry.was_cancelled = entry.is_foreign
                && entry.task_context.is_some()
                && matches!(entry.status, Status::Waiting { .. });
            Ok(Some(entry.task(py).filter(|_| entry.was_cancelled)))
        });
        match task.transpose()?.flatten() {
            None => Ok(()),
            Some(Some(task)) => task.bind(py).call_method0(intern!(py, "cancel")).map(drop),
            Some(None) => Self::release(slf, key),
        }
    }

    /// Closes each of several sources. An error of one does not stop the others from being closed.
    fn close_each(slf: &Bound<'_, Self>, keys: Vec<Key>) -> PyResult<()> {
        keys.into_iter()
            .map(|key| Self::close(slf, key))
            .fold(Ok(()), Result::and)
    }

    /// Closes a source that is at rest, in its task. Creates the task if there is none.
    pub(super) fn release(slf: &Bound<'_, Self>, key: Key) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let found = this.with_source(py, key, |entry| {
            let parked_on = entry.parked_on.as_ref().map(|future| future.clone_ref(py));
            let has_task = entry.task_context.is_some();
            (entry.adapter.clone_ref(py), has_task, parked_on)
        });
        let Some((adapter, has_task, parked_on)) = found else {
            return Ok(());
        };
        match adapter {
            AnySource::Iter(adapter) => {
                let error = adapter.get().close(py).err();
                Self::on_closed(slf, key, error);
            }
            _ if has_task => {
                if let Some(parked_on) = parked_on {
                    resolve(parked_on.bind(py));
                }
            }
            AnySource::AsyncIter(adapter) if !adapter.get().can_close(py)? => {
                Self::on_closed(slf, key, None);
            }
            _ => {
                Self::create_task(slf, key)?;
            }
        }
        Ok(())
    }

    /// Closes all sources and drops the outcomes that were not taken.
    pub(super) fn close_all(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let (keys, left, futures) = {
            let mut state = this.state.borrow(py);
            state.phase = Phase::Closed;
            let keys: Vec<Key> = state.order.clone();
            let left: Vec<_> = keys.iter().map(|key| state.discard(*key)).collect();
            (keys, left, state.wake(None))
        };
        drop(left);
        wake(py, futures);
        Self::close_each(slf, keys)
    }

    /// Handles a dropped stream: closes the sources with a task, and stops polling the others, which may have other owners.
    pub(super) fn close_abandoned(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let (left, foreign) = {
            let mut state = slf.get().state.borrow(py);
            state.phase = Phase::Closed;
            let mut foreign = Vec::new();
            let mut left = Vec::new();
            for key in state.order.clone() {
                let queue = state.discard(key);
                let Some(entry) = state.sources.get_mut(key) else {
                    continue;
                };
                if entry.task_context.is_some() {
                    foreign.push(key);
                    left.push((queue, None));
                } else {
                    entry.has_ended = true;
                    let status = std::mem::replace(&mut entry.status, Status::Paused);
                    left.push((queue, Some((status, entry.callback.take()))));
                }
            }
            (left, foreign)
        };
        drop(left);
        Self::close_each(slf, foreign)
    }

    /// Handles the end of closing a source.
    pub(super) fn on_closed(slf: &Bound<'_, Self>, key: Key, error: Option<PyErr>) {
        let py = slf.py();
        let this = slf.get();
        if let Some(error) = error {
            let error = this.annotate(py, key, error);
            this.record_close_error(py, key, error);
        }
        let (old, futures, is_last) = {
            let mut state = this.state.borrow(py);
            let Some(entry) = state.sources.get_mut(key) else {
                return;
            };
            if std::mem::replace(&mut entry.is_closed, true) {
                return;
            }
            let old = (
                entry.task_context.take(),
                entry.parked_on.take(),
                entry.callback.take(),
            );
            let had_task = old
                .0
                .as_ref()
                .is_some_and(|task_context| state.tasks.remove(&task_context.task.as_ptr().addr()));
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
        this.forget(py, key);
        if is_last
            && let Some(event_loop) = this.known_loop(py)
            && let Err(error) = unpin(&event_loop, slf)
        {
            error.write_unraisable(py, Some(slf.as_any()));
        }
    }

    /// Removes a closed source whose end was taken. Keeps the original sources, for a restart.
    pub(super) fn forget(&self, py: Python<'_>, key: Key) {
        let old = {
            let mut state = self.state.borrow(py);
            let keeps = |entry: &SourceState| {
                !entry.is_closed || !entry.is_done || (entry.is_given && entry.has_ended)
            };
            if state.sources.get(key).is_none_or(keeps) || state.phase == Phase::Closed {
                return;
            }
            state.remove_from_order(key);
            state.sources.remove(key)
        };
        drop(old);
    }

    /// Whether the task of a source must close it now.
    pub(super) fn is_to_close(slf: &Bound<'_, Self>, key: Key) -> bool {
        let state = slf.get().state.borrow(slf.py());
        state.sources.get(key).is_none_or(|entry| {
            entry.is_closing && (!entry.is_foreign || matches!(entry.status, Status::Paused))
        })
    }

    /// Creates the future that the task of a source waits for until the source is closed.
    pub(super) fn park<'py>(slf: &Bound<'py, Self>, key: Key) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let this = slf.get();
        let future = this.future(py)?;
        let old = this.with_source(py, key, |entry| {
            entry.parked_on.replace(future.clone().unbind())
        });
        drop(old);
        Ok(future)
    }

    /// Returns the awaitable that closes a source, if it needs closing.
    pub(super) fn begin_to_close(slf: &Bound<'_, Self>, key: Key) -> PyResult<Option<Inner>> {
        let py = slf.py();
        let adapter = slf
            .get()
            .with_source(py, key, |entry| entry.adapter.clone_ref(py));
        match adapter {
            Some(adapter) => adapter.close(py)?.map(Inner::of).transpose(),
            None => Ok(None),
        }
    }
}
