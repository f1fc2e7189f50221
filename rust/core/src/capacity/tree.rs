//! `Tree`, the interface of the scheduler: it locks the `State` and calls `policy/`, `reconfigure.rs` and `stats.rs`.
//! Users of the crate and the Python bindings call it.

use super::index::NIL;
use super::model::state::State;
use super::{
    Acquire, AcquireError, AcquireRequest, Alarm, Amount, BreakerOptions, Cost, Limit, NodeError,
    NodeId, NodeOptions, OwnerId, Permit, PermitId, ResourceId, Settings, Snapshot, Time, Usage,
    Weight,
};
use crate::sync::{Arc, Key, Mutex, MutexGuard, WakeList};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The longest path of nodes from a root to a leaf.
pub const MAX_DEPTH: usize = 64;

const FOREIGN_NODE: &str = "the node belongs to another tree";

/// A tree of capacities; the [module](super) explains how it works.
///
/// Every method panics for a node of another tree. The tree has no timer: the caller must call [`tick`](Self::tick) at the time of
/// [`next_ready`](Self::next_ready), which an [`Alarm`] reports. Each method that frees capacity grants it in the same call.
///
/// ```
/// use headrace_core::capacity::{AcquireRequest, NodeOptions, ResourceId, Settings, Tree};
///
/// let tree = Tree::new(Settings::default());
/// let all = tree.root(NodeOptions::slots(10))?;
/// let part = tree.add(all, NodeOptions::slots(4))?;
/// let permit = tree.try_acquire(AcquireRequest::slots(part, 3))?.expect("all slots are free");
/// assert_eq!(tree.held(all, ResourceId::SLOTS), tree.held(part, ResourceId::SLOTS));
/// assert!(tree.try_acquire(AcquireRequest::slots(part, 2))?.is_none(), "1 slot of the part is left");
/// drop(permit);
/// assert!(tree.held(all, ResourceId::SLOTS).is_zero());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Tree {
    /// Distinguishes the nodes of this tree from those of others.
    id: u64,
    /// A leaf lock: no foreign code runs under it, except the clock.
    state: Mutex<State>,
}

