//! The state of a tree, which its lock guards, and the walks that the policies are made of. `Tree` owns it, and
//! `policy/`, `reconfigure.rs` and `stats.rs` add its methods.

use super::alarm_record::AlarmRecord;
use super::node::Node;
use super::permit_record::{Charge, Owners, PermitRecord};
use super::resource::{Resource, ResourceKind};
use super::share::Level;
use super::waiter::{Rank, Waiter};
use crate::capacity::clock::nanos;
use crate::capacity::index::NIL;
use crate::capacity::index::sorted_set::SortedSet;
use crate::capacity::{Clock, Cost, NodeId, ResourceId, Settings, Time};
use crate::sync::{Key, Slab};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
pub(in crate::capacity) struct State {
    /// The identity of the tree.
    tree: u64,
    clock: Arc<dyn Clock>,
    /// The worth of a step of priority, in nanoseconds.
    pub(in crate::capacity) ageing: i64,
    pub(in crate::capacity) passes: u32,
    pub(in crate::capacity) lateness: Duration,
    /// In nanoseconds.
    pub(in crate::capacity) estimate: u64,
    /// The time of the last clock reading; it never falls.
    pub(in crate::capacity) now: Time,
    /// Boxed: a node's memory is freed with it, while its entry in the slab stays for the next node.
    pub(in crate::capacity) nodes: Slab<Box<Node>>,
    pub(in crate::capacity) root: u32,
    /// The number of nodes with a floor.
    pub(in crate::capacity) floors: usize,
    pub(in crate::capacity) waiters: Slab<Waiter>,
    pub(in crate::capacity) permits: Slab<PermitRecord>,
    pub(in crate::capacity) charges: Slab<Charge>,
    pub(in crate::capacity) alarms: Slab<AlarmRecord>,
    /// Names and kinds of resources, indexed by `ResourceId`.
    names: Vec<Arc<str>>,
    pub(in crate::capacity) kinds: Vec<Option<ResourceKind>>,
    /// The number of waiters in the whole tree. Without one there is no order to respect and nothing to share.
    pub(in crate::capacity) waiting: usize,
    /// The number of nodes with a ramp.
    pub(in crate::capacity) ramps: usize,
    /// The sum of these two. Without any, the fast path applies.
    pub(in crate::capacity) busy: usize,
    /// Since when the tree has a waiter, and since when it has none.
    pub(in crate::capacity) busy_since: Time,
    pub(in crate::capacity) calm_since: Time,
    next_ticket: u64,
    stamp: u64,
    /// When permits outlive their charges.
    pub(in crate::capacity) expiry: SortedSet<(Time, u32)>,
    /// A buffer for the levels of a path during a charge.
    pub(in crate::capacity) levels: Vec<Level>,
    /// Permits that were granted while the tree had no waiter.
    pub(in crate::capacity) uncharged: Vec<u32>,
    /// When a node, or one of its resources, becomes ready.
    pub(in crate::capacity) timers: SortedSet<(Time, u32, Option<ResourceId>)>,
    /// Starved waiters that are offered, by age.
    pub(in crate::capacity) reservation_holders: BTreeMap<Rank, u32>,
    /// Offered waiters that were first and lacked slots when another waiter became the head of a rate; few.
    pub(in crate::capacity) slot_missers: Vec<u32>,
    pub(in crate::capacity) owners: Owners,
    /// The earliest timer at the last notification of the alarms; `None` to notify them in any case.
    pub(in crate::capacity) last_deadline: Option<Time>,
    /// Whether the invariants were verified once, so that each later grant is verified too.
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
            floors: 0,
            waiters: Slab::new(),
            permits: Slab::new(),
            charges: Slab::new(),
            alarms: Slab::new(),
            names: vec![Arc::from("slots")],
            kinds: vec![None],
            waiting: 0,
            ramps: 0,
            busy: 0,
            busy_since: Time::ZERO,
            calm_since: Time::ZERO,
            next_ticket: 0,
            stamp: 0,
            expiry: SortedSet::default(),
            levels: Vec::new(),
            uncharged: Vec::new(),
            timers: SortedSet::default(),
            reservation_holders: BTreeMap::new(),
            slot_missers: Vec::new(),
            owners: Owners::default(),
            last_deadline: None,
            #[cfg(any(test, debug_assertions))]
            is_watched: false,
        }
    }

    /// Return the current time.
    #[inline]
    pub(in crate::capacity) fn time(&self) -> Time {
        self.now.max(self.clock.now())
    }

    /// Read the clock and store its time.
    #[inline]
    pub(in crate::capacity) fn read_clock(&mut self) -> Time {
        self.now = self.time();
        self.now
    }

    pub(in crate::capacity) fn resource_id(&mut self, name: &str) -> ResourceId {
        let known = self.names.iter().position(|known| &**known == name);
        let number = known.unwrap_or_else(|| {
            self.names.push(Arc::from(name));
            self.kinds.push(None);
            self.names.len() - 1
        });
        ResourceId(u32::try_from(number).expect("a tree has fewer than 2^32 resources"))
    }

    pub(in crate::capacity) fn name_of(&self, id: ResourceId) -> Option<&Arc<str>> {
        self.names.get(id.0 as usize)
    }

    pub(in crate::capacity) fn kind(&self, id: ResourceId) -> Option<ResourceKind> {
        self.kinds.get(id.0 as usize).copied().flatten()
    }

    /// Return a number greater than all before, which orders lifts, charges and grants.
    #[inline]
    pub(in crate::capacity) fn next_stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    /// Return a rank behind all earlier waiters of this priority.
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

    /// Return the node and its ancestors, upward.
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

    /// Change the node and its ancestors, upward.
    #[inline]
    pub(in crate::capacity) fn for_path(&mut self, node: u32, mut change: impl FnMut(&mut Node)) {
        let mut next = node;
        while next != NIL {
            let node = self.nodes.at_mut(next);
            change(node);
            next = node.parent;
        }
    }

    /// Return whether `above` is `node` or one of its ancestors.
    pub(in crate::capacity) fn is_below(&self, node: u32, above: u32) -> bool {
        let depth = self.nodes.at(above).depth;
        let mut path = self.path(node);
        path.find(|&node| self.nodes.at(node).depth <= depth) == Some(above)
    }

    /// Return the children of a node.
    pub(in crate::capacity) fn children(&self, node: u32) -> impl Iterator<Item = u32> + '_ {
        let mut next = self.nodes.at(node).first;
        std::iter::from_fn(move || {
            let child = next;
            if child == NIL {
                return None;
            }
            next = self.nodes.at(child).after;
            Some(child)
        })
    }

    /// Return the node and everything below it, parents first.
    pub(in crate::capacity) fn below(&self, node: u32) -> Vec<u32> {
        let mut all = vec![node];
        let mut next = 0;
        while next < all.len() {
            all.extend(self.children(all[next]));
            next += 1;
        }
        all
    }

    /// Change each resource of a cost along the path of a node, and update the counts of its users.
    ///
    /// `change` receives the amount of the part, and whether the node is the first of the path.
    #[inline]
    pub(in crate::capacity) fn for_resources(
        &mut self,
        node: u32,
        cost: &Cost,
        mut change: impl FnMut(&mut Resource, u64, bool),
    ) {
        for &(id, amount) in cost.parts() {
            let kind = self.kind(id);
            let kind = kind.expect("a cost is checked before it is counted");
            let change =
                |resource: &mut Resource, is_own| change(resource, amount.as_micros(), is_own);
            self.for_resource(node, id, kind, |_| {}, change);
        }
    }

    /// Change one resource along the path of a node, and each node as well.
    #[inline]
    pub(in crate::capacity) fn for_resource(
        &mut self,
        node: u32,
        id: ResourceId,
        kind: ResourceKind,
        mut count: impl FnMut(&mut Node),
        mut change: impl FnMut(&mut Resource, bool),
    ) {
        let here = self.nodes.at_mut(node);
        count(here);
        let mut at = here.parent;
        let resource = here.resource_or_new(id, kind);
        // Whether the child below, at first the node's own queue, uses it before and after the change.
        let mut used = resource.is_used_by_queue();
        let was_used = resource.is_used();
        change(resource, true);
        let mut uses = resource.is_used_by_queue();
        resource.count_user(used, uses);
        (used, uses) = (was_used, resource.is_used());
        while at != NIL {
            let here = self.nodes.at_mut(at);
            count(here);
            at = here.parent;
            let resource = here.resource_or_new(id, kind);
            let was_used = resource.is_used();
            change(resource, false);
            resource.count_user(used, uses);
            (used, uses) = (was_used, resource.is_used());
        }
    }

    /// Return the public id of a node.
    pub(in crate::capacity) fn id_of(&self, node: u32) -> NodeId {
        NodeId {
            tree: self.tree,
            key: self.nodes.key_at(node),
        }
    }

    /// Return the index of the node with this key, if it still exists.
    #[inline]
    pub(in crate::capacity) fn find_node(&self, key: Key) -> Option<u32> {
        self.nodes.get(key).map(|_| key.index())
    }
}
