//! `FifoLock`: concurrent pulls of one link are served in the order of their first step.
//! `LinkState` holds one; `start.rs` acquires it.
//!
//! The lock is handed off: a releasing owner names the next owner before it wakes that owner. A
//! newcomer that arrives in between finds the lock taken and is queued. An owner that is cancelled
//! before it runs releases the lock like any other.

use std::collections::BTreeMap;
use std::task::Waker;

/// The id of a waiter or owner. Ids only grow, so their order is the order of arrival.
pub(crate) type WaiterId = u64;

/// The id of an owner that found the lock free and was never queued. There is at most one at a
/// time.
pub(crate) const UNQUEUED: WaiterId = 0;

/// A lock with a FIFO queue of waiters.
#[derive(Debug, Default)]
pub(crate) struct FifoLock {
    /// The pull that may run the pipeline, or is suspended in it.
    owner: Option<WaiterId>,
    /// The queue. An ordered map yields the oldest waiter, and removes any waiter, in O(log n).
    waiting: BTreeMap<WaiterId, Waker>,
    last: WaiterId,
}

impl FifoLock {
    /// Acquire the lock with the id [`UNQUEUED`] if it is free.
    #[inline]
    pub(crate) fn try_acquire(&mut self) -> bool {
        if self.owner.is_some() {
            return false;
        }
        self.owner = Some(UNQUEUED);
        true
    }

    /// Join the queue.
    pub(crate) fn enqueue(&mut self, waker: Waker) -> WaiterId {
        self.last += 1;
        self.waiting.insert(self.last, waker);
        self.last
    }

    /// Replace the waker of a queued waiter.
    pub(crate) fn set_waker(&mut self, waiter: WaiterId, waker: Waker) {
        self.waiting.insert(waiter, waker);
    }

    /// Return whether this waiter owns the lock.
    pub(crate) fn is_owner(&self, waiter: WaiterId) -> bool {
        self.owner == Some(waiter)
    }

    /// Return whether the lock has no owner and so no waiters.
    #[inline]
    pub(crate) fn is_free(&self) -> bool {
        self.owner.is_none()
    }

    /// Release the lock if no waiter is queued.
    #[inline]
    pub(crate) fn try_release(&mut self) -> bool {
        let alone = self.waiting.is_empty();
        if alone {
            self.owner = None;
        }
        alone
    }

    /// Release the lock, or leave the queue. If the lock is handed to a waiter, return its waker:
    /// wake it after all borrows have ended.
    #[inline]
    #[must_use]
    pub(crate) fn release(&mut self, waiter: WaiterId) -> Option<Waker> {
        if self.owner != Some(waiter) {
            self.waiting.remove(&waiter);
            return None;
        }
        if self.waiting.is_empty() {
            self.owner = None;
            return None;
        }
        self.hand_off()
    }

    #[cold]
    fn hand_off(&mut self) -> Option<Waker> {
        let (next, waker) = self.waiting.pop_first()?;
        self.owner = Some(next);
        Some(waker)
    }

    /// Remove all waiters, for a link that is being closed. Their ids are then unknown to the lock.
    pub(crate) fn take_waiters(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.waiting).into_values().collect()
    }
}
