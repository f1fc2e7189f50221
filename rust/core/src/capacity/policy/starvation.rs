//! The starvation guard for waiters that need slots and quota, or quota of several rates.
//! `dispatch.rs` counts the misses by it; `rate_queue.rs` and `reservation.rs` count those of lost heads.
//!
//! Such a waiter may be first, with free slots, while another waiter is the head of its rate. The slots then go to other waiters.
//! When the rate has no head, the slots are taken, so another waiter becomes the head. Where both are always contended this can
//! repeat without end. No pass is ever counted, as the waiter never lacks just the resource that a grant takes.
//!
//! *Misses* are therefore counted: grants of slots that the waiter lacked only quota to use. After
//! [`Settings::passes`](crate::capacity::Settings::passes) of them it keeps the heads of its rates: no other waiter gets any of
//! these rates until it is granted. It has no slots meanwhile, unless it lacks slots alone; then they are reserved for it as after
//! the last pass (`reservation.rs`). It waits for the rest of one head, for its quota, and for its slots, once each.
//!
//! Two rates act as a rate and slots: each may have another head whenever the other has none, and quota that was ready when a head
//! was chosen may be gone later. So a head position that a waiter had, or could have had, and lost only for lack of another rate,
//! is a miss as well.
//!
//! A waiter that keeps its heads keeps only those that it needs. Let `T` be the time at which the last of its rates is ready. Other
//! waiters may use a rate that is ready sooner until the time to `T` is no longer than the rate takes to bring the cost. A wait
//! for a slow rate thus does not stop a fast rate that all share. Slots are not reserved for it before `T` either.
//!
//! Only waiters that were first while others were granted are considered. Otherwise all waiters at a rate would miss the grant of
//! any one of them.

use super::dispatch::FitResult;
use crate::capacity::model::state::State;

impl State {
    /// Return whether a waiter missed capacity as often as allowed, and so stays the head until it is granted.
    pub(in crate::capacity) fn keeps_rate_head(&self, waiter: u32) -> bool {
        let missed = self.waiters.at(waiter).missed;
        missed > 0 && missed >= self.passes
    }

    /// Note that another waiter, `taking`, becomes a head before `waiter`, which is first.
    ///
    /// If `waiter` lacks slots, it may miss slots from now on, even while the head blocks its node and it is not visited. If it lacks
    /// the head position of another rate, it has missed this one.
    pub(in crate::capacity) fn note_slot_misser(&mut self, waiter: u32, taking: u32) {
        if self.keeps_rate_head(waiter) {
            return;
        }
        match self.fit_waiter(waiter) {
            FitResult::Short(..) if !self.slot_missers.contains(&waiter) => {
                self.slot_missers.push(waiter);
            }
            FitResult::BehindHead if self.takes_rate_head_from(taking, waiter) => self.miss(waiter),
            _ => {}
        }
    }

    /// Stop counting misses of a waiter.
    pub(in crate::capacity) fn forget_slot_misser(&mut self, waiter: u32) {
        self.slot_missers.retain(|&other| other != waiter);
    }

    /// Return the slot missers, and the waiter that is `first` now, that lack only quota to use slots.
    pub(in crate::capacity) fn late(&self, first: Option<u32>) -> Vec<u32> {
        let first = first
            .filter(|first| !self.slot_missers.contains(first) && !self.keeps_rate_head(*first));
        let lacks_quota = |waiter: &u32| {
            matches!(
                self.fit_waiter(*waiter),
                FitResult::Quota | FitResult::BehindHead
            )
        };
        let slot_missers = self.slot_missers.iter().copied();
        slot_missers.chain(first).filter(lacks_quota).collect()
    }

    /// Count a miss for each waiter of `late` that lacks slots after another waiter's grant.
    pub(in crate::capacity) fn missed(&mut self, late: &[u32]) {
        for &waiter in late {
            if matches!(self.fit_waiter(waiter), FitResult::Short(..)) {
                self.miss(waiter);
            }
        }
    }

    /// Count a miss: slots that the waiter lacked only quota to use, or a head position that it lacked only another rate to use.
    pub(in crate::capacity) fn miss(&mut self, waiter: u32) {
        let record = self.waiters.at_mut(waiter);
        record.missed = record.missed.saturating_add(1);
        let rank = record.rank;
        if self.keeps_rate_head(waiter) {
            self.forget_next(waiter);
            self.forget_slot_misser(waiter);
            self.reservation_holders.insert(rank, waiter);
        }
    }
}
