use super::model::permit_record::Held;
use super::{AlarmId, Amount, Cost, NodeId, PermitError, PermitId, ResourceId, Resume, Tree};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Key, WakeList};
use std::fmt;

/// A cost that is held at a node and at each of its ancestors until it is released or dropped.
///
/// Any thread may call any method.
#[must_use = "dropping a permit releases it"]
pub struct Permit {
    tree: Arc<Tree>,
    node: NodeId,
    id: PermitId,
    /// Spares the second one of `release` and drop the lock. Who gives the cost back is decided under it.
    released: AtomicBool,
}

impl Permit {
    #[inline]
    pub(super) fn new(tree: Arc<Tree>, node: NodeId, permit: Key) -> Self {
        Self {
            tree,
            node,
            id: PermitId(permit),
            released: AtomicBool::new(false),
        }
    }

    /// Gives back what it holds now rather than on drop. Idempotent.
    ///
    /// Slots come back; what a rate gave does not, time brings it; what was taken of a budget is spent.
    #[inline]
    pub fn release(&self) {
        if !self.released.swap(true, Ordering::Relaxed) {
            self.tree.release(self.id);
        }
    }

    /// Corrects what was asked for to what it really was, of the resources named; once or more often.
    ///
    /// Of a rate, more makes debt; less gives back what was not needed, but no more than the least debt since the grant: what the
    /// rate has brought since is there already. Of a budget, both are exact, and more may go beyond it. Of slots, less is given back at
    /// once and more is refused. O(log permits) at each rate of the path, and at the worst O(permits).
    ///
    /// # Errors
    ///
    /// [`PermitError`], and then nothing was changed.
    pub fn settle(&self, actual: &[(ResourceId, Amount)]) -> Result<(), PermitError> {
        self.tree.settle(self.id, actual)
    }

    /// Gives back its slots for a while; what it took of rates and budgets stays taken.
    ///
    /// # Errors
    ///
    /// [`PermitError`] if it was released or is suspended already.
    pub fn suspend(&self) -> Result<(), PermitError> {
        self.tree.suspend(self.id)
    }

    /// Takes the slots again, in a line as any other; see [`Resume`]. If it would wait for what its owner holds, it fails as an acquire
    /// does.
    ///
    /// # Errors
    ///
    /// [`PermitError`] if it was released, or is not suspended.
    pub fn resume(&self, alarm: Option<AlarmId>) -> Result<Resume, PermitError> {
        self.tree.take_again(self.id, alarm)
    }

    /// Its name.
    #[inline]
    pub fn id(&self) -> PermitId {
        self.id
    }

    /// Its name alone, and nothing that releases it: [`Tree::release`] does.
    #[inline]
    pub fn into_id(self) -> PermitId {
        // What its drop does is done, in its eyes.
        self.released.store(true, Ordering::Relaxed);
        self.id
    }

    /// What it holds: what was asked for, as settled since, and so perhaps nothing of a resource. `None` once released.
    pub fn cost(&self) -> Option<Cost> {
        self.tree.cost(self.id)
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
        self.tree.is_suspended(self.id)
    }
}

/// What is done with a permit, by its name: for those who keep the tree anyway, and see to it that the permit is released. A
/// name of another tree is nobody's, or somebody else's.
impl Tree {
    /// As [`Permit::release`].
    // Not inlined into other crates, which are compiled without checks of overflow; nor is what it calls.
    pub fn release(&self, permit: PermitId) {
        // In a broken tree there is nothing to give back to, and drops must not panic.
        let Some(mut state) = self.lock_unless_broken() else {
            return;
        };
        if state.release_uncontended(permit.0) {
            return;
        }
        let mut wakes = WakeList::new();
        state.end(permit.0, false, &mut wakes);
        if state.waiting > 0 {
            state.dispatch(&mut wakes);
        }
        Self::finish(state, wakes);
    }

    /// As [`Permit::settle`].
    ///
    /// # Errors
    ///
    /// [`PermitError`], and then nothing was changed.
    pub fn settle(
        &self,
        permit: PermitId,
        actual: &[(ResourceId, Amount)],
    ) -> Result<(), PermitError> {
        self.act(|state, wakes| state.settle(permit.0, actual, wakes))
    }

    /// As [`Permit::suspend`].
    ///
    /// # Errors
    ///
    /// [`PermitError`] if it was released or is suspended already.
    pub fn suspend(&self, permit: PermitId) -> Result<(), PermitError> {
        self.act(|state, wakes| state.suspend(permit.0, wakes))
    }

    /// As [`Permit::resume`].
    ///
    /// # Errors
    ///
    /// [`PermitError`] if it was released, or is not suspended.
    pub fn take_again(
        self: &Arc<Self>,
        permit: PermitId,
        alarm: Option<AlarmId>,
    ) -> Result<Resume, PermitError> {
        let state = self.lock();
        let record = state.permits.get(permit.0);
        let (held, node) = match record {
            None => return Err(PermitError::Released),
            Some(record) => (record.held, state.id_of(record.node)),
        };
        drop(state);
        match held {
            Held::Yes => Err(PermitError::Held),
            Held::Resuming(_) | Held::Regained => Err(PermitError::Suspended),
            Held::No => Ok(Resume::new(Arc::clone(self), node, permit.0, alarm)),
        }
    }

    /// As [`Permit::cost`].
    pub fn cost(&self, permit: PermitId) -> Option<Cost> {
        Some(self.lock().permits.get(permit.0)?.cost.clone())
    }

    /// As [`Permit::is_suspended`].
    pub fn is_suspended(&self, permit: PermitId) -> bool {
        let state = self.lock();
        let permit = state.permits.get(permit.0);
        permit.is_some_and(|permit| permit.held != Held::Yes)
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
