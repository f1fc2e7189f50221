//! Sources that yield to the event loop for one iteration. One callback resumes all of them.

use pyo3::prelude::*;

use super::callbacks::LoopAction;
use super::merge::PyMerge;
use super::source::Key;
use super::state::State;
use super::step::StepFrom;
use super::task_context::TaskGuard;

impl PyMerge {
    /// Registers a source to be resumed in the next iteration of the event loop.
    pub(super) fn yield_once(slf: &Bound<'_, Self>, key: Key) -> PyResult<()> {
        {
            let mut state = slf.get().state.borrow(slf.py());
            state.yielding.push(key);
            if state.yielding.len() > 1 {
                return Ok(());
            }
        }
        Self::call_soon(slf, LoopAction::ResumeYielding)
    }

    /// Resumes all sources that yielded in the last iteration.
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
                outcome = outcome.and(Self::resume(slf, key, StepFrom::YieldCallback));
                continue;
            };
            let event_loop = event_loop.object.bind(py).clone();
            drop(state);
            let mut stepped =
                Self::run(slf, key, running, &mut guard, &event_loop, false).map(drop);
            if this.prefetch > 1 {
                guard.leave();
                stepped =
                    stepped.and_then(|()| Self::read_ahead(slf, key, StepFrom::YieldCallback));
            }
            // An error of one source does not stop the others from being resumed.
            outcome = outcome.and(stepped);
        }
        outcome
    }
}
