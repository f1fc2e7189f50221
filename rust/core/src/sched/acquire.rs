use super::{NodeId, Permit, Tree};
use crate::sync::{Arc, Key};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A cost at a node of a [`Tree`] and at each of its ancestors, as soon as it is granted; made by [`Tree::acquire`].
///
/// The place in the line is taken by the first poll.
///
/// # Cancel safety
///
/// Dropping it leaks nothing: a grant that was not collected is annulled, and in the same step goes to those whom it
/// fits. What is lost is the place in the line.
///
/// # Panics
///
/// If polled after completion.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Acquire {
    /// `None` once complete.
    tree: Option<Arc<Tree>>,
    node: NodeId,
    cost: u64,
    /// The place in the node's line, from the first poll that was not granted until completion.
    key: Option<Key>,
}

impl Acquire {
    #[inline]
    pub(super) fn new(tree: Arc<Tree>, node: NodeId, cost: u64) -> Self {
        Self {
            tree: Some(tree),
            node,
            cost,
            key: None,
        }
    }

    /// What it asks for.
    #[inline]
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// Where it asks for it.
    #[inline]
    pub fn node(&self) -> NodeId {
        self.node
    }
}

impl Future for Acquire {
    type Output = Permit;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let index = this.node.index;
        // Outlives the guard, so that a waker which ends up in here is dropped after unlocking.
        let mut spare = None;
        loop {
            let tree = this
                .tree
                .as_ref()
                .expect("`Acquire` polled after completion");
            let mut state = tree.lock_for(this.node);
            let granted = match this.key {
                None => state.try_charge(index, this.cost),
                Some(key) => state.collect(index, key),
            };
            if granted {
                break;
            }
            if state.enrol(index, this.cost, &mut this.key, cx.waker(), &mut spare) {
                return Poll::Pending;
            }
            drop(state);
            spare = Some(cx.waker().clone());
            // Capacity may have come free while the lock was away: look again before waiting for it.
        }
        this.key = None;
        let tree = this.tree.take().expect("it was here in the loop");
        Poll::Ready(Permit::new(tree, this.node, this.cost))
    }
}

impl Drop for Acquire {
    #[inline]
    fn drop(&mut self) {
        let (Some(tree), Some(key)) = (&self.tree, self.key) else {
            return;
        };
        // In a broken tree there is nothing to hand on, and nobody to hand it to.
        let Some(mut state) = tree.lock_unless_broken() else {
            return;
        };
        let (left, wakes) = state.withdraw(self.node.index, key);
        drop(state);
        drop(left);
        wakes.wake_all();
    }
}
