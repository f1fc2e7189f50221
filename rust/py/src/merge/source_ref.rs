//! `SourceRef`: one source of a merge, on which the driver works.
//! Its other methods are in `step.rs`, `pending.rs`, `cancel.rs` and `close.rs`.

use std::cell::RefMut;

use headrace_core::sync::Key;
use pyo3::prelude::*;

use super::merge::PyMerge;
use super::source::SourceState;
use super::source_task::SourceTask;
use super::state::State;
use super::task_context::{TaskContext, wrong_loop};
use crate::coroutine::pin_to_loop;
use crate::runtime::asyncio;

/// A source of a merge, by its key. Its methods do nothing if the source was removed.
#[derive(Clone, Copy)]
pub(super) struct SourceRef<'a, 'py> {
    pub(super) merge: &'a Bound<'py, PyMerge>,
    pub(super) key: Key,
}

impl PyMerge {
    #[inline]
    pub(super) fn at<'a, 'py>(merge: &'a Bound<'py, Self>, key: Key) -> SourceRef<'a, 'py> {
        SourceRef { merge, key }
    }
}

impl<'a, 'py> SourceRef<'a, 'py> {
    #[inline]
    pub(super) fn py(self) -> Python<'py> {
        self.merge.py()
    }

    /// Borrow the state of the merge.
    #[inline]
    pub(super) fn state(self) -> RefMut<'a, State> {
        self.merge.get().state.borrow(self.py())
    }

    /// Apply a function to the source, in one borrow of the state. Returns `None` if the source was removed.
    #[inline]
    pub(super) fn with<T>(self, apply: impl FnOnce(&mut SourceState) -> T) -> Option<T> {
        // If the source was removed, the borrow ends first, then the values in `apply` are dropped.
        let mut state = self.state();
        let entry = state.sources.get_mut(self.key)?;
        Some(apply(entry))
    }

    /// Create the task and the context of a source.
    pub(super) fn create_task(self) -> PyResult<TaskContext> {
        let py = self.py();
        let this = self.merge.get();
        let event_loop = this.event_loop(py)?;
        if !asyncio::running_loop(py)?.is(&event_loop) {
            return Err(wrong_loop(py));
        }
        let coroutine = SourceTask::make(self.merge, self.key)?;
        let task_context = TaskContext::new(&event_loop, &coroutine, &self.title())?;
        let kept = task_context.clone_ref(py);
        let is_first = {
            let mut state = self.state();
            state.tasks.insert(task_context.task.as_ptr().addr());
            if let Some(entry) = state.sources.get_mut(self.key) {
                entry.task_context = Some(kept);
            }
            state.tasks.len() == 1
        };
        if is_first {
            // An event loop references its tasks weakly, so the loop must hold the merge.
            pin_to_loop(&event_loop, self.merge)?;
        }
        Ok(task_context)
    }
}
