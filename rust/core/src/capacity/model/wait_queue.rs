//! The waiters of one node, by rank. Those in front are offered to the scheduler. `policy/enqueue.rs` adds and removes
//! them, and `policy/dispatch.rs` searches the offered ones.

use super::share::Share;
use super::waiter::{Rank, Waiter};
use crate::capacity::index::run_list::RunList;
use crate::sync::Slab;
use std::collections::BTreeMap;

/// The largest number of offered waiters in a queue.
const OFFERED: usize = 8;

#[derive(Debug, Default)]
pub(in crate::capacity) struct WaitQueue {
    pub(in crate::capacity) share: Share,
    offered: Offered,
    /// Boxed, and allocated on first use: it is rare, and large.
    overflow: Option<Box<Overflow>>,
}

/// The room for one more offered waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::capacity) enum FrontRoom {
    Free,
    /// There is room if this waiter, the last offered one, is moved behind.
    Instead(u32),
    Full,
}

/// The offered waiters, in order.
#[derive(Debug, Default)]
struct Offered {
    len: u32,
    waiters: [u32; OFFERED],
}

/// The other waiters. Most queues never have any.
#[derive(Debug, Default)]
struct Overflow {
    behind: RunList<Rank>,
    parked: BTreeMap<Rank, u32>,
}

impl Offered {
    #[inline]
    fn as_slice(&self) -> &[u32] {
        &self.waiters[..self.len as usize]
    }
}

impl WaitQueue {
    /// Return the offered waiters, in order.
    #[inline]
    pub(in crate::capacity) fn offered(&self) -> impl Iterator<Item = u32> + '_ {
        self.offered.as_slice().iter().copied()
    }

    #[inline]
    pub(in crate::capacity) fn has_offers(&self) -> bool {
        self.offered.len > 0
    }

    /// Return whether there is no waiter, offered, behind or parked.
    #[inline]
    pub(in crate::capacity) fn is_empty(&self) -> bool {
        let is_alone =
            |overflow: &Overflow| overflow.behind.first().is_none() && overflow.parked.is_empty();
        !self.has_offers() && self.overflow.as_deref().is_none_or(is_alone)
    }

    /// Return the first waiter behind the offered ones.
    #[inline]
    pub(in crate::capacity) fn first_behind(&self) -> Option<(Rank, u32)> {
        self.overflow.as_ref()?.behind.first()
    }

    /// Return whether a waiter of this rank would be offered.
    pub(in crate::capacity) fn room_for(&self, rank: Rank, waiters: &Slab<Waiter>) -> FrontRoom {
        match *self.offered.as_slice() {
            // No waiter is behind while there is room in front.
            [.., last] if self.offered.len as usize == OFFERED => {
                if rank < waiters.at(last).rank {
                    FrontRoom::Instead(last)
                } else {
                    FrontRoom::Full
                }
            }
            _ => FrontRoom::Free,
        }
    }

    pub(in crate::capacity) fn push_offered(
        &mut self,
        rank: Rank,
        waiter: u32,
        waiters: &Slab<Waiter>,
    ) {
        let mut position = self.offered.len as usize;
        let offered = &mut self.offered.waiters;
        while position > 0 && waiters.at(offered[position - 1]).rank > rank {
            offered[position] = offered[position - 1];
            position -= 1;
        }
        offered[position] = waiter;
        self.offered.len += 1;
    }

    pub(in crate::capacity) fn remove_offered(&mut self, waiter: u32) {
        let offered = self.offered.as_slice();
        let position = offered.iter().position(|&other| other == waiter);
        let position = position.expect("an offered waiter is in front of its queue");
        let end = offered.len();
        self.offered
            .waiters
            .copy_within(position + 1..end, position);
        self.offered.len -= 1;
    }

    fn overflow(&mut self) -> &mut Overflow {
        self.overflow.get_or_insert_default()
    }

    pub(in crate::capacity) fn push_behind(&mut self, waiter: u32, waiters: &mut Slab<Waiter>) {
        self.overflow().behind.insert(waiter, waiters);
    }

    pub(in crate::capacity) fn remove_behind(&mut self, waiter: u32, waiters: &mut Slab<Waiter>) {
        self.overflow().behind.remove(waiter, waiters);
    }

    pub(in crate::capacity) fn park(&mut self, rank: Rank, waiter: u32) {
        self.overflow().parked.insert(rank, waiter);
    }

    pub(in crate::capacity) fn unpark(&mut self, rank: Rank) {
        self.overflow().parked.remove(&rank);
    }

    /// Remove and return all parked waiters.
    pub(in crate::capacity) fn take_parked(&mut self) -> BTreeMap<Rank, u32> {
        let overflow = self.overflow.as_mut();
        overflow
            .map(|overflow| std::mem::take(&mut overflow.parked))
            .unwrap_or_default()
    }

    /// Return all waiters, in any order.
    pub(in crate::capacity) fn all(&self, waiters: &Slab<Waiter>) -> Vec<u32> {
        let mut all: Vec<_> = self.offered().collect();
        if let Some(overflow) = &self.overflow {
            all.extend(overflow.behind.iter(waiters));
            all.extend(overflow.parked.values());
        }
        all
    }
}
