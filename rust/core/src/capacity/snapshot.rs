use super::{Amount, Limit, NodeId, ResourceId, Weight};
use std::sync::Arc;
use std::time::Duration;

/// What a node looks like at one moment, with everything below it: see [`Tree::snapshot`](super::Tree::snapshot).
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The node itself.
    pub usage: Usage,
    /// Its children, in the order in which they were added.
    pub children: Vec<Snapshot>,
}

/// What is going on at a node.
#[derive(Clone, Debug)]
pub struct Usage {
    /// Which node.
    pub node: NodeId,
    /// Its name, if it has one.
    pub name: Option<Arc<str>>,
    /// Its weight.
    pub weight: Weight,
    /// Each resource that is limited here, by its number.
    pub resources: Vec<ResourceUsage>,
    /// How many wait at the node and below; those already granted do not.
    pub waiting: usize,
    /// How many permits are held at the node and below, grants that were not collected included, suspended ones not.
    pub permits: usize,
    /// How many grants there were at the node and below, those taken back because nobody collected them aside.
    pub granted: u64,
    /// How often work that fitted passed a waiter at the node and below that did not.
    pub bypassed: u64,
    /// How long permits of the node and below are held, as a moving average; `None` before the first was released
    /// whose time was taken. Where nobody waits, only one in sixteen is timed.
    pub mean_hold: Option<Duration>,
    /// What the node received of all that its parent's children did, counted since it was made as cost x hold while
    /// somebody waited: between 0 and 1. `None` at the root, and where nobody had to wait yet.
    pub received: Option<f64>,
    /// Its weight among those of its parent's children that received or waited for anything. `None` at the root.
    pub due: Option<f64>,
    /// Whether it is paused, itself or by a node above.
    pub paused: bool,
    /// Whether it is closed.
    pub closed: bool,
}

/// One resource of a node at one moment.
#[derive(Clone, Copy, Debug)]
pub struct ResourceUsage {
    /// Which resource.
    pub resource: ResourceId,
    /// What the node allows.
    pub limit: Limit,
    /// Of slots what is held; of a rate what was taken and has not come back; of a budget what is spent or held.
    pub held: Amount,
    /// What is left of the limit here and now, reservations aside; ancestors may have less.
    pub available: Amount,
    /// What is kept for waiters that were passed too often.
    pub reserved: Amount,
}
