//! Statistics: limits, usage and snapshots. The read-only methods of `Tree` call them, such as `Tree::peek`.

use super::index::NIL;
use super::model::node::Node;
use super::model::resource::{LimitState, Resource, ResourceKind};
use super::model::share::Share;
use super::model::state::State;
use super::{Amount, Cooldown, Limit, ResourceId, ResourceUsage, Snapshot, Usage};
use std::collections::HashMap;
use std::time::Duration;

/// The sums over the children of one node, including its own queue.
#[derive(Debug, Default)]
struct Total {
    received: f64,
    /// The weights of the children that take part.
    weight: f64,
}

/// Return whether a child holds, received or waits for anything.
fn takes_part(child: &Node) -> bool {
    child.waiting > 0 || child.permits > 0 || child.share.service > 0
}

impl Resource {
    fn limit(&self) -> Option<Limit> {
        if let Some(controller) = self.controller() {
            return Some(controller.as_limit());
        }
        Some(match &self.limit {
            LimitState::None => return None,
            LimitState::Slots(limit) => Limit::Slots(Amount::raw(*limit)),
            LimitState::Rate(rate) if self.rate_controller().is_some() => self.auto_rate(rate)?,
            LimitState::Rate(rate) => Limit::Rate {
                amount: Amount::raw(rate.amount),
                per: Duration::from_nanos(rate.per),
                burst: rate.burst.map(Amount::raw),
            },
            LimitState::Budget { total, .. } => Limit::Budget(Amount::raw(*total)),
        })
    }
}

impl State {
    pub(super) fn limits(&self, node: u32) -> Vec<(ResourceId, Limit)> {
        let resources = self.nodes.at(node).resources.iter();
        let mut limits: Vec<_> = resources
            .filter_map(|resource| Some((resource.id, resource.limit()?)))
            .collect();
        limits.sort_unstable_by_key(|&(id, _)| id);
        limits
    }

    /// Return the resources that are limited on the path of a node, sorted.
    pub(super) fn known(&self, node: u32) -> Vec<ResourceId> {
        let mut known: Vec<_> = self
            .path(node)
            .flat_map(|node| self.nodes.at(node).resources.iter())
            .filter(|resource| resource.largest().is_some())
            .map(|resource| resource.id)
            .collect();
        known.sort_unstable();
        known.dedup();
        known
    }

    /// Return the amount of a resource that is left for a new request.
    fn left(&self, resource: &Resource, permits: usize) -> u64 {
        if resource.is_held_off(self.now, permits) {
            return 0;
        }
        match &resource.limit {
            LimitState::Rate(_) if resource.head.is_some() => 0,
            LimitState::Rate(rate) => rate.available(self.now),
            _ => resource.unreserved(),
        }
    }

    pub(super) fn peek(&self, node: u32) -> Vec<(ResourceId, Amount)> {
        let is_held_off = |node| self.nodes.at(node).is_held_off(self.now);
        let is_blocked = self.path(node).any(is_held_off);
        let least = |id| {
            let resources = self.path(node).filter_map(|node| {
                let here = self.nodes.at(node);
                Some((here.resource(id)?, here.permits))
            });
            let limited = resources.filter(|(resource, _)| resource.largest().is_some());
            let left = limited
                .map(|(resource, permits)| self.left(resource, permits))
                .min()
                .unwrap_or(0);
            Amount::raw(if is_blocked { 0 } else { left })
        };
        let known = self.known(node).into_iter();
        known.map(|id| (id, least(id))).collect()
    }

    pub(super) fn held(&self, node: u32, id: ResourceId) -> Amount {
        let resource = self.nodes.at(node).resource(id);
        Amount::raw(resource.map_or(0, |resource| self.held_of(resource)))
    }

    fn held_of(&self, resource: &Resource) -> u64 {
        let held = u64::try_from(resource.held).unwrap_or(u64::MAX);
        match &resource.limit {
            LimitState::Rate(rate) => rate.taken(self.now),
            LimitState::Budget { spent, .. } => held.saturating_add(*spent),
            LimitState::None | LimitState::Slots(_) => held,
        }
    }

