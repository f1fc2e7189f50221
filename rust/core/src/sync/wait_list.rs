//! `WaitList`, a FIFO queue of waiting futures. `Buffer` has three of them and `Signal` one; the capacity tree has its
//! own queues.

use super::slab::{Key, Slab};
use std::task::Waker;

/// A FIFO queue of waiting futures.
///
/// Each waiter is in one of two states, and changes from the first to the second at most once:
///
/// - *waiting*: it is in the queue, with its waker;
/// - *notified*: it was removed from the queue and its waker was returned to the notifier. Its entry remains until the
///   future collects ([`leave`](Self::leave)) or is dropped (the same, after which its promise is handed on).
///
/// The queue is a doubly linked list through a [`Slab`]: joining, leaving from the middle and notifying the first are
/// O(1) in the number of waiters, and entries are not allocated one by one. `P` is the primitive's own data about each
/// waiter.
#[derive(Debug)]
pub struct WaitList<P = ()> {
    waiters: Slab<Waiter<P>>,
    /// The ends of the queue: both or neither.
    ends: Option<Ends>,
    waiting: usize,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    first: Key,
    last: Key,
}

#[derive(Debug)]
struct Waiter<P> {
    /// Present exactly while the waiter is in the queue; only then are the two links valid.
    waker: Option<Waker>,
    before: Option<Key>,
    after: Option<Key>,
    payload: P,
}

/// The entry of a future that has left its queue.
///
/// It owns values that must not be dropped under the lock: drop it after unlocking.
#[derive(Debug)]
pub enum Left<P> {
    /// It was still waiting, without a promise.
    Waiting(Waker, P),
    /// It was notified: its promise must be collected or handed on.
    Notified(P),
}

impl<P> Default for WaitList<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P> WaitList<P> {
    /// Return an empty list. Allocates nothing.
    pub const fn new() -> Self {
        Self {
            waiters: Slab::new(),
            ends: None,
            waiting: 0,
        }
    }

    /// Return the number of waiters in the queue.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Return the number of waiters that were notified and have neither collected nor been dropped yet.
    #[inline]
    pub fn notified(&self) -> usize {
        self.waiters.len() - self.waiting
    }

    /// Return whether the future of this key is in the queue or was notified.
    #[inline]
    pub fn contains(&self, key: Key) -> bool {
        self.waiters.get(key).is_some()
    }

    /// Return whether the future of this key was notified.
    #[inline]
    pub fn is_notified(&self, key: Key) -> bool {
        self.waiters
            .get(key)
            .is_some_and(|waiter| waiter.waker.is_none())
    }

    /// Return the payload of the first waiter.
    #[inline]
    pub fn first(&self) -> Option<&P> {
        Some(&self.waiters.get(self.ends?.first)?.payload)
    }

    /// Ensure that the future of `key` is in the queue with a waker equivalent to `waker`. A future without a key, or
    /// with one that is no longer valid, joins at the end of the queue.
    ///
    /// Cloning and dropping a waker run foreign code, so neither happens here. If this returns false, nothing was
    /// changed: unlock, put a clone of `waker` into `spare`, lock, check whether the wait is over, and call again.
    /// A replaced waker is returned in `spare`, which must therefore outlive the guard.
    #[inline]
    #[must_use = "false means that a clone of the waker is needed"]
    pub fn enqueue(
        &mut self,
        key: &mut Option<Key>,
        waker: &Waker,
        spare: &mut Option<Waker>,
        payload: impl FnOnce() -> P,
    ) -> bool {
        let Some(waiter) = key.and_then(|key| self.waiters.get_mut(key)) else {
            let Some(waker) = spare.take() else {
                return false;
            };
            *key = Some(self.push(waker, payload()));
            return true;
        };
        debug_assert!(
            waiter.waker.is_some(),
            "a notified future does not queue again"
        );
        if waiter
            .waker
            .as_ref()
            .is_some_and(|old| old.will_wake(waker))
        {
            return true;
        }
        if spare.is_none() {
            return false;
        }
        std::mem::swap(&mut waiter.waker, spare);
        true
    }

    /// Add a waiter at the end of the queue.
    pub fn push(&mut self, waker: Waker, payload: P) -> Key {
        let before = self.ends.map(|ends| ends.last);
        let key = self.waiters.insert(Waiter {
            waker: Some(waker),
            before,
            after: None,
            payload,
        });
        if let Some(last) = before.and_then(|last| self.waiters.get_mut(last)) {
            last.after = Some(key);
        }
        let first = self.ends.map_or(key, |ends| ends.first);
        self.ends = Some(Ends { first, last: key });
        self.waiting += 1;
        key
    }

    /// Remove the first waiter from the queue and mark it notified. Wake the waker after unlocking.
    pub fn notify_first(&mut self) -> Option<(Waker, &mut P)> {
        let key = self.ends?.first;
        self.unlink(key);
        let waiter = self.waiters.get_mut(key)?;
        Some((waiter.waker.take()?, &mut waiter.payload))
    }

    /// Remove the first waiter and its entry: its key is no longer valid.
    ///
    /// For endings, where the woken future needs no promise: it sees the state for itself.
    pub fn pop_first(&mut self) -> Option<(Waker, P)> {
        match self.leave(self.ends?.first)? {
            Left::Waiting(waker, payload) => Some((waker, payload)),
            Left::Notified(_) => unreachable!("a notified waiter is not in the queue"),
        }
    }

    /// Remove a waiter from any position. `None` if it was popped before.
    pub fn leave(&mut self, key: Key) -> Option<Left<P>> {
        if self.waiters.get(key)?.waker.is_some() {
            self.unlink(key);
        }
        let waiter = self.waiters.remove(key)?;
        Some(match waiter.waker {
            Some(waker) => Left::Waiting(waker, waiter.payload),
            None => Left::Notified(waiter.payload),
        })
    }

    /// Unlink a waiter that is in the queue.
    fn unlink(&mut self, key: Key) {
        let Some(waiter) = self.waiters.get_mut(key) else {
            return;
        };
        let (before, after) = (waiter.before.take(), waiter.after.take());
        if let Some(before) = before.and_then(|key| self.waiters.get_mut(key)) {
            before.after = after;
        }
        if let Some(after) = after.and_then(|key| self.waiters.get_mut(key)) {
            after.before = before;
        }
        self.ends = self.ends.and_then(|ends| match (before, after) {
            (Some(_), Some(_)) => Some(ends),
            (None, Some(first)) => Some(Ends { first, ..ends }),
            (Some(last), None) => Some(Ends { last, ..ends }),
            (None, None) => None,
        });
        self.waiting -= 1;
    }
}
