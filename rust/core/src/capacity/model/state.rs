//! What the lock of a tree guards, and the walks that everything else is made of.

use super::alarm_record::Watch;
use super::node::Node;
use super::permit_record::{Charge, Lease, Owners};
use super::resource::{Kind, Pool};
use super::share::Level;
use super::waiter::{Rank, Waiter};
use crate::capacity::clock::nanos;
use crate::capacity::index::NIL;
use crate::capacity::index::sorted_set::Ordered;
use crate::capacity::{Clock, Cost, NodeId, Resource, Settings, Time};
use crate::sync::{Key, Slab};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
pub(in crate::capacity) struct State {
    /// The name of the tree.
    tree: u64,
    clock: Arc<dyn Clock>,
    /// What a step of priority is worth, in nanoseconds.
    pub(in crate::capacity) ageing: i64,
    pub(in crate::capacity) passes: u32,
    pub(in crate::capacity) lateness: Duration,
    /// In nanoseconds.
    pub(in crate::capacity) estimate: u64,
    /// When the clock was read last; it never falls.
    pub(in crate::capacity) now: Time,
    /// In boxes, so that what a node took is free as soon as it goes; its place in the table stays for the next one.
    pub(in crate::capacity) nodes: Slab<Box<Node>>,
    pub(in crate::capacity) root: u32,
    pub(in crate::capacity) waiters: Slab<Waiter>,
    pub(in crate::capacity) leases: Slab<Lease>,
    pub(in crate::capacity) charges: Slab<Charge>,
    pub(in crate::capacity) alarms: Slab<Watch>,
    /// Names and kinds of resources, by their numbers.
    names: Vec<Arc<str>>,
    pub(in crate::capacity) kinds: Vec<Option<Kind>>,
    /// How many wait, in the whole tree. While nobody does there is no order to respect and nothing to share.
    pub(in crate::capacity) waiting: usize,
    /// Since when somebody waits, and since when nobody does.
    pub(in crate::capacity) busy_since: Time,
    pub(in crate::capacity) calm_since: Time,
    next_ticket: u64,
    stamp: u64,
    /// When leases outlive what they were charged for.
    pub(in crate::capacity) expiry: Ordered<(Time, u32)>,
    /// Room for the levels of a path while they are charged.
    pub(in crate::capacity) levels: Vec<Level>,
    /// Leases that were granted while nobody waited, and so were not charged.
    pub(in crate::capacity) fresh: Vec<u32>,
    /// When something becomes ready: a node, and which of its resources, or the node itself.
    pub(in crate::capacity) timers: Ordered<(Time, u32, Option<Resource>)>,
    /// Offered waiters that were passed as often as may be, by age.
    pub(in crate::capacity) holders: BTreeMap<Rank, u32>,
    /// Offered waiters that came first and lacked slots when a turn was taken; few.
    pub(in crate::capacity) outrun: Vec<u32>,
    pub(in crate::capacity) owners: Owners,
    /// The first of the timers when the alarms were told last; `None` too if they are to be told in any case.
    pub(in crate::capacity) announced: Option<Time>,
    /// It was verified once, so whom it grants something is, too, from now on.
    #[cfg(any(test, debug_assertions))]
    pub(in crate::capacity) is_watched: bool,
}

impl State {
    pub(in crate::capacity) fn new(tree: u64, settings: &Settings) -> Self {
        Self {
            tree,
            clock: Arc::clone(&settings.clock),
            ageing: i64::try_from(nanos(settings.ageing)).unwrap_or(i64::MAX),
            passes: settings.passes,
            lateness: settings.lateness,
            estimate: nanos(settings.estimate),
            now: Time::ZERO,
            nodes: Slab::new(),
            root: NIL,
            waiters: Slab::new(),
            leases: Slab::new(),
            charges: Slab::new(),
            alarms: Slab::new(),
            names: vec![Arc::from("slots")],
            kinds: vec![None],
            waiting: 0,
            busy_since: Time::ZERO,
            calm_since: Time::ZERO,
            next_ticket: 0,
            stamp: 0,
            expiry: Ordered::default(),
            levels: Vec::new(),
            fresh: Vec::new(),
            timers: Ordered::default(),
            holders: BTreeMap::new(),
            outrun: Vec::new(),
            owners: Owners::default(),
            announced: None,
            #[cfg(any(test, debug_assertions))]
            is_watched: false,
        }
    }

    /// The moment now.
    #[inline]
    pub(in crate::capacity) fn time(&self) -> Time {
        self.now.max(self.clock.now())
    }

    /// Reads the clock, and takes notice.
    #[inline]
    pub(in crate::capacity) fn read_clock(&mut self) -> Time {
        self.now = self.time();
        self.now
    }

