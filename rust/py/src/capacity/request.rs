//! Access to a node's tree, and the acquire requests of a node.
//! `node.rs`, `acquire.rs`, `permit.rs` and `prefetch.rs` call these methods of `PyCapacity`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use headrace_core::capacity::{
    AcquireError, AcquireRequest, NodeError, NodeId, PermitId, Tree, Usage,
};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::acquire::one_slot;
use super::arguments::Argument;
use super::node::{Initialized, PyCapacity};
use super::tree::{PyTreeRef, TreeHandle};
use super::{arguments, core_error};

/// The cooldowns along the path of a node, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cooled {
    /// The time for which its nodes were cooled down until now.
    pub(crate) total: f64,
    /// The time until all of them are open.
    pub(crate) left: f64,
}

impl PyCapacity {
    #[inline]
    pub(super) fn initialized(&self) -> PyResult<&Initialized> {
        self.initialized.get().ok_or_else(uninitialised)
    }

    #[inline]
    pub(super) fn handle(&self) -> PyResult<&Arc<TreeHandle>> {
        Ok(&self.initialized()?.handle)
    }

    /// Return the reference to the tree, and the node.
    #[inline]
    pub(super) fn tree_and_node(&self) -> PyResult<(&Py<PyTreeRef>, NodeId)> {
        let initialized = self.initialized()?;
        Ok((&initialized.tree_ref, initialized.node))
    }

    /// Check the tree, read its clock, and return the tree and the node.
    #[inline]
    pub(super) fn enter(&self, py: Python<'_>) -> PyResult<(&Arc<Tree>, NodeId)> {
        let initialized = self.initialized()?;
        Ok((initialized.handle.enter(py)?, initialized.node))
    }

    pub(super) fn usage(&self, py: Python<'_>) -> PyResult<Usage> {
        let (tree, node) = self.enter(py)?;
        tree.usage(node)
            .ok_or_else(|| core_error::closed(py, tree, node))
    }

    /// Return the cooldowns of the node and of those above it.
    pub(crate) fn cooled(&self, py: Python<'_>) -> PyResult<Cooled> {
        let (tree, node) = self.enter(py)?;
        let (total, left) = tree.cooled(node);
        Ok(Cooled {
            total: total.as_secs_f64(),
            left: left.as_secs_f64(),
        })
    }

    /// Return whether released capacity can help a request for a cost.
    pub(crate) fn release_helps(
        &self,
        py: Python<'_>,
        cost: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let cost = cost.map_or(Argument::Default, |cost| {
            Argument::Value(cost.as_borrowed())
        });
        let request = self.request(py, cost, Argument::Default)?;
        let (tree, node) = self.enter(py)?;
        Ok(tree.release_helps(node, &request.cost))
    }

    /// Change the node, and convert the error.
    pub(super) fn change<T>(
        &self,
        py: Python<'_>,
        change: impl FnOnce(&Tree, NodeId) -> Result<T, NodeError>,
    ) -> PyResult<T> {
        let (tree, node) = self.enter(py)?;
        change(tree, node).map_err(|error| core_error::node_error(py, tree, Some(node), error))
    }

    /// Create a request from arguments.
    #[inline]
    pub(super) fn request(
        &self,
        py: Python<'_>,
        cost: Argument<'_, '_>,
        priority: Argument<'_, '_>,
    ) -> PyResult<AcquireRequest> {
        let initialized = self.initialized()?;
        let (handle, node) = (&initialized.handle, initialized.node);
        handle.check(py)?;
        let cost = match cost {
            Argument::Default => one_slot(node).cost,
            Argument::Value(cost) => arguments::cost(&cost, |name| {
                let tree = handle.peek();
                let resource = handle.resource(py, name);
                resource.ok_or_else(|| core_error::unknown(tree, node, name, known(tree, node)))
            })?,
        };
        let mut request = AcquireRequest::new(node, cost);
        if let Argument::Value(priority) = priority {
            request.priority = arguments::priority(&priority)?;
        }
        Ok(request)
    }

    /// Create a request, and fail if it can never be granted.
    #[inline]
    pub(super) fn checked_request(
        &self,
        py: Python<'_>,
        cost: Argument<'_, '_>,
        priority: Argument<'_, '_>,
    ) -> PyResult<AcquireRequest> {
        let request = self.request(py, cost, priority)?;
        let checked = self.handle()?.peek().check_request(&request);
        match checked {
            Ok(()) => Ok(request),
            Err(error) => Err(self.acquire_error(py, &request, &error)),
        }
    }

    /// Fail if one slot can never be granted. The result is cached until a limit changes.
    #[inline]
    pub(super) fn check_one_slot(&self, py: Python<'_>) -> PyResult<()> {
        let initialized = self.initialized()?;
        initialized.handle.process.check(py, "capacity")?;
        let revision = initialized.handle.revision();
        if initialized.slot_checked_at.load(Ordering::Relaxed) != revision {
            self.checked_request(py, Argument::Default, Argument::Default)?;
            initialized
                .slot_checked_at
                .store(revision, Ordering::Relaxed);
        }
        Ok(())
    }

    #[inline]
    pub(super) fn try_take(
        &self,
        py: Python<'_>,
        request: &AcquireRequest,
    ) -> PyResult<Option<PermitId>> {
        let tree = self.handle()?.enter(py)?;
        (tree.try_take(request)).map_err(|error| self.acquire_error(py, request, &error))
    }

    #[cold]
    pub(super) fn acquire_error(
        &self,
        py: Python<'_>,
        request: &AcquireRequest,
        error: &AcquireError,
    ) -> PyErr {
        match self.handle() {
            Ok(handle) => {
                let requested = |resource| request.cost.get(resource);
                core_error::acquire_error(py, handle.peek(), request.node, error, requested)
            }
            Err(error) => error,
        }
    }
}

#[cold]
fn uninitialised() -> PyErr {
    PyRuntimeError::new_err("this capacity was not initialised: call super().__init__() first")
}

/// List the resources that are limited at a node or above it.
#[cold]
fn known(tree: &Tree, node: NodeId) -> Vec<String> {
    (tree.known(node).iter())
        .map(|&resource| tree.resource_name(resource).to_string())
        .collect()
}
