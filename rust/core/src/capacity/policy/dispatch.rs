//! Dispatch: the search for the next waiter, and the hand-off to it. Each operation that may free capacity calls it,
//! such as a release (`permit.rs`), a new limit (`reconfigure.rs`) and `Tree::tick`.

use crate::capacity::index::NIL;
use crate::capacity::model::permit_record::Held;
use crate::capacity::model::resource::{LimitState, Resource};
use crate::capacity::model::state::State;
use crate::capacity::model::waiter::{Rank, WaiterState, Wants};
use crate::capacity::{Cost, ResourceId};
use crate::sync::WakeList;

/// Whether a cost can be granted now, and otherwise the obstacle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::capacity) enum FitResult {
    Fits,
    /// The nearest node without enough of this resource. A release changes that.
    Short(u32, ResourceId),
    /// Only quota is missing, and the waiter may become the head of that rate's queue.
    Quota,
    /// Only quota is missing, and another waiter is the head.
    BehindHead,
    /// A pause, a cooldown, a full window after one, or a limit below the cost.
    Parked,
    /// No node of the path limits a resource of the cost of a new request.
    Unknown,
}

/// The waiters before the next one, which were not granted.
#[derive(Debug, Default)]
struct Skipped {
    /// Those that lacked slots or a budget for the first time.
    short: Vec<u32>,
    /// The first one that needs quota, whether or not it lacks it: it precedes any waiter that becomes a head or takes slots.
    first: Option<u32>,
}

#[derive(Debug, PartialEq, Eq)]
pub(in crate::capacity) enum Next {
    Grant(u32),
    /// It is next at a rate, and only lacks its quota.
    RateHead(u32),
    Nothing,
}

impl State {
    /// Return whether a cost at a node fits the capacity that is free and not reserved for others.
    ///
    /// `waiter` is the waiter, if there is one; `rank` is its rank if it is starved, which gives access to younger reservations.
    pub(in crate::capacity) fn fit(
        &self,
        node: u32,
        cost: &Cost,
        waiter: Option<u32>,
        rank: Option<Rank>,
    ) -> FitResult {
        let now = self.now;
        let mut fit = FitResult::Fits;
        for (part, &(id, amount)) in cost.parts().iter().enumerate() {
            let amount = amount.as_micros();
            let mut is_known = false;
            let mut at = node;
            while at != NIL {
                let here = self.nodes.at(at);
                if part == 0 && here.is_held_off(now) {
                    return FitResult::Parked;
                }
                if let Some(resource) = here.resource(id)
                    && let Some(largest) = resource.largest()
                {
                    is_known = true;
                    if amount > largest || resource.is_held_off(now, here.permits) {
                        return FitResult::Parked;
                    }
                    match self.fit_resource(resource, amount, waiter, rank) {
                        FitResult::Short(..) if !matches!(fit, FitResult::Short(..)) => {
                            fit = FitResult::Short(at, id);
                        }
                        FitResult::BehindHead if !matches!(fit, FitResult::Short(..)) => {
                            fit = FitResult::BehindHead;
                        }
                        FitResult::Quota if fit == FitResult::Fits => fit = FitResult::Quota,
                        _ => {}
                    }
                }
                at = here.parent;
            }
            // All resources of a queued waiter were limited when it was queued. One without a limit is unlimited now.
            if !is_known && waiter.is_none() {
                return FitResult::Unknown;
            }
        }
        fit
    }

    #[inline]
    fn fit_resource(
        &self,
        resource: &Resource,
        amount: u64,
        waiter: Option<u32>,
        rank: Option<Rank>,
    ) -> FitResult {
        let now = self.now;
        if let LimitState::Rate(_) = resource.limit {
            return match resource.head {
                Some(other) if Some(other) != waiter => FitResult::BehindHead,
                _ if resource.ready_at(amount, now) > now => FitResult::Quota,
                _ => FitResult::Fits,
            };
        }
        let free = rank.map_or_else(|| resource.unreserved(), |rank| resource.free_for(rank));
        if amount > free {
            return FitResult::Short(NIL, resource.id);
        }
        FitResult::Fits
    }

    /// [`fit`](Self::fit) of a queued waiter.
    pub(in crate::capacity) fn fit_waiter(&self, waiter: u32) -> FitResult {
        let record = self.waiters.at(waiter);
        let rank = self.is_starved(waiter).then_some(record.rank);
        self.fit(record.node, &record.cost, Some(waiter), rank)
    }

