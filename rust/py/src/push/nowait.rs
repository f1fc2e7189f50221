//! One `next_nowait(item)`.

use pyo3::intern;
use pyo3::prelude::*;

use super::deliver::{Mode, Walked};
use super::link::PushLink;
use super::pipeline::{End, Line};
use super::work_stack::Todo;
use crate::errors;

impl Line {
    /// Carries one item down without waiting. Where that is not possible, the item is the caller's
    /// again; unless a stage that keeps state has taken it, which then keeps what it made of it.
    pub(super) fn push_now<'py>(
        &self,
        head: &Bound<'py, PushLink>,
        item: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = item.py();
        let mut todo = Todo::of(item);
        let walked = self.walk(head, &mut todo, Some((item.clone(), 0)), Mode::Now);
        match walked {
            Ok(Walked::Done) => return todo.result(py),
            Ok(Walked::Halted(halt)) => todo.give_up(py, halt)?,
            Err(error) => {
                if !is_would_block(py, &error) || has_acceptors(py, &error) {
                    self.leave(head, todo, false);
                    return Err(error);
                }
            }
        }
        if todo.is_callers() {
            self.leave(head, todo, true);
            return Err(would_block(item));
        }
        let result = todo.result(py);
        self.leave(head, todo, true);
        result
    }
}

impl Line {
    /// Whether it would take an item now, as far as can be said without running anything.
    pub(super) fn has_room(&self, head: &Bound<'_, PushLink>) -> bool {
        let py = head.py();
        // What such a stage makes of an item may stay there, unless something is there already.
        if self
            .stages
            .iter()
            .any(|stage| stage.keeps_state && !stage.bind(head).get().has_kept())
        {
            return true;
        }
        match &self.end {
            End::Queue(buffer) => buffer.get().has_room(),
            End::Fan(fan) => fan.get().has_room(py),
            // They say so themselves.
            End::Implementation
            | End::Collect(..)
            | End::Call(_)
            | End::Foreign(_)
            | End::Unset => true,
        }
    }
}

/// The error that gives an item back because it would have to wait.
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

/// Whether some branch of a fan has the item all the same.
pub(super) fn has_acceptors(py: Python<'_>, error: &PyErr) -> bool {
    error
        .value(py)
        .getattr_opt(intern!(py, "accepted_by"))
        .is_ok_and(|known| known.is_some_and(|known| known.is_truthy().unwrap_or(true)))
}
