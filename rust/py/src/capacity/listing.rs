//! The nodes, permits and waiters of a tree of capacities, as Python tuples, for `headrace.explain()` and the warning of stuck trees.
//!
//! The lists are read in pages, each under the lock of the tree for a short time. Python objects are made between two pages.

use std::sync::Arc;

use headrace_core::capacity::{Amount, Cost, NodeId, ResourceId, Snapshot, Tree};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::node::PyCapacity;
use super::tree::{PyTreeRef, TreeHandle};
use super::{arguments, breaker, convert};

/// Return the reference to the tree of a node, and the number of the node.
#[pyfunction]
pub(super) fn tree_of(capacity: &Bound<'_, PyCapacity>) -> PyResult<(Py<PyTreeRef>, u64)> {
    let (tree_ref, node) = capacity.get().tree_and_node()?;
    Ok((tree_ref.clone_ref(capacity.py()), node.number()))
}

/// Return the number of grants of a tree so far, and the number of its waiters.
#[pyfunction]
pub(super) fn tree_activity(py: Python<'_>, tree: &Bound<'_, PyTreeRef>) -> PyResult<(u64, usize)> {
    let handle = &tree.get().0;
    handle.check(py)?;
    let tree = handle.peek();
    let usage = tree.find_root().and_then(|root| tree.usage(root));
    Ok(usage.map_or((0, 0), |usage| (usage.granted, usage.waiting)))
}

/// List the nodes, the permits and the waiters of a tree, as tuples; see `headrace._core`.
#[pyfunction]
pub(super) fn tree_listing<'py>(
    py: Python<'py>,
    tree: &Bound<'py, PyTreeRef>,
) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyList>, Bound<'py, PyList>)> {
    let handle = &tree.get().0;
    let tree = entered(py, handle)?;
    let nodes = PyList::empty(py);
    if let Some(root) = tree.find_root()
        && let Some(snapshot) = tree.snapshot(root)
    {
        append_nodes(&nodes, tree, &snapshot)?;
    }
    Ok((nodes, holders(py, tree)?, waiters(py, tree)?))
}

/// Return the tree. If the user's clock fails, the durations are those of its last reading.
fn entered<'a>(py: Python<'_>, handle: &'a Arc<TreeHandle>) -> PyResult<&'a Tree> {
    handle.check(py)?;
    if let Err(error) = handle.enter(py)
        && !error.is_instance_of::<pyo3::exceptions::PyException>(py)
    {
        return Err(error);
    }
    Ok(handle.peek())
}

fn append_nodes(nodes: &Bound<'_, PyList>, tree: &Tree, root: &Snapshot) -> PyResult<()> {
    let py = nodes.py();
    let mut left: Vec<(&Snapshot, Option<NodeId>)> = vec![(root, None)];
    while let Some((snapshot, parent)) = left.pop() {
        let usage = &snapshot.usage;
        let resources = PyList::empty(py);
        for one in &usage.resources {
            resources.append((
                &*tree.resource_name(one.resource),
                convert::limit_to_python(py, &one.limit)?,
                arguments::number(py, one.held),
                arguments::number(py, one.available),
            ))?;
        }
        let held_off = tree.held_off(usage.node).into_iter().map(|one| {
            let name = one.resource.map(|resource| tree.resource_name(resource));
            (
                name.map(|name| name.to_string()),
                one.remaining.as_secs_f64(),
            )
        });
        nodes.append((
            usage.node.number(),
            parent.map(NodeId::number),
            usage.name.as_deref(),
            resources,
            held_off.collect::<Vec<_>>(),
            usage.paused,
            usage.closed,
            usage.breaker.map(breaker::status_to_python),
        ))?;
        let children = snapshot.children.iter().rev();
        left.extend(children.map(|child| (child, Some(usage.node))));
    }
    Ok(())
}

fn holders<'py>(py: Python<'py>, tree: &Tree) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    let mut from = Some(0);
    while let Some(start) = from {
        let (page, next) = tree.holders(start);
        for holder in page {
            list.append((
                holder.permit.number(),
                holder.node.number(),
                amounts(py, tree, &holder.cost)?,
                holder.held_for.map(|held_for| held_for.as_secs_f64()),
                holder.owner.map(|owner| owner.0),
                holder.has_slots,
            ))?;
        }
        from = next;
    }
    Ok(list)
}

fn waiters<'py>(py: Python<'py>, tree: &Tree) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    let mut from = Some(0);
    while let Some(start) = from {
        let (page, next) = tree.waiters(start);
        for waiter in page {
            list.append((
                waiter.node.number(),
                amounts(py, tree, &waiter.cost)?,
                waiter.waited.as_secs_f64(),
                waiter.owner.map(|owner| owner.0),
                waiter.is_parked,
            ))?;
        }
        from = next;
    }
    Ok(list)
}

fn amounts<'py>(py: Python<'py>, tree: &Tree, cost: &Cost) -> PyResult<Bound<'py, PyDict>> {
    let parts: Vec<(ResourceId, Amount)> = cost.parts().to_vec();
    convert::by_name(py, tree, parts.into_iter())
}
