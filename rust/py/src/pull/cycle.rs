//! Rejects a stream that is its own source. `link.rs` and `merge/merge.rs` check new sources with it.
//!
//! A pipeline that leads into itself has no first item, and a walk to its source never ends. A
//! stream gets its source at construction. So it can lead into itself only if another stream was
//! built on it before that: on a merge, to which sources are added later; on a stream whose
//! `__init__` runs again; or on a stream that passes itself on in its own `__init__`. Each link
//! records that a stream was built on it ([`attach`]). Only such a link is checked, by a walk
//! upstream from its new source, so a pipeline of n links is still built in O(n).
//!
//! A user's class may pull streams other than its `source`, which this module cannot see. Such a
//! cycle is found at a pull: it raises `RuntimeError`, or waits if there are tasks in between.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;

use super::link::PyPullLink;
use super::state::Origin;
use crate::errors;
use crate::merge::PyMerge;
use crate::source::AnySource;

/// Record that a stream was built on this link.
#[pyfunction]
pub(crate) fn attach(link: &Bound<'_, PyPullLink>) {
    let this = link.get();
    this.is_attached.store(true, Relaxed);
    if let Origin::Source(AnySource::Merge(feed)) = &this.state.borrow(link.py()).origin {
        let merge = feed.get().merge(link.py());
        merge.get().is_attached.store(true, Relaxed);
    }
}

/// Return whether a link is upstream of itself.
pub(super) fn is_cyclic(link: &Bound<'_, PyPullLink>) -> bool {
    if !link.get().is_attached.load(Relaxed) {
        return false;
    }
    reaches(sources(link), sources, |upstream| upstream.is(link))
}

/// Reject a new source of a merge that pulls from that merge.
///
/// # Errors
///
/// `ValueError`: the source pulls from the merge.
pub(crate) fn reject_cycle(
    merge: &Bound<'_, PyMerge>,
    source: &Bound<'_, PyPullLink>,
) -> PyResult<()> {
    let py = source.py();
    if !merge.get().is_attached.load(Relaxed) {
        return Ok(());
    }
    let pulls_from_it = |link: &Bound<'_, PyPullLink>| {
        matches!(
            &link.get().state.borrow(py).origin,
            Origin::Source(AnySource::Merge(feed)) if feed.get().merge(py).is(merge)
        )
    };
    if reaches(vec![source.clone()], sources, pulls_from_it) {
        return Err(cycle_error(merge.get().owner(), "source", source));
    }
    Ok(())
}

/// Return the error for a stream that is its own source.
pub(crate) fn cycle_error(owner: &str, parameter: &str, source: &Bound<'_, PyAny>) -> PyErr {
    PyValueError::new_err(format!(
        "{owner}: {parameter} must not lead back to the stream that pulls it, got {}: a stream cannot wait for its own items; \
         put a PushPullBufferObj between, and give its `source`",
        errors::describe(source)
    ))
}

/// Return whether a walk along `next` reaches a target. `links` are visited first.
pub(crate) fn reaches<'py, T>(
    mut links: Vec<Bound<'py, T>>,
    next: impl Fn(&Bound<'py, T>) -> Vec<Bound<'py, T>>,
    is_target: impl Fn(&Bound<'py, T>) -> bool,
) -> bool {
    let mut visited = HashSet::new();
    while let Some(link) = links.pop() {
        if is_target(&link) {
            return true;
        }
        if visited.insert(link.as_ptr().addr()) {
            links.extend(next(&link));
        }
    }
    false
}

/// Return the streams that a link pulls.
fn sources<'py>(link: &Bound<'py, PyPullLink>) -> Vec<Bound<'py, PyPullLink>> {
    let py = link.py();
    let links = |objects: Vec<Bound<'py, PyAny>>| {
        objects
            .into_iter()
            .filter_map(|object| object.cast_into::<PyPullLink>().ok())
            .collect()
    };
    match link.get().origin(py) {
        Origin::Stage { source, .. } => vec![source.bind(py).clone()],
        Origin::Source(AnySource::Merge(feed)) => links(feed.get().merge(py).get().all(py)),
        Origin::Source(AnySource::AsyncIter(feed))
            if feed.get().origin(py).is_instance_of::<PyPullLink>() =>
        {
            links(vec![feed.get().origin(py)])
        }
        // Python code pulls the source: that of headrace, or of a user's class.
        Origin::Source(AnySource::AsyncIter(_)) | Origin::Unset => {
            let source = link.getattr_opt(intern!(py, "source")).ok().flatten();
            links(source.into_iter().collect())
        }
        Origin::Source(_) => Vec::new(),
    }
}
