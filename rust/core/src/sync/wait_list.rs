use super::slab::{Key, Slab};
use std::task::Waker;

/// A line of futures that wait for their turn, first come first served.
///
/// Each waiter is in one of two states, and takes the step from the first to the second at most once:
///
/// - *waiting*: it stands in the line and its waker is here;
/// - *notified*: it was taken out of the line, its waker was handed to whoever notified it, and its entry remains until
///   the future comes to collect ([`leave`](Self::leave)) or is dropped (the same, after which it hands on).
///
/// The line is a doubly linked list through a [`Slab`], so joining, leaving from the middle and notifying the first
/// are O(1) whatever the number of waiters, and no entry is allocated singly. `P` is what the primitive has to know of
/// each waiter beyond its waker.
#[derive(Debug)]
pub struct WaitList<P = ()> {
    waiters: Slab<Waiter<P>>,
    /// The ends of the line: both or neither.
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
    /// Present exactly while the waiter stands in the line; only then do the two links mean anything.
    waker: Option<Waker>,
    before: Option<Key>,
    after: Option<Key>,
    payload: P,
}

/// What a future left behind when it left its list.
///
/// It owns what must not be dropped under the lock, so let go of it after unlocking.
#[derive(Debug)]
pub enum Left<P> {
    /// It was still waiting: nobody owes it anything.
    Waiting(Waker, P),
    /// It had been notified: what it was promised is to be collected or handed on.
    Notified(P),
}

impl<P> Default for WaitList<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P> WaitList<P> {
    /// An empty list. Allocates nothing.
    pub const fn new() -> Self {
        Self {
            waiters: Slab::new(),
            ends: None,
            waiting: 0,
        }
    }

    /// How many stand in the line.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many were notified and have neither collected nor been dropped yet.
    #[inline]
    pub fn notified(&self) -> usize {
        self.waiters.len() - self.waiting
    }

    /// Whether the future of this key stands in the line or was notified.
    #[inline]
    pub fn contains(&self, key: Key) -> bool {
        self.waiters.get(key).is_some()
    }

    /// Whether the future of this key was notified.
    #[inline]
    pub fn is_notified(&self, key: Key) -> bool {
        self.waiters
            .get(key)
            .is_some_and(|waiter| waiter.waker.is_none())
    }

    /// The payload of the first in the line.
    #[inline]
    pub fn first(&self) -> Option<&P> {
        Some(&self.waiters.get(self.ends?.first)?.payload)
    }

    /// Sees to it that the future of `key` stands in the line with a waker that wakes like `waker`: a future that has
    /// no key yet, or one that names nobody any more, gets one, at the end of the line.
    ///
    /// Cloning and dropping a waker run foreign code, so neither happens here. If this returns false nothing was
    /// done: unlock, put a clone of `waker` into `spare`, lock, look whether the wait is over by now, and call again.
    /// A waker that was replaced comes back in `spare`, which must therefore outlive the guard.
    #[inline]
    #[must_use = "false asks for a clone of the waker"]
    pub fn enrol(
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
            "a notified future has no reason to enrol"
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

    /// Adds a waiter at the end of the line.
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

    /// Takes the first out of the line and marks it notified. Wake the waker after unlocking.
    pub fn notify_first(&mut self) -> Option<(Waker, &mut P)> {
        let key = self.ends?.first;
        self.unlink(key);
        let waiter = self.waiters.get_mut(key)?;
        Some((waiter.waker.take()?, &mut waiter.payload))
    }

    /// Takes the first out of the line and forgets it: its key finds nothing from now on.
    ///
    /// For endings, where the future needs no more than a wake-up to see for itself.
    pub fn pop_first(&mut self) -> Option<(Waker, P)> {
        match self.leave(self.ends?.first)? {
            Left::Waiting(waker, payload) => Some((waker, payload)),
            Left::Notified(_) => unreachable!("a waiter that was notified is not in the line"),
        }
    }

    /// Takes a waiter out, wherever it stands. `None` if it was popped before.
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

    /// Closes the gap around a waiter that stands in the line.
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
