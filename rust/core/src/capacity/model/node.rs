//! `Node`, the record of a node: its place in the tree, resources, share and wait queue. `State` stores all nodes;
//! `reconfigure.rs` adds and removes them, and `policy/` reads and changes them.

use super::breaker::Breaker;
use super::floor::{Floor, Floors};
use super::ramp::{Cooled, Ramp};
use super::resource::{Resource, ResourceKind, Resources};
use super::share::Share;
use super::wait_queue::WaitQueue;
use crate::capacity::index::NIL;
use crate::capacity::index::ready_children::ReadyChildren;
use crate::capacity::{ResourceId, Time};
use std::sync::Arc;

/// The life cycle of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::capacity) enum Life {
    Open,
    /// It accepts no request.
    Closed,
    /// It accepts no request, and is deleted when nothing needs it.
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
    /// The number of ancestors.
    pub(in crate::capacity) depth: usize,
    pub(in crate::capacity) name: Option<Arc<str>>,
    pub(in crate::capacity) paused: bool,
    pub(in crate::capacity) life: Life,
    /// Nothing is granted before this time.
    pub(in crate::capacity) not_before: Time,
    /// Nothing is granted while it holds this many permits. No bound without a ramp of the whole node.
    pub(in crate::capacity) most: usize,
    /// From its cooldown until it is in full use again. Boxed, as few nodes have one.
    pub(in crate::capacity) ramp: Option<Box<Ramp>>,
    /// Boxed, too.
    pub(in crate::capacity) breaker: Option<Box<Breaker>>,
    /// Its cooldowns until now. Boxed, too.
    pub(in crate::capacity) cooled: Option<Box<Cooled>>,
    /// The time of its entry in the tree's timers: the next step of its ramp.
    pub(in crate::capacity) timer: Option<Time>,
    pub(in crate::capacity) resources: Resources,
    /// Its share of its parent.
    pub(in crate::capacity) share: Share,
    /// Its guaranteed minimum, and those of its children.
    pub(in crate::capacity) floor: Option<Box<Floor>>,
    pub(in crate::capacity) floors: Option<Box<Floors>>,
    /// The waiters at this node itself.
    pub(in crate::capacity) queue: WaitQueue,
    /// The eligible children. The node's own queue is one more, while it offers a waiter.
    pub(in crate::capacity) ready: ReadyChildren,
    /// The greatest start tag of any grant here.
    pub(in crate::capacity) virtual_time: i128,
    /// The greatest tag that any child ever had.
    pub(in crate::capacity) greatest_tag: i128,
    /// The stamp of the last charged grant here.
    pub(in crate::capacity) last_grant: u64,
    /// Whether a waiter at the node or below gets past all limits below its parent. At the root, whether a search is worth while.
    pub(in crate::capacity) eligible: bool,
    /// The number of waiters that are offered at the node and below.
    pub(in crate::capacity) offered: u32,
    /// The number of waiters at the node and below, and how many of them are parked.
    pub(in crate::capacity) waiting: usize,
    pub(in crate::capacity) parked: usize,
    /// The number of permits of this node itself.
    pub(in crate::capacity) permit_refs: usize,
    /// The number of permits held at the node and below.
    pub(in crate::capacity) permits: usize,
    pub(in crate::capacity) granted: u64,
    pub(in crate::capacity) bypassed: u64,
    /// The moving average of the hold times of permits at the node and below, in nanoseconds.
    pub(in crate::capacity) hold: Option<u64>,
}

impl Node {
    pub(in crate::capacity) fn new(
        parent: u32,
        depth: usize,
        name: Option<Arc<str>>,
        share: Share,
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
            most: usize::MAX,
            ramp: None,
            breaker: None,
            cooled: None,
            timer: None,
            resources: Resources::default(),
            share,
            floor: None,
            floors: None,
            queue: WaitQueue::default(),
            ready: ReadyChildren::default(),
            virtual_time: 0,
            greatest_tag: 0,
            last_grant: 0,
            eligible: false,
            offered: 0,
            waiting: 0,
            parked: 0,
            permit_refs: 0,
            permits: 0,
            granted: 0,
            bypassed: 0,
            hold: None,
        }
    }

    #[inline]
    pub(in crate::capacity) fn resource(&self, id: ResourceId) -> Option<&Resource> {
        self.resources.get(id)
    }

    #[inline]
    pub(in crate::capacity) fn resource_mut(&mut self, id: ResourceId) -> Option<&mut Resource> {
        self.resources.get_mut(id)
    }

    /// Return the resource with this id, added if needed.
    #[inline]
    pub(in crate::capacity) fn resource_or_new(
        &mut self,
        id: ResourceId,
        kind: ResourceKind,
    ) -> &mut Resource {
        self.resources.get_or_new(id, kind)
    }

    /// Return the rates that all waiters offered at the node and below need, whether or not the node limits them.
    fn rates_of_all(&self) -> impl Iterator<Item = ResourceId> {
        let of_all = |resource: &&Resource| {
            resource.kind == ResourceKind::Rate && resource.demand.len() == self.offered
        };
        self.resources
            .iter()
            .filter(of_all)
            .map(|resource| resource.id)
    }

    /// Return the rates that all waiters offered at the node and below need, sorted.
    pub(in crate::capacity) fn rates(&self) -> Vec<ResourceId> {
        let mut rates: Vec<_> = self.rates_of_all().collect();
        rates.sort_unstable();
        rates
    }

    /// Return whether [`rates`](Self::rates) equals these.
    #[inline]
    pub(in crate::capacity) fn needs_rates(&self, rates: &[ResourceId]) -> bool {
        let mut count = 0;
        let are_known = self.rates_of_all().all(|rate| {
            count += 1;
            rates.contains(&rate)
        });
        are_known && count == rates.len()
    }

    /// Count a permit that is granted at the node or below.
    #[inline]
    pub(in crate::capacity) fn count_grant(&mut self) {
        self.permits += 1;
        self.granted += 1;
    }

    #[inline]
    pub(in crate::capacity) fn is_closed(&self) -> bool {
        self.life != Life::Open
    }

    /// Return whether it rejects every cost at this time.
    #[inline]
    pub(in crate::capacity) fn is_held_off(&self, now: Time) -> bool {
        self.paused || now < self.not_before || self.permits >= self.most
    }
}
