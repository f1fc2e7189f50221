//! What is held: one record for each permit, and for each grant that nobody collected yet.

use crate::capacity::clock::nanos;
use crate::capacity::index::NIL;
use crate::capacity::model::node::Node;
use crate::capacity::model::permit_record::{Charge, Held, Lease, NOT_FRESH};
use crate::capacity::model::resource::Kind;
use crate::capacity::model::state::State;
use crate::capacity::{AcquireError, Amount, Cost, OwnerId, PermitError, Resource, Time};
use crate::sync::{Key, WakeList};
use std::cmp::Reverse;

/// Where nobody waits, one in so many permits is timed.
const TIMED: u64 = 16;

impl State {
    /// Takes a cost at a node and all above it, which is known to fit, and opens a lease for it.
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
        self.for_pools(node, &cost, |pool, amount, is_line| {
            pool.lend(amount, is_line, stamp, lateness, now);
        });
        let needs_clock = is_busy || self.is_timed(node) || has_rate;
        self.for_path(node, Node::count_grant);
        let since = needs_clock.then(|| self.read_clock());
        let key = self.open(node, cost, since, owner);
        let lease = key.index();
        self.leases.at_mut(lease).stamp = stamp;
        if is_busy {
            self.list(lease);
            self.charge(lease, now, true);
        }
        key
    }

    /// Whether the next permit of a node is to be timed although nobody waits.
    #[inline]
    pub(in crate::capacity) fn is_timed(&self, node: u32) -> bool {
        let granted = self.nodes.at(node).granted;
        granted < TIMED || granted.is_multiple_of(TIMED)
    }

    /// Opens a lease for what was just booked; a fresh one if nobody waits.
    #[inline]
    pub(in crate::capacity) fn open(
        &mut self,
        node: u32,
        cost: Cost,
        since: Option<Time>,
        owner: Option<OwnerId>,
    ) -> Key {
        self.nodes.at_mut(node).pins += 1;
        let is_fresh = self.waiting == 0;
        let key = self.leases.insert(Lease {
            node,
            cost,
            since,
            stamp: 0,
            charge: NIL,
            fresh: if is_fresh {
                self.next_fresh()
            } else {
                NOT_FRESH
            },
            owner,
            is_listed: false,
            older: NIL,
            newer: NIL,
            held: Held::Yes,
        });
        if is_fresh {
            self.fresh.push(key.index());
        }
        key
    }

    /// Strikes a lease off the records, once it is neither charged nor fresh. Follow with a `forget` of its node.
    #[inline]
    pub(in crate::capacity) fn strike_off(&mut self, key: Key) {
        let record = self.leases.at(key.index());
        let node = record.node;
        if record.is_listed {
            self.unlist(key.index());
        }
        // In place: to move a whole record out costs more than all the rest.
        self.leases.discard(key);
        self.nodes.at_mut(node).pins -= 1;
    }

    /// Whether a rate is among what is asked for.
    #[inline]
    pub(in crate::capacity) fn has_rate(&self, cost: &Cost) -> bool {
        let mut parts = cost.parts().iter();
        parts.any(|&(resource, _)| self.kind(resource) == Some(Kind::Rate))
    }

    /// It holds its slots while nobody waits.
    fn make_fresh(&mut self, lease: u32) {
        self.leases.at_mut(lease).fresh = self.next_fresh();
        self.fresh.push(lease);
    }

    /// The place of the next fresh one.
    #[inline]
    fn next_fresh(&self) -> u32 {
        u32::try_from(self.fresh.len()).expect("fewer than 2^32 leases")
    }

    #[inline]
    pub(in crate::capacity) fn unmake_fresh(&mut self, lease: u32) {
        let place = std::mem::replace(&mut self.leases.at_mut(lease).fresh, NOT_FRESH);
        if place == NOT_FRESH {
            return;
        }
        self.fresh.swap_remove(place as usize);
        if let Some(&moved) = self.fresh.get(place as usize) {
            self.leases.at_mut(moved).fresh = place;
        }
    }

    /// Charges what was granted while nobody waited, from now on: somebody does. From now on, too, each owner knows its own.
    pub(in crate::capacity) fn charge_fresh(&mut self) {
        let now = self.now;
        for lease in std::mem::take(&mut self.fresh) {
            self.leases.at_mut(lease).fresh = NOT_FRESH;
            self.list(lease);
            self.charge(lease, now, false);
        }
    }

    /// Notes what a lease is charged, in the place of what it was before.
    pub(in crate::capacity) fn note_charge(&mut self, lease: u32, charge: Charge) {
        let until = charge.to;
        match self.leases.at(lease).charge {
            NIL => self.leases.at_mut(lease).charge = self.charges.insert(charge).index(),
            place => {
                let before = std::mem::replace(self.charges.at_mut(place), charge);
                self.expiry.remove(&(before.to, lease));
            }
        }
        self.expiry.insert((until, lease));
    }

    /// Ends a lease: slots come back, budgets are spent. Whom that may concern is to be seen to by the caller.
    ///
    /// An annulled one leaves nothing behind, as if it had never been granted.
    pub(in crate::capacity) fn end(&mut self, key: Key, is_annulled: bool, wakes: &mut WakeList) {
        let Some(record) = self.leases.get(key) else {
            return;
        };
        let lease = key.index();
        if record.since.is_some() || self.waiting > 0 {
            self.read_clock();
        }
        let now = self.now;
        self.stop_charging(lease);
        let record = self.leases.at_mut(lease);
        let cost = record.cost.take();
        let (node, since, held) = (record.node, record.since, record.held);
        let stamp = record.stamp;
        self.strike_off(key);
        let holds_slots = held.has_slots();
        if let Some(since) = since
            && !is_annulled
            && holds_slots
        {
            let hold = nanos(now.since(since));
            self.for_path(node, |node| node.learn(hold));
        }
        self.for_pools(node, &cost, |pool, amount, is_line| match pool.kind {
            Kind::Slots if !holds_slots => {}
            Kind::Rate => {
                if is_annulled {
                    pool.refund(amount, stamp, now);
                }
                pool.end(stamp);
            }
            Kind::Slots => pool.unhold(amount, is_line),
            Kind::Budget => {
                pool.unhold(amount, is_line);
                if !is_annulled {
                    pool.spend(amount);
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
        if self.waiting > 0 {
            self.changed(node, &cost, wakes);
        }
        self.forget(node);
    }

    /// Settles the charge of a lease whose hold ends now.
    fn stop_charging(&mut self, lease: u32) {
        self.unmake_fresh(lease);
        if self.leases.at(lease).charge != NIL {
            self.correct(lease, self.now);
            let place = std::mem::replace(&mut self.leases.at_mut(lease).charge, NIL);
            self.expiry.remove(&(self.charges.at(place).to, lease));
            self.charges.discard(self.charges.key_at(place));
        }
    }

    /// Corrects what a lease asked for to what it really was.
    pub(in crate::capacity) fn settle(
        &mut self,
        key: Key,
        actual: &[(Resource, Amount)],
        wakes: &mut WakeList,
    ) -> Result<(), PermitError> {
        let record = self.leases.get(key).ok_or(PermitError::Released)?;
        let (node, cost, held) = (record.node, record.cost.clone(), record.held);
        for (place, &(resource, amount)) in actual.iter().enumerate() {
            let part = cost.parts().iter().find(|(named, _)| *named == resource);
            let &(_, asked) = part.ok_or(PermitError::Unasked(resource))?;
            if actual[..place].iter().any(|(named, _)| *named == resource) {
                return Err(PermitError::Twice(resource));
            }
            if self.kind(resource) == Some(Kind::Slots) {
                if held != Held::Yes {
                    return Err(PermitError::Suspended);
                }
                if amount > asked {
                    return Err(PermitError::Grows(resource));
                }
            }
        }
        let now = self.read_clock();
        let stamp = self.leases.at(key.index()).stamp;
        let mut settled = cost.clone();
        for &(resource, amount) in actual {
            let (asked, amount) = (cost.get(resource).as_micros(), amount.as_micros());
            settled.set(resource, Amount::raw(amount));
            let one = Cost::part(resource, Amount::raw(amount));
            self.for_pools(node, &one, |pool, amount, is_line| match pool.kind {
                Kind::Rate if amount <= asked => pool.refund(asked - amount, stamp, now),
                Kind::Rate => pool.owe(amount - asked, now),
                Kind::Slots | Kind::Budget => {
                    pool.unhold(asked, is_line);
                    pool.hold(amount, is_line);
                }
            });
        }
        let is_charged = self.leases.at(key.index()).charge != NIL;
        if is_charged {
            self.stop_charging(key.index());
        }
        self.leases.at_mut(key.index()).cost = settled;
        if is_charged {
            self.charge(key.index(), now, false);
        }
        if self.waiting > 0 {
            self.changed(node, &cost, wakes);
            self.dispatch(wakes);
        }
        Ok(())
    }

    /// Gives back the slots of a lease for a while.
    pub(in crate::capacity) fn suspend(
        &mut self,
        key: Key,
        wakes: &mut WakeList,
    ) -> Result<(), PermitError> {
        let record = self.leases.get(key).ok_or(PermitError::Released)?;
        if record.held != Held::Yes {
            return Err(PermitError::Suspended);
        }
        self.read_clock();
        self.give_slots(key.index(), wakes);
        self.dispatch(wakes);
        Ok(())
    }

    /// The slots of a lease come back; it stays.
    pub(in crate::capacity) fn give_slots(&mut self, lease: u32, wakes: &mut WakeList) {
        self.stop_charging(lease);
        self.list(lease);
        let record = self.leases.at_mut(lease);
        record.held = Held::No;
        let (node, slots) = (record.node, self.slots_of(lease));
        if let Some(slots) = slots {
            self.for_pools(node, &slots, |pool, amount, is_line| {
                pool.unhold(amount, is_line);
            });
            if self.waiting > 0 {
                self.changed(node, &slots, wakes);
            }
        }
        self.for_path(node, |node| node.permits -= 1);
    }

    /// A lease takes its slots again, which are known to fit.
    pub(in crate::capacity) fn take_slots(&mut self, lease: u32, held: Held) {
        let node = self.leases.at(lease).node;
        if let Some(slots) = self.slots_of(lease) {
            self.for_pools(node, &slots, |pool, amount, is_line| {
                pool.hold(amount, is_line);
            });
        }
        self.for_path(node, |node| node.permits += 1);
        self.leases.at_mut(lease).held = held;
        if self.waiting > 0 {
            self.charge(lease, self.now, true);
        } else {
            self.make_fresh(lease);
        }
    }

    /// The part of a lease's cost that is slots.
    pub(in crate::capacity) fn slots_of(&self, lease: u32) -> Option<Cost> {
        let parts = self.leases.at(lease).cost.parts().iter();
        let slots = parts.filter(|(resource, _)| self.kind(*resource) == Some(Kind::Slots));
        Cost::new(slots.copied()).ok()
    }

    /// Takes back the answer of a waiter that never came for it.
    pub(in crate::capacity) fn annul(
        &mut self,
        lease: u32,
        resumes: Option<Key>,
        wakes: &mut WakeList,
    ) {
        match resumes {
            None => self.end(self.leases.key_at(lease), true, wakes),
            // It may have been released meanwhile.
            Some(key) if self.leases.get(key).is_some() => self.give_slots(lease, wakes),
            Some(_) => {}
        }
    }

    /// Puts a lease into the list of its owner, if it has one and is not there. While nobody waits that is put off: most
    /// leases are gone before anybody asks who holds them.
    fn list(&mut self, lease: u32) {
        let record = self.leases.at_mut(lease);
        let Some(owner) = record.owner else {
            return;
        };
        if std::mem::replace(&mut record.is_listed, true) {
            return;
        }
        if let Some(older) = self.owners.0.insert(owner, lease) {
            self.leases.at_mut(older).newer = lease;
            self.leases.at_mut(lease).older = older;
        }
    }

    fn unlist(&mut self, lease: u32) {
        let record = self.leases.at(lease);
        let Some(owner) = record.owner else {
            return;
        };
        let (older, newer) = (record.older, record.newer);
        if older != NIL {
            self.leases.at_mut(older).newer = newer;
        }
        if newer != NIL {
            self.leases.at_mut(newer).older = older;
        } else if older != NIL {
            self.owners.0.insert(owner, older);
        } else {
            self.owners.0.remove(&owner);
        }
    }

    /// The leases of an owner, newest first. O(those), and of those that are fresh: once somebody waits, none are.
    pub(in crate::capacity) fn leases_of(&self, owner: OwnerId) -> Vec<u32> {
        let mut next = self.owners.0.get(&owner).copied().unwrap_or(NIL);
        let listed = std::iter::from_fn(|| {
            let lease = next;
            if lease == NIL {
                return None;
            }
            next = self.leases.at(lease).older;
            Some(lease)
        });
        let fresh = self.fresh.iter().copied().filter(|&lease| {
            let record = self.leases.at(lease);
            record.owner == Some(owner) && !record.is_listed
        });
        let mut leases: Vec<_> = listed.chain(fresh).collect();
        leases.sort_unstable_by_key(|&lease| Reverse(self.leases.key_at(lease).ticket()));
        leases
    }
}
