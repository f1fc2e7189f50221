//! The lag of children that quota holds back while their siblings are granted: its bound, and the start tag of newcomers.
//! `dispatch.rs` calls `catch_up` to keep the bound, and `fair_queue.rs` calls `start` for the tag of a newcomer.
//! A `child` that is equal to its `parent` stands for the node's own queue.
//!
//! A child that waits at a rate of the node, or of an ancestor, keeps its tag while its siblings are granted slots and the virtual
//! time advances with them. Without a bound on this lag, a child that uses both quota and slots would be behind all that lag
//! wherever it competes, for as long as the tree lives. A child that changes from quota to slots would own the slots for as long.
//!
//! Two siblings may differ in any case by the capacity of the whole node for one hold of each. A child that only quota holds back
//! is *far lagging* once it lags the virtual time by twice as much. All children that wait for quota then *catch up*: those at
//! each rate by the same step, so that the last of them lags by no more than the bound. Their order does not change, because they
//! share the rate by weight. A child that waits at several rates catches up by the largest of these steps. All rates therefore
//! catch up at the same moment, each by about as much.
//!
//! A child that becomes eligible and waits behind the head of a rate starts level with the first of its siblings, which wait there
//! already. It is not behind their lag, and is compensated for no more than they are.
//!
//! Far lagging is detected by the first child alone. Catching up visits all eligible children and their waiters. It happens about
//! once in as many grants as fill the node.

use crate::capacity::index::NIL;
use crate::capacity::index::tournament_tree::OrderKey;
use crate::capacity::model::share::FRACTION;
use crate::capacity::model::state::State;
use crate::capacity::{ResourceId, Weight};

/// A child that only quota holds back.
struct Lagging {
    child: u32,
    tag: i128,
    /// The rates at which it waits.
    rates: Vec<ResourceId>,
}

impl State {
    /// Return the least start tag for a `child` of `parent` that becomes eligible.
    ///
    /// This is the virtual time, as a child cannot save up service that it could not have used. If the child joins a rate's queue,
    /// it is the tag of the first child that waits there.
    ///
    /// The tag stays if nothing was granted meanwhile. Otherwise a child that submits its next request only after its last grant
    /// would lose its lag at each grant.
    pub(in crate::capacity) fn start(&self, parent: u32, child: u32) -> i128 {
        let share = self.share(parent, child);
        let here = self.nodes.at(parent);
        if share.tag >= here.virtual_time || share.left >= here.last_grant {
            return share.tag;
        }
        match self.first(parent) {
            Some((tag, ..)) if tag < here.virtual_time && self.joins_rate_queue(parent, child) => {
                tag
            }
            _ => here.virtual_time,
        }
    }

    /// Let far lagging siblings catch up, along the path of a `node` whose waiter was just granted in the order of tags.
    pub(in crate::capacity) fn catch_up(&mut self, node: u32) {
        let (mut parent, mut granted) = (node, node);
        while parent != NIL {
            if self.has_far_lagging(parent, granted) {
                self.catch_up_at(parent, granted);
            }
            granted = parent;
            parent = self.nodes.at(parent).parent;
        }
    }

    fn has_far_lagging(&self, parent: u32, granted: u32) -> bool {
        let virtual_time = self.nodes.at(parent).virtual_time;
        // The most expensive test is last.
        self.first(parent).is_some_and(|(tag, _, first)| {
            tag < virtual_time
                && self.has_headed_rate(parent)
                && tag < virtual_time - 2 * self.allowance(parent, first, granted)
        })
    }

