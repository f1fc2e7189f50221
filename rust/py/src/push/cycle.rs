//! Rejects a push object that is its own sink, for the constructor in `link.rs`.
//! See [`crate::pull::cycle`] for streams.

use std::sync::atomic::Ordering::Relaxed;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::link::{Outlet, PyPushLink};
use super::pipeline::End;
use crate::errors;
use crate::pull::cycle::reaches;

/// Record that a push object was built on this sink.
pub(super) fn attach(sink: &Bound<'_, PyAny>) {
    if let Ok(link) = sink.cast::<PyPushLink>() {
        link.get().is_attached.store(true, Relaxed);
    }
}

/// Return whether a link is downstream of itself.
pub(super) fn is_cyclic(link: &Bound<'_, PyPushLink>) -> bool {
    if !link.get().is_attached.load(Relaxed) {
        return false;
    }
    reaches(sinks(link), sinks, |downstream| downstream.is(link))
}

/// Return the error for a push object that is its own sink.
pub(super) fn cycle_error(link: &Bound<'_, PyPushLink>, outlet: &Bound<'_, PyAny>) -> PyErr {
    let owner = link
        .get_type()
        .name()
        .map_or_else(|_| "a push object".to_owned(), |name| name.to_string());
    let (parameter, got) = if outlet.is_instance_of::<PyPushLink>() {
        ("sink", errors::describe(outlet))
    } else {
        ("sinks", "some that do".to_owned())
    };
    PyValueError::new_err(format!(
        "{owner}: {parameter} must not lead back to the object that pushes into it, got {got}: an item would loop forever; \
         put a PushPullBufferObj between, and give its `sink`"
    ))
}

/// Return the push objects that a link pushes into.
fn sinks<'py>(link: &Bound<'py, PyPushLink>) -> Vec<Bound<'py, PyPushLink>> {
    let py = link.py();
    let sinks = match link.get().outlet(py) {
        Outlet::Stage { sink, .. } => vec![sink.bind(py).clone()],
        Outlet::End(End::Fan(fan)) => fan.get().sinks(py),
        _ => Vec::new(),
    };
    sinks
        .into_iter()
        .filter_map(|sink| sink.cast_into::<PyPushLink>().ok())
        .collect()
}
