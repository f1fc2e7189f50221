//! Limits how deeply merges are polled inside merges.

use std::cell::Cell;

thread_local! {
    /// The number of merges that are being polled on this thread's stack. A forked child has the same stack and keeps the count.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Counts one more merge being polled, until it is dropped. Beyond the limit a merge yields to the event loop and is resumed
/// from there, with an empty stack.
pub(super) struct Depth(usize);

impl Depth {
    const LIMIT: usize = 100;

    #[inline]
    pub(super) fn enter() -> Self {
        let depth = DEPTH.get();
        DEPTH.set(depth + 1);
        Self(depth)
    }

    #[inline]
    pub(super) fn is_too_deep(&self) -> bool {
        self.0 >= Self::LIMIT
    }
}

impl Drop for Depth {
    #[inline]
    fn drop(&mut self) {
        DEPTH.set(self.0);
    }
}
