//! Refuses a stream that would be its own source.
//!
//! A line that leads into itself has no first item: walking it to its source never ends. A stream gets its source when it is
//! made, so it can only lead into itself if something was built on it before: on a merge, to which sources are added later; on
//! a stream whose `__init__` runs again; or on one that hands itself out from the `__init__` of its own class. Every link notes
//! that something was built on it ([`attach`]). Only such a link is checked, by a walk over what is above its new source, so
//! that a line of n links is still built in O(n).
//!
//! What a class of the user pulls by other means than its `source` cannot be seen here. Such a circle is found at a pull, which
//! raises `RuntimeError`, or waits if there are tasks in between.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;

use super::link::PullLink;
use super::state::Origin;
use crate::errors;
use crate::merge::Merge;
use crate::source::AnySource;

/// Notes that something pulls this link.
#[pyfunction]
pub(crate) fn attach(link: &Bound<'_, PullLink>) {
    let this = link.get();
    this.is_attached.store(true, Relaxed);
    if let Origin::Feed(AnySource::Merge(feed)) = &this.state.borrow(link.py()).origin {
        let merge = feed.get().merge(link.py());
        merge.get().is_attached.store(true, Relaxed);
    }
}

/// Whether a link is above itself.
pub(super) fn leads_to_itself(link: &Bound<'_, PullLink>) -> bool {
    if !link.get().is_attached.load(Relaxed) {
        return false;
    }
    leads(sources(link), |above| above.is(link))
}

/// Refuses a new source of a merge that takes from that merge.
///
/// # Errors
///
/// `ValueError`: it does.
pub(crate) fn refuse_circle(
    merge: &Bound<'_, Merge>,
    source: &Bound<'_, PullLink>,
) -> PyResult<()> {
    let py = source.py();
    if !merge.get().is_attached.load(Relaxed) {
        return Ok(());
    }
    let takes_from_it = |link: &Bound<'_, PullLink>| {
        matches!(
            &link.get().state.borrow(py).origin,
            Origin::Feed(AnySource::Merge(feed)) if feed.get().merge(py).is(merge)
        )
    };
    if leads(vec![source.clone()], takes_from_it) {
        return Err(refusal(merge.get().owner(), "source", source));
    }
    Ok(())
}

/// The error about a stream that is its own source.
pub(crate) fn refusal(owner: &str, parameter: &str, source: &Bound<'_, PyAny>) -> PyErr {
    PyValueError::new_err(format!(
        "{owner}: {parameter} must not lead back to the stream that pulls it, got {}: a stream cannot wait for its own items; \
         put a PushPullBufferObj between, and give its `source`",
        errors::describe(source)
    ))
}

fn leads<'py>(
    mut left: Vec<Bound<'py, PullLink>>,
    is_it: impl Fn(&Bound<'py, PullLink>) -> bool,
) -> bool {
    let mut seen = HashSet::new();
    while let Some(link) = left.pop() {
        if is_it(&link) {
            return true;
        }
        if seen.insert(link.as_ptr().addr()) {
            left.extend(sources(&link));
        }
    }
    false
}

/// The streams that a link pulls.
fn sources<'py>(link: &Bound<'py, PullLink>) -> Vec<Bound<'py, PullLink>> {
    let py = link.py();
    let links = |objects: Vec<Bound<'py, PyAny>>| {
        objects
            .into_iter()
            .filter_map(|object| object.cast_into::<PullLink>().ok())
            .collect()
    };
    match link.get().origin(py) {
        Origin::Stage { source, .. } => vec![source.bind(py).clone()],
        Origin::Feed(AnySource::Merge(feed)) => links(feed.get().merge(py).get().all(py)),
        Origin::Feed(AnySource::AsyncIter(feed))
            if feed.get().origin(py).is_instance_of::<PullLink>() =>
        {
            links(vec![feed.get().origin(py)])
        }
        // Python code pulls it: of headrace, or of the user's class.
        Origin::Feed(AnySource::AsyncIter(_)) | Origin::Unset => {
            let source = link.getattr_opt(intern!(py, "source")).ok().flatten();
            links(source.into_iter().collect())
        }
        Origin::Feed(_) => Vec::new(),
    }
}
