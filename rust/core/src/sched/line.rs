//! The waiters of one node, by rank; those in front are offered to the scheduler.

use super::fair::Flow;
use super::order::Ordered;
use super::{AcquireError, Cost, OwnerId};
use crate::sync::Key;
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
    pub(super) owner: Option<OwnerId>,
    pub(super) alarm: Option<Key>,
    /// The permit that is to be taken again, if it is not a new one.
    pub(super) resumes: Option<Key>,
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
    behind: Ordered<(Rank, u32)>,
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

    pub(super) fn push_behind(&mut self, rank: Rank, waiter: u32) {
        self.behind.insert((rank, waiter));
    }

    pub(super) fn remove_behind(&mut self, rank: Rank, waiter: u32) {
        self.behind.remove(&(rank, waiter));
    }

    /// Everybody, in no promised order.
    pub(super) fn everybody(&self) -> Vec<u32> {
        let behind = self.behind.iter().map(|(_, waiter)| waiter);
        let parked = self.parked.values().copied();
        self.offered().chain(behind).chain(parked).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Waiter;

    #[test]
    fn a_waiter_is_small() {
        // With its slot, its place in the line and what a growing vector has to spare it stays below 300 bytes.
        let size = size_of::<Waiter>();
        assert!(size <= 168, "{size}");
    }
}