    fn catch_up_at(&mut self, parent: u32, granted: u32) {
        let here = self.nodes.at(parent);
        let virtual_time = here.virtual_time;
        let own = here
            .queue
            .share
            .eligible
            .then(|| here.queue.share.order_key(parent));
        let all = here.ready.in_order(own, |_| false);
        let lagging: Vec<_> = all
            .filter_map(|child| self.lagging(parent, child))
            .collect();
        let mut steps: Vec<(ResourceId, i128)> = Vec::new();
        for Lagging { child, tag, rates } in &lagging {
            let step = virtual_time - self.allowance(parent, *child, granted) - tag;
            if step <= 0 {
                continue;
            }
            for &rate in rates {
                match steps.iter_mut().find(|(other, _)| *other == rate) {
                    Some((_, largest)) => *largest = step.max(*largest),
                    None => steps.push((rate, step)),
                }
            }
        }
        for Lagging { child, tag, rates } in lagging {
            let steps = steps.iter().filter(|(rate, _)| rates.contains(rate));
            if let Some(step) = steps.map(|&(_, step)| step).max() {
                self.update_share(parent, child, |share| share.tag += step);
                let here = self.nodes.at_mut(parent);
                here.greatest_tag = here.greatest_tag.max(tag + step);
            }
        }
    }

    /// Return the difference that two children may have: the whole node for one hold of each, over their weights.
    pub(in crate::capacity) fn allowance(&self, parent: u32, one: u32, other: u32) -> i128 {
        let hold = i128::from(self.estimate(parent)) << FRACTION;
        let of = |child| {
            let weight = self.share(parent, child).weight.as_micros();
            hold / i128::from(weight) * i128::from(Weight::ONE.as_micros())
        };
        of(one) + of(other)
    }

    /// Return the first eligible child.
    pub(in crate::capacity) fn first(&self, parent: u32) -> Option<OrderKey> {
        let here = self.nodes.at(parent);
        let own = here
            .queue
            .share
            .eligible
            .then(|| here.queue.share.order_key(parent));
        here.ready.first().into_iter().chain(own).min()
    }

    /// Return the rates of a node and its ancestors whose queue has a head.
    pub(in crate::capacity) fn headed_rates(
        &self,
        node: u32,
    ) -> impl Iterator<Item = ResourceId> + '_ {
        let resources = self
            .path(node)
            .flat_map(|at| self.nodes.at(at).resources.iter());
        resources
            .filter(|resource| resource.head.is_some())
            .map(|resource| resource.id)
    }

    fn has_headed_rate(&self, node: u32) -> bool {
        self.headed_rates(node).next().is_some()
    }

    /// Return whether all offered waiters of a child need one rate whose queue has a head.
    fn joins_rate_queue(&self, parent: u32, child: u32) -> bool {
        self.headed_rates(parent).any(|rate| {
            let here = self.nodes.at(child);
            if parent == child {
                let mut costs = here
                    .queue
                    .offered()
                    .map(|waiter| &self.waiters.at(waiter).cost);
                return costs.all(|cost| !cost.get(rate).is_zero());
            }
            let resource = here.resource(rate);
            resource.is_some_and(|resource| resource.demand.len() == here.offered)
        })
    }

    /// Return the child with its tag and rates, if each of its offered waiters waits at a rate.
    fn lagging(&self, parent: u32, child: u32) -> Option<Lagging> {
        let tag = self.share(parent, child).tag;
        let mut rates = Vec::new();
        let lags = if parent == child {
            self.queue_lags(child, &mut rates)
        } else {
            self.lags(child, &mut rates)
        };
        lags.then_some(Lagging { child, tag, rates })
    }

    fn lags(&self, node: u32, rates: &mut Vec<ResourceId>) -> bool {
        let mut children = self.nodes.at(node).ready.in_order(None, |_| false);
        self.queue_lags(node, rates) && children.all(|child| self.lags(child, rates))
    }

    fn queue_lags(&self, node: u32, rates: &mut Vec<ResourceId>) -> bool {
        let mut offered = self.nodes.at(node).queue.offered();
        offered.all(|waiter| {
            let cost = &self.waiters.at(waiter).cost;
            let mut waits = false;
            for rate in self
                .headed_rates(node)
                .filter(|&rate| !cost.get(rate).is_zero())
            {
                waits = true;
                if !rates.contains(&rate) {
                    rates.push(rate);
                }
            }
            waits
        })
    }
}
