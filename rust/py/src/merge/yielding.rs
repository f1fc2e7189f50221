//! Methods of `PyMerge` and `SourceRef` for sources that yield to the event loop for one iteration. `pending.rs` adds a source;
//! one callback of the loop resumes all that were added.

use pyo3::prelude::*;

use super::callbacks::LoopAction;
use super::merge::PyMerge;
use super::source_ref::SourceRef;
use super::state::State;
use super::step::StepFrom;
use super::task_context::TaskGuard;

impl PyMerge {
    /// Resume all sources that yielded in the last iteration.
    pub(super) fn resume_yielding(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let mut guard = TaskGuard::default();
        let mut outcome = Ok(());
        let yielding = std::mem::take(&mut this.state.borrow(py).yielding);
        for key in yielding {
            let mut state = this.state.borrow(py);
            let State {
                sources,
                event_loop,
                ..
            } = &mut *state;
            let Some(entry) = sources.get_mut(key).filter(|entry| entry.is_yielding()) else {
                continue;
            };
            let (Some(running), Some(event_loop)) = (entry.run(py), event_loop.as_ref()) else {
                drop(state);
                guard.leave();
                outcome = outcome.and(Self::at(slf, key).resume(StepFrom::YieldCallback));
                continue;
            };
            let event_loop = event_loop.object.bind(py).clone();
            drop(state);
            let mut stepped = Self::at(slf, key)
                .run(running, &mut guard, &event_loop, false)
                .map(drop);
            if this.prefetch > 1 {
                guard.leave();
                stepped =
                    stepped.and_then(|()| Self::at(slf, key).read_ahead(StepFrom::YieldCallback));
            }
            // An error of one source does not stop the others from being resumed.
            outcome = outcome.and(stepped);
        }
        outcome
    }
}

impl SourceRef<'_, '_> {
    /// Register a source to be resumed in the next iteration of the event loop.
    pub(super) fn yield_once(self) -> PyResult<()> {
        {
            let mut state = self.state();
            state.yielding.push(self.key);
            if state.yielding.len() > 1 {
                return Ok(());
            }
        }
        PyMerge::call_soon(self.merge, LoopAction::ResumeYielding)
    }
}
