//! Floors: the guaranteed minimum of a child, in slots. `dispatch.rs` searches the children below their floors first, and
//! `eligibility.rs` and `fair_queue.rs` report the changes.
//!
//! A child is *below its floor* while it is eligible, holds fewer slots than its floor, and has an offered waiter that needs slots.
//! At each node the search first visits the children below their floors, in the order of their tags, and then all children.
//! So a slot that is released goes to a child below its floor. An idle floor is lent, and comes back with the next release: the wait
//! for one slot is at most the longest hold. This holds below a node whose own floor, and those of its ancestors, cover the floors
//! of its children; a node without a floor may itself be out of slots for longer.
//!
//! Floors are of slots. The first visit accepts only waiters that need slots and fit now; it makes no waiter the head of a rate. The
//! order at a rate is thus that of the shares. Otherwise a child that a rate keeps below its floor would get the whole rate.
//! A waiter with a reservation precedes the floors, because it has waited for longer than its share, and is granted once.
//!
//! # Shares
//!
//! A grant to a child below its floor is charged as all others. Such a child thus receives its share if that is more than its floor,
//! and otherwise its floor; the others share the rest by weight. Two rules keep the tags of the siblings comparable
//! ([`State::greatest_start`]):
//!
//! 1. A grant that a child receives before its turn moves the virtual time no further than to the first tag. Otherwise a sibling that
//!    is briefly ineligible would be lifted to the tag of the child that is ahead, and lose its turns to the others.
//! 2. The lead over the virtual time is bounded by twice the amount by which two siblings may differ in any case, as the lag is
//!    (`lag.rs`). A floor that was used for an hour therefore does not cost its child an hour of its later shares.
//!
//! # Limits below the sum
//!
//! A floor above the limit of its own node, and a sum of floors above the limit of the parent or an ancestor, are refused. They are
//! compared with the ceiling: the last limit above 0, as 0 pauses, or the maximum of an adaptive limit. An adaptive limit may fall below
//! the sum. All floors there are then scaled by the same factor, in micro-slots, until it rises again ([`State::rescale_floors`]).
//!
//! # Cost
//!
//! A node without floors pays a comparison with `None` on the contended path, and nothing on the uncontended one. The children below
//! their floors have their own tournament trees, so a choice costs O(log children) as without floors. They are kept apart by their
//! rates, too: a search leaves the others of a class once one of its waiters lacks quota of the node or above.

use super::dispatch::FitResult;
use crate::capacity::index::NIL;
use crate::capacity::model::floor::Floor;
use crate::capacity::model::resource::{LimitState, Resource};
use crate::capacity::model::state::State;
use crate::capacity::{Amount, Limit, NodeError, ResourceId};

/// A waiter that fits; otherwise the least depth of a node whose rate is not ready for a waiter that was visited.
type Found = Result<u32, usize>;

/// Return the ceiling of slots of a node after a change of its limits. A limit of 0 pauses, and keeps the last one.
fn new_ceiling(limits: &[(ResourceId, Limit)], last: Option<u64>) -> Option<u64> {
    limits.iter().find_map(|&(id, limit)| match limit {
        Limit::Slots(most) | Limit::Adaptive { maximum: most, .. } if id == ResourceId::SLOTS => {
            if most.is_zero() {
                last
            } else {
                Some(most.as_micros())
            }
        }
        _ => None,
    })
}

impl State {
    // The index of children below their floors.

    /// Return whether a child is below its floor.
    pub(in crate::capacity) fn is_below_floor(&self, child: u32) -> bool {
        let here = self.nodes.at(child);
        let Some(floor) = &here.floor else {
            return false;
        };
        let lacks =
            |slots: &Resource| slots.demand.len() > 0 && slots.held < u128::from(floor.in_force);
        here.share.eligible && here.resource(ResourceId::SLOTS).is_some_and(lacks)
    }

    /// Add a child that has a floor to the children below their floors, or remove it, after a change of its eligibility, its
    /// holdings or its waiters.
    pub(in crate::capacity) fn refresh_floor(&mut self, child: u32) {
        let is_below = self.is_below_floor(child);
        let here = self.nodes.at(child);
        let Some(floor) = &here.floor else {
            return;
        };
        if floor.is_below {
            let above = self.nodes.at(here.parent).floors.as_ref();
            let has_class =
                above.is_some_and(|floors| here.needs_rates(floors.below.rates(floor.class)));
            if is_below && has_class {
                return;
            }
            self.leave_floors(child);
        }
        if is_below {
            self.join_floors(child);
        }
    }

