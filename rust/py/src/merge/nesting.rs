//! How deep merges of merges are on the stack.

use std::cell::Cell;

thread_local! {
    /// How many merges are inside one another on the stack. A forked child has the same stack, and keeps the count.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// A merge of merges of merges is polled in place, one inside the other. From some depth on one of
/// them rests, and goes on from the loop with the stack to itself.
pub(super) struct Depth(usize);

impl Depth {
    const MOST: usize = 100;

    #[inline]
    pub(super) fn deeper() -> Self {
        let depth = DEPTH.get();
        DEPTH.set(depth + 1);
        Self(depth)
    }

    #[inline]
    pub(super) fn is_too_deep(&self) -> bool {
        self.0 >= Self::MOST
    }
}

impl Drop for Depth {
    #[inline]
    fn drop(&mut self) {
        DEPTH.set(self.0);
    }
}