impl Tree {
    /// Create a tree without a node.
    #[allow(clippy::needless_pass_by_value)] // the settings of a tree have no other owner
    pub fn new(settings: Settings) -> Arc<Self> {
        // Not the shim's atomic: an identity is no part of an algorithm that a model should explore.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            id,
            state: Mutex::new(State::new(id, &settings)),
        })
    }

    /// Return the id of a resource name in this tree, new or known. `"slots"` is [`ResourceId::SLOTS`].
    pub fn resource(&self, name: &str) -> ResourceId {
        self.lock().resource_id(name)
    }

    /// Return the name of a resource.
    ///
    /// # Panics
    ///
    /// If it belongs to another tree and is unknown here.
    pub fn resource_name(&self, resource: ResourceId) -> Arc<str> {
        let name = self.lock().name_of(resource).cloned();
        name.expect("the resource belongs to another tree")
    }

    /// Add the root, of which a tree has one.
    ///
    /// # Errors
    ///
    /// [`NodeError`] for a second root, and for invalid limits.
    pub fn root(&self, options: NodeOptions) -> Result<NodeId, NodeError> {
        let key = self.lock().add(None, options)?;
        Ok(self.id_of(key))
    }

    /// Add a node below `parent`. Any node may have both children and waiters; its waiters are one more child, of weight 1.
    ///
    /// # Errors
    ///
    /// [`NodeError::Closed`], [`NodeError::TooDeep`], and those for invalid limits.
    pub fn add(&self, parent: NodeId, options: NodeOptions) -> Result<NodeId, NodeError> {
        let key = self.lock_for(parent).add(Some(parent.key), options)?;
        Ok(self.id_of(key))
    }

    /// Acquire a cost only if it is granted at once, in the order of all waiters; otherwise return `None` without queueing.
    ///
    /// # Errors
    ///
    /// [`AcquireError`], except for deadlocks, as it does not wait.
    #[allow(clippy::needless_pass_by_value)] // as in `acquire`
    pub fn try_acquire(
        self: &Arc<Self>,
        request: AcquireRequest,
    ) -> Result<Option<Permit>, AcquireError> {
        let taken = self.try_take(&request)?;
        Ok(taken.map(|id| Permit::new(Arc::clone(self), request.node, id.0)))
    }

    /// As [`try_acquire`](Self::try_acquire), but the caller must [release](Self::release) the permit.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire).
    // Not `#[inline]`, nor are the functions that it calls: a crate without overflow checks would compile a copy of its own.
    pub fn try_take(&self, request: &AcquireRequest) -> Result<Option<PermitId>, AcquireError> {
        let mut state = self.lock_for(request.node);
        if let Some(permit) = state.submit_uncontended(request) {
            return Ok(Some(PermitId(permit)));
        }
        let mut wakes = WakeList::new();
        let granted = state.try_submit(request, &mut wakes);
        Self::finish(state, wakes);
        Ok(granted?.map(PermitId))
    }

    /// Acquire a cost as soon as it is granted; see [`Acquire`]. All checks are made at its first poll.
    pub fn acquire(self: &Arc<Self>, request: AcquireRequest) -> Acquire {
        Acquire::new(Arc::clone(self), request)
    }

    /// Check whether a request could be granted now or later, as the first poll of [`acquire`](Self::acquire) does, except for
    /// deadlocks. For callers that must fail before they wait.
    ///
    /// # Errors
    ///
    /// [`AcquireError`].
    pub fn check_request(&self, request: &AcquireRequest) -> Result<(), AcquireError> {
        self.lock_for(request.node).check_request(request).map(drop)
    }

    /// Replace all limits of `node`.
    ///
    /// A limit below the amount held revokes nothing; 0 pauses. A budget keeps the amount spent, a rate the amount taken. A waiter
    /// whose cost exceeds a limit now is parked until it no longer does.
    ///
    /// # Errors
    ///
    /// [`NodeError`], also for limits that do not cover the floors of nodes below; nothing was changed then.
    pub fn resize(&self, node: NodeId, limits: &[(ResourceId, Limit)]) -> Result<(), NodeError> {
        self.act_at(node, |state, wakes| state.resize(node.key, limits, wakes))
    }

    /// Change the [floor](NodeOptions::floor) of `node`; zero for none.
    ///
    /// # Errors
    ///
    /// [`NodeError::Closed`]; and, as [`add`](Self::add), [`NodeError::RootFloor`], [`NodeError::FloorKind`], [`NodeError::Floor`]
    /// and [`NodeError::Floors`]. Nothing was changed then.
    pub fn refloor(&self, node: NodeId, floor: Amount) -> Result<(), NodeError> {
        self.lock_for(node).refloor(node.key, floor)
    }

    /// Change the weight of `node`.
    ///
    /// # Errors
    ///
    /// [`NodeError::Closed`].
    pub fn reweigh(&self, node: NodeId, weight: Weight) -> Result<(), NodeError> {
        self.lock_for(node).reweigh(node.key, weight)
    }

    /// Grant nothing at `node` and below until [`resume`](Self::resume). Idempotent.
    ///
    /// # Errors
    ///
    /// [`NodeError::Closed`].
    pub fn pause(&self, node: NodeId) -> Result<(), NodeError> {
        self.act_at(node, |state, wakes| state.pause(node.key, true, wakes))
    }

    /// End a pause. Idempotent.
    ///
    /// # Errors
    ///
    /// [`NodeError::Closed`].
    pub fn resume(&self, node: NodeId) -> Result<(), NodeError> {
        self.act_at(node, |state, wakes| state.pause(node.key, false, wakes))
    }

    /// Grant no request for `resource` at `node` and below before `delay` has passed; no request at all without a resource. Afterwards
    /// grants are ramped up (`policy/cooldown.rs`). Returns the time until the node opens.
    ///
    /// A later call may extend the cooldown, but never shorten it; a delay of zero changes nothing. Without a delay it is 0.5 s, doubled
    /// up to 64 s by each cooldown if no call has ended since the last one, and halved by each other one. Without a delay and a
    /// resource, see [`back_off`](Self::back_off), too.
    ///
    /// # Errors
    ///
    /// [`NodeError::Closed`], and [`NodeError::Unlimited`] if the node does not limit that resource.
    pub fn cool_down(
        &self,
        node: NodeId,
        resource: Option<ResourceId>,
        delay: Option<Duration>,
    ) -> Result<Duration, NodeError> {
        self.act_at(node, |state, wakes| match (resource, delay) {
            (None, None) => state.back_off(node.key, node.key, wakes),
            _ => state.cool_down(node.key, resource, delay, wakes),
        })
    }

    /// Cool down `node` after a throttled answer without a delay to a call at `leaf`, which is `node` or below it. If the call was
    /// [reported](Self::report) and has lowered an adaptive limit on the path of `leaf`, `node` only pauses, for one mean hold at most.
    ///
    /// # Errors
    ///
    /// [`NodeError::Closed`].
    ///
    /// # Panics
    ///
    /// For a node of another tree.
    pub fn back_off(&self, node: NodeId, leaf: NodeId) -> Result<Duration, NodeError> {
        assert!(leaf.tree == self.id, "{FOREIGN_NODE}");
        self.act_at(node, |state, wakes| {
            state.back_off(node.key, leaf.key, wakes)
        })
    }

    /// Set the breaker of `node`, or remove it. The failures that are [reported](Self::report) open it: then nothing is granted at `node`
    /// and below for a while, and after that only probes, until they succeed (`policy/breaker.rs`).
    ///
    /// The breaker is closed and has counted nothing, also if it replaces an open one.
    ///
    /// # Errors
    ///
    /// [`NodeError::Closed`].
    pub fn set_breaker(
        &self,
        node: NodeId,
        options: Option<BreakerOptions>,
    ) -> Result<(), NodeError> {
        self.act_at(node, |state, wakes| {
            state.set_breaker(node.key, options, wakes)
        })
    }

    /// Return for how long `node` and its ancestors were cooled down since their creation, in sum, and how long until all are open.
    pub fn cooled(&self, node: NodeId) -> (Duration, Duration) {
        self.look(node, State::cooled).unwrap_or_default()
    }

    /// Return whether released capacity can help a request for a cost at `node`. It cannot if only quota is missing, nor while a pause, a
    /// cooldown or a limit of 0 holds the request off.
    pub fn release_helps(&self, node: NodeId, cost: &Cost) -> bool {
        self.look(node, |state, node| state.release_helps(node, cost))
            .unwrap_or(true)
    }

    /// Close `node` and everything below. Its waiters and all later requests fail with [`AcquireError::Closed`]; permits stay valid.
    /// Idempotent.
    pub fn close(&self, node: NodeId) {
        self.act_at(node, |state, wakes| state.close(node.key, wakes));
    }

    /// Close `node` itself, and delete it when its last permit and its last child are gone. Children stay open under its limits.
    /// Its memory is freed, except for 16 bytes per node that existed at once, until the tree has no node. Idempotent.
    pub fn remove(&self, node: NodeId) {
        self.act_at(node, |state, wakes| state.remove(node.key, wakes));
    }

    /// Return the amounts available at `node` now, apart from waiters: for each resource limited on its path, sorted, the least that a
    /// node of the path has left. Zero if paused.
    pub fn peek(&self, node: NodeId) -> Vec<(ResourceId, Amount)> {
        self.look(node, State::peek).unwrap_or_default()
    }

    /// Return the amount of `resource` that [`peek`](Self::peek) reports for `node`; `None` if no node limits it.
    pub fn available(&self, node: NodeId, resource: ResourceId) -> Option<Amount> {
        let all = self.peek(node);
        let found = all.into_iter().find(|(known, _)| *known == resource);
        found.map(|(_, amount)| amount)
    }

    /// Return the amount of `resource` that is held at `node` and below, even if `node` does not limit it; see
    /// [`ResourceUsage::held`](super::ResourceUsage::held).
    pub fn held(&self, node: NodeId, resource: ResourceId) -> Amount {
        let held = self.look(node, |state, node| state.held(node, resource));
        held.unwrap_or_default()
    }

    /// Return the resources that are limited on the path of `node`, sorted: those that a request there may name.
    pub fn known(&self, node: NodeId) -> Vec<ResourceId> {
        self.look(node, State::known).unwrap_or_default()
    }

    /// Return the limits of `node`, sorted by resource.
    pub fn limits(&self, node: NodeId) -> Vec<(ResourceId, Limit)> {
        self.look(node, State::limits).unwrap_or_default()
    }

    /// Return the number of waiters at `node` and below.
    pub fn waiting(&self, node: NodeId) -> usize {
        let waiting = self.look(node, |state, node| state.nodes.at(node).waiting);
        waiting.unwrap_or_default()
    }

    /// Return whether `node` was closed or removed, itself or by an ancestor.
    pub fn is_closed(&self, node: NodeId) -> bool {
        let state = self.lock_for(node);
        state.live(node.key).is_err()
    }

    /// Return the parent of `node`; `None` for the root.
    pub fn parent(&self, node: NodeId) -> Option<NodeId> {
        let state = self.lock_for(node);
        let parent = state.nodes.get(node.key)?.parent;
        (parent != NIL).then(|| state.id_of(parent))
    }

    /// Return the name of `node`.
    pub fn name(&self, node: NodeId) -> Option<Arc<str>> {
        self.lock_for(node).nodes.get(node.key)?.name.clone()
    }

    /// Return the current usage of `node`.
    pub fn usage(&self, node: NodeId) -> Option<Usage> {
        self.look(node, State::usage)
    }

    /// Return the usage of `node` and everything below, at one moment. `None` once it is removed and deleted.
    pub fn snapshot(&self, node: NodeId) -> Option<Snapshot> {
        self.look(node, State::snapshot)
    }

    /// Return the permits that were granted to `owner` and not released, oldest first.
    pub fn permits_of(&self, owner: OwnerId) -> Vec<PermitId> {
        let state = self.lock();
        let permits = state.permits_of(owner);
        (permits.iter().rev())
            .map(|&permit| PermitId(state.permits.key_at(permit)))
            .collect()
    }

    /// Assign a permit without an owner to `owner`, as if it had been acquired so. Does nothing for another permit.
    pub fn own(&self, permit: PermitId, owner: OwnerId) {
        self.lock().own(permit.0, owner);
    }

    /// Create an [`Alarm`], which tells a timer when to call [`tick`](Self::tick).
    pub fn alarm(self: &Arc<Self>) -> Alarm {
        Alarm::new(Arc::clone(self))
    }

    /// Grant the quota that has become ready. Call it at a deadline; at any other time it does nothing.
    pub fn tick(&self) {
        let mut state = self.lock();
        let mut wakes = WakeList::new();
        state.read_clock();
        state.dispatch(&mut wakes);
        Self::finish(state, wakes);
    }

    /// Return the next time at which [`tick`](Self::tick) has work: the earliest of all deadlines. `None` if no waiter waits for time.
    pub fn next_ready(&self) -> Option<Time> {
        self.lock().next_ready()
    }

    /// Return the current time of the tree's clock.
    pub fn now(&self) -> Time {
        self.lock().time()
    }

    /// Return whether a panic under the lock left the state in doubt. Every other method then panics, except for
    /// dropping permits and futures.
    pub fn is_broken(&self) -> bool {
        self.state.is_poisoned()
    }

    /// Verify every invariant of the [module](super) from scratch, and panic if one is broken. O(everything).
    ///
    /// From then on, each grant is verified to be made to the right waiter, too.
    #[cfg(any(test, debug_assertions))]
    pub fn check(&self) {
        let mut state = self.lock();
        state.is_watched = true;
        state.check();
    }

    /// Inspect a node that still exists, at the current time. The clock reading is not stored: whichever call stores it has to grant
    /// the quota that has become ready.
    fn look<R>(&self, node: NodeId, look: impl FnOnce(&State, u32) -> R) -> Option<R> {
        let mut state = self.lock_for(node);
        let place = state.find_node(node.key)?;
        if state.waiting == 0 && state.ramps > 0 {
            // No timer brings the ramps up to date, and there is no waiter to be granted or woken.
            state.read_clock();
            state.dispatch(&mut WakeList::new());
        }
        let noticed = state.now;
        state.read_clock();
        let seen = look(&state, place);
        state.now = noticed;
        Some(seen)
    }

    fn id_of(&self, key: Key) -> NodeId {
        NodeId { tree: self.id, key }
    }

    /// Run an operation under the lock, then wake the futures that it granted.
    pub(super) fn act_at<R>(
        &self,
        node: NodeId,
        act: impl FnOnce(&mut State, &mut WakeList) -> R,
    ) -> R {
        assert!(node.tree == self.id, "{FOREIGN_NODE}");
        self.act(act)
    }

    /// Run an operation under the lock, then wake the futures that it has granted.
    pub(super) fn act<R>(&self, act: impl FnOnce(&mut State, &mut WakeList) -> R) -> R {
        let mut state = self.lock();
        let mut wakes = WakeList::new();
        let result = act(&mut state, &mut wakes);
        Self::finish(state, wakes);
        result
    }

    /// End an operation that may have granted waiters or changed the deadline.
    #[inline]
    pub(super) fn finish(mut state: MutexGuard<'_, State>, mut wakes: WakeList) {
        state.notify_alarms(&mut wakes);
        drop(state);
        wakes.wake_all();
    }

    #[inline]
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Lock, in code that must not panic.
    #[inline]
    pub(super) fn lock_unless_broken(&self) -> Option<MutexGuard<'_, State>> {
        self.state.lock_unless_poisoned()
    }

    /// Lock, after checking that `node` belongs to this tree.
    #[inline]
    pub(super) fn lock_for(&self, node: NodeId) -> MutexGuard<'_, State> {
        assert!(node.tree == self.id, "{FOREIGN_NODE}");
        self.state.lock()
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Tree");
        if let Some(state) = self.state.try_lock() {
            out.field("nodes", &state.nodes.len())
                .field("permits", &state.permits.len())
                .field("waiting", &state.waiting);
        }
        out.finish_non_exhaustive()
    }
}
