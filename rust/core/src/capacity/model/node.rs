//! One node of the tree, as its lock guards it.

use super::resource::{Kind, Pool, Pools};
use super::share::Flow;
use super::wait_queue::Line;
use crate::capacity::index::NIL;
use crate::capacity::index::ready_children::Siblings;
use crate::capacity::{Resource, Time};
use std::sync::Arc;

/// How far a node has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::capacity) enum Life {
    Open,
    /// Nobody may ask here any more.
    Closed,
    /// To be forgotten, too, when nothing needs it.
    Removed,
}

#[derive(Debug)]
pub(in crate::capacity) struct Node {
    pub(in crate::capacity) parent: u32,
    /// The first and the last child, and the siblings before and after.
    pub(in crate::capacity) first: u32,
    pub(in crate::capacity) last: u32,
    pub(in crate::capacity) before: u32,
    pub(in crate::capacity) after: u32,
    /// How many nodes there are above.
    pub(in crate::capacity) depth: usize,
    pub(in crate::capacity) name: Option<Arc<str>>,
    pub(in crate::capacity) paused: bool,
    pub(in crate::capacity) life: Life,
    /// Nothing is admitted before.
    pub(in crate::capacity) not_before: Time,
    /// As `not_before`, while the tree's timers have it.
    pub(in crate::capacity) timer: Option<Time>,
    pub(in crate::capacity) pools: Pools,
    /// Its place beside its siblings.
    pub(in crate::capacity) flow: Flow,
    /// Those who wait at this very node.
    pub(in crate::capacity) line: Line,
    /// Its children that are eligible; the own line is one more while somebody is offered.
    pub(in crate::capacity) open: Siblings,
    /// The greatest start tag by which something was granted here.
    pub(in crate::capacity) virtual_time: i128,
    /// The greatest tag that a child ever had.
    pub(in crate::capacity) greatest_tag: i128,
    /// When something was granted here last that was charged, as the tree counts.
    pub(in crate::capacity) last_grant: u64,
    /// Whether it is itself eligible: somebody below passes all that is below the node's parent. At the root, whether there
    /// is any point in looking.
    pub(in crate::capacity) eligible: bool,
    /// How many waiters are offered at the node and below.
    pub(in crate::capacity) offered: u32,
    /// How many waiters there are at the node and below, and how many of them are parked.
    pub(in crate::capacity) waiting: usize,
    pub(in crate::capacity) parked: usize,
    /// How many leases name this very node.
    pub(in crate::capacity) pins: usize,
    /// How many permits are held at the node and below.
    pub(in crate::capacity) permits: usize,
    pub(in crate::capacity) granted: u64,
    pub(in crate::capacity) bypassed: u64,
    /// How long permits of the node and below are held: a moving average, in nanoseconds.
    pub(in crate::capacity) hold: Option<u64>,
}

impl Node {
    pub(in crate::capacity) fn new(
        parent: u32,
        depth: usize,
        name: Option<Arc<str>>,
        flow: Flow,
    ) -> Self {
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
    pub(in crate::capacity) fn pool(&self, resource: Resource) -> Option<&Pool> {
        self.pools.get(resource)
    }

    #[inline]
    pub(in crate::capacity) fn pool_mut(&mut self, resource: Resource) -> Option<&mut Pool> {
        self.pools.get_mut(resource)
    }

    /// The books of `resource` here, opened if need be.
    #[inline]
    pub(in crate::capacity) fn books(&mut self, resource: Resource, kind: Kind) -> &mut Pool {
        self.pools.open(resource, kind)
    }

    /// The rates that all who are offered at it and below need, limited here or not.
    fn rates_of_all(&self) -> impl Iterator<Item = Resource> {
        let of_all = |pool: &&Pool| pool.kind == Kind::Rate && pool.needs.len() == self.offered;
        self.pools.iter().filter(of_all).map(|pool| pool.resource)
    }

    /// The same, in the order of their numbers.
    pub(in crate::capacity) fn rates(&self) -> Vec<Resource> {
        let mut rates: Vec<_> = self.rates_of_all().collect();
        rates.sort_unstable();
        rates
    }

    /// Whether these are they.
    #[inline]
    pub(in crate::capacity) fn needs_rates(&self, rates: &[Resource]) -> bool {
        let mut count = 0;
        let are_known = self.rates_of_all().all(|rate| {
            count += 1;
            rates.contains(&rate)
        });
        are_known && count == rates.len()
    }

    /// Counts a permit that is granted at the node or below.
    #[inline]
    pub(in crate::capacity) fn count_grant(&mut self) {
        self.permits += 1;
        self.granted += 1;
    }

    #[inline]
    pub(in crate::capacity) fn is_closed(&self) -> bool {
        self.life != Life::Open
    }

    /// Whether it keeps out everybody, whatever they ask for.
    #[inline]
    pub(in crate::capacity) fn is_held_off(&self, now: Time) -> bool {
        self.paused || now < self.not_before
    }
}
