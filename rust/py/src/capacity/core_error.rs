//! The core's errors as Python's: with names for numbers, and what to do.

use headrace_core::capacity::{
    AcquireError, Amount, Limit, NodeError, NodeId, PermitError, Resource, Tree,
};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::errors;

/// What a node is called in a message.
pub(super) fn name(tree: &Tree, node: NodeId) -> String {
    match tree.name(node) {
        Some(name) => format!("'{name}'"),
        None => "a capacity without a name".to_owned(),
    }
}

/// Why an ask will never be granted. `asked` is how much of a resource it asks for.
#[cold]
pub(super) fn of_ask(
    py: Python<'_>,
    tree: &Tree,
    node: NodeId,
    error: &AcquireError,
    asked: impl Fn(Resource) -> Amount,
) -> PyErr {
    let called = |resource: &Resource| tree.resource_name(*resource);
    match error {
        AcquireError::AboveCeiling {
            node,
            resource,
            ceiling,
        } => PyValueError::new_err(format!(
            "a cost of {} {} can never be had: the limit of {} is {ceiling}; lower the cost or raise that limit",
            asked(*resource),
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
                asked(*resource)
            ),
        ),
        AcquireError::Closed => closed(py, tree, node),
        AcquireError::WouldDeadlock { .. } => would_deadlock(py, tree, error, asked),
    }
}

/// That somebody would wait for itself, and by which lease.
#[cold]
fn would_deadlock(
    py: Python<'_>,
    tree: &Tree,
    error: &AcquireError,
    asked: impl Fn(Resource) -> Amount,
) -> PyErr {
    let AcquireError::WouldDeadlock {
        node,
        resource,
        limit,
        held,
        leases,
        permit: _,
        acquired,
    } = error
    else {
        unreachable!("it is told of this one alone");
    };
    let (called, lease) = (tree.resource_name(*resource), name(tree, *acquired));
    let lease = match leases {
        1 => format!("a lease of {lease}"),
        several => format!("{several} leases, the latest of {lease}"),
    };
    let what = if *leases == 1 { "it" } else { "them" };
    let is_budget = (tree.limits(*node).iter())
        .any(|(limited, limit)| limited == resource && matches!(limit, Limit::Budget(_)));
    let (node, asked) = (name(tree, *node), asked(*resource));
    let message = if is_budget {
        format!(
            "this task or thread holds {lease}, with {held} {called} of the {limit} that the budget of {node} has left, and would \
             wait for itself to settle {what} to less: {asked} more can never be had; settle first what was not needed \
             (lease.settle()), or acquire what somebody else is to settle with owner=None"
        )
    } else {
        format!(
            "this task or thread holds {lease}, with {held} of the {limit} {called} of {node}, and would wait for itself to \
             release {what}: {asked} more can never be had; release first, or give back for a while (lease.suspended()), or \
             acquire what somebody else is to release with owner=None"
        )
    };
    errors::would_deadlock(py, &message)
}

/// A resource that nobody on the path limits.
#[cold]
pub(super) fn unknown(tree: &Tree, node: NodeId, resource: &str, mut known: Vec<String>) -> PyErr {
    known.sort_unstable();
    known.dedup();
    // A bare number asks for slots without naming them, and so does who names no cost at all.
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

/// Why a node cannot be made or changed so; `node` is that one, or the one that it would be below.
#[cold]
pub(super) fn of_node(
    py: Python<'_>,
    tree: &Tree,
    node: Option<NodeId>,
    error: NodeError,
) -> PyErr {
    let named = || node.map_or_else(|| "it".to_owned(), |node| name(tree, node));
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
        NodeError::Twice(resource) => {
            format!("limit names '{}' twice", tree.resource_name(resource))
        }
        NodeError::Per(resource) => format!(
            "per of the rate of '{}' must be between a microsecond and a year",
            tree.resource_name(resource)
        ),
        NodeError::Burst(resource) => format!(
            "burst of the rate of '{}' must be above 0",
            tree.resource_name(resource)
        ),
        NodeError::Kind(resource) => format!(
            "'{}' is another kind of limit elsewhere in this tree: a number, a Rate and a Budget do not mix",
            tree.resource_name(resource)
        ),
        NodeError::Unlimited(resource) => format!(
            "{} does not limit '{}'",
            named(),
            tree.resource_name(resource)
        ),
    };
    PyValueError::new_err(message)
}

/// Why a lease cannot be settled, given back or taken again.
#[cold]
pub(super) fn of_permit(tree: &Tree, error: PermitError) -> PyErr {
    match error {
        PermitError::Released => PyRuntimeError::new_err("this lease was released"),
        PermitError::Suspended => {
            PyRuntimeError::new_err("this lease was given back for a while; take it again first")
        }
        PermitError::Held => PyRuntimeError::new_err("this lease was not given back for a while"),
        PermitError::Unasked(resource) => PyValueError::new_err(format!(
            "this lease holds no '{}'",
            tree.resource_name(resource)
        )),
        PermitError::Twice(resource) => PyValueError::new_err(format!(
            "'{}' is settled twice in one call",
            tree.resource_name(resource)
        )),
        PermitError::Grows(resource) => PyValueError::new_err(format!(
            "'{}' can be settled to less, not to more: acquire another lease for that",
            tree.resource_name(resource)
        )),
    }
}