    fn join_floors(&mut self, child: u32) {
        let here = self.nodes.at(child);
        let (parent, rates, key) = (here.parent, here.rates(), here.share.order_key(child));
        let floors = self.nodes.at_mut(parent).floors.get_or_insert_default();
        let class = floors.below.class(rates);
        let leaf = floors.below.insert(class, key);
        if let Some(floor) = &mut self.nodes.at_mut(child).floor {
            (floor.is_below, floor.class, floor.leaf) = (true, class, leaf);
        }
    }

    fn leave_floors(&mut self, child: u32) {
        let here = self.nodes.at_mut(child);
        let parent = here.parent;
        let Some(floor) = &mut here.floor else {
            return;
        };
        floor.is_below = false;
        let (class, leaf) = (floor.class, floor.leaf);
        let Some(mut floors) = self.nodes.at_mut(parent).floors.take() else {
            return;
        };
        if floors.below.remove(class, leaf) {
            for (child, leaf) in floors.below.assign_leaves(class) {
                if let Some(floor) = &mut self.nodes.at_mut(child).floor {
                    floor.leaf = leaf;
                }
            }
        }
        self.nodes.at_mut(parent).floors = Some(floors);
    }

    /// Move a child among the children below their floors after a change of its tag.
    pub(in crate::capacity) fn move_below_floor(&mut self, parent: u32, child: u32) {
        let here = self.nodes.at(child);
        if let Some(&Floor { class, leaf, .. }) =
            here.floor.as_deref().filter(|floor| floor.is_below)
        {
            let key = here.share.order_key(child);
            if let Some(floors) = &mut self.nodes.at_mut(parent).floors {
                floors.below.update(class, leaf, key);
            }
        }
    }

    // The search.

    /// Return the first waiter of the children of a node that are below their floors. Collects the waiters before it that lack slots
    /// or a budget for the first time.
    pub(in crate::capacity) fn find_below_floors(
        &self,
        node: u32,
        short: &mut Vec<u32>,
    ) -> Option<u32> {
        self.search_floors(node, short).ok()
    }

    fn search_floors(&self, node: u32, short: &mut Vec<u32>) -> Found {
        let here = self.nodes.at(node);
        let Some(floors) = &here.floors else {
            return Err(usize::MAX);
        };
        let waits =
            |rates: &[ResourceId]| self.headed_rates(node).any(|rate| rates.contains(&rate));
        let mut order = floors.below.in_order(None, waits);
        let mut least = usize::MAX;
        while let Some(child) = order.next() {
            let depth = match self.search_slots(child, short) {
                Ok(waiter) => return Ok(waiter),
                Err(depth) => depth,
            };
            if depth <= here.depth {
                order.leave_class();
            }
            least = least.min(depth);
        }
        Err(least)
    }

    /// Return the first waiter at a node and below that needs slots and fits.
    fn search_slots(&self, node: u32, short: &mut Vec<u32>) -> Found {
        let mut least = match self.search_floors(node, short) {
            Ok(waiter) => return Ok(waiter),
            Err(depth) => depth,
        };
        let here = self.nodes.at(node);
        let own = (here.queue.share.eligible).then(|| here.queue.share.order_key(node));
        let waits =
            |rates: &[ResourceId]| self.headed_rates(node).any(|rate| rates.contains(&rate));
        let mut order = here.ready.in_order(own, waits);
        while let Some(child) = order.next() {
            let found = if child == node {
                self.search_queue(node, short)
            } else if (self.nodes.at(child).floor.as_ref()).is_some_and(|floor| floor.is_below) {
                // It was visited above, or a sibling before it lacks the same quota.
                continue;
            } else {
                self.search_slots(child, short)
            };
            let depth = match found {
                Ok(waiter) => return Ok(waiter),
                Err(depth) => depth,
            };
            if child != node && depth <= here.depth {
                order.leave_class();
            }
            least = least.min(depth);
        }
        Err(least)
    }

    fn search_queue(&self, node: u32, short: &mut Vec<u32>) -> Found {
        let mut least = usize::MAX;
        for waiter in self.nodes.at(node).queue.offered() {
            let record = self.waiters.at(waiter);
            if record.cost.get(ResourceId::SLOTS).is_zero() || self.is_starved(waiter) {
                continue;
            }
            match self.fit_waiter(waiter) {
                FitResult::Fits => return Ok(waiter),
                FitResult::Quota => least = least.min(self.depth_of_missing_quota(waiter)),
                FitResult::Short(..) if !record.was_next => short.push(waiter),
                _ => {}
            }
        }
        Err(least)
    }

