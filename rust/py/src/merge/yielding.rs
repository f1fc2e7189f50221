//! Sources that let the loop have a turn, and wait for nothing else: they go on together.

use pyo3::prelude::*;

use super::callbacks::{Errand, Note};
use super::merge::Merge;
use super::source::Key;
use super::state::State;
use super::step::Where;
use super::task_context::Entered;

impl Merge {
    /// A source goes on in the next turn of the loop, with all others that do: in one callback.
    pub(super) fn rest(slf: &Bound<'_, Self>, key: Key) -> PyResult<()> {
        let py = slf.py();
        let call_soon = {
            let mut state = slf.get().state.borrow(py);
            state.resting.push(key);
            if state.resting.len() > 1 {
                return Ok(());
            }
            state.call_soon.as_ref().map(|call| call.clone_ref(py))
        };
        let note = Note {
            merge: slf.clone().unbind(),
            errand: Errand::GoOn,
        };
        if let Some(call_soon) = call_soon {
            call_soon.bind(py).call1((Py::new(py, note)?,))?;
        }
        Ok(())
    }

    /// The turn of the loop is over: all of them go on.
    pub(super) fn go_on(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let mut entered = Entered::default();
        let mut outcome = Ok(());
        let resting = std::mem::take(&mut this.state.borrow(py).resting);
        for key in resting {
            let mut state = this.state.borrow(py);
            let State {
                slots, event_loop, ..
            } = &mut *state;
            let Some(slot) = slots.get_mut(key).filter(|slot| slot.is_resting()) else {
                continue;
            };
            let (Some(running), Some(event_loop)) = (slot.run(py), event_loop.as_ref()) else {
                drop(state);
                entered.leave();
                outcome = outcome.and(Self::resume(slf, key, Where::Turn));
                continue;
            };
            let event_loop = event_loop.bind(py).clone();
            drop(state);
            let mut stepped =
                Self::run(slf, key, running, &mut entered, &event_loop, false).map(drop);
            if this.prefetch > 1 {
                entered.leave();
                stepped = stepped.and_then(|()| Self::read_ahead(slf, key, Where::Turn));
            }
            // What fails for one does not keep the others from going on.
            outcome = outcome.and(stepped);
        }
        outcome
    }
}
