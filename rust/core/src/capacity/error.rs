//! Errors of the capacity tree: one enum each for numbers, costs, nodes, requests and permits. `Tree` and `Permit`
//! return them, and the Python bindings convert them to exceptions.

use super::{Amount, NodeId, PermitId, ResourceId};
use std::error::Error;
use std::fmt;

/// The reason why a number is not a valid [`Amount`] or [`Weight`](super::Weight).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmountError {
    /// It is below zero.
    Negative,
    /// It is NaN.
    NotANumber,
    /// It is above the largest amount or weight, or infinite.
    TooLarge,
    /// It is positive but below the smallest weight.
    TooSmall,
}

impl fmt::Display for AmountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Negative => "negative",
            Self::NotANumber => "not a number",
            Self::TooLarge => "too large",
            Self::TooSmall => "too small",
        })
    }
}

impl Error for AmountError {}

/// The reason why a [`Cost`](super::Cost) cannot be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CostError {
    /// No amount is positive.
    Zero,
    /// A resource is named twice.
    Twice(ResourceId),
}

impl fmt::Display for CostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zero => "a cost needs a positive amount",
            Self::Twice(_) => "a cost names a resource twice",
        })
    }
}

impl Error for CostError {}

/// The reason why a node of a [`Tree`](super::Tree) cannot be added or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeError {
    /// The node, or its parent, was closed or removed.
    Closed,
    /// The tree has a root already.
    SecondRoot,
    /// The path would be longer than [`MAX_DEPTH`](super::MAX_DEPTH).
    TooDeep,
    /// The resource belongs to another tree.
    Foreign(ResourceId),
    /// A resource is limited twice.
    Twice(ResourceId),
    /// A rate whose `per` is below a microsecond or above a year.
    Per(ResourceId),
    /// A rate whose burst is zero while its amount is not.
    Burst(ResourceId),
    /// The resource has a limit of another kind already, at this or another node: slots, a rate or a budget.
    Kind(ResourceId),
    /// The node does not limit this resource.
    Unlimited(ResourceId),
    /// The root has no siblings, so it has no floor.
    RootFloor,
    /// A floor is of slots, which are another kind of limit in this tree.
    FloorKind,
    /// The floor of a node is above its own limit of slots.
    Floor {
        /// The floor.
        floor: Amount,
        /// The limit.
        limit: Amount,
    },
    /// The sum of the floors of the children of a node is above a limit of slots of that node or of an ancestor.
    Floors {
        /// The parent of these children.
        parent: NodeId,
        /// The sum.
        sum: Amount,
        /// The node of the limit.
        at: NodeId,
        /// The limit.
        limit: Amount,
    },
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "the node is closed",
            Self::SecondRoot => "the tree has a root already",
            Self::TooDeep => "the tree is too deep",
            Self::Foreign(_) => "the resource belongs to another tree",
            Self::Twice(_) => "a resource is limited twice",
            Self::Per(_) => "a rate is per a microsecond to a year",
            Self::Burst(_) => "the burst of a rate is above zero",
            Self::Kind(_) => "a resource is of one kind in the whole tree",
            Self::Unlimited(_) => "the node does not limit this resource",
            Self::RootFloor => "the root has no floor",
            Self::FloorKind => "a floor is of slots, which are no rate and no budget",
            Self::Floor { floor, limit } => {
                return write!(f, "a floor of {floor} is above the limit of {limit} slots");
            }
            Self::Floors { sum, limit, .. } => {
                return write!(
                    f,
                    "floors of {sum} slots in sum are above a limit of {limit}"
                );
            }
        })
    }
}

impl Error for NodeError {}

/// The reason why a request can never be granted; the error of [`Acquire`](super::Acquire) and [`Resume`](super::Resume).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcquireError {
    /// The cost is above a limit of a node of the path, so waiting does not help.
    AboveCeiling {
        /// The nearest such node.
        node: NodeId,
        /// The resource.
        resource: ResourceId,
        /// Its last limit above 0; of a rate with a burst, the burst.
        ceiling: Amount,
    },
    /// No node of the path limits this resource.
    UnknownResource {
        /// The resource.
        resource: ResourceId,
        /// The resources that are limited on the path.
        known: Vec<ResourceId>,
    },
    /// The cost is above the unspent part of a budget. An amount that a permit holds is unspent.
    BudgetExhausted {
        /// The node of the budget.
        node: NodeId,
        /// The resource.
        resource: ResourceId,
        /// The unspent part.
        left: Amount,
    },
    /// The node or an ancestor was closed or removed, or the permit to be resumed was released.
    Closed,
    /// The owner's permits and its request together exceed a limit, or the unspent part of a budget. The owner would wait for
    /// its own release.
    WouldDeadlock {
        /// The node of that limit.
        node: NodeId,
        /// The resource.
        resource: ResourceId,
        /// The limit; of a budget, the unspent part.
        limit: Amount,
        /// The amount that the owner holds of it.
        held: Amount,
        /// The number of permits that hold it.
        permits: usize,
        /// The latest of them.
        permit: PermitId,
        /// The node at which that permit was acquired.
        acquired: NodeId,
    },
}

impl fmt::Display for AcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AboveCeiling { ceiling, .. } => {
                write!(f, "the cost is above a limit of {ceiling} on its path")
            }
            Self::UnknownResource { .. } => f.write_str("no node of the path limits this resource"),
            Self::BudgetExhausted { left, .. } => write!(f, "a budget has {left} left"),
            Self::Closed => f.write_str("the node is closed"),
            Self::WouldDeadlock { limit, held, .. } => write!(
                f,
                "the owner holds {held} of {limit} itself, so it would wait for itself"
            ),
        }
    }
}

impl Error for AcquireError {}

/// The reason why a [`Permit`](super::Permit) cannot be settled, suspended or resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PermitError {
    /// It was released.
    Released,
    /// It is suspended, or being resumed.
    Suspended,
    /// It is not suspended, so it cannot be resumed.
    Held,
    /// Its cost does not name this resource.
    Unasked(ResourceId),
    /// The amounts to settle name a resource twice.
    Twice(ResourceId),
    /// The amount to settle is above the slots held. Slots can be settled only to less.
    Grows(ResourceId),
}

impl fmt::Display for PermitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Released => "the permit was released",
            Self::Suspended => "the permit is suspended",
            Self::Held => "the permit is held",
            Self::Unasked(_) => "the permit does not hold this resource",
            Self::Twice(_) => "a resource is named twice",
            Self::Grows(_) => "slots can be settled to less, not to more",
        })
    }
}

impl Error for PermitError {}
