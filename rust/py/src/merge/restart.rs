//! A new cycle: the sources that were given at first, from their beginning.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::merge::Merge;
use super::state::State;
use crate::pull::link::PyPullLink;
use crate::source::AnySource;

impl Merge {
    /// Refuses to restart while sources have tasks.
    pub(super) fn check_idle(&self, py: Python<'_>) -> PyResult<()> {
        if self.state.borrow(py).tasks.is_empty() {
            return Ok(());
        }
        Err(PyRuntimeError::new_err(
            "cannot restart while sources are open; read the stream to its end or call aclose() first",
        ))
    }

    /// Begins a new cycle with the sources that were given at first and not removed. Those of
    /// [`Self::restarting`] have begun theirs.
    pub(super) fn restart(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        this.check_idle(py)?;
        let slots: Vec<_> = {
            let state = this.state.borrow(py);
            state
                .in_order()
                .filter(|slot| slot.is_given)
                .map(|slot| slot.renewed(py))
                .collect()
        };
        for slot in &slots {
            let source = slot.source.bind(py);
            if source.is_instance_of::<PyPullLink>() {
                if let AnySource::AsyncIter(feed) = &slot.feed {
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
            for slot in slots {
                state.enter(slot);
            }
            old
        };
        drop(old);
        Ok(())
    }
}
