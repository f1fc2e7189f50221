use super::Tree;
use crate::sync::{Arc, Key, WakeList};
use std::sync::Weak;

/// A place in a line, to be given up by somebody who cannot reach the future that stands there.
///
/// A future whose executor is gone is never polled again, and perhaps never dropped. Whoever finds that out, when
/// waking it fails, gives up its place: as if the future had been dropped, and what it was granted goes to the next.
/// Should it be polled after all, it begins to wait anew.
#[derive(Debug)]
pub struct QueuePosition {
    /// Weak, since the waker in the line may own this.
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

    /// Leaves the line, and hands on what was granted. Does nothing if the future has left by itself.
    pub fn give_up(&self) {
        if let Some(tree) = self.tree.upgrade() {
            tree.withdraw(self.key);
        }
    }
}

impl Tree {
    /// Takes a future out of its line; whom that makes room for is granted.
    pub(super) fn withdraw(&self, key: Key) {
        // In a broken tree there is nothing to hand on, and nobody to hand it to.
        let Some(mut state) = self.lock_unless_broken() else {
            return;
        };
        let mut wakes = WakeList::new();
        let waker = state.withdraw(key, &mut wakes);
        Self::finish(state, wakes);
        drop(waker);
    }
}
