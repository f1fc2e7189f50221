//! Waiters that need slots and quota, or quota of several rates, and see the one go while they lack the other.
//!
//! It may be next, and slots free, but the turn at a rate somebody else's; so the slots go to who can use them. When the turn is free
//! the slots are not, so that goes to another too. Where both are always contended this may happen again and again, and no pass is
//! ever counted, since there is never a moment at which something is taken that it lacks alone. So *misses* are counted: grants of slots
//! that it could have had, but for quota. After [`Settings::passes`](super::Settings::passes) of them it keeps its turn: nobody else
//! gets of its rates until it is granted. It has no slots meanwhile, unless it lacks slots alone; then they are kept as for any that was
//! passed that often (`reservation.rs`). So it waits for the rest of one turn, for its quota, and for its slots, once each.
//!
//! Two rates are as a rate and slots: the turn at one may always be another's when the turn at the other is free, and what was ready when
//! a turn was taken may be gone when that turn is over. So a turn that a waiter could have had, or had, but for another rate, is a
//! miss as well.
//!
//! A waiter that keeps its turns keeps of them only those that it needs: let `T` be the moment at which the last of its rates is ready. Of
//! a rate that is ready sooner, others may take until `T` is no further away than the time in which that rate brings the cost. So a
//! wait for a slow rate of its own does not stop a fast one that all share. Nor are slots kept for it before `T`.
//!
//! Only those are looked at who came first at a moment at which others got on: else all who wait for a rate would miss what one
//! of them gets.

use super::dispatch::Fit;
use crate::capacity::model::state::State;

impl State {
    /// Whether it missed slots as often as may be, so that its turn stays until it is granted.
    pub(in crate::capacity) fn keeps_turn(&self, waiter: u32) -> bool {
        let missed = self.waiters.at(waiter).missed;
        missed > 0 && missed >= self.passes
    }

    /// A turn goes by a waiter that came first, to another. If it lacks slots it may miss these from now on, also while it is not
    /// looked at since that turn keeps the gate of its node shut. If it lacks the turn at another rate, it has missed this one.
    pub(in crate::capacity) fn outrun(&mut self, waiter: u32, taking: u32) {
        if self.keeps_turn(waiter) {
            return;
        }
        match self.fit_waiter(waiter) {
            Fit::Short(..) if !self.outrun.contains(&waiter) => self.outrun.push(waiter),
            Fit::Behind if self.takes_turn_of(taking, waiter) => self.miss(waiter),
            _ => {}
        }
    }

    /// Nothing that a waiter misses counts any more.
    pub(in crate::capacity) fn forget_outrun(&mut self, waiter: u32) {
        self.outrun.retain(|&other| other != waiter);
    }

    /// Of those who were outrun, and of one who comes first now, who could have slots now, but for quota.
    pub(in crate::capacity) fn late(&self, first: Option<u32>) -> Vec<u32> {
        let first = first.filter(|first| !self.outrun.contains(first) && !self.keeps_turn(*first));
        let lacks_quota =
            |waiter: &u32| matches!(self.fit_waiter(*waiter), Fit::Quota | Fit::Behind);
        let outrun = self.outrun.iter().copied();
        outrun.chain(first).filter(lacks_quota).collect()
    }

    /// Somebody else has been granted since: whoever of these lacks slots now has missed them.
    pub(in crate::capacity) fn missed(&mut self, late: &[u32]) {
        for &waiter in late {
            if matches!(self.fit_waiter(waiter), Fit::Short(..)) {
                self.miss(waiter);
            }
        }
    }

    /// Slots that it could have had, but for quota, go to others; or a turn that it could have had, but for another rate.
    pub(in crate::capacity) fn miss(&mut self, waiter: u32) {
        let record = self.waiters.at_mut(waiter);
        record.missed = record.missed.saturating_add(1);
        let rank = record.rank;
        if self.keeps_turn(waiter) {
            self.forget_next(waiter);
            self.forget_outrun(waiter);
            self.holders.insert(rank, waiter);
        }
    }
}
