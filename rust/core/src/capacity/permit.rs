//! `Permit`, a cost that is held until it is released, and the methods of `Tree` for a `PermitId`. `Tree::try_acquire`
//! and the future `Acquire` return permits.

use super::adaptive::Outcome;
use super::auto_rate::StatedLimit;
use super::model::permit_record::Held;
use super::{
    AlarmId, Amount, Cost, NodeError, NodeId, PermitError, PermitId, ResourceId, Resume, Tree,
};
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
    /// Lets the second of `release` and drop skip the lock. The lock decides which of them gives the cost back.
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

    /// Release the permit now rather than on drop. Idempotent.
    ///
    /// Slots come back. Quota of a rate comes back with time only, and a budget stays spent.
    #[inline]
    pub fn release(&self) {
        if !self.released.swap(true, Ordering::Relaxed) {
            self.tree.release(self.id);
        }
    }

    /// Correct the cost to the actual amounts of the resources named; may be called repeatedly.
    ///
    /// * Rate: a larger amount makes debt. A smaller one gives the rest back, but at most the least debt since the grant, as time has
    ///   brought the remainder already.
    /// * Budget: exact in both directions, and may go beyond the budget.
    /// * Slots: a smaller amount gives the rest back at once; a larger one is refused.
    ///
    /// O(log permits) at each rate of the path, and O(permits) at worst.
    ///
    /// # Errors
    ///
    /// [`PermitError`]; nothing was changed then.
    pub fn settle(&self, actual: &[(ResourceId, Amount)]) -> Result<(), PermitError> {
        self.tree.settle(self.id, actual)
    }

    /// Give back the slots until [`resume`](Self::resume); quota and budget stay taken.
    ///
    /// # Errors
    ///
    /// [`PermitError`] if it was released or is suspended already.
    pub fn suspend(&self) -> Result<(), PermitError> {
        self.tree.suspend(self.id)
    }

    /// Take the slots again, queued like any other request; see [`Resume`]. Fails, as an acquire does, if it would wait for capacity
    /// that its own owner holds.
    ///
    /// # Errors
    ///
    /// [`PermitError`] if it was released, or is not suspended.
    pub fn resume(&self, alarm: Option<AlarmId>) -> Result<Resume, PermitError> {
        self.tree.take_again(self.id, alarm)
    }

    /// Report the outcome of the work to the adaptive limits and the breakers that it is held at; see [`Tree::report`].
    pub fn report(&self, outcome: Outcome) {
        self.tree.report(self.id, outcome);
    }

    /// Return its id.
    #[inline]
    pub fn id(&self) -> PermitId {
        self.id
    }

    /// Return its id without releasing it; call [`Tree::release`] later.
    #[inline]
    pub fn into_id(self) -> PermitId {
        // The drop then skips the release.
        self.released.store(true, Ordering::Relaxed);
        self.id
    }

    /// Return the cost that it holds, as settled; a part may be zero then. `None` once released.
    pub fn cost(&self) -> Option<Cost> {
        self.tree.cost(self.id)
    }

    /// Return the node that it is held at.
    #[inline]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Return whether it has been released.
    #[inline]
    pub fn is_released(&self) -> bool {
        self.released.load(Ordering::Relaxed)
    }

    /// Return whether it is suspended, and not resumed yet.
    pub fn is_suspended(&self) -> bool {
        self.tree.is_suspended(self.id)
    }
}

/// Operations on a permit by its id, for callers that keep the tree anyway and ensure the release. An id of another tree may name
/// no permit, or a wrong one.
impl Tree {
    /// As [`Permit::release`].
    // Not inlined into other crates, which are compiled without overflow checks; nor are the functions that it calls.
    pub fn release(&self, permit: PermitId) {
        // A broken tree has nothing to give back to, and drops must not panic.
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
    /// [`PermitError`]; nothing was changed then.
    pub fn settle(
        &self,
        permit: PermitId,
        actual: &[(ResourceId, Amount)],
    ) -> Result<(), PermitError> {
        self.act(|state, wakes| state.settle(permit.0, actual, wakes))
    }

    /// Spend an amount of each budget with this name on the path of a node, for calls of an earlier process. It may go beyond the budget.
    ///
    /// # Errors
    ///
    /// [`NodeError::Closed`], and [`NodeError::Unlimited`] for a resource that is no budget.
    ///
    /// # Panics
    ///
    /// For a node of another tree.
    pub fn spend(&self, node: NodeId, id: ResourceId, amount: Amount) -> Result<(), NodeError> {
        self.act_at(node, |state, wakes| {
            state.spend(node.key, id, amount, wakes)
        })
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

    /// Report the outcome of the work that a permit was acquired for to the adaptive limits and the breakers that it is held at. Call it
    /// before the release. Does nothing after that, or without such a limit or breaker.
    ///
    /// For an adaptive limit the first result tells the duration, from the grant on, and after it only congestion counts. A breaker
    /// counts each report as a call.
    pub fn report(&self, permit: PermitId, outcome: Outcome) {
        // As in `release`.
        let Some(mut state) = self.lock_unless_broken() else {
            return;
        };
        let mut wakes = WakeList::new();
        // First the breakers: a higher limit must not grant what a breaker is about to hold off.
        state.report_to_breakers(permit.0, outcome, &mut wakes);
        state.report(permit.0, outcome, &mut wakes);
        Self::finish(state, wakes);
    }

    /// Return the resources of a permit's cost whose rate follows the server, at a node of its path.
    pub fn auto_rates(&self, permit: PermitId) -> Vec<ResourceId> {
        let state = self.lock_unless_broken();
        state.map_or_else(Vec::new, |state| state.auto_rates(permit.0))
    }

    /// Report the limits that the server stated in its answer to the work of a permit. Each is of the nearest node of the path
    /// whose rate of that resource follows the server. Does nothing without such a node, or after the release.
    pub fn report_stated(&self, permit: PermitId, stated: &[(ResourceId, StatedLimit)]) {
        let Some(mut state) = self.lock_unless_broken() else {
            return;
        };
        let mut wakes = WakeList::new();
        state.report_stated(permit.0, stated, &mut wakes);
        Self::finish(state, wakes);
    }

    /// Return whether `node` or one of its ancestors has an adaptive limit or an auto rate.
    pub fn is_adaptive(&self, node: NodeId) -> bool {
        let Some(state) = self.lock_unless_broken() else {
            return false;
        };
        (state.find_node(node.key)).is_some_and(|node| state.has_adaptive_limit(node))
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
