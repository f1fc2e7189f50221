//! `AcquireRequest`: a cost, its node and its priority. `Tree::acquire` and `Tree::try_acquire` take one;
//! `policy/admission.rs` answers it.

use super::{AlarmId, Cost, NodeId, OwnerId};
use std::num::NonZeroU32;

/// A request for a cost at a node.
#[derive(Clone, Debug)]
pub struct AcquireRequest {
    /// The node; the cost is taken at all its ancestors as well.
    pub node: NodeId,
    /// The cost.
    pub cost: Cost,
    /// Each step counts as an arrival [`Settings::ageing`](super::Settings::ageing) earlier. Default: 0.
    pub priority: i32,
    /// Its place in front of all requests of the queue that have none, whatever their priority; the lowest is first. Default: none.
    pub front: Option<NonZeroU32>,
    /// The owner, whose permits decide whether the request would wait for itself. Default: none.
    pub owner: Option<OwnerId>,
    /// The alarm whose timer serves the waiter. Default: none; then another one has to call [`Tree::tick`](super::Tree::tick).
    pub alarm: Option<AlarmId>,
}

impl AcquireRequest {
    /// Return a request of priority 0, without an owner.
    #[inline]
    pub fn new(node: NodeId, cost: Cost) -> Self {
        Self {
            node,
            cost,
            priority: 0,
            front: None,
            owner: None,
            alarm: None,
        }
    }

    /// Return a request for a number of `"slots"`.
    ///
    /// # Panics
    ///
    /// As [`Cost::slots`].
    pub fn slots(node: NodeId, slots: u64) -> Self {
        Self::new(node, Cost::slots(slots))
    }

    /// Set the priority.
    #[must_use]
    #[inline]
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// Put it in front of the wait queue, for a caller that was granted before and keeps its place. The lowest `order` is first; 0 and
    /// 1 are equal, and so are all from 2^32 - 1 on, which keeps a request small.
    #[must_use]
    #[inline]
    pub fn in_front(mut self, order: u64) -> Self {
        let order = u32::try_from(order).unwrap_or(u32::MAX);
        self.front = Some(NonZeroU32::new(order).unwrap_or(NonZeroU32::MIN));
        self
    }

    /// Set the owner.
    #[must_use]
    #[inline]
    pub fn owner(mut self, owner: OwnerId) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Set the alarm.
    #[must_use]
    #[inline]
    pub fn alarm(mut self, alarm: AlarmId) -> Self {
        self.alarm = Some(alarm);
        self
    }
}
