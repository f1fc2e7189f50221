//! A tree on a manual clock, with separate records of the amounts held at each node.

use headrace_core::Tree;
use headrace_core::capacity::{
    Acquire, AcquireRequest, Amount, Cost, Limit, ManualClock, NodeId, NodeOptions, ResourceId,
    Settings, Time, Weight,
};
use std::sync::Arc;

/// A node, by its number; the root is 0.
pub type Spot = usize;

/// The resources of every rig, by number.
pub const SLOTS: usize = 0;
pub const MEMORY: usize = 1;
const NAMES: [&str; 2] = ["slots", "memory"];

#[derive(Debug)]
struct Node {
    id: NodeId,
    parent: Option<Spot>,
    /// `u64::MAX` for a resource without a limit.
    limits: [u64; 2],
    held: [u64; 2],
    paused: bool,
}

#[derive(Debug)]
pub struct Rig {
    pub tree: Arc<Tree>,
    clock: Arc<ManualClock>,
    resources: [ResourceId; 2],
    nodes: Vec<Node>,
}

impl Rig {
    pub fn new() -> Self {
        let clock = Arc::new(ManualClock::new());
        let tree = Tree::new(Settings::with_clock(Arc::clone(&clock) as _));
        let resources = NAMES.map(|name| tree.resource(name));
        Self {
            tree,
            clock,
            resources,
            nodes: Vec::new(),
        }
    }

    /// Add the root with these limits.
    pub fn root(&mut self, limits: &[(usize, u64)]) -> Spot {
        let options = NodeOptions::new(self.limits(limits));
        let id = self.tree.root(options).unwrap();
        self.adopt(id, None, limits)
    }

    pub fn child(&mut self, parent: Spot, limits: &[(usize, u64)], weight: f64) -> Spot {
        let weight = Weight::from_f64(weight).unwrap();
        let options = NodeOptions::new(self.limits(limits)).weight(weight);
        let id = self.tree.add(self.id(parent), options).unwrap();
        self.adopt(id, Some(parent), limits)
    }

    fn adopt(&mut self, id: NodeId, parent: Option<Spot>, limits: &[(usize, u64)]) -> Spot {
        self.nodes.push(Node {
            id,
            parent,
            limits: table(limits),
            held: [0; 2],
            paused: false,
        });
        self.nodes.len() - 1
    }

    fn limits(&self, limits: &[(usize, u64)]) -> Vec<(ResourceId, Limit)> {
        let limit = |&(resource, units): &(usize, u64)| {
            (self.resources[resource], Limit::Slots(Amount::units(units)))
        };
        limits.iter().map(limit).collect()
    }

    pub fn id(&self, spot: Spot) -> NodeId {
        self.nodes[spot].id
    }

    pub fn acquire(&self, spot: Spot, cost: &[(usize, u64)]) -> Acquire {
        let parts = cost
            .iter()
            .map(|&(resource, units)| (self.resources[resource], Amount::units(units)));
        let cost = Cost::new(parts).unwrap();
        self.tree.acquire(AcquireRequest::new(self.id(spot), cost))
    }

    pub fn resize(&mut self, spot: Spot, limits: &[(usize, u64)]) {
        self.nodes[spot].limits = table(limits);
        let limits = self.limits(limits);
        self.tree.resize(self.id(spot), &limits).unwrap();
    }

    pub fn pause(&mut self, spot: Spot, paused: bool) {
        self.nodes[spot].paused = paused;
        let id = self.id(spot);
        if paused {
            self.tree.pause(id)
        } else {
            self.tree.resume(id)
        }
        .unwrap();
    }

    pub fn reweigh(&self, spot: Spot, weight: f64) {
        let weight = Weight::from_f64(weight).unwrap();
        self.tree.reweigh(self.id(spot), weight).unwrap();
    }

    pub fn clock_to(&self, nanos: u64) {
        self.clock.set(Time::from_nanos(nanos));
    }

    /// Record a grant, or its release.
    pub fn record(&mut self, spot: Spot, cost: &[(usize, u64)], granted: bool) {
        let mut next = Some(spot);
        while let Some(spot) = next {
            let node = &mut self.nodes[spot];
            for &(resource, units) in cost {
                if granted {
                    node.held[resource] += units;
                } else {
                    node.held[resource] -= units;
                }
            }
            next = node.parent;
        }
    }

    /// Return whether the cost fits on the whole path.
    pub fn fits(&self, spot: Spot, cost: &[(usize, u64)]) -> bool {
        let mut path = std::iter::successors(Some(spot), |&spot| self.nodes[spot].parent);
        path.all(|spot| self.fits_at(spot, cost))
    }

    /// Return whether the cost fits on the whole path in addition to the reservations there.
    pub fn fits_unreserved(&self, spot: Spot, cost: &[(usize, u64)]) -> bool {
        let mut path = std::iter::successors(Some(spot), |&spot| self.nodes[spot].parent);
        path.all(|spot| {
            let Some(usage) = self.tree.usage(self.id(spot)) else {
                return false;
            };
            let with_reserved = cost.iter().map(|&(resource, units)| {
                let reserved = (usage.resources.iter())
                    .find(|here| here.resource == self.resources[resource])
                    .map_or(0, |here| {
                        here.reserved.as_micros() / Amount::ONE.as_micros()
                    });
                (resource, units + reserved)
            });
            self.fits_at(spot, &with_reserved.collect::<Vec<_>>())
        })
    }

    /// Return the limit of a node for a resource.
    pub fn limit(&self, spot: Spot, resource: usize) -> u64 {
        self.nodes[spot].limits[resource]
    }

    /// Return whether the cost fits at this node, ignoring its ancestors.
    pub fn fits_at(&self, spot: Spot, cost: &[(usize, u64)]) -> bool {
        let Node {
            limits,
            held,
            paused,
            ..
        } = &self.nodes[spot];
        let mut cost = cost.iter();
        !paused && cost.all(|&(resource, units)| held[resource] + units <= limits[resource])
    }
}

fn table(limits: &[(usize, u64)]) -> [u64; 2] {
    let mut table = [u64::MAX; 2];
    for &(resource, units) in limits {
        table[resource] = units;
    }
    table
}
