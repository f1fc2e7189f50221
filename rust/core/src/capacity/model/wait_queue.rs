//! The waiters of one node, by rank; those in front are offered to the scheduler.

use crate::capacity::index::run_list::{Links, Runs};
use crate::capacity::policy::fair_queue::Flow;
use crate::capacity::{AcquireError, AlarmId, Cost, OwnerId};
use crate::sync::{Key, Slab};
use std::collections::BTreeMap;
use std::task::Waker;

/// So many waiters of a line are offered at a time, at most.
const OFFERED: usize = 8;

/// The order of waiters in a line, and the age of reservations: lower is first.
///
/// What priority is worth was taken off the moment of coming, so time ages all alike and nobody is ever sorted anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::capacity) struct Rank {
    /// In nanoseconds.
    pub(in crate::capacity) due: i64,
    /// Given to waiters as they come, never twice.
    pub(in crate::capacity) ticket: u64,
}

/// One who waits, or has been answered and not collected the answer yet.
#[derive(Debug)]
pub(in crate::capacity) struct Waiter {
    pub(in crate::capacity) node: u32,
    pub(in crate::capacity) rank: Rank,
    pub(in crate::capacity) cost: Cost,
    pub(in crate::capacity) wants: Wants,
    pub(in crate::capacity) alarm: Option<Key>,
    pub(in crate::capacity) waker: Option<Waker>,
    pub(in crate::capacity) stage: Stage,
    /// How often smaller work passed it since it came.
    pub(in crate::capacity) bypassed: u32,
    /// How often slots, or a turn at a rate, went by it that it could have had, but for (other) quota.
    pub(in crate::capacity) missed: u32,
    /// Whether it was next before, and lacked something.
    pub(in crate::capacity) was_next: bool,
    /// At how many pools something is kept for it.
    pub(in crate::capacity) reserved: u32,
    /// At how many rates it has the turn.
    pub(in crate::capacity) turns: u32,
    /// Its neighbours in its run, if it is behind.
    pub(in crate::capacity) links: Links,
}

/// What somebody waits for.
#[derive(Clone, Copy, Debug)]
pub(in crate::capacity) enum Wants {
    /// A new permit, for this owner.
    New(Option<OwnerId>),
    /// The slots of this one.
    Again(Key),
}

impl Waiter {
    /// One that is to be put into the line of `node`.
    pub(in crate::capacity) fn new(
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
            missed: 0,
            was_next: false,
            reserved: 0,
            turns: 0,
            links: Links::NONE,
        }
    }

    /// The permit that is to be taken again, if it is not a new one.
    pub(in crate::capacity) fn resumes(&self) -> Option<Key> {
        match self.wants {
            Wants::New(_) => None,
            Wants::Again(lease) => Some(lease),
        }
    }
}

#[derive(Debug)]
pub(in crate::capacity) enum Stage {
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
pub(in crate::capacity) struct Line {
    pub(in crate::capacity) flow: Flow,
    offered: Offered,
    /// In a box, made for the first of them: it is rare, and large.
    rest: Option<Box<Rest>>,
}

/// What there is in front of a line for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::capacity) enum Room {
    Free,
    /// If this one, the last of those in front, is pushed back.
    Instead(u32),
    Full,
}

/// The first of a line, in order.
#[derive(Debug, Default)]
struct Offered {
    len: u32,
    waiters: [u32; OFFERED],
}

/// The others. Most lines never have any.
#[derive(Debug, Default)]
struct Rest {
    behind: Runs,
    parked: BTreeMap<Rank, u32>,
}

impl Offered {
    #[inline]
    fn as_slice(&self) -> &[u32] {
        &self.waiters[..self.len as usize]
    }
}

impl Line {
    /// Who is offered, in order.
    #[inline]
    pub(in crate::capacity) fn offered(&self) -> impl Iterator<Item = u32> + '_ {
        self.offered.as_slice().iter().copied()
    }

    #[inline]
    pub(in crate::capacity) fn has_offers(&self) -> bool {
        self.offered.len > 0
    }

    /// Whether nobody stands in it or beside it.
    #[inline]
    pub(in crate::capacity) fn is_empty(&self) -> bool {
        let is_alone = |rest: &Rest| rest.behind.first().is_none() && rest.parked.is_empty();
        !self.has_offers() && self.rest.as_deref().is_none_or(is_alone)
    }

    /// The first of those behind the offered ones.
    #[inline]
    pub(in crate::capacity) fn first_behind(&self) -> Option<(Rank, u32)> {
        self.rest.as_ref()?.behind.first()
    }

    /// Whether a waiter of this rank would be offered.
    pub(in crate::capacity) fn room_for(&self, rank: Rank, waiters: &Slab<Waiter>) -> Room {
        match *self.offered.as_slice() {
            // Nobody is behind while there is room in front.
            [.., last] if self.offered.len as usize == OFFERED => {
                if rank < waiters.at(last).rank {
                    Room::Instead(last)
                } else {
                    Room::Full
                }
            }
            _ => Room::Free,
        }
    }

    pub(in crate::capacity) fn push_offered(
        &mut self,
        rank: Rank,
        waiter: u32,
        waiters: &Slab<Waiter>,
    ) {
        let mut place = self.offered.len as usize;
        let offered = &mut self.offered.waiters;
        while place > 0 && waiters.at(offered[place - 1]).rank > rank {
            offered[place] = offered[place - 1];
            place -= 1;
        }
        offered[place] = waiter;
        self.offered.len += 1;
    }

    pub(in crate::capacity) fn remove_offered(&mut self, waiter: u32) {
        let offered = self.offered.as_slice();
        let place = offered.iter().position(|&other| other == waiter);
        let place = place.expect("an offered waiter is in front of its line");
        let end = offered.len();
        self.offered.waiters.copy_within(place + 1..end, place);
        self.offered.len -= 1;
    }

    fn rest(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }

    pub(in crate::capacity) fn push_behind(&mut self, waiter: u32, waiters: &mut Slab<Waiter>) {
        self.rest().behind.insert(waiter, waiters);
    }

    pub(in crate::capacity) fn remove_behind(&mut self, waiter: u32, waiters: &mut Slab<Waiter>) {
        self.rest().behind.remove(waiter, waiters);
    }

    pub(in crate::capacity) fn park(&mut self, rank: Rank, waiter: u32) {
        self.rest().parked.insert(rank, waiter);
    }

    pub(in crate::capacity) fn unpark(&mut self, rank: Rank) {
        self.rest().parked.remove(&rank);
    }

    /// All who are parked; they are no longer.
    pub(in crate::capacity) fn take_parked(&mut self) -> BTreeMap<Rank, u32> {
        let rest = self.rest.as_mut();
        rest.map(|rest| std::mem::take(&mut rest.parked))
            .unwrap_or_default()
    }

    /// Everybody, in no promised order.
    pub(in crate::capacity) fn everybody(&self, waiters: &Slab<Waiter>) -> Vec<u32> {
        let mut all: Vec<_> = self.offered().collect();
        if let Some(rest) = &self.rest {
            all.extend(rest.behind.iter(waiters));
            all.extend(rest.parked.values());
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::Waiter;
    use crate::capacity::Acquire;

    #[test]
    fn a_waiter_is_small() {
        // With its slot, what a growing slab has to spare and its future it stays below 300 bytes.
        let (record, future) = (size_of::<Waiter>(), size_of::<Acquire>());
        assert!(record <= 144, "{record}");
        assert!(future <= 112, "{future}");
    }
}
