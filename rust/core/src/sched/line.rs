//! The waiters of one node, by rank; those in front are offered to the scheduler.

use super::fair::Flow;
use super::runs::{Links, Runs};
use super::{AcquireError, AlarmId, Cost, OwnerId};
use crate::sync::{Key, Slab};
use std::collections::BTreeMap;
use std::task::Waker;

/// So many waiters of a line are offered at a time, at most.
const OFFERED: usize = 8;

/// The order of waiters in a line, and the age of reservations: lower is first.
///
/// What priority is worth was taken off the moment of coming, so time ages all alike and nobody is ever sorted anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// In nanoseconds.
    pub(super) due: i64,
    /// Given to waiters as they come, never twice.
    pub(super) ticket: u64,
}

/// One who waits, or has been answered and not collected the answer yet.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) node: u32,
    pub(super) rank: Rank,
    pub(super) cost: Cost,
    pub(super) wants: Wants,
    pub(super) alarm: Option<Key>,
    pub(super) waker: Option<Waker>,
    pub(super) stage: Stage,
    /// How often smaller work passed it since it came.
    pub(super) bypassed: u32,
    /// Whether it was next before, and lacked something.
    pub(super) was_next: bool,
    /// At how many pools something is kept for it.
    pub(super) reserved: u32,
    /// At how many rates it has the turn.
    pub(super) turns: u32,
    /// Its neighbours in its run, if it is behind.
    pub(super) links: Links,
}

/// What somebody waits for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wants {
    /// A new permit, for this owner.
    New(Option<OwnerId>),
    /// The slots of this one.
    Again(Key),
}

impl Waiter {
    /// One that is to be put into the line of `node`.
    pub(super) fn new(
        node: u32,
        rank: Rank,
        cost: Cost,
        wants: Wants,
        alarm: Option<AlarmId>,
    ) -> Self {
        Self {
            node,
            rank,
            cost,
            wants,
            alarm: alarm.map(|alarm| alarm.0),
            waker: None,
            stage: Stage::Behind,
            bypassed: 0,
            was_next: false,
            reserved: 0,
            turns: 0,
            links: Links::NONE,
        }
    }

    /// The permit that is to be taken again, if it is not a new one.
    pub(super) fn resumes(&self) -> Option<Key> {
        match self.wants {
            Wants::New(_) => None,
            Wants::Again(lease) => Some(lease),
        }
    }
}

#[derive(Debug)]
pub(super) enum Stage {
    /// In the line, among those that are offered.
    Offered,
    /// In the line, behind them.
    Behind,
    /// Beside the line: it asks for more than a limit of its path is now.
    Parked,
    /// It has this lease, and has yet to hear of it.
    Granted(u32),
    /// It will get nothing.
    Failed(Box<AcquireError>),
}

#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) flow: Flow,
    offered: Offered,
    behind: Runs,
    pub(super) parked: BTreeMap<Rank, u32>,
}

/// What there is in front of a line for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Free,
    /// If this one, the last of those in front, is pushed back.
    Instead(u32),
    Full,
}

/// The first of a line, in order.
#[derive(Debug, Default)]
struct Offered {
    len: usize,
    waiters: [(u32, Option<Rank>); OFFERED],
}

impl Line {
    /// Who is offered, in order.
    #[inline]
    pub(super) fn offered(&self) -> impl Iterator<Item = u32> + '_ {
        self.offered.waiters[..self.offered.len].iter().map(|w| w.0)
    }

    #[inline]
    pub(super) fn has_offers(&self) -> bool {
        self.offered.len > 0
    }

    /// The first of those behind the offered ones.
    pub(super) fn first_behind(&self) -> Option<(Rank, u32)> {
        self.behind.first()
    }

    /// Whether a waiter of this rank would be offered.
    pub(super) fn room_for(&self, rank: Rank) -> Room {
        if self.offered.len < OFFERED {
            // Nobody is behind while there is room in front.
            return Room::Free;
        }
        let (last, rank_of_last) = self.offered.waiters[OFFERED - 1];
        if Some(rank) < rank_of_last {
            Room::Instead(last)
        } else {
            Room::Full
        }
    }

    pub(super) fn push_offered(&mut self, rank: Rank, waiter: u32) {
        let Offered { len, waiters } = &mut self.offered;
        let mut place = *len;
        while place > 0 && waiters[place - 1].1 > Some(rank) {
            waiters[place] = waiters[place - 1];
            place -= 1;
        }
        waiters[place] = (waiter, Some(rank));
        *len += 1;
    }

    pub(super) fn remove_offered(&mut self, waiter: u32) {
        let Offered { len, waiters } = &mut self.offered;
        let place = waiters[..*len].iter().position(|w| w.0 == waiter);
        let place = place.expect("an offered waiter is in front of its line");
        waiters.copy_within(place + 1..*len, place);
        *len -= 1;
    }

    pub(super) fn push_behind(&mut self, waiter: u32, waiters: &mut Slab<Waiter>) {
        self.behind.insert(waiter, waiters);
    }

    pub(super) fn remove_behind(&mut self, waiter: u32, waiters: &mut Slab<Waiter>) {
        self.behind.remove(waiter, waiters);
    }

    /// Everybody, in no promised order.
    pub(super) fn everybody(&self, waiters: &Slab<Waiter>) -> Vec<u32> {
        let behind = self.behind.iter(waiters);
        let parked = self.parked.values().copied();
        self.offered().chain(behind).chain(parked).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Waiter;
    use crate::sched::Acquire;

    #[test]
    fn a_waiter_is_small() {
        // With its slot, what a growing slab has to spare and its future it stays below 300 bytes.
        let (record, future) = (size_of::<Waiter>(), size_of::<Acquire>());
        assert!(record <= 144, "{record}");
        assert!(future <= 112, "{future}");
    }
}
