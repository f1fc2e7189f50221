//! Calls Python once when a tree gets a waiter, so that `headrace.pool._stuck` can watch it. Nothing is called while none waits.

use std::sync::atomic::Ordering::Relaxed;

use pyo3::prelude::*;
use pyo3::types::PyWeakrefReference;

use super::node::PyCapacity;
use super::tree::PyTreeRef;
use crate::object::gil_cell::GilCell;

/// The callable that is called with a weak reference to the tree, and the event loop. It must call [`tree_unwatched`] when it stops
/// watching the tree.
static WATCHER: GilCell<Option<Py<PyAny>>> = GilCell::new(None);

/// Set the callable for trees with waiters.
#[pyfunction]
pub(super) fn set_tree_watcher(py: Python<'_>, watcher: Py<PyAny>) {
    WATCHER.set(py, Some(watcher));
}

/// Note that a tree is no longer watched: its next waiter calls the watcher.
#[pyfunction]
pub(super) fn tree_unwatched(tree: &Bound<'_, PyTreeRef>) {
    tree.get().0.is_watched.store(false, Relaxed);
}

impl PyCapacity {
    /// Call the watcher before a request is queued, unless the tree is watched already.
    pub(super) fn watch(&self, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = event_loop.py();
        let initialized = self.initialized()?;
        let is_watched = &initialized.handle.is_watched;
        if is_watched.load(Relaxed) {
            return Ok(());
        }
        let watcher = WATCHER
            .borrow(py)
            .as_ref()
            .map(|watcher| watcher.clone_ref(py));
        let Some(watcher) = watcher else {
            return Ok(());
        };
        // Set first: the watcher runs Python code, which may queue another request.
        is_watched.store(true, Relaxed);
        let tree = PyWeakrefReference::new(initialized.tree_ref.bind(py).as_any())?;
        let watched = watcher.call1(py, (tree, event_loop));
        if watched.is_err() {
            is_watched.store(false, Relaxed);
        }
        watched.map(drop)
    }
}
