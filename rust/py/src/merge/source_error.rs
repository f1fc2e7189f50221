//! Attributes errors to their source, and routes errors of closing. `step.rs` and `close.rs` report errors through it.

use pyo3::exceptions::PyException;
use pyo3::intern;
use pyo3::prelude::*;

use super::merge::wake;
use super::source_ref::SourceRef;
use super::state::{ErrorPolicy, Phase};
use crate::errors;
use crate::runtime::asyncio;

impl SourceRef<'_, '_> {
    /// Describe a source for a message.
    pub(super) fn title(self) -> String {
        let py = self.py();
        let known = {
            let state = self.state();
            state
                .sources
                .get(self.key)
                .map(|entry| (entry.source.clone_ref(py), entry.name.clone_ref(py)))
        };
        let Some((source, name)) = known else {
            return format!("a source of {}", self.merge.get().owner);
        };
        let source = source.bind(py);
        let kind = source
            .getattr(intern!(py, "__qualname__"))
            .or_else(|_| source.get_type().qualname().map(Bound::into_any));
        let kind = kind.map_or_else(|_| String::new(), |kind| kind.to_string());
        format!(
            "source {} of {}, {kind}",
            repr(&name, py),
            self.merge.get().owner
        )
    }

    /// Add a note that names the source. A `CancelledError` is wrapped: raised as it is, it would look like a
    /// cancellation of the consumer.
    pub(super) fn annotate(self, error: PyErr) -> PyErr {
        let py = self.py();
        let title = self.title();
        let error = if asyncio::is_cancelled_error(py, &error) {
            let instead = errors::source_was_cancelled(py, &format!("{title} was cancelled"));
            instead.set_cause(py, Some(error));
            instead
        } else {
            error
        };
        // The error is raised even if it accepts no note.
        let _ = errors::note(py, &error, &format!("raised by {title}"));
        error
    }

    /// Record an error of closing a source: for `aclose()`, for the removal of the source, or for the next pull.
    pub(super) fn record_close_error(self, error: PyErr) {
        let py = self.py();
        let futures = {
            let mut state = self.state();
            let removed = state
                .sources
                .get(self.key)
                .filter(|entry| entry.is_done && !entry.has_ended)
                .map(|entry| entry.source.clone_ref(py));
            if state.phase == Phase::Closed {
                state.errors.push(error);
                Vec::new()
            } else if let Some(source) = removed {
                state.removed_errors.push((source, error));
                Vec::new()
            } else if self.merge.get().error_policy == ErrorPolicy::Skip
                && error.is_instance_of::<PyException>(py)
            {
                Vec::new()
            } else {
                state.close_errors.push_back(error);
                state.wake(None)
            }
        };
        wake(py, futures);
    }
}

/// Format the name of a source for a message, even if its `repr` raises.
pub(super) fn repr(name: &Py<PyAny>, py: Python<'_>) -> String {
    let repr = name.bind(py).repr();
    repr.map_or_else(|_| "?".to_owned(), |repr| repr.to_string())
}
