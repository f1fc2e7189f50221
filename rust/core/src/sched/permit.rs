use super::{NodeId, Tree};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicBool, Ordering};
use std::fmt;

/// A cost that is held at a node and at each of its ancestors until it is released or dropped.
#[must_use = "dropping a permit releases it"]
pub struct Permit {
    tree: Arc<Tree>,
    node: NodeId,
    cost: u64,
    /// Decides who gives the cost back, once. What it was held for is ordered by the tree's lock, not by this.
    released: AtomicBool,
}

impl Permit {
    #[inline]
    pub(super) fn new(tree: Arc<Tree>, node: NodeId, cost: u64) -> Self {
        Self {
            tree,
            node,
            cost,
            released: AtomicBool::new(false),
        }
    }

    /// Gives the cost back now rather than on drop. Idempotent, from any thread.
    #[inline]
    pub fn release(&self) {
        if !self.released.swap(true, Ordering::Relaxed) {
            self.tree.give_back(self.node, self.cost);
        }
    }

    /// What it holds, or held.
    #[inline]
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// Where it holds it.
    #[inline]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Whether it has been released.
    #[inline]
    pub fn is_released(&self) -> bool {
        self.released.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        // Nobody else can have it any more, so a plain look will do.
        if !self.is_released() {
            self.tree.give_back(self.node, self.cost);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("node", &self.node)
            .field("cost", &self.cost)
            .field("released", &self.is_released())
            .finish_non_exhaustive()
    }
}
