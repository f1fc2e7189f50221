//! One resource of one node: its limit, and everything that is counted against it.

use super::rate::Rate;
use super::waiter::Rank;
use crate::capacity::clock::nanos;
use crate::capacity::index::demand::Needs;
use crate::capacity::index::sorted_set::Ordered;
use crate::capacity::{Amount, Limit, Resource, Time};
use std::time::Duration;
use std::{option, slice};

/// What a limit does to those who are below it. A resource is of one kind in the whole tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::capacity) enum Kind {
    Slots,
    Rate,
    Budget,
}

#[derive(Clone, Debug)]
pub(in crate::capacity) enum Bound {
    /// The node does not limit this resource; it is counted all the same.
    None,
    Slots(u64),
    /// In a box, since most pools are of slots, and a rate is large.
    Rate(Box<Rate>),
    Budget {
        total: u64,
        spent: u64,
    },
}

impl From<Limit> for Bound {
    fn from(limit: Limit) -> Self {
        match limit {
            Limit::Slots(slots) => Self::Slots(slots.as_micros()),
            Limit::Rate { amount, per, burst } => Self::Rate(Box::new(Rate::new(
                amount.as_micros(),
                nanos(per),
                burst.map(Amount::as_micros),
            ))),
            Limit::Budget(total) => Self::Budget {
                total: total.as_micros(),
                spent: 0,
            },
        }
    }
}

impl Limit {
    pub(in crate::capacity) fn kind(&self) -> Kind {
        match self {
            Self::Slots(_) => Kind::Slots,
            Self::Rate { .. } => Kind::Rate,
            Self::Budget(_) => Kind::Budget,
        }
    }
}

/// All in micro-units.
#[derive(Debug)]
pub(in crate::capacity) struct Pool {
    pub(in crate::capacity) resource: Resource,
    pub(in crate::capacity) kind: Kind,
    pub(in crate::capacity) bound: Bound,
    /// The last limit above 0; `None` before there was one.
    pub(in crate::capacity) ceiling: Option<u64>,
    /// What live permits of the node and below hold of slots, or have of a budget unsettled.
    pub(in crate::capacity) held: u128,
    /// How many waiters of the node and below ask for it.
    pub(in crate::capacity) wanting: u32,
    /// Of these two the part of the node's own line.
    pub(in crate::capacity) line_held: u128,
    pub(in crate::capacity) line_wanting: u32,
    /// How many children, the own line included, hold or want it. From 2 on they compete.
    pub(in crate::capacity) users: u32,
    /// What the waiters that are offered at the node and below need of it.
    pub(in crate::capacity) needs: Needs,
    /// How much of it is kept for waiters that were passed too often.
    reserved_sum: u64,
    /// Nothing is admitted before.
    pub(in crate::capacity) not_before: Time,
    /// Of a rate: who takes the next of it. Everybody else waits behind.
    pub(in crate::capacity) turn: Option<u32>,
    /// When to look again, as the tree's timers have it.
    pub(in crate::capacity) timer: Option<Time>,
    /// Whether somebody had to wait for it since somebody wants it.
    pub(in crate::capacity) scarce: bool,
    /// In a box, made when it is needed first: most pools never do.
    rare: Option<Box<Rare>>,
}

/// Lists that a pool needs only once somebody was passed, or if it is of a budget.
#[derive(Debug, Default)]
struct Rare {
    /// What is kept, and for which ranks.
    reserved: Vec<(Rank, u64)>,
    /// Waiters that were next and lacked something: whoever takes of this what they lack passes them.
    passed: Vec<u32>,
    /// Of a budget: all waiters by what they ask of it.
    line: Ordered<(u64, u32)>,
}

