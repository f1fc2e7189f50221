//! Refuses a push object that would be its own sink: as for streams, see `drive/pull/circle.rs`.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::link::{Outlet, PushLink};
use crate::errors;

/// Notes that something pushes into this sink.
pub(super) fn attach(sink: &Bound<'_, PyAny>) {
    if let Ok(link) = sink.cast::<PushLink>() {
        link.get().is_attached.store(true, Relaxed);
    }
}

/// Whether a link is below itself.
pub(super) fn leads_to_itself(link: &Bound<'_, PushLink>) -> bool {
    if !link.get().is_attached.load(Relaxed) {
        return false;
    }
    let mut seen = HashSet::new();
    let mut left = sinks(link);
    while let Some(below) = left.pop() {
        if below.is(link) {
            return true;
        }
        if seen.insert(below.as_ptr().addr()) {
            left.extend(sinks(&below));
        }
    }
    false
}

/// The error about a push object that is its own sink.
pub(super) fn refusal(link: &Bound<'_, PushLink>, outlet: &Bound<'_, PyAny>) -> PyErr {
    let owner = link
        .get_type()
        .name()
        .map_or_else(|_| "a push object".to_owned(), |name| name.to_string());
    let (parameter, got) = if outlet.is_instance_of::<PushLink>() {
        ("sink", errors::describe(outlet))
    } else {
        ("sinks", "some that do".to_owned())
    };
    PyValueError::new_err(format!(
        "{owner}: {parameter} must not lead back to the object that pushes into it, got {got}: an item would go round for ever; \
         put a PushPullBufferObj between, and give its `sink`"
    ))
}

fn sinks<'py>(link: &Bound<'py, PushLink>) -> Vec<Bound<'py, PushLink>> {
    let py = link.py();
    let sinks = match link.get().outlet(py) {
        Outlet::Stage { sink, .. } => vec![sink.bind(py).clone()],
        Outlet::Fan(fan) => fan.get().sinks(py),
        _ => Vec::new(),
    };
    sinks
        .into_iter()
        .filter_map(|sink| sink.cast_into::<PushLink>().ok())
        .collect()
}
