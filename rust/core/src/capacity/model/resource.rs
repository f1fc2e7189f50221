//! One resource of one node: its limit, and all amounts that are counted against it. Each `Node` has a list of them;
//! `policy/dispatch.rs` checks costs against them, and `policy/charging.rs` takes costs from them.

use super::rate::Rate;
use super::waiter::Rank;
use crate::capacity::adaptive::Controller;
use crate::capacity::auto_rate::RateController;
use crate::capacity::clock::nanos;
use crate::capacity::index::demand::Demand;
use crate::capacity::index::sorted_set::SortedSet;
use crate::capacity::{Amount, Limit, ResourceId, Time};
use std::time::Duration;
use std::{option, slice};

/// The kind of a limit. A resource has one kind in the whole tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::capacity) enum ResourceKind {
    Slots,
    Rate,
    Budget,
}

#[derive(Clone, Debug)]
pub(in crate::capacity) enum LimitState {
    /// The node does not limit this resource, but counts it.
    None,
    Slots(u64),
    /// Boxed, since most resources are slots, and a rate is large.
    Rate(Box<Rate>),
    Budget {
        total: u64,
        spent: u64,
    },
}

impl From<Limit> for LimitState {
    fn from(limit: Limit) -> Self {
        match limit {
            Limit::Slots(slots) | Limit::Adaptive { start: slots, .. } => {
                Self::Slots(slots.as_micros())
            }
            Limit::Rate { amount, per, burst } => Self::Rate(Box::new(Rate::new(
                amount.as_micros(),
                nanos(per),
                burst.map(Amount::as_micros),
            ))),
            Limit::AutoRate {
                start, per, burst, ..
            } => Self::Rate(Box::new(
                Rate::new(start.as_micros(), nanos(per), burst.map(Amount::as_micros))
                    .of_any_cost(),
            )),
            Limit::Budget(total) => Self::Budget {
                total: total.as_micros(),
                spent: 0,
            },
        }
    }
}

impl Limit {
    pub(in crate::capacity) fn kind(&self) -> ResourceKind {
        match self {
            Self::Slots(_) | Self::Adaptive { .. } => ResourceKind::Slots,
            Self::Rate { .. } | Self::AutoRate { .. } => ResourceKind::Rate,
            Self::Budget(_) => ResourceKind::Budget,
        }
    }
}

/// All amounts are in micro-units.
#[derive(Debug)]
pub(in crate::capacity) struct Resource {
    pub(in crate::capacity) id: ResourceId,
    pub(in crate::capacity) kind: ResourceKind,
    pub(in crate::capacity) limit: LimitState,
    /// The last limit above 0; `None` before the first one.
    pub(in crate::capacity) ceiling: Option<u64>,
    /// Slots held, or budget unsettled, by live permits of the node and below.
    pub(in crate::capacity) held: u128,
    /// The number of waiters of the node and below that need it.
    pub(in crate::capacity) wanting: u32,
    /// The parts of these two that belong to the node's own queue.
    pub(in crate::capacity) own_held: u128,
    pub(in crate::capacity) own_wanting: u32,
    /// The number of children, including the own queue, that hold or want it. Two or more compete.
    pub(in crate::capacity) users: u32,
    /// The demand of the waiters that are offered at the node and below.
    pub(in crate::capacity) demand: Demand,
    /// The amount reserved for starved waiters.
    reserved_sum: u64,
    /// No request for it is granted before this time.
    pub(in crate::capacity) not_before: Time,
    /// Nor while its node holds this many permits. No bound without a ramp of this resource.
    pub(in crate::capacity) most: usize,
    /// Of a rate: the waiter that takes the next quota. All others are behind it.
    pub(in crate::capacity) head: Option<u32>,
    /// The time of its entry in the tree's timers.
    pub(in crate::capacity) timer: Option<Time>,
    /// Whether a waiter was blocked by it since the last time that no waiter wanted it.
    pub(in crate::capacity) contended: bool,
    /// Boxed, and allocated on first use: most resources never need it.
    extra: Option<Box<Extra>>,
}

