//! Converts the core's errors to exceptions that name nodes and resources, and the way out.
//! The files of this module that call the core use it, such as `acquire.rs`, `lease.rs` and `node.rs`.

use headrace_core::capacity::{
    AcquireError, Amount, Limit, NodeError, NodeId, PermitError, ResourceId, Tree,
};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::errors;

/// Return the name of a node for a message.
pub(super) fn name(tree: &Tree, node: NodeId) -> String {
    match tree.name(node) {
        Some(name) => format!("'{name}'"),
        None => "a capacity without a name".to_owned(),
    }
}

/// Create the error of a request that can never be granted. `requested` returns the requested amount of a resource.
#[cold]
pub(super) fn acquire_error(
    py: Python<'_>,
    tree: &Tree,
    node: NodeId,
    error: &AcquireError,
    requested: impl Fn(ResourceId) -> Amount,
) -> PyErr {
    let called = |resource: &ResourceId| tree.resource_name(*resource);
    match error {
        AcquireError::AboveCeiling {
            node,
            resource,
            ceiling,
        } => PyValueError::new_err(format!(
            "a cost of {} {} can never be granted: the limit of {} is {ceiling}; lower the cost or raise that limit",
            requested(*resource),
            called(resource),
            name(tree, *node)
        )),
        AcquireError::UnknownResource { resource, known } => {
            let known = known
                .iter()
                .map(|known| called(known).to_string())
                .collect();
            unknown(tree, node, &called(resource), known)
        }
        AcquireError::BudgetExhausted {
            node,
            resource,
            left,
        } => errors::budget_exhausted(
            py,
            &format!(
                "the budget of {} of {} has {left} left, which does not cover {}; resize() raises it",
                called(resource),
                name(tree, *node),
                requested(*resource)
            ),
        ),
        AcquireError::Closed => closed(py, tree, node),
        // A task that would wait for itself.
        AcquireError::WouldDeadlock {
            node,
            resource,
            limit,
            held,
            permits,
            permit: _,
            acquired,
        } => {
            let lease = name(tree, *acquired);
            let lease = match permits {
                1 => format!("a lease of {lease}"),
                several => format!("{several} leases, the latest of {lease}"),
            };
            let them = if *permits == 1 { "it" } else { "them" };
            let is_budget = (tree.limits(*node).iter())
                .any(|(limited, limit)| limited == resource && matches!(limit, Limit::Budget(_)));
            let (node, called, requested) =
                (name(tree, *node), called(resource), requested(*resource));
            let message = if is_budget {
                format!(
                    "this task or thread holds {lease}, with {held} {called} of the {limit} that the budget of {node} has left, and would \
                     wait for itself to settle {them} to less: {requested} more can never be granted; first settle {them} to the amount \
                     used (lease.settle()), or acquire {them} with owner=None if another task settles {them}"
                )
            } else {
                format!(
                    "this task or thread holds {lease}, with {held} of the {limit} {called} of {node}, and would wait for itself to \
                     release {them}: {requested} more can never be granted; first release {them}, or suspend {them} (lease.suspended()), \
                     or acquire {them} with owner=None if another task releases {them}"
                )
            };
            errors::would_deadlock(py, &message)
        }
    }
}

/// Create the error of a resource that no node on the path limits.
#[cold]
pub(super) fn unknown(tree: &Tree, node: NodeId, resource: &str, mut known: Vec<String>) -> PyErr {
    known.sort_unstable();
    known.dedup();
    // A bare number, and the default cost, request slots without naming them.
    let hint = match known.first() {
        Some(first) if resource == "slots" => {
            format!(
                "; a cost that names no resource is one of slots: name it, as in {{\"{first}\": 1}}"
            )
        }
        _ => String::new(),
    };
    PyValueError::new_err(format!(
        "'{resource}' is limited neither by {} nor above; known there: {}{hint}",
        name(tree, node),
        known.join(", ")
    ))
}

#[cold]
pub(super) fn closed(py: Python<'_>, tree: &Tree, node: NodeId) -> PyErr {
    let name = match tree.name(node) {
        Some(name) => format!("capacity '{name}'"),
        None => "this capacity".to_owned(),
    };
    errors::closed(py, &format!("{name} was closed, or one above it"))
}

/// Create the error of a node that cannot be created or changed. `node` is that node, or its parent.
#[cold]
pub(super) fn node_error(
    py: Python<'_>,
    tree: &Tree,
    node: Option<NodeId>,
    error: NodeError,
) -> PyErr {
    let named = || node.map_or_else(|| "it".to_owned(), |node| name(tree, node));
    let called = |resource| tree.resource_name(resource);
    let message = match error {
        NodeError::Closed => {
            return match node {
                Some(node) => closed(py, tree, node),
                None => errors::closed(py, "this capacity was closed"),
            };
        }
        NodeError::SecondRoot => "a tree has one root".to_owned(),
        NodeError::TooDeep => format!(
            "parent must be less than {} levels below the root",
            headrace_core::capacity::MAX_DEPTH
        ),
        // A resource is looked up in the tree that it is used in.
        NodeError::Foreign(_) => error.to_string(),
        NodeError::Twice(resource) => format!("limit names '{}' twice", called(resource)),
        NodeError::Per(resource) => format!(
            "per of the rate of '{}' must be between a microsecond and a year",
            called(resource)
        ),
        NodeError::Burst(resource) => {
            format!(
                "burst of the rate of '{}' must be above 0",
                called(resource)
            )
        }
        NodeError::Kind(resource) => format!(
            "'{}' is another kind of limit elsewhere in this tree: a number, a Rate and a Budget do not mix",
            called(resource)
        ),
        NodeError::Unlimited(resource) => {
            format!("{} does not limit '{}'", named(), called(resource))
        }
        NodeError::RootFloor => {
            "floor is for a node with a parent: a root has no siblings that could take its slots"
                .to_owned()
        }
        NodeError::FloorKind => {
            "floor is a number of slots: in this tree 'slots' is a Rate or a Budget, which no lease returns"
                .to_owned()
        }
        NodeError::Floor { floor, limit } => format!(
            "floor must be at most the limit of slots of {}: floor is {floor}, the limit is {limit}; lower the floor, or raise the limit",
            named()
        ),
        NodeError::Floors {
            parent,
            sum,
            at,
            limit,
        } => format!(
            "the floors of the children of {} must add up to at most the limit of slots of {}: their sum is {sum}, the limit is {limit}; \
             lower a floor, or raise that limit",
            name(tree, parent),
            name(tree, at)
        ),
    };
    PyValueError::new_err(message)
}

/// Create the error of a lease that cannot be settled, suspended or resumed.
#[cold]
pub(super) fn permit_error(tree: &Tree, error: PermitError) -> PyErr {
    let called = |resource| tree.resource_name(resource);
    match error {
        PermitError::Released => PyRuntimeError::new_err("this lease was released"),
        PermitError::Suspended => {
            PyRuntimeError::new_err("this lease is suspended; leave the block of suspended() first")
        }
        PermitError::Held => PyRuntimeError::new_err("this lease is not suspended"),
        PermitError::Unasked(resource) => {
            PyValueError::new_err(format!("this lease holds no '{}'", called(resource)))
        }
        PermitError::Twice(resource) => PyValueError::new_err(format!(
            "'{}' is settled twice in one call",
            called(resource)
        )),
        PermitError::Grows(resource) => PyValueError::new_err(format!(
            "'{}' can be settled to a smaller amount only: acquire another lease for more",
            called(resource)
        )),
    }
}
