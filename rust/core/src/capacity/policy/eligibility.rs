//! Eligibility: which nodes are worth searching, kept up to date along the path of every change. `charging.rs`,
//! `enqueue.rs`, `rate_queue.rs` and `reconfigure.rs` report the changes.

use crate::capacity::index::NIL;
use crate::capacity::model::resource::Resource;
use crate::capacity::model::state::State;
use crate::capacity::{Cost, ResourceId};
use crate::sync::WakeList;

impl State {
    /// Return whether no waiter that is offered at `node` or below gets past `node`. Marks the resources that block it
    /// as contended.
    ///
    /// It compares the least demand of each resource. It may return false although a search would find no waiter, but never true
    /// although a search would find one.
    fn is_blocked(&mut self, node: u32) -> bool {
        let now = self.now;
        let node = self.nodes.at_mut(node);
        let (offered, permits) = (node.offered, node.permits);
        let mut is_blocked = node.is_held_off(now);
        for resource in node.resources.iter_mut() {
            // A waiter that does not need the resource gets past it.
            if resource.demand.len() == offered
                && resource.is_blocked(resource.demand.least(), now, permits)
            {
                resource.contended = true;
                is_blocked = true;
            }
        }
        is_blocked
    }

    /// Update the eligibility of a node and its ancestors after a change along its path.
    pub(in crate::capacity) fn refresh(&mut self, node: u32) {
        let mut at = node;
        while at != NIL {
            let has_offers = self.nodes.at(at).queue.has_offers();
            if self.nodes.at(at).queue.share.eligible != has_offers {
                self.set_eligible(at, at, has_offers);
            }
            let is_empty = !has_offers && self.nodes.at(at).ready.is_empty();
            let eligible = !is_empty && !self.is_blocked(at);
            let node = self.nodes.at_mut(at);
            node.eligible = eligible;
            let (parent, is_open) = (node.parent, node.share.eligible);
            if parent != NIL && is_open != eligible {
                self.set_eligible(parent, at, eligible);
            } else if parent != NIL && eligible {
                self.update_class(parent, at);
            }
            if self.nodes.at(at).floor.is_some() {
                self.refresh_floor(at);
            }
            at = parent;
        }
    }

    /// Handle a change of the resources of a cost along the path of a node: update timers, fail waiters of exhausted budgets, and
    /// refresh eligibility.
    pub(in crate::capacity) fn changed(&mut self, node: u32, cost: &Cost, wakes: &mut WakeList) {
        self.rearm_path(node, cost);
        self.fail_exhausted(node, cost, wakes);
        self.refresh(node);
    }

    /// Count a waiter as offered, or no longer, along its path. Must be followed by a `refresh`.
    pub(in crate::capacity) fn count_offer(&mut self, waiter: u32, is_offered: bool) {
        let record = self.waiters.at(waiter);
        let (node, cost) = (record.node, record.cost.clone());
        self.for_resources(node, &cost, |resource, amount, _| {
            if is_offered {
                resource.demand.add(amount);
            } else {
                resource.demand.remove(amount);
            }
        });
        self.for_path(node, |node| {
            if is_offered {
                node.offered += 1;
            } else {
                node.offered -= 1;
            }
        });
    }

    /// Return whether a current limit of the path is below the cost.
    pub(in crate::capacity) fn is_above_a_limit(&self, node: u32, cost: &Cost) -> bool {
        self.above(node, cost, Resource::largest).is_some()
    }

    /// Return the nearest node of the path where a part of the cost exceeds a bound, with that resource and bound.
    pub(in crate::capacity) fn above(
        &self,
        node: u32,
        cost: &Cost,
        bound: impl Fn(&Resource) -> Option<u64>,
    ) -> Option<(u32, ResourceId, u64)> {
        for at in self.path(node) {
            for &(id, amount) in cost.parts() {
                if let Some(resource) = self.nodes.at(at).resource(id)
                    && let Some(most) = bound(resource)
                    && amount.as_micros() > most
                {
                    return Some((at, id, most));
                }
            }
        }
        None
    }
}
