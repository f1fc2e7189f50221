use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::task::Waker;

/// Wakers that were collected under a lock, to be woken after it.
///
/// The first one is held inline: nearly every operation wakes one waiter at most, and that allocates nothing.
#[must_use = "collected wakers must be woken, after the lock was released"]
#[derive(Debug, Default)]
pub struct WakeList {
    first: Option<Waker>,
    /// The others, in order.
    rest: Vec<Waker>,
}

impl WakeList {
    /// An empty list. Allocates nothing.
    #[inline]
    pub const fn new() -> Self {
        Self {
            first: None,
            rest: Vec::new(),
        }
    }

    /// Adds `waker` at the end.
    #[inline]
    pub fn push(&mut self, waker: Waker) {
        if self.first.is_none() {
            self.first = Some(waker);
        } else {
            self.rest.push(waker);
        }
    }

    /// Wakes them in the order in which they were added. Call it with no lock held.
    ///
    /// A wake-up that is lost is a task that hangs, so a waker that panics does not keep the others from being woken:
    /// the first panic goes on when all of them were.
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
        // Nothing of ours is in a half-way state here, whatever the waker did to its own.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
            panic.get_or_insert(payload);
        }
    }
    if let Some(payload) = panic {
        resume_unwind(payload);
    }
}