    /// Return whether a release can help a request for a cost at a node. It cannot if only quota is missing, nor while a pause, a cooldown
    /// or a limit of 0 holds the request off.
    pub(in crate::capacity) fn release_helps(&self, node: u32, cost: &Cost) -> bool {
        let now = self.now;
        let is_closed = self.path(node).any(|at| {
            let here = self.nodes.at(at);
            let is_closed =
                |resource: &Resource| now < resource.not_before || resource.largest() == Some(0);
            here.paused
                || now < here.not_before
                || cost
                    .parts()
                    .iter()
                    .any(|&(id, _)| here.resource(id).is_some_and(is_closed))
        });
        if is_closed {
            return false;
        }
        // Parked: at a full window after a cooldown, or above an adaptive limit, which the ends of calls raise.
        let fit = self.fit(node, cost, None, None);
        matches!(fit, FitResult::Short(..) | FitResult::Parked)
    }

    /// Grant all that can be granted. Afterwards no offered waiter fits the capacity that is free and not reserved for others.
    pub(in crate::capacity) fn dispatch(&mut self, wakes: &mut WakeList) {
        if self.busy == 0 {
            return;
        }
        self.fire_timers(wakes);
        if self.waiting == 0 {
            return;
        }
        self.recharge();
        let mut skipped = Skipped::default();
        while self.waiting > 0 {
            if let Some(holder) = self.next_holder() {
                self.grant(holder, wakes);
                continue;
            }
            if !self.nodes.at(self.root).eligible {
                break;
            }
            skipped.short.clear();
            skipped.first = None;
            let next = self.find(self.root, &mut skipped);
            #[cfg(any(test, debug_assertions))]
            assert!(
                !self.is_watched || next == self.find_among_all(self.root),
                "a search of all waiters finds another than {next:?}"
            );
            if !matches!(next, Next::Nothing) {
                for waiter in skipped.short.drain(..) {
                    // The search for children below their floors may have visited it, too.
                    if !self.waiters.at(waiter).was_next {
                        self.mark_next(waiter);
                    }
                }
            }
            match next {
                Next::Grant(waiter) => {
                    #[cfg(any(test, debug_assertions))]
                    if self.is_watched {
                        self.check_floors_first(waiter);
                    }
                    let late = self.late(skipped.first);
                    let node = self.waiters.at(waiter).node;
                    self.grant(waiter, wakes);
                    self.catch_up(node);
                    self.missed(&late);
                }
                Next::RateHead(waiter) => {
                    if let Some(first) = skipped.first {
                        self.note_slot_misser(first, waiter);
                    }
                    self.take_rate_heads(waiter);
                }
                Next::Nothing => break,
            }
        }
    }

    /// Return the first waiter that fits or is next at a rate: by start tags from `node` downward, then by rank in a queue. Children
    /// below their floors precede their siblings.
    ///
    /// Collects the waiters before it that did not fit.
    fn find(&self, node: u32, skipped: &mut Skipped) -> Next {
        let here = self.nodes.at(node);
        if here.floors.is_some()
            && let Some(waiter) = self.find_below_floors(node, &mut skipped.short)
        {
            return Next::Grant(waiter);
        }
        let queue = &here.queue;
        let own = queue.share.eligible.then(|| queue.share.order_key(node));
        let waits =
            |rates: &[ResourceId]| self.headed_rates(node).any(|rate| rates.contains(&rate));
        for child in here.ready.in_order(own, waits) {
            if child != node {
                match self.find(child, skipped) {
                    Next::Nothing => continue,
                    next => return next,
                }
            }
            for waiter in queue.offered() {
                let record = self.waiters.at(waiter);
                // Starved waiters were visited before the search; they are still first.
                if !self.is_starved(waiter) {
                    match self.fit_waiter(waiter) {
                        FitResult::Fits => return Next::Grant(waiter),
                        // A head waits at each rate that is not ready, and is the only one that waits there.
                        FitResult::Quota if record.rates_headed == 0 => {
                            return Next::RateHead(waiter);
                        }
                        FitResult::Short(..) if !record.was_next => skipped.short.push(waiter),
                        _ => {}
                    }
                }
                if skipped.first.is_none() && self.has_rate(&record.cost) {
                    skipped.first = Some(waiter);
                }
            }
        }
        Next::Nothing
    }

    /// Grant a waiter, whose cost fits.
    pub(in crate::capacity) fn grant(&mut self, waiter: u32, wakes: &mut WakeList) {
        self.pass(waiter);
        let record = self.waiters.at(waiter);
        let (node, wants) = (record.node, record.wants);
        let permit = match wants {
            Wants::New(owner) => self.take(node, record.cost.clone(), owner).index(),
            Wants::Again(key) => {
                self.take_slots(key.index(), Held::Regained);
                key.index()
            }
        };
        // Only now, when everything is counted: this refreshes eligibility once.
        self.leave(waiter);
        let record = self.waiters.at_mut(waiter);
        record.state = WaiterState::Granted(permit);
        if let Some(waker) = record.waker.take() {
            wakes.push(waker);
        }
    }
}
