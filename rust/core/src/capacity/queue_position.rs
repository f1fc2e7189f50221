//! The position of a future in a wait queue.

use super::Tree;
use crate::sync::{Arc, Key, WakeList};
use std::sync::Weak;

/// A position in a wait queue, which can be given up without access to the future that holds it.
///
/// A future whose executor is gone is never polled again, and possibly never dropped. A waker that detects this gives up the
/// position: as if the future had been dropped, its grant passes to the next waiter. If the future is polled after all, it is
/// queued anew.
#[derive(Debug)]
pub struct QueuePosition {
    /// Weak, since the waker in the queue may own this.
    tree: Weak<Tree>,
    key: Key,
}

impl QueuePosition {
    pub(super) fn new(tree: &Arc<Tree>, key: Key) -> Self {
        Self {
            tree: Arc::downgrade(tree),
            key,
        }
    }

    /// Leave the queue and pass on a grant that was not collected. Does nothing if the future has left by itself.
    pub fn give_up(&self) {
        if let Some(tree) = self.tree.upgrade() {
            tree.withdraw(self.key);
        }
    }
}

impl Tree {
    /// Remove a future from its queue, and grant the capacity that this frees.
    pub(super) fn withdraw(&self, key: Key) {
        // A broken tree has no grant to pass on.
        let Some(mut state) = self.lock_unless_broken() else {
            return;
        };
        let mut wakes = WakeList::new();
        let waker = state.withdraw(key, &mut wakes);
        Self::finish(state, wakes);
        drop(waker);
    }
}
