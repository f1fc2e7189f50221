//! The waiters of one node, by rank; those in front are offered to the scheduler.

use super::share::Flow;
use super::waiter::{Rank, Waiter};
use crate::capacity::index::run_list::RunList;
use crate::sync::Slab;
use std::collections::BTreeMap;

/// So many waiters of a line are offered at a time, at most.
const OFFERED: usize = 8;

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
    behind: RunList<Rank>,
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
