//! Taking, settling and releasing of permits, and the moments at which they are charged. `dispatch.rs` and
//! `admission.rs` call it to take, and the methods in `permit.rs` to settle, suspend and release.

use crate::capacity::clock::nanos;
use crate::capacity::index::NIL;
use crate::capacity::model::node::Node;
use crate::capacity::model::permit_record::{CHARGED, Charge, Held, PermitRecord};
use crate::capacity::model::resource::ResourceKind;
use crate::capacity::model::state::State;
use crate::capacity::{
    AcquireError, Amount, Cost, NodeError, OwnerId, PermitError, ResourceId, Time,
};
use crate::sync::{Key, WakeList};
use std::cmp::Reverse;

/// Without a waiter, one in this many permits is timed.
const TIMED: u64 = 16;

impl State {
    /// Take a cost that fits, at a node and all its ancestors, and add a permit for it.
    pub(in crate::capacity) fn take(
        &mut self,
        node: u32,
        cost: Cost,
        owner: Option<OwnerId>,
    ) -> Key {
        let is_busy = self.waiting > 0;
        let (now, lateness) = (self.now, self.lateness);
        let has_rate = self.has_rate(&cost);
        let stamp = if has_rate { self.next_stamp() } else { 0 };
        self.for_resources(node, &cost, |resource, amount, is_own| {
            resource.lend(amount, is_own, stamp, lateness, now);
        });
        let needs_clock = is_busy || self.is_timed(node) || has_rate;
        self.for_path(node, Node::count_grant);
        let since = needs_clock.then(|| self.read_clock());
        let key = self.open(node, cost, since, owner);
        let permit = key.index();
        self.permits.at_mut(permit).stamp = stamp;
        if is_busy {
            self.list(permit);
            self.charge(permit, now, true);
        }
        key
    }

    /// Return whether the next permit of a node is timed although the tree has no waiter.
    #[inline]
    pub(in crate::capacity) fn is_timed(&self, node: u32) -> bool {
        let granted = self.nodes.at(node).granted;
        granted < TIMED || granted.is_multiple_of(TIMED)
    }

    /// Add a permit for a cost that was just counted; it is uncharged if the tree has no waiter.
    #[inline]
    pub(in crate::capacity) fn open(
        &mut self,
        node: u32,
        cost: Cost,
        since: Option<Time>,
        owner: Option<OwnerId>,
    ) -> Key {
        self.nodes.at_mut(node).permit_refs += 1;
        let is_uncharged = self.waiting == 0;
        let key = self.permits.insert(PermitRecord {
            node,
            cost,
            since,
            stamp: 0,
            charge: NIL,
            uncharged: if is_uncharged {
                self.next_uncharged()
            } else {
                CHARGED
            },
            owner,
            is_listed: false,
            is_reported: false,
            older: NIL,
            newer: NIL,
            held: Held::Yes,
        });
        if is_uncharged {
            self.uncharged.push(key.index());
        }
        key
    }

    /// Remove the record of a permit that is neither charged nor uncharged. Must be followed by a `forget` of its node.
    #[inline]
    pub(in crate::capacity) fn remove_permit(&mut self, key: Key) {
        let record = self.permits.at(key.index());
        let node = record.node;
        if record.is_listed {
            self.unlist(key.index());
        }
        // In place: moving the record out costs more than all the rest.
        self.permits.discard(key);
        self.nodes.at_mut(node).permit_refs -= 1;
    }

    /// Return whether the cost includes a rate.
    #[inline]
    pub(in crate::capacity) fn has_rate(&self, cost: &Cost) -> bool {
        let mut parts = cost.parts().iter();
        parts.any(|&(id, _)| self.kind(id) == Some(ResourceKind::Rate))
    }

    /// Add a permit that holds its slots while the tree has no waiter to the uncharged ones.
    fn add_uncharged(&mut self, permit: u32) {
        self.permits.at_mut(permit).uncharged = self.next_uncharged();
        self.uncharged.push(permit);
    }