    /// Return the depth of the highest node whose rate is not ready for a waiter.
    pub(in crate::capacity) fn depth_of_missing_quota(&self, waiter: u32) -> usize {
        let (record, now) = (self.waiters.at(waiter), self.now);
        let lacks = |&at: &u32| {
            record.cost.parts().iter().any(|&(id, amount)| {
                let resource = self.nodes.at(at).resource(id);
                resource.is_some_and(|here| here.ready_at(amount.as_micros(), now) > now)
            })
        };
        let missing = self.path(record.node).filter(lacks);
        let depths = missing.map(|at| self.nodes.at(at).depth);
        depths.min().unwrap_or(usize::MAX)
    }

    // Charges.

    /// Return the first tag at `parent`, if `child` is below its floor there.
    pub(in crate::capacity) fn first_if_below_floor(
        &self,
        parent: u32,
        child: u32,
    ) -> Option<i128> {
        if parent == child || !self.nodes.at(child).floor.as_ref()?.is_below {
            return None;
        }
        self.first(parent).map(|(tag, ..)| tag)
    }

    /// Return the greatest tag from which a child is charged. `None` without a floor.
    pub(in crate::capacity) fn greatest_start(&self, parent: u32, child: u32) -> Option<i128> {
        if parent == child || self.nodes.at(child).floor.is_none() {
            return None;
        }
        let virtual_time = self.nodes.at(parent).virtual_time;
        let (level, other) = match self.first(parent) {
            Some((first, _, sibling)) => (first.max(virtual_time), sibling),
            None => (virtual_time, child),
        };
        Some(level + 2 * self.allowance(parent, child, other))
    }

    // Configuration.

    /// Return the least ceiling of slots at a node and above, and the node that has it. `changed` has another one.
    fn least_bound(&self, node: u32, changed: Option<(u32, Option<u64>)>) -> Option<(u32, u64)> {
        let bound_of = |at| match changed {
            Some((node, bound)) if node == at => bound,
            _ => self.slots_ceiling(at),
        };
        let bounds = self.path(node).filter_map(|at| Some((at, bound_of(at)?)));
        bounds.min_by_key(|&(_, bound)| bound)
    }

    fn slots_ceiling(&self, node: u32) -> Option<u64> {
        self.nodes.at(node).resource(ResourceId::SLOTS)?.ceiling
    }

    fn slots_limit(&self, node: u32) -> Option<u64> {
        match self.nodes.at(node).resource(ResourceId::SLOTS)?.limit {
            LimitState::Slots(limit) => Some(limit),
            _ => None,
        }
    }

    /// Check the floor of a child that is about to be added to `parent` with these limits.
    pub(in crate::capacity) fn check_new_floor(
        &self,
        parent: u32,
        floor: Amount,
        limits: &[(ResourceId, Limit)],
    ) -> Result<(), NodeError> {
        if floor.is_zero() {
            return Ok(());
        }
        Self::check_own_floor(floor.as_micros(), new_ceiling(limits, None))?;
        self.check_sum(parent, floor.as_micros(), 0)
    }

    /// Check another floor of a node.
    fn check_changed_floor(&self, node: u32, floor: Amount) -> Result<(), NodeError> {
        if floor.is_zero() {
            return Ok(());
        }
        let here = self.nodes.at(node);
        Self::check_own_floor(floor.as_micros(), self.slots_ceiling(node))?;
        let before = here.floor.as_ref().map_or(0, |floor| floor.amount);
        self.check_sum(here.parent, floor.as_micros(), before)
    }

    fn check_own_floor(floor: u64, bound: Option<u64>) -> Result<(), NodeError> {
        match bound {
            Some(bound) if floor > bound => Err(NodeError::Floor {
                floor: Amount::raw(floor),
                limit: Amount::raw(bound),
            }),
            _ => Ok(()),
        }
    }

    /// Check the sum of the floors below `parent` after one of them was changed from `before` to `floor`.
    fn check_sum(&self, parent: u32, floor: u64, before: u64) -> Result<(), NodeError> {
        if parent == NIL {
            return Err(NodeError::RootFloor);
        }
        if self
            .kind(ResourceId::SLOTS)
            .is_some_and(|kind| kind != Limit::Slots(Amount::ZERO).kind())
        {
            return Err(NodeError::FloorKind);
        }
        let sum = self
            .nodes
            .at(parent)
            .floors
            .as_ref()
            .map_or(0, |floors| floors.sum);
        let sum = sum - u128::from(before) + u128::from(floor);
        self.compare_sum(parent, sum, None)
    }