/// Lists for a budget, or for a resource that a waiter was passed at.
#[derive(Debug, Default)]
struct Extra {
    /// The reserved amounts, by rank.
    reserved: Vec<(Rank, u64)>,
    /// Waiters that were next and did not fit: a grant of this resource passes those that lack it.
    passed_over: Vec<u32>,
    /// Of a budget: all waiters by their amount.
    queue: SortedSet<(u64, u32)>,
    /// Of adaptive slots.
    controller: Option<Controller>,
    /// Of an auto rate.
    rate_controller: Option<RateController>,
}

impl Resource {
    pub(in crate::capacity) fn new(id: ResourceId, kind: ResourceKind) -> Self {
        Self {
            id,
            kind,
            limit: LimitState::None,
            ceiling: None,
            held: 0,
            wanting: 0,
            own_held: 0,
            own_wanting: 0,
            users: 0,
            demand: Demand::default(),
            reserved_sum: 0,
            not_before: Time::ZERO,
            most: usize::MAX,
            head: None,
            timer: None,
            contended: false,
            extra: None,
        }
    }

    fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// Replace the limit; amounts that are held, spent and taken stay.
    pub(in crate::capacity) fn set_limit_state(&mut self, mut limit: LimitState, now: Time) {
        match (&mut self.limit, &mut limit) {
            (LimitState::Rate(old), LimitState::Rate(new)) => new.inherit(old, now),
            (LimitState::Budget { spent: old, .. }, LimitState::Budget { spent, .. }) => {
                *spent = *old;
            }
            _ => {}
        }
        self.limit = limit;
        match self.largest() {
            Some(largest) if largest > 0 => self.ceiling = Some(largest),
            _ => {}
        }
        if matches!(self.limit, LimitState::None) {
            // A later limit starts afresh.
            self.ceiling = None;
            self.not_before = Time::ZERO;
            self.most = usize::MAX;
        }
    }

    /// Return the controller of an adaptive limit.
    pub(in crate::capacity) fn controller(&self) -> Option<&Controller> {
        self.extra.as_ref()?.controller.as_ref()
    }

    pub(in crate::capacity) fn controller_mut(&mut self) -> Option<&mut Controller> {
        self.extra.as_mut()?.controller.as_mut()
    }

    /// Replace the controller.
    pub(in crate::capacity) fn set_controller(&mut self, controller: Option<Controller>) {
        if controller.is_some() || self.extra.is_some() {
            self.extra().controller = controller;
        }
    }

    /// Return the controller of an auto rate.
    pub(in crate::capacity) fn rate_controller(&self) -> Option<&RateController> {
        self.extra.as_ref()?.rate_controller.as_ref()
    }

    pub(in crate::capacity) fn rate_controller_mut(&mut self) -> Option<&mut RateController> {
        self.extra.as_mut()?.rate_controller.as_mut()
    }

    /// Replace the controller of an auto rate.
    pub(in crate::capacity) fn set_rate_controller(&mut self, controller: Option<RateController>) {
        if controller.is_some() || self.extra.is_some() {
            self.extra().rate_controller = controller;
        }
    }

    /// Return the largest amount that one request can have under the current limit; `None` without a limit.
    #[inline]
    pub(in crate::capacity) fn largest(&self) -> Option<u64> {
        match &self.limit {
            LimitState::None => None,
            LimitState::Slots(limit) => Some(*limit),
            LimitState::Rate(rate) => Some(rate.largest()),
            LimitState::Budget { total, .. } => Some(*total),
        }
    }

    /// Take `amount`, which fits, for the permit with this stamp.
    ///
    /// Of a rate, take it as of the time at which it was ready, if that was no longer than `lateness` ago.
    #[inline]
    pub(in crate::capacity) fn lend(
        &mut self,
        amount: u64,
        is_own: bool,
        stamp: u64,
        lateness: Duration,
        now: Time,
    ) {
        match &mut self.limit {
            LimitState::Rate(rate) => rate.lend(amount, stamp, lateness, now),
            _ => self.hold(amount, is_own),
        }
    }

    /// Count `amount` of slots or of a budget as held.
    #[inline]
    pub(in crate::capacity) fn hold(&mut self, amount: u64, is_own: bool) {
        if self.kind == ResourceKind::Rate {
            return;
        }
        self.held += u128::from(amount);
        if is_own {
            self.own_held += u128::from(amount);
        }
    }

    /// Undo [`hold`](Self::hold).
    #[inline]
    pub(in crate::capacity) fn unhold(&mut self, amount: u64, is_own: bool) {
        self.held -= u128::from(amount);
        if is_own {
            self.own_held -= u128::from(amount);
        }
    }

