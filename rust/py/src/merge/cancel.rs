//! Passes the cancellation of a source's task into the source. `source_task.rs` calls it when the task is cancelled.

use headrace_core::sync::Key;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::callbacks::LoopAction;
use super::merge::PyMerge;
use super::source::{Outcome, Status};
use super::source_ref::SourceRef;
use super::source_task::SourceTask;
use super::step::StepFrom;
use crate::runtime::asyncio;

impl PyMerge {
    /// Schedule [`Self::check_shutdown`] for the next iteration of the event loop.
    pub(super) fn check_shutdown_soon(slf: &Bound<'_, Self>) -> PyResult<()> {
        let mut state = slf.get().state.borrow(slf.py());
        if std::mem::replace(&mut state.is_check_scheduled, true) {
            return Ok(());
        }
        drop(state);
        Self::call_soon(slf, LoopAction::CheckShutdown)
    }

    /// End the sources with a pending cancellation if every task of the event loop is cancelled, as at the end of
    /// `asyncio.run`. No pull would deliver the cancellation later.
    pub(super) fn check_shutdown(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        this.state.borrow(py).is_check_scheduled = false;
        let event_loop = this.event_loop(py)?;
        let tasks = py
            .import("asyncio")?
            .call_method1(intern!(py, "all_tasks"), (event_loop,))?;
        for task in tasks.try_iter()? {
            let task = task?;
            // Tasks of sources never pull. Sources that were about to start may have added new ones.
            let may_pull = !SourceTask::is_in(&task)?;
            if may_pull && !task.call_method0(intern!(py, "cancelling"))?.is_truthy()? {
                return Ok(());
            }
        }
        let keys: Vec<Key> = {
            let state = this.state.borrow(py);
            let is_cancelled = |key: &Key| {
                state.sources.get(*key).is_some_and(|entry| {
                    entry.cancellation.is_some()
                        && !entry.is_closing
                        && matches!(entry.status, Status::Paused)
                })
            };
            state.order.iter().copied().filter(is_cancelled).collect()
        };
        for key in keys {
            let error = Self::at(slf, key).annotate(asyncio::cancellation(py, None));
            Self::at(slf, key).on_outcome(Outcome::Error(Box::new(error)))?;
            Self::at(slf, key).on_end()?;
        }
        Ok(())
    }
}

impl SourceRef<'_, '_> {
    /// Handle the cancellation of a source's task: cancel the future that the source waits for, throws the error into
    /// the source, or keeps the error for the next step.
    pub(super) fn cancel(self, error: PyErr) -> PyResult<()> {
        let py = self.py();
        let found = self.with(|entry| {
            let task_context = entry.own_context(py)?;
            let is_paused = matches!(entry.status, Status::Paused);
            if is_paused && (entry.has_ended || entry.is_closing) {
                return None;
            }
            let future = match &entry.status {
                Status::Waiting { future, .. } => future.as_ref().map(|it| it.clone_ref(py)),
                Status::Running | Status::Paused => None,
            };
            // A source that catches the error continues to its next `yield`. With an item in the queue it would run ahead by
            // two.
            let is_throwable = is_paused && entry.queue.is_empty();
            let adapter = is_throwable.then(|| entry.adapter.clone_ref(py));
            Some((task_context, is_paused, future, adapter))
        });
        let Some((task_context, is_paused, future, adapter)) = found.flatten() else {
            return Ok(());
        };
        if !task_context.is_cancelled(py) {
            // Withdrawn meanwhile by `uncancel()`, as when an `asyncio.timeout` ends.
            self.set_cancellation(None);
            return Ok(());
        }
        if let Some(future) = future
            && cancel(future.bind(py), &error)?
        {
            return Ok(());
        }
        if adapter.is_some_and(|adapter| adapter.can_throw(py)) {
            return self.step(StepFrom::Task, Some(error));
        }
        self.set_cancellation(Some(error));
        if is_paused {
            PyMerge::check_shutdown_soon(self.merge)?;
        }
        Ok(())
    }
}

/// Cancel a future, with the message of the cancellation of the task.
pub(super) fn cancel(future: &Bound<'_, PyAny>, error: &PyErr) -> PyResult<bool> {
    let py = future.py();
    let message = error.value(py).getattr(intern!(py, "args"))?;
    future
        .getattr(intern!(py, "cancel"))?
        .call1(message.cast_into::<PyTuple>()?)?
        .is_truthy()
}
