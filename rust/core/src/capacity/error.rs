use super::{Amount, NodeId, PermitId, ResourceId};
use std::error::Error;
use std::fmt;

/// A number that is no amount and no weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmountError {
    /// It is below zero.
    Negative,
    /// It is NaN.
    NotANumber,
    /// It is above the greatest, or infinite.
    TooLarge,
    /// It is above zero but below the least weight.
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

/// A cost that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CostError {
    /// Nothing has a positive amount.
    Zero,
    /// A resource is named twice.
    Twice(ResourceId),
}

impl fmt::Display for CostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zero => "a cost demand a positive amount",
            Self::Twice(_) => "a cost names a resource twice",
        })
    }
}

impl Error for CostError {}

/// A node that cannot be made or changed so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeError {
    /// The node, or the one above it, was closed or removed.
    Closed,
    /// The tree has a root already.
    SecondRoot,
    /// The path would be longer than [`MAX_DEPTH`](super::MAX_DEPTH).
    TooDeep,
    /// The resource is another tree's.
    Foreign(ResourceId),
    /// A resource is limited twice.
    Twice(ResourceId),
    /// A rate whose `per` is below a microsecond or above a year.
    Per(ResourceId),
    /// A rate whose burst is zero while its amount is not.
    Burst(ResourceId),
    /// The resource is a different kind of limit at this node, or at another: slots stay slots, rates stay rates.
    Kind(ResourceId),
    /// The node does not limit this resource.
    Unlimited(ResourceId),
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "the node is closed",
            Self::SecondRoot => "the tree has a root already",
            Self::TooDeep => "the tree is too deep",
            Self::Foreign(_) => "the resource is another tree's",
            Self::Twice(_) => "a resource is limited twice",
            Self::Per(_) => "a rate is per a microsecond to a year",
            Self::Burst(_) => "the burst of a rate is above zero",
            Self::Kind(_) => "a resource is of one kind in the whole tree",
            Self::Unlimited(_) => "the node does not limit this resource",
        })
    }
}

impl Error for NodeError {}

/// Why an ask will never be granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcquireError {
    /// The cost is above what a node of the path ever allows.
    AboveCeiling {
        /// That node: the nearest, if there are several.
        node: NodeId,
        /// Of this.
        resource: ResourceId,
        /// Its last limit above 0: of a rate the burst, if it has one.
        ceiling: Amount,
    },
    /// No node of the path limits this resource.
    UnknownResource {
        /// This one.
        resource: ResourceId,
        /// Those that are limited on the path.
        known: Vec<ResourceId>,
    },
    /// What a budget has left, with all that is held unsettled, does not cover the cost.
    BudgetExhausted {
        /// Whose budget.
        node: NodeId,
        /// Of this.
        resource: ResourceId,
        /// What is left, with all that is held unsettled.
        left: Amount,
    },
    /// The node, or one above it, was closed or removed; or the permit that was to be taken again was released.
    Closed,
    /// What the owner holds and what it asks for are together above a limit, or above what is left of a budget with all that is held
    /// unsettled, so it would wait for itself.
    WouldDeadlock {
        /// The node of that limit.
        node: NodeId,
        /// Of this.
        resource: ResourceId,
        /// The limit; of a budget what is not spent yet.
        limit: Amount,
        /// What the owner holds of it there.
        held: Amount,
        /// By how many permits it does.
        permits: usize,
        /// One of them: the latest.
        permit: PermitId,
        /// Where that one was acquired.
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
                "the owner holds {held} of {limit} itself, so it would wait for what it holds"
            ),
        }
    }
}

impl Error for AcquireError {}

/// Why a permit could not be settled or suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PermitError {
    /// It was released.
    Released,
    /// It is suspended, or about to be taken again.
    Suspended,
    /// It was not suspended.
    Held,
    /// It does not hold this resource.
    Unasked(ResourceId),
    /// A resource is named twice.
    Twice(ResourceId),
    /// What is held of slots can be settled to less, not to more.
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
