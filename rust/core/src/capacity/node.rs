//! One node of the tree, as its lock guards it.

use super::fair::Flow;
use super::line::Line;
use super::pool::{Kind, Pool};
use super::pools::Pools;
use super::siblings::Siblings;
use super::{Resource, Time};
use std::sync::Arc;

/// No node.
pub(super) const NIL: u32 = u32::MAX;

/// How far a node has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Open,
    /// Nobody may ask here any more.
    Closed,
    /// To be forgotten, too, when nothing needs it.
    Removed,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) parent: u32,
    /// The first and the last child, and the siblings before and after.
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) before: u32,
    pub(super) after: u32,
    /// How many nodes there are above.
    pub(super) depth: usize,
    pub(super) name: Option<Arc<str>>,
    pub(super) paused: bool,
    pub(super) life: Life,
    /// Nothing is admitted before.
    pub(super) not_before: Time,
    /// As `not_before`, while the tree's timers have it.
    pub(super) timer: Option<Time>,
    pub(super) pools: Pools,
    /// Its place beside its siblings.
    pub(super) flow: Flow,
    /// Those who wait at this very node.
    pub(super) line: Line,
    /// Its children that are eligible; the own line is one more while somebody is offered.
    pub(super) open: Siblings,
    /// The greatest start tag by which something was granted here.
    pub(super) virtual_time: i128,
    /// The greatest tag that a child ever had.
    pub(super) greatest_tag: i128,
    /// When something was granted here last that was charged, as the tree counts.
    pub(super) last_grant: u64,
    /// Whether it is itself eligible: somebody below passes all that is below the node's parent. At the root, whether there
    /// is any point in looking.
    pub(super) eligible: bool,
    /// How many waiters are offered at the node and below.
    pub(super) offered: u32,
    /// How many waiters there are at the node and below, and how many of them are parked.
    pub(super) waiting: usize,
    pub(super) parked: usize,
    /// How many leases name this very node.
    pub(super) pins: usize,
    /// How many permits are held at the node and below.
    pub(super) permits: usize,
    pub(super) granted: u64,
    pub(super) bypassed: u64,
    /// How long permits of the node and below are held: a moving average, in nanoseconds.
    pub(super) hold: Option<u64>,
}

impl Node {
    pub(super) fn new(parent: u32, depth: usize, name: Option<Arc<str>>, flow: Flow) -> Self {
        Self {
            parent,
            first: NIL,
            last: NIL,
            before: NIL,
            after: NIL,
            depth,
            name,
            paused: false,
            life: Life::Open,
            not_before: Time::ZERO,
            timer: None,
            pools: Pools::default(),
            flow,
            line: Line::default(),
            open: Siblings::default(),
            virtual_time: 0,
            greatest_tag: 0,
            last_grant: 0,
            eligible: false,
            offered: 0,
            waiting: 0,
            parked: 0,
            pins: 0,
            permits: 0,
            granted: 0,
            bypassed: 0,
            hold: None,
        }
    }

    #[inline]
    pub(super) fn pool(&self, resource: Resource) -> Option<&Pool> {
        self.pools.get(resource)
    }

    #[inline]
    pub(super) fn pool_mut(&mut self, resource: Resource) -> Option<&mut Pool> {
        self.pools.get_mut(resource)
    }

    /// The books of `resource` here, opened if need be.
    #[inline]
    pub(super) fn books(&mut self, resource: Resource, kind: Kind) -> &mut Pool {
        self.pools.open(resource, kind)
    }

    /// The rates that all who are offered at it and below need, limited here or not.
    fn rates_of_all(&self) -> impl Iterator<Item = Resource> {
        let of_all = |pool: &&Pool| pool.kind == Kind::Rate && pool.needs.len() == self.offered;
        self.pools.iter().filter(of_all).map(|pool| pool.resource)
    }

    /// The same, in the order of their numbers.
    pub(super) fn rates(&self) -> Vec<Resource> {
        let mut rates: Vec<_> = self.rates_of_all().collect();
        rates.sort_unstable();
        rates
    }

    /// Whether these are they.
    #[inline]
    pub(super) fn needs_rates(&self, rates: &[Resource]) -> bool {
        let mut count = 0;
        let are_known = self.rates_of_all().all(|rate| {
            count += 1;
            rates.contains(&rate)
        });
        are_known && count == rates.len()
    }

    /// Counts a permit that is granted at the node or below.
    #[inline]
    pub(super) fn count_grant(&mut self) {
        self.permits += 1;
        self.granted += 1;
    }

    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.life != Life::Open
    }

    /// Whether it keeps out everybody, whatever they ask for.
    #[inline]
    pub(super) fn is_held_off(&self, now: Time) -> bool {
        self.paused || now < self.not_before
    }
}