    /// Take quota beyond the cost that was requested, which makes debt.
    pub(in crate::capacity) fn overdraw(&mut self, amount: u64, now: Time) {
        if let LimitState::Rate(rate) = &mut self.limit {
            rate.take(amount, now);
        }
    }

    /// Give quota back; see [`Rate::refund`].
    pub(in crate::capacity) fn refund(&mut self, amount: u64, stamp: u64, now: Time) {
        if let LimitState::Rate(rate) = &mut self.limit {
            rate.refund(amount, stamp, now);
        }
    }

    /// Forget a permit that took quota.
    #[inline]
    pub(in crate::capacity) fn end(&mut self, stamp: u64) {
        if let LimitState::Rate(rate) = &mut self.limit {
            rate.end(stamp);
        }
    }

    /// Spend an amount of a budget that was held until now.
    pub(in crate::capacity) fn spend(&mut self, amount: u64) {
        if let LimitState::Budget { spent, .. } = &mut self.limit {
            *spent = spent.saturating_add(amount);
        }
    }

    /// Return the slots or budget left, including reservations.
    #[inline]
    pub(in crate::capacity) fn free(&self) -> u64 {
        // The sum may exceed any limit, after the limit was lowered or removed.
        let held = u64::try_from(self.held).unwrap_or(u64::MAX);
        match self.limit {
            LimitState::Slots(limit) => limit.saturating_sub(held),
            LimitState::Budget { total, spent } => total.saturating_sub(spent).saturating_sub(held),
            LimitState::None | LimitState::Rate(_) => u64::MAX,
        }
    }

    /// Return the amount left for waiters without a reservation.
    #[inline]
    pub(in crate::capacity) fn unreserved(&self) -> u64 {
        self.free().saturating_sub(self.reserved_sum)
    }

    /// Return the amount left for a waiter with reservations: all but the reservations of older waiters.
    pub(in crate::capacity) fn free_for(&self, rank: Rank) -> u64 {
        let older = self.reservations().iter();
        let older = older.take_while(|(other, _)| *other < rank);
        let older = older.fold(0, |sum: u64, (_, amount)| sum.saturating_add(*amount));
        self.free().saturating_sub(older)
    }

    pub(in crate::capacity) fn reserved(&self) -> u64 {
        self.reserved_sum.min(self.free())
    }

    /// Return the reserved amounts, in the order of rank.
    pub(in crate::capacity) fn reservations(&self) -> &[(Rank, u64)] {
        self.extra.as_ref().map_or(&[], |extra| &extra.reserved)
    }

    /// Return the waiters that a grant of this resource may pass.
    #[inline]
    pub(in crate::capacity) fn passed_over(&self) -> &[u32] {
        self.extra.as_ref().map_or(&[], |extra| &extra.passed_over)
    }

    /// Add a waiter that a grant of this resource may pass.
    pub(in crate::capacity) fn push_passed_over(&mut self, waiter: u32) {
        self.extra().passed_over.push(waiter);
    }

    pub(in crate::capacity) fn remove_passed_over(&mut self, waiter: u32) {
        self.extra().passed_over.retain(|&other| other != waiter);
    }

    /// Add a waiter to the list of a budget.
    #[inline]
    pub(in crate::capacity) fn enlist(&mut self, amount: u64, waiter: u32) {
        if self.kind == ResourceKind::Budget {
            self.extra().queue.insert((amount, waiter));
        }
    }

    /// Remove a waiter from the list of a budget.
    #[inline]
    pub(in crate::capacity) fn delist(&mut self, amount: u64, waiter: u32) {
        if self.kind == ResourceKind::Budget {
            self.extra().queue.remove(&(amount, waiter));
        }
    }

    /// Return the largest amount that a waiter needs of a budget, and that waiter.
    pub(in crate::capacity) fn largest_request(&self) -> Option<(u64, u32)> {
        self.extra.as_ref()?.queue.last()
    }

    /// Reserve `amount` for the waiter with this rank. Returns false if it has a reservation here already.
    pub(in crate::capacity) fn reserve(&mut self, rank: Rank, amount: u64) -> bool {
        let reserved = &mut self.extra().reserved;
        let Err(position) = reserved.binary_search_by_key(&rank, |(other, _)| *other) else {
            return false;
        };
        reserved.insert(position, (rank, amount));
        self.reserved_sum = self.reserved_sum.saturating_add(amount);
        true
    }

