//! Pushing one item without waiting: `next_nowait(item)`. `link.rs` and `branch.rs` call it.

use pyo3::intern;
use pyo3::prelude::*;

use super::deliver::Mode;
use super::link::PyPushLink;
use super::pipeline::{End, Pipeline};
use super::work_stack::PushState;
use crate::errors;

impl Pipeline {
    /// Push one item without waiting. If that is not possible, `WouldBlock` returns the item to the
    /// caller; but if a stateful stage has consumed the item, its link retains the output.
    pub(super) fn push_nowait<'py>(
        &self,
        head: &Bound<'py, PyPushLink>,
        item: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = item.py();
        let mut state = PushState::of(item);
        let result = self.run_until_wait(head, &mut state, Some((item.clone(), 0)), Mode::NoWait);
        match result {
            Ok(None) => return state.result(py),
            Ok(Some(wait)) => state.cancel_wait(py, wait)?,
            Err(error) => {
                if !is_would_block(py, &error) || has_acceptors(py, &error) {
                    self.retain_rest(head, state, false);
                    return Err(error);
                }
            }
        }
        if state.caller_owns() {
            self.retain_rest(head, state, true);
            return Err(would_block(item));
        }
        let result = state.result(py);
        self.retain_rest(head, state, true);
        result
    }

    /// Return whether the pipeline would accept an item now. This runs no foreign code.
    pub(super) fn has_room(&self, head: &Bound<'_, PyPushLink>) -> bool {
        let py = head.py();
        // A stateful stage can retain one output, unless it retains one already.
        if self
            .stages
            .iter()
            .any(|stage| stage.is_stateful && !stage.bind(head).get().has_retained())
        {
            return true;
        }
        match &self.end {
            End::Queue(buffer) => buffer.get().has_room(),
            End::Fan(fan) => fan.get().has_room(py),
            // They decide when they are called.
            End::Implementation
            | End::Collect(..)
            | End::Call(_)
            | End::Foreign(_)
            | End::Unset => true,
        }
    }
}

/// Return the error that returns an item because delivering it would have to wait.
pub(super) fn would_block(item: &Bound<'_, PyAny>) -> PyErr {
    errors::refused(
        item.py(),
        "WouldBlock",
        "the item cannot be accepted without waiting; await next(item), it is in this error's `item`",
        item.clone(),
    )
}

pub(super) fn is_would_block(py: Python<'_>, error: &PyErr) -> bool {
    py.import(intern!(py, "headrace.errors"))
        .and_then(|errors| errors.getattr(intern!(py, "WouldBlock")))
        .is_ok_and(|class| error.is_instance(py, &class))
}

/// Return whether the error names branches of a fan that have accepted the item.
pub(super) fn has_acceptors(py: Python<'_>, error: &PyErr) -> bool {
    error
        .value(py)
        .getattr_opt(intern!(py, "accepted_by"))
        .is_ok_and(|known| known.is_some_and(|known| known.is_truthy().unwrap_or(true)))
}