    /// Return the position of the next uncharged permit.
    #[inline]
    fn next_uncharged(&self) -> u32 {
        u32::try_from(self.uncharged.len()).expect("fewer than 2^32 permits")
    }

    #[inline]
    pub(in crate::capacity) fn remove_uncharged(&mut self, permit: u32) {
        let position = std::mem::replace(&mut self.permits.at_mut(permit).uncharged, CHARGED);
        if position == CHARGED {
            return;
        }
        self.uncharged.swap_remove(position as usize);
        if let Some(&moved) = self.uncharged.get(position as usize) {
            self.permits.at_mut(moved).uncharged = position;
        }
    }

    /// Charge the permits that were granted while the tree had no waiter, from now on, and add them to their owners' lists.
    pub(in crate::capacity) fn charge_uncharged(&mut self) {
        let now = self.now;
        for permit in std::mem::take(&mut self.uncharged) {
            self.permits.at_mut(permit).uncharged = CHARGED;
            self.list(permit);
            self.charge(permit, now, false);
        }
    }

    /// Store the charge of a permit in the place of the last one.
    pub(in crate::capacity) fn note_charge(&mut self, permit: u32, charge: Charge) {
        let until = charge.to;
        match self.permits.at(permit).charge {
            NIL => self.permits.at_mut(permit).charge = self.charges.insert(charge).index(),
            position => {
                let before = std::mem::replace(self.charges.at_mut(position), charge);
                self.expiry.remove(&(before.to, permit));
            }
        }
        self.expiry.insert((until, permit));
    }

    /// End a permit: slots come back, budgets are spent. The caller must dispatch.
    ///
    /// An annulled permit leaves no trace, as if it had never been granted.
    pub(in crate::capacity) fn end(&mut self, key: Key, is_annulled: bool, wakes: &mut WakeList) {
        let Some(record) = self.permits.get(key) else {
            return;
        };
        let permit = key.index();
        if record.since.is_some() || self.waiting > 0 {
            self.read_clock();
        }
        let now = self.now;
        self.stop_charging(permit);
        let record = self.permits.at_mut(permit);
        let cost = record.cost.take();
        let (node, since, held) = (record.node, record.since, record.held);
        let stamp = record.stamp;
        self.remove_permit(key);
        let holds_slots = held.has_slots();
        if let Some(since) = since
            && !is_annulled
            && holds_slots
        {
            let hold = nanos(now.since(since));
            self.for_path(node, |node| node.learn(hold));
        }
        self.for_resources(node, &cost, |resource, amount, is_own| {
            match resource.kind {
                ResourceKind::Slots if !holds_slots => {}
                ResourceKind::Rate => {
                    if is_annulled {
                        resource.refund(amount, stamp, now);
                    }
                    resource.end(stamp);
                }
                ResourceKind::Slots => resource.unhold(amount, is_own),
                ResourceKind::Budget => {
                    resource.unhold(amount, is_own);
                    if !is_annulled {
                        resource.spend(amount);
                    }
                }
            }
        });
        if let Held::Resuming(waiter) = held {
            self.fail(waiter, AcquireError::Closed, wakes);
        }
        self.for_path(node, |node| {
            node.permits -= usize::from(holds_slots);
            node.granted -= u64::from(is_annulled);
        });
        if holds_slots {
            self.count_for_ramps(node, key.ticket(), false);
        }
        if self.waiting > 0 {
            self.changed(node, &cost, wakes);
        }
        self.forget(node);
    }

    /// Correct the charge of a permit whose hold ends now.
    fn stop_charging(&mut self, permit: u32) {
        self.remove_uncharged(permit);
        if self.permits.at(permit).charge != NIL {
            self.correct(permit, self.now);
            let position = std::mem::replace(&mut self.permits.at_mut(permit).charge, NIL);
            self.expiry.remove(&(self.charges.at(position).to, permit));
            self.charges.discard(self.charges.key_at(position));
        }
    }