impl Pool {
    pub(in crate::capacity) fn new(resource: Resource, kind: Kind) -> Self {
        Self {
            resource,
            kind,
            bound: Bound::None,
            ceiling: None,
            held: 0,
            wanting: 0,
            line_held: 0,
            line_wanting: 0,
            users: 0,
            needs: Needs::default(),
            reserved_sum: 0,
            not_before: Time::ZERO,
            turn: None,
            timer: None,
            scarce: false,
            rare: None,
        }
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Another limit: what is held, spent and taken stays so.
    pub(in crate::capacity) fn set_bound(&mut self, mut bound: Bound, now: Time) {
        match (&mut self.bound, &mut bound) {
            (Bound::Rate(old), Bound::Rate(new)) => new.inherit(old, now),
            (Bound::Budget { spent: old, .. }, Bound::Budget { spent, .. }) => *spent = *old,
            _ => {}
        }
        self.bound = bound;
        match self.largest() {
            Some(largest) if largest > 0 => self.ceiling = Some(largest),
            _ => {}
        }
        if matches!(self.bound, Bound::None) {
            // Should it be limited again one day, then on new terms.
            self.ceiling = None;
            self.not_before = Time::ZERO;
        }
    }

    /// The most that one ask can have while the limit is what it is; `None` without one.
    #[inline]
    pub(in crate::capacity) fn largest(&self) -> Option<u64> {
        match &self.bound {
            Bound::None => None,
            Bound::Slots(limit) => Some(*limit),
            Bound::Rate(rate) => Some(rate.largest()),
            Bound::Budget { total, .. } => Some(*total),
        }
    }

    /// Takes `amount`, which is known to fit, for the lease of this stamp; of a rate as of when it was ready, if that was no longer
    /// ago than `lateness`.
    #[inline]
    pub(in crate::capacity) fn lend(
        &mut self,
        amount: u64,
        is_line: bool,
        stamp: u64,
        lateness: Duration,
        now: Time,
    ) {
        match &mut self.bound {
            Bound::Rate(rate) => rate.lend(amount, stamp, lateness, now),
            _ => self.hold(amount, is_line),
        }
    }

    /// Counts `amount` as held, of slots or of a budget.
    #[inline]
    pub(in crate::capacity) fn hold(&mut self, amount: u64, is_line: bool) {
        if self.kind == Kind::Rate {
            return;
        }
        self.held += u128::from(amount);
        if is_line {
            self.line_held += u128::from(amount);
        }
    }

    /// Takes back a count of slots, or of what a budget has unsettled.
    #[inline]
    pub(in crate::capacity) fn unhold(&mut self, amount: u64, is_line: bool) {
        self.held -= u128::from(amount);
        if is_line {
            self.line_held -= u128::from(amount);
        }
    }

    /// A lease took more quota than it asked for: that makes debt.
    pub(in crate::capacity) fn owe(&mut self, amount: u64, now: Time) {
        if let Bound::Rate(rate) = &mut self.bound {
            rate.take(amount, now);
        }
    }

    /// Gives quota back; see [`Rate::refund`].
    pub(in crate::capacity) fn refund(&mut self, amount: u64, stamp: u64, now: Time) {
        if let Bound::Rate(rate) = &mut self.bound {
            rate.refund(amount, stamp, now);
        }
    }

    /// A lease that took quota is no more.
    #[inline]
    pub(in crate::capacity) fn end(&mut self, stamp: u64) {
        if let Bound::Rate(rate) = &mut self.bound {
            rate.end(stamp);
        }
    }

    /// Spends of a budget what was held of it until now.
    pub(in crate::capacity) fn spend(&mut self, amount: u64) {
        if let Bound::Budget { spent, .. } = &mut self.bound {
            *spent = spent.saturating_add(amount);
        }
    }

    /// What slots or a budget have left, whoever it is kept for.
    #[inline]
    pub(in crate::capacity) fn free(&self) -> u64 {
        // A sum of what permits hold may be above any limit, after that was lowered, or where there is none.
        let held = u64::try_from(self.held).unwrap_or(u64::MAX);
        match self.bound {
            Bound::Slots(limit) => limit.saturating_sub(held),
            Bound::Budget { total, spent } => total.saturating_sub(spent).saturating_sub(held),
            Bound::None | Bound::Rate(_) => u64::MAX,
        }
    }

    /// What of it is left for those for whom nothing is kept.
    #[inline]
    pub(in crate::capacity) fn unreserved(&self) -> u64 {
        self.free().saturating_sub(self.reserved_sum)
    }

    /// What of it is left for a waiter for whom something is kept: all but what is kept for older ones.
    pub(in crate::capacity) fn free_for(&self, rank: Rank) -> u64 {
        let older = self.reservations().iter();
        let older = older.take_while(|(other, _)| *other < rank);
        let older = older.fold(0, |sum: u64, (_, amount)| sum.saturating_add(*amount));
        self.free().saturating_sub(older)
    }

    pub(in crate::capacity) fn reserved(&self) -> u64 {
        self.reserved_sum.min(self.free())
    }

    /// What is kept, in the order of the ranks for which it is.
    pub(in crate::capacity) fn reservations(&self) -> &[(Rank, u64)] {
        self.rare.as_ref().map_or(&[], |rare| &rare.reserved)
    }

    /// Those whom a grant of this may pass.
    #[inline]
    pub(in crate::capacity) fn passed(&self) -> &[u32] {
        self.rare.as_ref().map_or(&[], |rare| &rare.passed)
    }

    /// One more whom a grant of this may pass.
    pub(in crate::capacity) fn push_passed(&mut self, waiter: u32) {
        self.rare().passed.push(waiter);
    }

    pub(in crate::capacity) fn remove_passed(&mut self, waiter: u32) {
        self.rare().passed.retain(|&other| other != waiter);
    }

    /// Somebody waits for so much, if it is of a budget; or no longer.
    #[inline]
    pub(in crate::capacity) fn enlist(&mut self, amount: u64, waiter: u32) {
        if self.kind == Kind::Budget {
            self.rare().line.insert((amount, waiter));
        }
    }

    #[inline]
    pub(in crate::capacity) fn delist(&mut self, amount: u64, waiter: u32) {
        if self.kind == Kind::Budget {
            self.rare().line.remove(&(amount, waiter));
        }
    }

    /// Who asks for most of a budget, and how much that is.
    pub(in crate::capacity) fn largest_ask(&self) -> Option<(u64, u32)> {
        self.rare.as_ref()?.line.last()
    }

    /// Keeps `amount` for the waiter of this rank; false if it is already.
    pub(in crate::capacity) fn reserve(&mut self, rank: Rank, amount: u64) -> bool {
        let reserved = &mut self.rare().reserved;
        let Err(place) = reserved.binary_search_by_key(&rank, |(other, _)| *other) else {
            return false;
        };
        reserved.insert(place, (rank, amount));
        self.reserved_sum = self.reserved_sum.saturating_add(amount);
        true
    }

    /// Keeps nothing for the waiter of this rank any more; whether something was.
    pub(in crate::capacity) fn unreserve(&mut self, rank: Rank) -> bool {
        let reserved = &mut self.rare().reserved;
        let Ok(place) = reserved.binary_search_by_key(&rank, |(other, _)| *other) else {
            return false;
        };
        reserved.remove(place);
        let amounts = reserved.iter().map(|(_, amount)| amount);
        self.reserved_sum = amounts.fold(0, |sum, amount| sum.saturating_add(*amount));
        true
    }

    /// Whether nobody who needs at least `least` of it can have it now, so that nobody needs to be looked at.
    #[inline]
    pub(in crate::capacity) fn is_shut(&self, least: u64, now: Time) -> bool {
        match &self.bound {
            Bound::None => false,
            Bound::Slots(_) | Bound::Budget { .. } => {
                self.unreserved() < least || now < self.not_before
            }
            Bound::Rate(rate) => self.turn.is_some() || rate.largest() < least,
        }
    }

    /// Notes that a child, which [used](Self::is_used) it or did not, does now or does not.
    #[inline]
    pub(in crate::capacity) fn count_user(&mut self, before: bool, after: bool) {
        if before != after {
            if after {
                self.users += 1;
            } else {
                self.users -= 1;
            }
        }
    }

    /// Whether the node, beside its siblings, is one that holds or wants this.
    #[inline]
    pub(in crate::capacity) fn is_used(&self) -> bool {
        self.held > 0 || self.wanting > 0
    }

    #[inline]
    pub(in crate::capacity) fn is_used_by_line(&self) -> bool {
        self.line_held > 0 || self.line_wanting > 0
    }

    /// When a rate can give `amount`, holds included.
    #[inline]
    pub(in crate::capacity) fn ready_at(&self, amount: u64, now: Time) -> Time {
        match &self.bound {
            Bound::Rate(rate) => rate.ready_at(amount, now).max(self.not_before),
            _ => now,
        }
    }
}

/// The resources of one node. Most nodes know one, which lives in the node itself.
#[derive(Debug, Default)]
pub(in crate::capacity) struct Pools {
    first: Option<Pool>,
    others: Vec<Pool>,
}

impl Pools {
    #[inline]
    pub(in crate::capacity) fn get(&self, resource: Resource) -> Option<&Pool> {
        match &self.first {
            Some(first) if first.resource == resource => Some(first),
            _ => self.others.iter().find(|pool| pool.resource == resource),
        }
    }

