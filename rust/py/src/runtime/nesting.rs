//! `Nesting`: counts how deeply calls of one kind are nested on this thread's stack.
//! `push/branch.rs` and `merge/view.rs` use it.

use std::cell::Cell;
use std::thread::LocalKey;

/// One level, until it is dropped. A forked child has the same stack and keeps the count.
pub(crate) struct Nesting {
    counter: &'static LocalKey<Cell<usize>>,
    /// The number of levels outside of this one.
    pub(crate) depth: usize,
}

impl Nesting {
    #[inline]
    pub(crate) fn enter(counter: &'static LocalKey<Cell<usize>>) -> Self {
        let depth = counter.get();
        counter.set(depth + 1);
        Self { counter, depth }
    }
}

impl Drop for Nesting {
    #[inline]
    fn drop(&mut self) {
        self.counter.set(self.depth);
    }
}
