//! `Snapshot` and `Usage`, the usage of nodes at one moment. `stats.rs` fills them in for `Tree::snapshot` and
//! `Tree::usage`.

use super::{Amount, Limit, NodeId, ResourceId, Weight};
use std::sync::Arc;
use std::time::Duration;

/// The usage of a node and of everything below it at one moment: see [`Tree::snapshot`](super::Tree::snapshot).
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The node itself.
    pub usage: Usage,
    /// Its children, in the order of their addition.
    pub children: Vec<Snapshot>,
}

/// The usage of a node.
#[derive(Clone, Debug)]
pub struct Usage {
    /// The node.
    pub node: NodeId,
    /// Its name, if it has one.
    pub name: Option<Arc<str>>,
    /// Its weight.
    pub weight: Weight,
    /// Its floor, in slots, as configured.
    pub floor: Amount,
    /// Each resource that is limited here, sorted.
    pub resources: Vec<ResourceUsage>,
    /// The number of waiters at the node and below, except for those already granted.
    pub waiting: usize,
    /// The number of permits held at the node and below, including grants that were not collected, without suspended permits.
    pub permits: usize,
    /// The number of grants at the node and below, without annulled ones.
    pub granted: u64,
    /// How often a request that fitted passed a waiter at the node and below that did not.
    pub bypassed: u64,
    /// The moving average of the hold times of permits at the node and below; `None` before the first timed permit was released. Without
    /// a waiter, only one in sixteen is timed.
    pub mean_hold: Option<Duration>,
    /// The node's part of the service of all its parent's children, between 0 and 1. Service is counted as cost x hold while there is
    /// a waiter, from the node's creation on. `None` at the root, and before the first waiter.
    pub received: Option<f64>,
    /// Its part of the weights of those of its parent's children that received or waited for anything. `None` at the root.
    pub due: Option<f64>,
    /// Whether it is paused, itself or by an ancestor.
    pub paused: bool,
    /// Whether it is closed.
    pub closed: bool,
    /// Its cooldown, from its start until the node is in full use again and has forgotten it.
    pub cooldown: Option<Cooldown>,
    /// Its breaker, if it has one.
    pub breaker: Option<BreakerUsage>,
}

/// The state of a node between a cooldown and full use: see [`Tree::cool_down`](super::Tree::cool_down).
#[derive(Clone, Copy, Debug)]
pub struct Cooldown {
    /// The resource that was cooled down; `None` for all of them.
    pub resource: Option<ResourceId>,
    /// The time until it is over. Zero while the node is ramped up.
    pub left: Duration,
    /// The number of permits that may be held of those granted since the cooldown started. `None` when there is no such bound any
    /// more, and the cooldown is only remembered.
    pub window: Option<usize>,
    /// The number of permits held that were granted before.
    pub before: usize,
    /// The number of cooldowns since the node was last in full use.
    pub events: u32,
}

/// The state of the breaker of a node: see [`Tree::set_breaker`](super::Tree::set_breaker).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerUsage {
    /// Whether it lets requests through.
    pub state: BreakerState,
    /// The time since it opened last; `None` while it is closed.
    pub since: Option<Duration>,
    /// The time until probes are granted. Zero unless it is open.
    pub left: Duration,
    /// The number of calls that it counts while it is closed; of consecutive failures alone, if these open it.
    pub calls: u32,
    /// How many of them failed.
    pub failures: u32,
    /// The number of probes that may be granted now. Zero unless it is half open.
    pub probes: usize,
}

/// Whether a breaker lets requests through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// All of them.
    Closed,
    /// None.
    Open,
    /// Probes.
    HalfOpen,
}

/// The usage of one resource of a node.
#[derive(Clone, Copy, Debug)]
pub struct ResourceUsage {
    /// The resource.
    pub resource: ResourceId,
    /// Its limit.
    pub limit: Limit,
    /// Slots: the amount held. Rate: the amount taken that has not come back. Budget: the amount spent or held.
    pub held: Amount,
    /// The amount left of the limit at this node, without reservations; ancestors may have less.
    pub available: Amount,
    /// The amount reserved for waiters that were passed too often.
    pub reserved: Amount,
}
