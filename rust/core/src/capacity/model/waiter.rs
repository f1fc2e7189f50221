//! The record of a waiter.

use crate::capacity::index::run_list::{Linked, Links};
use crate::capacity::{AcquireError, AlarmId, Cost, OwnerId};
use crate::sync::Key;
use std::task::Waker;

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

impl Linked for Waiter {
    type Rank = Rank;

    #[inline]
    fn rank(&self) -> Rank {
        self.rank
    }

    #[inline]
    fn links(&self) -> &Links {
        &self.links
    }

    #[inline]
    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
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
