//! Which nodes are worth looking into: eligibility, kept up to date along every path that changes.

use crate::capacity::index::NIL;
use crate::capacity::model::resource::Pool;
use crate::capacity::model::state::State;
use crate::capacity::{Cost, Resource};
use crate::sync::WakeList;

impl State {
    /// Whether `node` lets through none of those who are offered at it and below.
    ///
    /// What is decisive is the least need of each resource, so this may say no where a look would find nobody all the
    /// same; never the other way round. It notes what they have to wait for.
    fn is_shut(&mut self, node: u32) -> bool {
        let now = self.now;
        let node = self.nodes.at_mut(node);
        let offered = node.offered;
        let mut is_shut = node.is_held_off(now);
        for pool in node.pools.iter_mut() {
            // Somebody who does not need it passes in any case.
            if pool.needs.len() == offered && pool.is_shut(pool.needs.least(), now) {
                pool.scarce = true;
                is_shut = true;
            }
        }
        is_shut
    }

    /// Looks anew whether a node is eligible, and its ancestors after it, since books of its path have changed.
    pub(in crate::capacity) fn refresh(&mut self, node: u32) {
        let mut at = node;
        while at != NIL {
            let has_offers = self.nodes.at(at).line.has_offers();
            if self.nodes.at(at).line.flow.open != has_offers {
                self.set_open(at, at, has_offers);
            }
            let is_empty = !has_offers && self.nodes.at(at).open.is_empty();
            let eligible = !is_empty && !self.is_shut(at);
            let node = self.nodes.at_mut(at);
            node.eligible = eligible;
            let (parent, is_open) = (node.parent, node.flow.open);
            if parent != NIL && is_open != eligible {
                self.set_open(parent, at, eligible);
            } else if parent != NIL && eligible {
                self.reseat(parent, at);
            }
            at = parent;
        }
    }

    /// What follows when books of a cost have changed along the path of a node: waiters for time look again, budgets may
    /// be exhausted, gates open or shut.
    pub(in crate::capacity) fn changed(&mut self, node: u32, cost: &Cost, wakes: &mut WakeList) {
        self.rearm_path(node, cost);
        self.fail_exhausted(node, cost, wakes);
        self.refresh(node);
    }

    /// Counts a waiter as offered, or no longer, along its path. Follow with a `refresh`.
    pub(in crate::capacity) fn count_offer(&mut self, waiter: u32, is_offered: bool) {
        let record = self.waiters.at(waiter);
        let (node, cost) = (record.node, record.cost.clone());
        self.for_pools(node, &cost, |pool, amount, _| {
            if is_offered {
                pool.needs.add(amount);
            } else {
                pool.needs.remove(amount);
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

    /// The first on the path that keeps a waiter of this cost from ever being granted while limits are what they are.
    pub(in crate::capacity) fn is_above_a_limit(&self, node: u32, cost: &Cost) -> bool {
        self.above(node, cost, Pool::largest).is_some()
    }

    /// The nearest node of the path where a part of the cost is above a bound, and that bound.
    pub(in crate::capacity) fn above(
        &self,
        node: u32,
        cost: &Cost,
        bound: impl Fn(&Pool) -> Option<u64>,
    ) -> Option<(u32, Resource, u64)> {
        for at in self.path(node) {
            for &(resource, amount) in cost.parts() {
                if let Some(pool) = self.nodes.at(at).pool(resource)
                    && let Some(most) = bound(pool)
                    && amount.as_micros() > most
                {
                    return Some((at, resource, most));
                }
            }
        }
        None
    }
}
