//! Errors of sources: whose they are, and whom they reach.

use pyo3::exceptions::PyException;
use pyo3::intern;
use pyo3::prelude::*;

use super::merge::{Merge, wake};
use super::source::Key;
use super::state::{ErrorPolicy, Phase};
use crate::errors;
use crate::runtime::asyncio;

impl Merge {
    /// By what a source goes in a message.
    pub(super) fn title(&self, py: Python<'_>, key: Key) -> String {
        let known = {
            let state = self.state.borrow(py);
            state
                .slots
                .get(key)
                .map(|slot| (slot.source.clone_ref(py), slot.name.clone_ref(py)))
        };
        let Some((source, name)) = known else {
            return format!("a source of {}", self.owner);
        };
        let source = source.bind(py);
        let kind = source
            .getattr(intern!(py, "__qualname__"))
            .or_else(|_| source.get_type().qualname().map(Bound::into_any));
        let kind = kind.map_or_else(|_| String::new(), |kind| kind.to_string());
        let name = name
            .bind(py)
            .repr()
            .map_or_else(|_| "?".to_owned(), |name| name.to_string());
        format!("source {name} of {}, {kind}", self.owner)
    }

    /// An error with a note that names its source, and never one that looks as if the consumer was
    /// cancelled.
    pub(super) fn named(&self, py: Python<'_>, key: Key, error: PyErr) -> PyErr {
        let title = self.title(py, key);
        let error = if asyncio::is_cancelled_error(py, &error) {
            let instead = errors::source_was_cancelled(py, &format!("{title} was cancelled"));
            instead.set_cause(py, Some(error));
            instead
        } else {
            error
        };
        // An exception that takes no note still has to arrive.
        let _ = errors::note(py, &error, &format!("raised by {title}"));
        error
    }

    /// An error of closing: for whoever closes, or for the next pull.
    pub(super) fn blame(&self, py: Python<'_>, key: Key, error: PyErr) {
        let futures = {
            let mut state = self.state.borrow(py);
            let removed = state
                .slots
                .get(key)
                .filter(|slot| slot.is_done && !slot.has_ended)
                .map(|slot| slot.source.clone_ref(py));
            if state.phase == Phase::Closed {
                state.errors.push(error);
                Vec::new()
            } else if let Some(source) = removed {
                state.parted.push((source, error));
                Vec::new()
            } else if self.error_policy == ErrorPolicy::Skip
                && error.is_instance_of::<PyException>(py)
            {
                Vec::new()
            } else {
                state.complaints.push_back(error);
                state.wake(None)
            }
        };
        wake(py, futures);
    }
}