    fn compare_sum(
        &self,
        parent: u32,
        sum: u128,
        changed: Option<(u32, Option<u64>)>,
    ) -> Result<(), NodeError> {
        match self.least_bound(parent, changed) {
            Some((at, limit)) if sum > u128::from(limit) => Err(NodeError::Floors {
                parent: self.id_of(parent),
                sum: Amount::raw(u64::try_from(sum).unwrap_or(u64::MAX)),
                at: self.id_of(at),
                limit: Amount::raw(limit),
            }),
            _ => Ok(()),
        }
    }

    /// Check all floors that new limits of a node concern: its own, and the sums at the node and below.
    pub(in crate::capacity) fn check_floors(
        &self,
        node: u32,
        limits: &[(ResourceId, Limit)],
    ) -> Result<(), NodeError> {
        if self.floors == 0 {
            return Ok(());
        }
        let bound = new_ceiling(limits, self.slots_ceiling(node));
        if let Some(floor) = &self.nodes.at(node).floor {
            Self::check_own_floor(floor.amount, bound)?;
        }
        for at in self.below(node) {
            if let Some(floors) = &self.nodes.at(at).floors {
                self.compare_sum(at, floors.sum, Some((node, bound)))?;
            }
        }
        Ok(())
    }

    /// Change the floor of a node that is not closed.
    pub(in crate::capacity) fn set_floor(
        &mut self,
        node: u32,
        floor: Amount,
    ) -> Result<(), NodeError> {
        self.check_changed_floor(node, floor)?;
        self.put_floor(node, floor);
        Ok(())
    }

    /// Store the floor of a node, which was checked, and update those of its siblings.
    pub(in crate::capacity) fn put_floor(&mut self, node: u32, floor: Amount) {
        let (amount, here) = (floor.as_micros(), self.nodes.at(node));
        let parent = here.parent;
        let before = here.floor.as_ref().map_or(0, |floor| floor.amount);
        if before == amount {
            return;
        }
        if here.floor.as_ref().is_some_and(|floor| floor.is_below) {
            self.leave_floors(node);
        }
        self.nodes.at_mut(node).floor = (amount > 0).then(|| Box::new(Floor::new(amount)));
        self.floors -= usize::from(before > 0);
        if amount > 0 {
            self.floors += 1;
            // A rate of this name would never be held.
            self.kinds[ResourceId::SLOTS.0 as usize] = Some(Limit::Slots(floor).kind());
        }
        let above = self.nodes.at_mut(parent);
        let mut floors = above.floors.take().unwrap_or_default();
        floors.sum = floors.sum - u128::from(before) + u128::from(amount);
        // The last floor left no child in the index.
        above.floors = (floors.sum > 0).then_some(floors);
        self.scale_floors(parent, Some(node));
    }

    /// Update the floors in force at a node and below, after a change of its slots limit.
    pub(in crate::capacity) fn rescale_floors(&mut self, node: u32) {
        if self.floors == 0 {
            return;
        }
        for at in self.below(node) {
            self.scale_floors(at, None);
        }
    }

    /// Update the floors in force of the children of a node; of one child alone if only that one was changed.
    fn scale_floors(&mut self, parent: u32, changed: Option<u32>) {
        let Some(sum) = self
            .nodes
            .at(parent)
            .floors
            .as_ref()
            .map(|floors| floors.sum)
        else {
            return;
        };
        let limits = self.path(parent).filter_map(|at| self.slots_limit(at));
        let limit = limits.min().map_or(u128::MAX, u128::from);
        let is_scaled = sum > limit;
        let was_scaled = (self.nodes.at_mut(parent).floors.as_mut())
            .is_some_and(|floors| std::mem::replace(&mut floors.is_scaled, is_scaled));
        let in_force = |amount: u64| {
            let scaled = if is_scaled {
                u128::from(amount) * limit / sum
            } else {
                u128::from(amount)
            };
            u64::try_from(scaled).unwrap_or(amount)
        };
        if !is_scaled && !was_scaled {
            // All floors are in force already, except for a new one, which starts so.
            if let Some(child) = changed {
                self.refresh_floor(child);
            }
            return;
        }
        let mut child = self.nodes.at(parent).first;
        while child != NIL {
            let here = self.nodes.at_mut(child);
            let next = here.after;
            if let Some(floor) = &mut here.floor {
                floor.in_force = in_force(floor.amount);
                self.refresh_floor(child);
            }
            child = next;
        }
    }

    /// Remove the floor of a node that accepts no more requests.
    pub(in crate::capacity) fn drop_floor(&mut self, node: u32) {
        if self.nodes.at(node).floor.is_some() {
            self.put_floor(node, Amount::ZERO);
        }
    }
}