    #[inline]
    pub(in crate::capacity) fn get_mut(&mut self, resource: Resource) -> Option<&mut Pool> {
        match &mut self.first {
            Some(first) if first.resource == resource => Some(first),
            _ => self
                .others
                .iter_mut()
                .find(|pool| pool.resource == resource),
        }
    }

    /// The one of `resource`, made if need be.
    #[inline]
    pub(in crate::capacity) fn open(&mut self, resource: Resource, kind: Kind) -> &mut Pool {
        let first = self.first.get_or_insert_with(|| Pool::new(resource, kind));
        if first.resource == resource {
            first
        } else {
            Self::open_other(&mut self.others, resource, kind)
        }
    }

    #[cold]
    fn open_other(others: &mut Vec<Pool>, resource: Resource, kind: Kind) -> &mut Pool {
        let place = others.iter().position(|p| p.resource == resource);
        let place = place.unwrap_or_else(|| {
            others.push(Pool::new(resource, kind));
            others.len() - 1
        });
        &mut others[place]
    }

    #[inline]
    pub(in crate::capacity) fn iter(
        &self,
    ) -> std::iter::Chain<option::Iter<'_, Pool>, slice::Iter<'_, Pool>> {
        self.first.iter().chain(&self.others)
    }

    #[inline]
    pub(in crate::capacity) fn iter_mut(
        &mut self,
    ) -> std::iter::Chain<option::IterMut<'_, Pool>, slice::IterMut<'_, Pool>> {
        self.first.iter_mut().chain(&mut self.others)
    }
}