    /// Drop the reservation of the waiter with this rank. Returns whether it had one.
    pub(in crate::capacity) fn unreserve(&mut self, rank: Rank) -> bool {
        let reserved = &mut self.extra().reserved;
        let Ok(position) = reserved.binary_search_by_key(&rank, |(other, _)| *other) else {
            return false;
        };
        reserved.remove(position);
        let amounts = reserved.iter().map(|(_, amount)| amount);
        self.reserved_sum = amounts.fold(0, |sum, amount| sum.saturating_add(*amount));
        true
    }

    /// Return whether no waiter that needs at least `least` can have it now, so none needs to be visited.
    #[inline]
    pub(in crate::capacity) fn is_blocked(&self, least: u64, now: Time, permits: usize) -> bool {
        match &self.limit {
            LimitState::None => false,
            _ if self.is_held_off(now, permits) => true,
            LimitState::Slots(_) | LimitState::Budget { .. } => self.unreserved() < least,
            LimitState::Rate(rate) => self.head.is_some() || rate.largest() < least,
        }
    }

    /// Return whether it rejects every cost at this time, if its node holds this many permits.
    #[inline]
    pub(in crate::capacity) fn is_held_off(&self, now: Time, permits: usize) -> bool {
        now < self.not_before || permits >= self.most
    }

    /// Count a change of whether a child [uses](Self::is_used) it.
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

    /// Return whether the node holds or wants it, in competition with its siblings.
    #[inline]
    pub(in crate::capacity) fn is_used(&self) -> bool {
        self.held > 0 || self.wanting > 0
    }

    #[inline]
    pub(in crate::capacity) fn is_used_by_queue(&self) -> bool {
        self.own_held > 0 || self.own_wanting > 0
    }

    /// Return when a rate can give `amount`.
    #[inline]
    pub(in crate::capacity) fn ready_at(&self, amount: u64, now: Time) -> Time {
        match &self.limit {
            LimitState::Rate(rate) => rate.ready_at(amount, now),
            _ => now,
        }
    }
}

/// The resources of one node. Most nodes have one, which is stored inline.
#[derive(Debug, Default)]
pub(in crate::capacity) struct Resources {
    first: Option<Resource>,
    others: Vec<Resource>,
}

impl Resources {
    #[inline]
    pub(in crate::capacity) fn get(&self, id: ResourceId) -> Option<&Resource> {
        match &self.first {
            Some(first) if first.id == id => Some(first),
            _ => self.others.iter().find(|resource| resource.id == id),
        }
    }

    #[inline]
    pub(in crate::capacity) fn get_mut(&mut self, id: ResourceId) -> Option<&mut Resource> {
        match &mut self.first {
            Some(first) if first.id == id => Some(first),
            _ => self.others.iter_mut().find(|resource| resource.id == id),
        }
    }

    /// Return the resource with this id, adding it if needed.
    #[inline]
    pub(in crate::capacity) fn get_or_new(
        &mut self,
        id: ResourceId,
        kind: ResourceKind,
    ) -> &mut Resource {
        let first = self.first.get_or_insert_with(|| Resource::new(id, kind));
        if first.id == id {
            first
        } else {
            Self::get_or_new_other(&mut self.others, id, kind)
        }
    }

    #[cold]
    fn get_or_new_other(
        others: &mut Vec<Resource>,
        id: ResourceId,
        kind: ResourceKind,
    ) -> &mut Resource {
        let position = others.iter().position(|p| p.id == id);
        let position = position.unwrap_or_else(|| {
            others.push(Resource::new(id, kind));
            others.len() - 1
        });
        &mut others[position]
    }

    #[inline]
    pub(in crate::capacity) fn iter(
        &self,
    ) -> std::iter::Chain<option::Iter<'_, Resource>, slice::Iter<'_, Resource>> {
        self.first.iter().chain(&self.others)
    }

    #[inline]
    pub(in crate::capacity) fn iter_mut(
        &mut self,
    ) -> std::iter::Chain<option::IterMut<'_, Resource>, slice::IterMut<'_, Resource>> {
        self.first.iter_mut().chain(&mut self.others)
    }
}
