use super::lease::Held;
use super::{AlarmId, Amount, Cost, NodeId, PermitError, Resource, Resume, Tree};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Key, WakeList};
use std::fmt;

/// Names a permit of its tree, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PermitId(pub(super) Key);

/// A cost that is held at a node and at each of its ancestors until it is released or dropped.
///
/// Any thread may call any method.
#[must_use = "dropping a permit releases it"]
pub struct Permit {
    tree: Arc<Tree>,
    node: NodeId,
    lease: Key,
    /// Spares the second one of `release` and drop the lock. Who gives the cost back is decided under it.
    released: AtomicBool,
}

impl Permit {
    #[inline]
    pub(super) fn new(tree: Arc<Tree>, node: NodeId, lease: Key) -> Self {
        Self {
            tree,
            node,
            lease,
            released: AtomicBool::new(false),
        }
    }

    /// Gives back what it holds now rather than on drop. Idempotent.
    ///
    /// Slots come back; what a rate gave does not, time brings it; what was taken of a budget is spent.
    #[inline]
    pub fn release(&self) {
        if self.released.swap(true, Ordering::Relaxed) {
            return;
        }
        // In a broken tree there is nothing to give back to, and drops must not panic.
        let Some(mut state) = self.tree.lock_unless_broken() else {
            return;
        };
        let mut wakes = WakeList::new();
        state.end(self.lease, false, &mut wakes);
        if state.waiting > 0 {
            state.dispatch(&mut wakes);
        }
        Tree::finish(state, wakes);
    }

    /// Corrects what was asked for to what it really was, of the resources named; once or more often.
    ///
    /// Of a rate, more makes debt; less gives back at most what the rate has not brought again since. Of a budget, both
    /// are exact, and more may go beyond it. Of slots, less is given back at once and more is refused.
    ///
    /// # Errors
    ///
    /// [`PermitError`], and then nothing was changed.
    pub fn settle(&self, actual: &[(Resource, Amount)]) -> Result<(), PermitError> {
        self.tree.act(self.node, |state, wakes| {
            state.settle(self.lease, actual, wakes)
        })
    }

    /// Gives back its slots for a while; what it took of rates and budgets stays taken.
    ///
    /// # Errors
    ///
    /// [`PermitError`] if it was released or is suspended already.
    pub fn suspend(&self) -> Result<(), PermitError> {
        self.tree
            .act(self.node, |state, wakes| state.suspend(self.lease, wakes))
    }

    /// Takes the slots again, in a line as any other; see [`Resume`].
    ///
    /// # Errors
    ///
    /// [`PermitError`] if it was released, or is not suspended.
    pub fn resume(&self, alarm: Option<AlarmId>) -> Result<Resume, PermitError> {
        let state = self.tree.lock_for(self.node);
        let held = state.leases.get(self.lease).map(|lease| lease.held);
        drop(state);
        match held {
            None => Err(PermitError::Released),
            Some(Held::Yes) => Err(PermitError::Held),
            Some(Held::Resuming(_) | Held::Regained) => Err(PermitError::Suspended),
            Some(Held::No) => Ok(Resume::new(
                Arc::clone(&self.tree),
                self.node,
                self.lease,
                alarm,
            )),
        }
    }

    /// Its name.
    #[inline]
    pub fn id(&self) -> PermitId {
        PermitId(self.lease)
    }

    /// What it holds: what was asked for, as settled since, and so perhaps nothing of a resource. `None` once released.
    pub fn cost(&self) -> Option<Cost> {
        let state = self.tree.lock_for(self.node);
        Some(state.leases.get(self.lease)?.cost.clone())
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

    /// Whether it is suspended, and not taken again yet.
    pub fn is_suspended(&self) -> bool {
        let state = self.tree.lock_for(self.node);
        let lease = state.leases.get(self.lease);
        lease.is_some_and(|lease| lease.held != Held::Yes)
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        self.release();
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("node", &self.node)
            .field("released", &self.is_released())
            .finish_non_exhaustive()
    }
}
