//! Granting: who is next, and the hand-off.

use crate::capacity::index::NIL;
use crate::capacity::model::permit_record::Held;
use crate::capacity::model::resource::{Bound, Pool};
use crate::capacity::model::state::State;
use crate::capacity::model::waiter::{Rank, Stage, Wants};
use crate::capacity::{Cost, Resource};
use crate::sync::WakeList;

/// Whether something can be granted now, and if not, what is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::capacity) enum Fit {
    Fits,
    /// This resource of this node, the nearest, has not enough left: it is for releases to change that.
    Short(u32, Resource),
    /// Only quota is missing, and it is its turn to wait for it.
    Quota,
    /// Only quota is missing, and it is another's turn.
    Behind,
    /// A pause, or a limit below the cost.
    Parked,
    /// No node of the path limits a resource of the cost, and it is a newcomer's.
    Unknown,
}

/// Who came before the next and was not granted.
#[derive(Debug, Default)]
struct Skipped {
    /// They lacked slots or a budget, for the first time.
    short: Vec<u32>,
    /// The first that needs quota: whether or not it lacks that, it comes before whoever takes a turn or slots.
    first: Option<u32>,
}

#[derive(Debug, PartialEq, Eq)]
pub(in crate::capacity) enum Next {
    Grant(u32),
    /// It is next at a rate, and waits for it alone.
    Turn(u32),
    Nobody,
}

impl State {
    /// Whether a cost at a node fits what is free and unreserved to its asker: `waiter`, if it stands in a line; with a
    /// rank if it was passed as often as may be.
    pub(in crate::capacity) fn fit(
        &self,
        node: u32,
        cost: &Cost,
        waiter: Option<u32>,
        rank: Option<Rank>,
    ) -> Fit {
        let now = self.now;
        let mut fit = Fit::Fits;
        for (part, &(resource, amount)) in cost.parts().iter().enumerate() {
            let amount = amount.as_micros();
            let mut is_known = false;
            let mut at = node;
            while at != NIL {
                let here = self.nodes.at(at);
                if part == 0 && here.is_held_off(now) {
                    return Fit::Parked;
                }
                if let Some(pool) = here.pool(resource)
                    && let Some(largest) = pool.largest()
                {
                    is_known = true;
                    if amount > largest {
                        return Fit::Parked;
                    }
                    match self.fit_pool(pool, amount, waiter, rank) {
                        Fit::Parked => return Fit::Parked,
                        Fit::Short(..) if !matches!(fit, Fit::Short(..)) => {
                            fit = Fit::Short(at, resource);
                        }
                        Fit::Behind if !matches!(fit, Fit::Short(..)) => fit = Fit::Behind,
                        Fit::Quota if fit == Fit::Fits => fit = Fit::Quota,
                        _ => {}
                    }
                }
                at = here.parent;
            }
            // Of a waiter all were limited when it came. What no longer is can be had.
            if !is_known && waiter.is_none() {
                return Fit::Unknown;
            }
        }
        fit
    }

    #[inline]
    fn fit_pool(&self, pool: &Pool, amount: u64, waiter: Option<u32>, rank: Option<Rank>) -> Fit {
        let now = self.now;
        if let Bound::Rate(_) = pool.bound {
            return match pool.turn {
                Some(other) if Some(other) != waiter => Fit::Behind,
                _ if pool.ready_at(amount, now) > now => Fit::Quota,
                _ => Fit::Fits,
            };
        }
        if now < pool.not_before {
            return Fit::Parked;
        }
        let free = rank.map_or_else(|| pool.unreserved(), |rank| pool.free_for(rank));
        if amount > free {
            return Fit::Short(NIL, pool.resource);
        }
        Fit::Fits
    }

    /// [`fit`](Self::fit) of one who stands in a line.
    pub(in crate::capacity) fn fit_waiter(&self, waiter: u32) -> Fit {
        let record = self.waiters.at(waiter);
        let rank = self.was_passed(waiter).then_some(record.rank);
        self.fit(record.node, &record.cost, Some(waiter), rank)
    }

    /// Grants whatever can be granted. Afterwards no offered waiter fits what is free and unreserved to it.
    pub(in crate::capacity) fn dispatch(&mut self, wakes: &mut WakeList) {
        if self.waiting == 0 {
            return;
        }
        self.fire(wakes);
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
                "a look at everybody finds another than {next:?}"
            );
            if !matches!(next, Next::Nobody) {
                for waiter in skipped.short.drain(..) {
                    self.was_next(waiter);
                }
            }
            match next {
                Next::Grant(waiter) => {
                    let late = self.late(skipped.first);
                    let node = self.waiters.at(waiter).node;
                    self.grant(waiter, wakes);
                    self.move_on(node);
                    self.missed(&late);
                }
                Next::Turn(waiter) => {
                    if let Some(first) = skipped.first {
                        self.outrun(first, waiter);
                    }
                    self.take_turns(waiter);
                }
                Next::Nobody => break,
            }
        }
    }

    /// The first, by start tags from `node` downward and by rank in a line, that fits or is next at a rate. Notes who
    /// came before and did not fit.
    fn find(&self, node: u32, skipped: &mut Skipped) -> Next {
        let here = self.nodes.at(node);
        let line = &here.line;
        let own = line.flow.open.then(|| line.flow.place(node));
        let waits = |rates: &[Resource]| self.turns(node).any(|rate| rates.contains(&rate));
        for child in here.open.in_order(own, waits) {
            if child != node {
                match self.find(child, skipped) {
                    Next::Nobody => continue,
                    next => return next,
                }
            }
            for waiter in line.offered() {
                let record = self.waiters.at(waiter);
                // Those who were passed as often as may be were looked at before; they still come first.
                if !self.was_passed(waiter) {
                    match self.fit_waiter(waiter) {
                        Fit::Fits => return Next::Grant(waiter),
                        // It waits at each rate that is not ready, and there no other does.
                        Fit::Quota if record.turns == 0 => return Next::Turn(waiter),
                        Fit::Short(..) if !record.was_next => skipped.short.push(waiter),
                        _ => {}
                    }
                }
                if skipped.first.is_none() && self.has_rate(&record.cost) {
                    skipped.first = Some(waiter);
                }
            }
        }
        Next::Nobody
    }

    /// Hands a waiter what it asked for. It fits.
    pub(in crate::capacity) fn grant(&mut self, waiter: u32, wakes: &mut WakeList) {
        self.pass(waiter);
        let record = self.waiters.at(waiter);
        let (node, wants) = (record.node, record.wants);
        let lease = match wants {
            Wants::New(owner) => self.take(node, record.cost.clone(), owner).index(),
            Wants::Again(key) => {
                self.take_slots(key.index(), Held::Regained);
                key.index()
            }
        };
        // Only now, so that gates are looked at once, with everything in its place.
        self.leave(waiter);
        let record = self.waiters.at_mut(waiter);
        record.stage = Stage::Granted(lease);
        if let Some(waker) = record.waker.take() {
            wakes.push(waker);
        }
    }
}