    /// Return the service and the weights of the children of a node. O(children).
    fn total(&self, parent: u32) -> Total {
        let mut total = Total::default();
        let mut add = |share: &Share, takes_part: bool| {
            total.received += service(share);
            if takes_part {
                total.weight += share.weight.as_f64();
            }
        };
        let above = self.nodes.at(parent);
        let queue = &above.queue.share;
        add(queue, self.has_waiters(parent) || queue.service > 0);
        for child in self.children(parent) {
            let here = self.nodes.at(child);
            add(&here.share, takes_part(here));
        }
        total
    }

    /// Return a child's part of the service of its parent's children, and the part due to it.
    fn received_and_due(&self, node: u32, total: &Total) -> (Option<f64>, Option<f64>) {
        let here = self.nodes.at(node);
        let weight = here.share.weight.as_f64();
        // A child that does not take part yet counts as if it did.
        let comes = if takes_part(here) { 0.0 } else { weight };
        (
            (total.received > 0.0).then(|| service(&here.share) / total.received),
            Some(weight / (total.weight + comes)),
        )
    }

    pub(super) fn usage(&self, node: u32) -> Usage {
        let parent = self.nodes.at(node).parent;
        let total = (parent != NIL).then(|| self.total(parent));
        self.usage_of(node, total.as_ref())
    }

    /// Return the same, with the total of its parent's children if that is known; a root has none.
    fn usage_of(&self, node: u32, total: Option<&Total>) -> Usage {
        let here = self.nodes.at(node);
        let (received, due) =
            total.map_or((None, None), |total| self.received_and_due(node, total));
        let mut resources: Vec<_> = here
            .resources
            .iter()
            .filter_map(|resource| {
                Some(ResourceUsage {
                    resource: resource.id,
                    limit: resource.limit()?,
                    held: Amount::raw(self.held_of(resource)),
                    available: Amount::raw(self.left(resource, here.permits)),
                    reserved: Amount::raw(if resource.kind == ResourceKind::Rate {
                        0
                    } else {
                        resource.reserved()
                    }),
                })
            })
            .collect();
        resources.sort_unstable_by_key(|usage| usage.resource);
        Usage {
            node: self.id_of(node),
            name: here.name.clone(),
            weight: here.share.weight,
            floor: Amount::raw(here.floor.as_ref().map_or(0, |floor| floor.amount)),
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
            cooldown: self.cooldown(node),
            breaker: self.breaker_usage(node),
        }
    }

    fn cooldown(&self, node: u32) -> Option<Cooldown> {
        let ramp = self.nodes.at(node).ramp.as_ref()?;
        Some(Cooldown {
            resource: ramp.resource,
            left: self.opens_at(node).since(self.now),
            window: ramp
                .probes
                .or((ramp.window < usize::MAX).then_some(ramp.window)),
            before: ramp.before,
            events: ramp.repeats + 1,
        })
    }

    /// Return a node and all below it.
    ///
    /// The last of a list of nodes has no child left in it. So children are moved into their parents from the end on, without recursion.
    pub(super) fn snapshot(&self, node: u32) -> Snapshot {
        let all = self.below(node);
        // Once per parent, whatever the number of its children.
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
        let position: HashMap<_, _> = all.iter().copied().zip(0..).collect();
        while made.len() > 1 {
            let mut child = made.pop().expect("there are at least two");
            child.children.reverse();
            let parent = self.nodes.at(all[made.len()]).parent;
            let parent: usize = position[&parent];
            made[parent].children.push(child);
        }
        let mut root = made.pop().expect("the list starts with the node itself");
        root.children.reverse();
        root
    }
}

#[allow(clippy::cast_precision_loss)] // a ratio to be looked at
fn service(share: &Share) -> f64 {
    share.service.max(0) as f64
}