    /// Correct the cost of a permit to the actual amounts.
    pub(in crate::capacity) fn settle(
        &mut self,
        key: Key,
        actual: &[(ResourceId, Amount)],
        wakes: &mut WakeList,
    ) -> Result<(), PermitError> {
        let record = self.permits.get(key).ok_or(PermitError::Released)?;
        let (node, cost, held) = (record.node, record.cost.clone(), record.held);
        for (position, &(id, amount)) in actual.iter().enumerate() {
            let part = cost.parts().iter().find(|(named, _)| *named == id);
            let &(_, asked) = part.ok_or(PermitError::Unasked(id))?;
            if actual[..position].iter().any(|(named, _)| *named == id) {
                return Err(PermitError::Twice(id));
            }
            if self.kind(id) == Some(ResourceKind::Slots) {
                if held != Held::Yes {
                    return Err(PermitError::Suspended);
                }
                if amount > asked {
                    return Err(PermitError::Grows(id));
                }
            }
        }
        let now = self.read_clock();
        let stamp = self.permits.at(key.index()).stamp;
        let mut settled = cost.clone();
        for &(id, amount) in actual {
            let (asked, amount) = (cost.get(id).as_micros(), amount.as_micros());
            settled.set(id, Amount::raw(amount));
            let one = Cost::part(id, Amount::raw(amount));
            self.for_resources(node, &one, |resource, amount, is_own| match resource.kind {
                ResourceKind::Rate if amount <= asked => {
                    resource.refund(asked - amount, stamp, now);
                }
                ResourceKind::Rate => resource.overdraw(amount - asked, now),
                ResourceKind::Slots | ResourceKind::Budget => {
                    resource.unhold(asked, is_own);
                    resource.hold(amount, is_own);
                }
            });
        }
        let is_charged = self.permits.at(key.index()).charge != NIL;
        if is_charged {
            self.stop_charging(key.index());
        }
        self.permits.at_mut(key.index()).cost = settled;
        if is_charged {
            self.charge(key.index(), now, false);
        }
        if self.waiting > 0 {
            self.changed(node, &cost, wakes);
            self.dispatch(wakes);
        }
        Ok(())
    }

    /// Spend an amount of each budget with this name on the path of a node. It may go beyond the budget.
    pub(in crate::capacity) fn spend(
        &mut self,
        node: Key,
        id: ResourceId,
        amount: Amount,
        wakes: &mut WakeList,
    ) -> Result<(), NodeError> {
        let node = self.live(node)?;
        if self.kind(id) != Some(ResourceKind::Budget) {
            return Err(NodeError::Unlimited(id));
        }
        let cost = Cost::part(id, amount);
        self.for_resources(node, &cost, |resource, amount, _| resource.spend(amount));
        if self.waiting > 0 {
            self.changed(node, &cost, wakes);
            self.dispatch(wakes);
        }
        Ok(())
    }

    /// Give back the slots of a permit until it is resumed.
    pub(in crate::capacity) fn suspend(
        &mut self,
        key: Key,
        wakes: &mut WakeList,
    ) -> Result<(), PermitError> {
        let record = self.permits.get(key).ok_or(PermitError::Released)?;
        if record.held != Held::Yes {
            return Err(PermitError::Suspended);
        }
        self.read_clock();
        self.give_slots(key.index(), wakes);
        self.dispatch(wakes);
        Ok(())
    }

    /// Give back the slots of a permit, which stays.
    pub(in crate::capacity) fn give_slots(&mut self, permit: u32, wakes: &mut WakeList) {
        self.stop_charging(permit);
        self.list(permit);
        let record = self.permits.at_mut(permit);
        record.held = Held::No;
        let (node, slots) = (record.node, self.slots_of(permit));
        if let Some(slots) = slots {
            self.for_resources(node, &slots, |resource, amount, is_own| {
                resource.unhold(amount, is_own);
            });
            if self.waiting > 0 {
                self.changed(node, &slots, wakes);
            }
        }
        self.for_path(node, |node| node.permits -= 1);
        self.count_for_ramps(node, self.permits.key_at(permit).ticket(), false);
        if self.ramps > 0 {
            // A permit without slots makes room in a window, too.
            self.refresh(node);
        }
    }