    pub(in crate::capacity) fn resource(&mut self, name: &str) -> Resource {
        let known = self.names.iter().position(|known| &**known == name);
        let number = known.unwrap_or_else(|| {
            self.names.push(Arc::from(name));
            self.kinds.push(None);
            self.names.len() - 1
        });
        Resource(u32::try_from(number).expect("a tree has fewer than 2^32 resources"))
    }

    pub(in crate::capacity) fn name_of(&self, resource: Resource) -> Option<&Arc<str>> {
        self.names.get(resource.0 as usize)
    }

    pub(in crate::capacity) fn kind(&self, resource: Resource) -> Option<Kind> {
        self.kinds.get(resource.0 as usize).copied().flatten()
    }

    /// A number greater than every one before: orders lifts, charges and grants.
    #[inline]
    pub(in crate::capacity) fn next_stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    /// A place behind all who came before with this priority.
    pub(in crate::capacity) fn next_rank(&mut self, priority: i32) -> Rank {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let now = i64::try_from(self.now.as_nanos()).unwrap_or(i64::MAX);
        let ahead = i64::from(priority).saturating_mul(self.ageing);
        Rank {
            due: now.saturating_sub(ahead),
            ticket,
        }
    }

    /// The node and its ancestors, upward.
    #[inline]
    pub(in crate::capacity) fn path(&self, node: u32) -> impl Iterator<Item = u32> + '_ {
        let mut next = node;
        std::iter::from_fn(move || {
            let node = next;
            if node == NIL {
                return None;
            }
            next = self.nodes.at(node).parent;
            Some(node)
        })
    }

    /// The node and its ancestors, to be changed.
    #[inline]
    pub(in crate::capacity) fn for_path(&mut self, node: u32, mut change: impl FnMut(&mut Node)) {
        let mut next = node;
        while next != NIL {
            let node = self.nodes.at_mut(next);
            change(node);
            next = node.parent;
        }
    }

    /// Whether `above` is `node` or one of its ancestors.
    pub(in crate::capacity) fn is_below(&self, node: u32, above: u32) -> bool {
        let depth = self.nodes.at(above).depth;
        let mut path = self.path(node);
        path.find(|&node| self.nodes.at(node).depth <= depth) == Some(above)
    }

    /// The node and everything below it, parents first.
    pub(in crate::capacity) fn below(&self, node: u32) -> Vec<u32> {
        let mut all = vec![node];
        let mut next = 0;
        while next < all.len() {
            let mut child = self.nodes.at(all[next]).first;
            while child != NIL {
                all.push(child);
                child = self.nodes.at(child).after;
            }
            next += 1;
        }
        all
    }

    /// Changes the books of each part of a cost, all along the path of a node, and keeps count of who uses what. The
    /// change learns how much of the part it is, and whether this is the node itself.
    #[inline]
    pub(in crate::capacity) fn for_pools(
        &mut self,
        node: u32,
        cost: &Cost,
        mut change: impl FnMut(&mut Pool, u64, bool),
    ) {
        for &(resource, amount) in cost.parts() {
            let kind = self.kind(resource);
            let kind = kind.expect("a cost is checked before it is booked");
            let change = |pool: &mut Pool, is_line| change(pool, amount.as_micros(), is_line);
            self.for_books(node, resource, kind, |_| {}, change);
        }
    }

    /// The same of one resource, in a walk that changes each node as well.
    #[inline]
    pub(in crate::capacity) fn for_books(
        &mut self,
        node: u32,
        resource: Resource,
        kind: Kind,
        mut count: impl FnMut(&mut Node),
        mut change: impl FnMut(&mut Pool, bool),
    ) {
        let here = self.nodes.at_mut(node);
        count(here);
        let mut at = here.parent;
        let pool = here.books(resource, kind);
        // Whether the child below, first of all the line, used it before the change, and does after it.
        let mut used = pool.is_used_by_line();
        let was_used = pool.is_used();
        change(pool, true);
        let mut uses = pool.is_used_by_line();
        pool.count_user(used, uses);
        (used, uses) = (was_used, pool.is_used());
        while at != NIL {
            let here = self.nodes.at_mut(at);
            count(here);
            at = here.parent;
            let pool = here.books(resource, kind);
            let was_used = pool.is_used();
            change(pool, false);
            pool.count_user(used, uses);
            (used, uses) = (was_used, pool.is_used());
        }
    }

    /// What callers call a node.
    pub(in crate::capacity) fn id_of(&self, node: u32) -> NodeId {
        NodeId {
            tree: self.tree,
            key: self.nodes.key_at(node),
        }
    }

    /// The node of this key, if it still lives.
    #[inline]
    pub(in crate::capacity) fn find_node(&self, key: Key) -> Option<u32> {
        self.nodes.get(key).map(|_| key.index())
    }
}
