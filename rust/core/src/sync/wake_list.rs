//! `WakeList`, the wakers to be woken after an unlock. `Buffer`, `Signal` and the capacity `Tree` collect them in it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::task::Waker;

/// Wakers that were collected under a lock, to be woken after unlocking.
///
/// The first one is stored inline: nearly every operation wakes at most one waiter, which allocates nothing.
#[must_use = "collected wakers must be woken after unlocking"]
#[derive(Debug, Default)]
pub struct WakeList {
    first: Option<Waker>,
    /// The others, in order.
    rest: Vec<Waker>,
}

impl WakeList {
    /// Return an empty list. Allocates nothing.
    #[inline]
    pub const fn new() -> Self {
        Self {
            first: None,
            rest: Vec::new(),
        }
    }

    /// Add `waker` at the end.
    #[inline]
    pub fn push(&mut self, waker: Waker) {
        if self.first.is_none() {
            self.first = Some(waker);
        } else {
            self.rest.push(waker);
        }
    }

    /// Wake all wakers in the order of insertion. Call it without a lock.
    ///
    /// A lost wake-up would leave a task hanging, so all wakers are woken even if one panics. The first panic is resumed
    /// afterwards.
    #[inline]
    pub fn wake_all(self) {
        let Self { first, rest } = self;
        let Some(first) = first else { return };
        if rest.is_empty() {
            first.wake();
        } else {
            wake_each(first, rest);
        }
    }
}

#[cold]
fn wake_each(first: Waker, rest: Vec<Waker>) {
    let mut panic = None;
    for waker in std::iter::once(first).chain(rest) {
        // Unwind-safe: no state of this crate is inconsistent here.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
            panic.get_or_insert(payload);
        }
    }
    if let Some(payload) = panic {
        resume_unwind(payload);
    }
}