    /// Take the slots of a suspended permit again, which fit.
    pub(in crate::capacity) fn take_slots(&mut self, permit: u32, held: Held) {
        let node = self.permits.at(permit).node;
        if let Some(slots) = self.slots_of(permit) {
            self.for_resources(node, &slots, |resource, amount, is_own| {
                resource.hold(amount, is_own);
            });
        }
        self.for_path(node, |node| node.permits += 1);
        self.count_for_ramps(node, self.permits.key_at(permit).ticket(), true);
        self.permits.at_mut(permit).held = held;
        if self.waiting > 0 {
            self.charge(permit, self.now, true);
        } else {
            self.add_uncharged(permit);
        }
    }

    /// Return the part of a permit's cost that is slots.
    pub(in crate::capacity) fn slots_of(&self, permit: u32) -> Option<Cost> {
        let parts = self.permits.at(permit).cost.parts().iter();
        let slots = parts.filter(|(id, _)| self.kind(*id) == Some(ResourceKind::Slots));
        Cost::new(slots.copied()).ok()
    }

    /// Undo a grant that was never collected.
    pub(in crate::capacity) fn annul(
        &mut self,
        permit: u32,
        resumes: Option<Key>,
        wakes: &mut WakeList,
    ) {
        match resumes {
            None => self.end(self.permits.key_at(permit), true, wakes),
            // The permit may have been released meanwhile.
            Some(key) if self.permits.get(key).is_some() => self.give_slots(permit, wakes),
            Some(_) => {}
        }
    }

    /// Add a permit to the list of its owner, once. Without a waiter this is deferred, as most permits end before the list is used.
    fn list(&mut self, permit: u32) {
        let record = self.permits.at_mut(permit);
        let Some(owner) = record.owner else {
            return;
        };
        if std::mem::replace(&mut record.is_listed, true) {
            return;
        }
        if let Some(older) = self.owners.insert(owner, permit) {
            self.permits.at_mut(older).newer = permit;
            self.permits.at_mut(permit).older = older;
        }
    }

    /// Assign a permit without an owner to `owner`.
    pub(in crate::capacity) fn own(&mut self, key: Key, owner: OwnerId) {
        let Some(record) = self.permits.get_mut(key) else {
            return;
        };
        if record.owner.is_some() {
            return;
        }
        record.owner = Some(owner);
        // An uncharged permit is listed when it is charged.
        if !record.is_uncharged() {
            self.list(key.index());
        }
    }

    fn unlist(&mut self, permit: u32) {
        let record = self.permits.at(permit);
        let Some(owner) = record.owner else {
            return;
        };
        let (older, newer) = (record.older, record.newer);
        if older != NIL {
            self.permits.at_mut(older).newer = newer;
        }
        if newer != NIL {
            self.permits.at_mut(newer).older = older;
        } else if older != NIL {
            self.owners.insert(owner, older);
        } else {
            self.owners.remove(&owner);
        }
    }

    /// Return the permits of an owner, newest first. O(those), plus the uncharged ones; once there is a waiter, there
    /// are none of these.
    pub(in crate::capacity) fn permits_of(&self, owner: OwnerId) -> Vec<u32> {
        let mut next = self.owners.get(&owner).copied().unwrap_or(NIL);
        let listed = std::iter::from_fn(|| {
            let permit = next;
            if permit == NIL {
                return None;
            }
            next = self.permits.at(permit).older;
            Some(permit)
        });
        let uncharged = self.uncharged.iter().copied().filter(|&permit| {
            let record = self.permits.at(permit);
            record.owner == Some(owner) && !record.is_listed
        });
        let mut permits: Vec<_> = listed.chain(uncharged).collect();
        permits.sort_unstable_by_key(|&permit| Reverse(self.permits.key_at(permit).ticket()));
        permits
    }
}
