//! Closes sources, each in its own task.
//! `merge.rs`, `view.rs` and `callbacks.rs` start the closing; `source_task.rs` runs it.

use headrace_core::sync::Key;
use pyo3::intern;
use pyo3::prelude::*;

use super::merge::{PyMerge, own_source_error, resolve, wake};
use super::source::{SourceState, Status};
use super::source_ref::SourceRef;
use super::state::Phase;
use crate::coroutine::{Inner, unpin};
use crate::source::AnySource;

impl PyMerge {
    /// Close each of several sources. An error of one does not stop the others from being closed.
    fn close_each(slf: &Bound<'_, Self>, keys: Vec<Key>) -> PyResult<()> {
        keys.into_iter()
            .map(|key| Self::at(slf, key).close())
            .fold(Ok(()), Result::and)
    }

    /// Close all sources and drop the outcomes that were not taken.
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

    /// Handle a dropped stream: close the sources with a task, and stop polling the others, which may have other
    /// owners.
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
                let stopped = entry.task_context.is_none().then(|| {
                    entry.has_ended = true;
                    let status = std::mem::replace(&mut entry.status, Status::Paused);
                    (status, entry.callback.take())
                });
                if stopped.is_none() {
                    foreign.push(key);
                }
                left.push((queue, stopped));
            }
            (left, foreign)
        };
        drop(left);
        Self::close_each(slf, foreign)
    }
}

impl<'py> SourceRef<'_, 'py> {
    /// Start closing a source.
    pub(super) fn close(self) -> PyResult<()> {
        let py = self.py();
        let task = self.with(|entry| {
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
            Some(None) => self.release(),
        }
    }

    /// Close a source that is at rest, in its task. Creates the task if there is none.
    pub(super) fn release(self) -> PyResult<()> {
        let py = self.py();
        let found = self.with(|entry| {
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
                self.on_closed(error);
            }
            _ if has_task => {
                if let Some(parked_on) = parked_on {
                    resolve(parked_on.bind(py));
                }
            }
            AnySource::AsyncIter(adapter) if !adapter.get().can_close(py)? => {
                self.on_closed(None);
            }
            _ => {
                self.create_task()?;
            }
        }
        Ok(())
    }

    /// Handle the end of closing a source.
    pub(super) fn on_closed(self, error: Option<PyErr>) {
        let py = self.py();
        let this = self.merge.get();
        if let Some(error) = error {
            let error = self.annotate(error);
            self.record_close_error(error);
        }
        let (old, futures, is_last) = {
            let mut state = self.state();
            let Some(entry) = state.sources.get_mut(self.key) else {
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
        self.forget();
        if is_last
            && let Some(event_loop) = this.known_loop(py)
            && let Err(error) = unpin(&event_loop, self.merge)
        {
            error.write_unraisable(py, Some(self.merge.as_any()));
        }
    }

    /// Remove a closed source whose end was taken. Keeps the original sources, for a restart.
    pub(super) fn forget(self) {
        let old = {
            let mut state = self.state();
            let keeps = |entry: &SourceState| {
                !entry.is_closed || !entry.is_done || (entry.is_given && entry.has_ended)
            };
            if state.sources.get(self.key).is_none_or(keeps) || state.phase == Phase::Closed {
                return;
            }
            state.remove_from_order(self.key);
            state.sources.remove(self.key)
        };
        drop(old);
    }

    /// Return whether the task of a source must close it now.
    pub(super) fn is_to_close(self) -> bool {
        self.with(|entry| {
            entry.is_closing && (!entry.is_foreign || matches!(entry.status, Status::Paused))
        })
        .unwrap_or(true)
    }

    /// Create the future that the task of a source waits for until the source is closed.
    pub(super) fn park(self) -> PyResult<Bound<'py, PyAny>> {
        let future = self.merge.get().future(self.py())?;
        let old = self.with(|entry| entry.parked_on.replace(future.clone().unbind()));
        drop(old);
        Ok(future)
    }

    /// Return the awaitable that closes a source, if it needs closing.
    pub(super) fn begin_to_close(self) -> PyResult<Option<Inner>> {
        let py = self.py();
        let adapter = self.with(|entry| entry.adapter.clone_ref(py));
        match adapter {
            Some(adapter) => adapter.close(py)?.map(Inner::of).transpose(),
            None => Ok(None),
        }
    }
}
