//! What can be seen from outside.

use super::index::NIL;
use super::model::node::Node;
use super::model::resource::{Bound, Kind, Pool};
use super::model::share::Flow;
use super::model::state::State;
use super::{Amount, Limit, Resource, ResourceUsage, Snapshot, Usage};
use std::collections::HashMap;
use std::time::Duration;

/// Of the children of one node together, its own line included.
#[derive(Debug, Default)]
struct Total {
    received: f64,
    /// The weights of those that take part.
    weight: f64,
}

/// Whether a child has anything, had anything, or waits for it.
fn takes_part(child: &Node) -> bool {
    child.waiting > 0 || child.permits > 0 || child.flow.service > 0
}

impl Pool {
    fn limit(&self) -> Option<Limit> {
        Some(match &self.bound {
            Bound::None => return None,
            Bound::Slots(limit) => Limit::Slots(Amount::raw(*limit)),
            Bound::Rate(rate) => Limit::Rate {
                amount: Amount::raw(rate.amount),
                per: Duration::from_nanos(rate.per),
                burst: rate.burst.map(Amount::raw),
            },
            Bound::Budget { total, .. } => Limit::Budget(Amount::raw(*total)),
        })
    }
}

impl State {
    pub(super) fn limits(&self, node: u32) -> Vec<(Resource, Limit)> {
        let pools = self.nodes.at(node).pools.iter();
        let mut limits: Vec<_> = pools
            .filter_map(|pool| Some((pool.resource, pool.limit()?)))
            .collect();
        limits.sort_unstable_by_key(|&(resource, _)| resource);
        limits
    }

    /// The resources that are limited on the path of a node, by their numbers.
    pub(super) fn known(&self, node: u32) -> Vec<Resource> {
        let mut known: Vec<_> = self
            .path(node)
            .flat_map(|node| self.nodes.at(node).pools.iter())
            .filter(|pool| pool.largest().is_some())
            .map(|pool| pool.resource)
            .collect();
        known.sort_unstable();
        known.dedup();
        known
    }

    /// What a pool has for a newcomer now.
    fn left(&self, pool: &Pool) -> u64 {
        if self.now < pool.not_before {
            return 0;
        }
        match &pool.bound {
            Bound::Rate(_) if pool.turn.is_some() => 0,
            Bound::Rate(rate) => rate.available(self.now),
            _ => pool.unreserved(),
        }
    }

    pub(super) fn peek(&self, node: u32) -> Vec<(Resource, Amount)> {
        let is_held_off = |node| self.nodes.at(node).is_held_off(self.now);
        let is_shut = self.path(node).any(is_held_off);
        let least = |resource| {
            let pools = self
                .path(node)
                .filter_map(|node| self.nodes.at(node).pool(resource));
            let limited = pools.filter(|pool| pool.largest().is_some());
            let left = limited.map(|pool| self.left(pool)).min().unwrap_or(0);
            Amount::raw(if is_shut { 0 } else { left })
        };
        let known = self.known(node).into_iter();
        known.map(|resource| (resource, least(resource))).collect()
    }

    pub(super) fn held(&self, node: u32, resource: Resource) -> Amount {
        let pool = self.nodes.at(node).pool(resource);
        Amount::raw(pool.map_or(0, |pool| self.held_of(pool)))
    }

    fn held_of(&self, pool: &Pool) -> u64 {
        let held = u64::try_from(pool.held).unwrap_or(u64::MAX);
        match &pool.bound {
            Bound::Rate(rate) => rate.taken(self.now),
            Bound::Budget { spent, .. } => held.saturating_add(*spent),
            Bound::None | Bound::Slots(_) => held,
        }
    }

    /// What the children of a node received together, and how much of it is due to all of them. O(children).
    fn total(&self, parent: u32) -> Total {
        let mut total = Total::default();
        let mut add = |flow: &Flow, takes_part: bool| {
            total.received += service(flow);
            if takes_part {
                total.weight += flow.weight.as_f64();
            }
        };
        let above = self.nodes.at(parent);
        let line = &above.line.flow;
        add(line, self.has_line(parent) || line.service > 0);
        let mut child = above.first;
        while child != NIL {
            let here = self.nodes.at(child);
            add(&here.flow, takes_part(here));
            child = here.after;
        }
        total
    }

    /// A child's part of what its parent's children received, and of what they are due.
    fn share(&self, node: u32, total: &Total) -> (Option<f64>, Option<f64>) {
        let here = self.nodes.at(node);
        let weight = here.flow.weight.as_f64();
        // One that had nothing yet counts as if it came now.
        let comes = if takes_part(here) { 0.0 } else { weight };
        (
            (total.received > 0.0).then(|| service(&here.flow) / total.received),
            Some(weight / (total.weight + comes)),
        )
    }

    pub(super) fn usage(&self, node: u32) -> Usage {
        let parent = self.nodes.at(node).parent;
        let total = (parent != NIL).then(|| self.total(parent));
        self.usage_of(node, total.as_ref())
    }

    /// The same, where the total of the children of its parent is known; of a root there is none.
    fn usage_of(&self, node: u32, total: Option<&Total>) -> Usage {
        let here = self.nodes.at(node);
        let (received, due) = total.map_or((None, None), |total| self.share(node, total));
        let mut resources: Vec<_> = here
            .pools
            .iter()
            .filter_map(|pool| {
                Some(ResourceUsage {
                    resource: pool.resource,
                    limit: pool.limit()?,
                    held: Amount::raw(self.held_of(pool)),
                    available: Amount::raw(self.left(pool)),
                    reserved: Amount::raw(if pool.kind == Kind::Rate {
                        0
                    } else {
                        pool.reserved()
                    }),
                })
            })
            .collect();
        resources.sort_unstable_by_key(|usage| usage.resource);
        Usage {
            node: self.id_of(node),
            name: here.name.clone(),
            weight: here.flow.weight,
            resources,
            waiting: here.waiting,
            permits: here.permits,
            granted: here.granted,
            bypassed: here.bypassed,
            mean_hold: here.hold.map(Duration::from_nanos),
            received,
            due,
            paused: self.path(node).any(|node| self.nodes.at(node).paused),
            closed: here.is_closed(),
        }
    }

    /// A node and all below it. The last of a list of nodes has no child of its own in it, so children are put under
    /// their parents from the end on, without recursion.
    pub(super) fn snapshot(&self, node: u32) -> Snapshot {
        let all = self.below(node);
        // Of each parent once, whatever the number of its children.
        let mut totals: HashMap<u32, Total> = HashMap::new();
        let mut made: Vec<_> = all
            .iter()
            .map(|&node| {
                let parent = self.nodes.at(node).parent;
                let total = (parent != NIL)
                    .then(|| &*totals.entry(parent).or_insert_with(|| self.total(parent)));
                Snapshot {
                    usage: self.usage_of(node, total),
                    children: Vec::new(),
                }
            })
            .collect();
        let place: HashMap<_, _> = all.iter().copied().zip(0..).collect();
        while made.len() > 1 {
            let mut child = made.pop().expect("there are two at least");
            child.children.reverse();
            let parent = self.nodes.at(all[made.len()]).parent;
            let parent: usize = place[&parent];
            made[parent].children.push(child);
        }
        let mut root = made.pop().expect("the node itself");
        root.children.reverse();
        root
    }
}

#[allow(clippy::cast_precision_loss)] // a ratio to be looked at
fn service(flow: &Flow) -> f64 {
    flow.service.max(0) as f64
}
