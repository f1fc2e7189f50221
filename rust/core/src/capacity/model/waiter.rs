//! `Waiter`, the record of a request that waits. `policy/admission.rs` makes one, `policy/enqueue.rs` queues it, and
//! `policy/dispatch.rs` grants it.

use crate::capacity::index::run_list::{Linked, Links};
use crate::capacity::{AcquireError, AlarmId, Cost, OwnerId};
use crate::sync::Key;
use std::task::Waker;

/// The order of waiters in a queue, and the age of reservations; the least is first.
///
/// The worth of the priority is subtracted from the arrival time. All waiters age alike, and none is ever sorted again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::capacity) struct Rank {
    /// In nanoseconds.
    pub(in crate::capacity) due: i64,
    /// Unique, and rising in the order of arrival.
    pub(in crate::capacity) ticket: u64,
}

/// A queued request, or an answered one whose answer was not collected yet.
#[derive(Debug)]
pub(in crate::capacity) struct Waiter {
    pub(in crate::capacity) node: u32,
    pub(in crate::capacity) rank: Rank,
    /// The rank is earlier than the arrival by as many steps.
    pub(in crate::capacity) priority: i32,
    pub(in crate::capacity) cost: Cost,
    pub(in crate::capacity) wants: Wants,
    pub(in crate::capacity) alarm: Option<Key>,
    pub(in crate::capacity) waker: Option<Waker>,
    pub(in crate::capacity) state: WaiterState,
    /// How often smaller requests passed it.
    pub(in crate::capacity) bypassed: u32,
    /// How often it missed slots, or the head position of a rate, that it lacked only (other) quota to use.
    pub(in crate::capacity) missed: u32,
    /// Whether it was next before and did not fit.
    pub(in crate::capacity) was_next: bool,
    /// The number of its reservations.
    pub(in crate::capacity) reserved: u32,
    /// The number of rates whose head it is: at most the depth of the tree times the rates of its cost.
    pub(in crate::capacity) rates_headed: u16,
    /// Its neighbours in its run, if it is behind the offered waiters.
    pub(in crate::capacity) links: Links,
}

/// The object of a wait.
#[derive(Clone, Copy, Debug)]
pub(in crate::capacity) enum Wants {
    /// A new permit, for this owner.
    New(Option<OwnerId>),
    /// The slots of this suspended permit.
    Again(Key),
}

impl Waiter {
    /// Return a waiter that is to be queued at `node`.
    pub(in crate::capacity) fn new(
        node: u32,
        rank: Rank,
        priority: i32,
        cost: Cost,
        wants: Wants,
        alarm: Option<AlarmId>,
    ) -> Self {
        Self {
            node,
            rank,
            priority,
            cost,
            wants,
            alarm: alarm.map(|alarm| alarm.0),
            waker: None,
            state: WaiterState::Behind,
            bypassed: 0,
            missed: 0,
            was_next: false,
            reserved: 0,
            rates_headed: 0,
            links: Links::NONE,
        }
    }

    /// Return the suspended permit whose slots it waits for, if any.
    pub(in crate::capacity) fn resumes(&self) -> Option<Key> {
        match self.wants {
            Wants::New(_) => None,
            Wants::Again(permit) => Some(permit),
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
pub(in crate::capacity) enum WaiterState {
    /// Queued, and offered to the scheduler.
    Offered,
    /// Queued behind the offered ones.
    Behind,
    /// Set aside, as its cost exceeds a current limit of its path.
    Parked,
    /// Granted as this permit; not collected yet.
    Granted(u32),
    /// Refused; not collected yet.
    Failed(Box<AcquireError>),
}

impl WaiterState {
    /// Return whether the waiter was granted or refused.
    pub(in crate::capacity) fn is_answered(&self) -> bool {
        matches!(self, Self::Granted(_) | Self::Failed(_))
    }
}

#[cfg(test)]
mod tests {
    use super::Waiter;
    use crate::capacity::Acquire;

    #[test]
    fn a_waiter_is_small() {
        // With its slab entry, the spare room of a growing slab and its future, it takes less than 300 bytes.
        let (record, future) = (size_of::<Waiter>(), size_of::<Acquire>());
        assert!(record <= 144, "{record}");
        assert!(future <= 112, "{future}");
    }
}
