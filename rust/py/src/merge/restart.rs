//! Restarts a merge with its original sources. `view.rs` calls it when the stream is restarted.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::merge::PyMerge;
use super::state::State;
use crate::pull::link::PyPullLink;
use crate::source::AnySource;

impl PyMerge {
    /// Refuse to restart while sources have tasks.
    pub(super) fn check_idle(&self, py: Python<'_>) -> PyResult<()> {
        if self.state.borrow(py).tasks.is_empty() {
            return Ok(());
        }
        Err(PyRuntimeError::new_err(
            "cannot restart while sources are open; read the stream to its end or call aclose() first",
        ))
    }

    /// Restart the original sources that were not removed. The caller has restarted those of [`Self::restarting`].
    pub(super) fn restart(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        this.check_idle(py)?;
        let sources: Vec<_> = {
            let state = this.state.borrow(py);
            state
                .in_order()
                .filter(|entry| entry.is_given)
                .map(|entry| entry.renewed(py))
                .collect()
        };
        for entry in &sources {
            let source = entry.source.bind(py);
            if source.is_instance_of::<PyPullLink>() {
                if let AnySource::AsyncIter(adapter) = &entry.adapter {
                    adapter.get().forget(py);
                }
            } else {
                entry.adapter.restart(py)?;
            }
        }
        let old = {
            let mut state = this.state.borrow(py);
            let fresh = State {
                keeps_ready: state.keeps_ready,
                keeps_ring: state.keeps_ring,
                polls_head_only: state.polls_head_only,
                added: state.added,
                ..State::default()
            };
            let old = std::mem::replace(&mut *state, fresh);
            for entry in sources {
                state.add_source(entry);
            }
            old
        };
        drop(old);
        Ok(())
    }
}
