use super::index::NIL;
use super::model::state::State;
use super::{
    Acquire, AcquireError, AcquireRequest, Alarm, Amount, Limit, NodeError, NodeId, NodeOptions,
    OwnerId, Permit, PermitId, ResourceId, Settings, Snapshot, Time, Usage, Weight,
};
use crate::sync::{Arc, Key, Mutex, MutexGuard, WakeList};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The longest path of nodes from a root to a leaf.
pub const MAX_DEPTH: usize = 64;

const FOREIGN_NODE: &str = "the node belongs to another tree";

/// A tree of capacities; the [module](super) tells how it works.
///
/// In every method a node of another tree is a panic. Nothing but `tick` needs to be called in time, and of the
/// methods that change something each grants, in the same call, whatever it made room for.
///
/// ```
/// use headrace_core::capacity::{Ask, NodeOptions, Resource, Settings, Tree};
///
/// let tree = Tree::new(Settings::default());
/// let all = tree.root(NodeOptions::slots(10))?;
/// let part = tree.add(all, NodeOptions::slots(4))?;
/// let permit = tree.try_acquire(Ask::slots(part, 3))?.expect("nobody else is here");
/// assert_eq!(tree.held(all, Resource::SLOTS), tree.held(part, Resource::SLOTS));
/// assert!(tree.try_acquire(Ask::slots(part, 2))?.is_none(), "1 is left, whatever the root has");
/// drop(permit);
/// assert!(tree.held(all, Resource::SLOTS).is_zero());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Tree {
    /// Tells the nodes of this tree from those of others.
    id: u64,
    /// Leaf lock: nothing of the caller's runs under it but its clock, which promises to be no trouble.
    state: Mutex<State>,
}

impl Tree {
    /// A tree without a node.
    #[allow(clippy::needless_pass_by_value)] // they are the tree's from now on
    pub fn new(settings: Settings) -> Arc<Self> {
        // Not the shim's atomic: a name is no part of any algorithm that a model should explore.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            id,
            state: Mutex::new(State::new(id, &settings)),
        })
    }

    /// The number by which a resource of this name goes in this tree, new or known. `"slots"` is [`Resource::SLOTS`].
    pub fn resource(&self, name: &str) -> ResourceId {
        self.lock().resource_id(name)
    }

    /// The name of a resource.
    ///
    /// # Panics
    ///
    /// If it is of another tree and unknown here.
    pub fn resource_name(&self, resource: ResourceId) -> Arc<str> {
        let name = self.lock().name_of(resource).cloned();
        name.expect("the resource belongs to another tree")
    }

    /// The root, which every tree has once.
    ///
    /// # Errors
    ///
    /// [`NodeError`] for a second root, and for limits that are none.
    pub fn root(&self, options: NodeOptions) -> Result<NodeId, NodeError> {
        let key = self.lock().add(None, options)?;
        Ok(self.id_of(key))
    }

    /// A new node below `parent`. Any node may have children and be asked itself: its own waiters share with its children
    /// as one more child of weight 1 would.
    ///
    /// # Errors
    ///
    /// [`NodeError::Closed`], [`NodeError::TooDeep`], and those for limits that are none.
    pub fn add(&self, parent: NodeId, options: NodeOptions) -> Result<NodeId, NodeError> {
        let key = self.lock_for(parent).add(Some(parent.key), options)?;
        Ok(self.id_of(key))
    }

    /// Takes what is asked for if it can be had at once, in the order in which waiters would get it; else `None`, and
    /// no place in the line is taken.
    ///
    /// # Errors
    ///
    /// [`AcquireError`], except that nothing is a deadlock which does not wait.
    #[allow(clippy::needless_pass_by_value)] // as in `acquire`
    pub fn try_acquire(
        self: &Arc<Self>,
        request: AcquireRequest,
    ) -> Result<Option<Permit>, AcquireError> {
        let taken = self.try_take(&request)?;
        Ok(taken.map(|id| Permit::new(Arc::clone(self), request.node, id.0)))
    }

    /// As [`try_acquire`](Self::try_acquire), but nothing releases what was taken unless the caller [does](Self::release).
    ///
    /// # Errors
    ///
    /// As there.
    // Not inlined into other crates, which are compiled without checks of overflow; nor is what it calls.
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

    /// Takes what is asked for as soon as it is granted; see [`Acquire`]. All checks are made at its first poll.
    pub fn acquire(self: &Arc<Self>, request: AcquireRequest) -> Acquire {
        Acquire::new(Arc::clone(self), request)
    }

    /// Whether an ask could be granted now or later: what [`acquire`](Self::acquire) would find at its first poll,
    /// deadlocks aside. For callers who have to fail before they wait.
    ///
    /// # Errors
    ///
    /// [`AcquireError`].
    pub fn check_request(&self, request: &AcquireRequest) -> Result<(), AcquireError> {
        self.lock_for(request.node).check_request(request).map(drop)
    }

    /// Puts other limits in the place of all limits of `node`.
    ///
    /// Less than is held revokes nothing; 0 pauses. A budget keeps what is spent of it, a rate what was taken. A waiter
    /// whose cost is above a limit now stays, aside, until it is no longer.
    ///
    /// # Errors
    ///
    /// [`NodeError`], and then nothing was changed.
    pub fn resize(&self, node: NodeId, limits: &[(ResourceId, Limit)]) -> Result<(), NodeError> {
        self.act_at(node, |state, wakes| state.resize(node.key, limits, wakes))
    }

    /// Gives `node` another weight.
    ///
    /// # Errors
    ///
    /// [`NodeError::Closed`].
    pub fn reweigh(&self, node: NodeId, weight: Weight) -> Result<(), NodeError> {
        self.lock_for(node).reweigh(node.key, weight)
    }

    /// Grants nothing at `node` and below until [`resume`](Self::resume). Idempotent.
    ///
    /// # Errors
    ///
    /// [`NodeError::Closed`].
    pub fn pause(&self, node: NodeId) -> Result<(), NodeError> {
        self.act_at(node, |state, wakes| state.pause(node.key, true, wakes))
    }

    /// Ends a pause. Idempotent.
    ///
    /// # Errors
    ///
    /// [`NodeError::Closed`].
    pub fn resume(&self, node: NodeId) -> Result<(), NodeError> {
        self.act_at(node, |state, wakes| state.pause(node.key, false, wakes))
    }

    /// Admits nothing that asks for `resource` at `node` and below before `delay` has passed; nothing at all if no
    /// resource is named. A later call may make it longer, never shorter.
    ///
    /// # Errors
    ///
    /// [`NodeError::Closed`], and [`NodeError::Unlimited`] if the node does not limit that resource.
    pub fn retry_after(
        &self,
        node: NodeId,
        resource: Option<ResourceId>,
        delay: Duration,
    ) -> Result<(), NodeError> {
        self.act_at(node, |state, wakes| {
            state.retry_after(node.key, resource, delay, wakes)
        })
    }

    /// Closes `node` and all below: those who wait there and those who come get [`AcquireError::Closed`]. Permits stay
    /// valid. Idempotent.
    pub fn close(&self, node: NodeId) {
        self.act_at(node, |state, wakes| state.close(node.key, wakes));
    }

    /// Closes `node` for its own line and forgets it when its last permit and its last child are gone. Children go on
    /// under its limits. What it took is given back; but for 16 bytes of each, for as many as there ever were at once, until the
    /// tree has no node left. Idempotent.
    pub fn remove(&self, node: NodeId) {
        self.act_at(node, |state, wakes| state.remove(node.key, wakes));
    }

    /// What could be had at `node` now, were nobody waiting: of each resource limited on its path the least that a node
    /// of the path has left, by their numbers. Zero where something is paused.
    pub fn peek(&self, node: NodeId) -> Vec<(ResourceId, Amount)> {
        self.look(node, State::peek).unwrap_or_default()
    }

    /// What is left of `resource` along the path of `node` now, as [`peek`](Self::peek); `None` if no node limits it.
    pub fn available(&self, node: NodeId, resource: ResourceId) -> Option<Amount> {
        let all = self.peek(node);
        let found = all.into_iter().find(|(known, _)| *known == resource);
        found.map(|(_, amount)| amount)
    }

    /// What is held of `resource` at `node` and below, whether or not it is limited there; see
    /// [`ResourceUsage::held`](super::ResourceUsage::held).
    pub fn held(&self, node: NodeId, resource: ResourceId) -> Amount {
        let held = self.look(node, |state, node| state.held(node, resource));
        held.unwrap_or_default()
    }

    /// The resources that are limited on the path of `node`, by their numbers: what can be asked for there.
    pub fn known(&self, node: NodeId) -> Vec<ResourceId> {
        self.look(node, State::known).unwrap_or_default()
    }

    /// The limits of `node`, by resource.
    pub fn limits(&self, node: NodeId) -> Vec<(ResourceId, Limit)> {
        self.look(node, State::limits).unwrap_or_default()
    }

    /// How many wait at `node` and below.
    pub fn waiting(&self, node: NodeId) -> usize {
        let waiting = self.look(node, |state, node| state.nodes.at(node).waiting);
        waiting.unwrap_or_default()
    }

    /// Whether `node` was closed or removed, itself or by a node above.
    pub fn is_closed(&self, node: NodeId) -> bool {
        let state = self.lock_for(node);
        state.live(node.key).is_err()
    }

    /// The node above; `None` at the root.
    pub fn parent(&self, node: NodeId) -> Option<NodeId> {
        let state = self.lock_for(node);
        let parent = state.nodes.get(node.key)?.parent;
        (parent != NIL).then(|| state.id_of(parent))
    }

    /// The name of `node`.
    pub fn name(&self, node: NodeId) -> Option<Arc<str>> {
        self.lock_for(node).nodes.get(node.key)?.name.clone()
    }

    /// What is going on at `node`.
    pub fn usage(&self, node: NodeId) -> Option<Usage> {
        self.look(node, State::usage)
    }

    /// What is going on at `node` and everywhere below, in one moment. `None` once it is removed and forgotten.
    pub fn snapshot(&self, node: NodeId) -> Option<Snapshot> {
        self.look(node, State::snapshot)
    }

    /// The permits that `owner` holds, oldest first; it holds those that were granted on its behalf.
    pub fn permits_of(&self, owner: OwnerId) -> Vec<PermitId> {
        let state = self.lock();
        let permits = state.permits_of(owner);
        (permits.iter().rev())
            .map(|&permit| PermitId(state.permits.key_at(permit)))
            .collect()
    }

    /// A timer's side of this tree; see [`Alarm`].
    pub fn alarm(self: &Arc<Self>) -> Alarm {
        Alarm::new(Arc::clone(self))
    }

    /// Grants what time has made ready. Call it when a deadline has come; at any other moment it does nothing.
    pub fn tick(&self) {
        let mut state = self.lock();
        let mut wakes = WakeList::new();
        state.read_clock();
        state.dispatch(&mut wakes);
        Self::finish(state, wakes);
    }

    /// When [`tick`](Self::tick) has something to do next: the earliest of all deadlines. `None` if nobody waits for time.
    pub fn next_ready(&self) -> Option<Time> {
        self.lock().next_ready()
    }

    /// The moment now, by the tree's clock.
    pub fn now(&self) -> Time {
        self.lock().time()
    }

    /// Whether a panic under the lock left the state in doubt. Every other method panics from then on; dropping
    /// permits and futures does not.
    pub fn is_broken(&self) -> bool {
        self.state.is_poisoned()
    }

    /// Verifies every invariant of the [module](super) from scratch, and panics with what it found. O(everything). From then
    /// on each grant is verified to go to whom it is due, too.
    #[cfg(any(test, debug_assertions))]
    pub fn check(&self) {
        let mut state = self.lock();
        state.is_watched = true;
        state.check();
    }

    /// Looks at a node that still lives, as it is at this moment; without taking notice of the time, for whoever does has to
    /// grant what has become ready.
    fn look<R>(&self, node: NodeId, look: impl FnOnce(&State, u32) -> R) -> Option<R> {
        let mut state = self.lock_for(node);
        let place = state.find_node(node.key)?;
        let noticed = state.now;
        state.read_clock();
        let seen = look(&state, place);
        state.now = noticed;
        Some(seen)
    }

    fn id_of(&self, key: Key) -> NodeId {
        NodeId { tree: self.id, key }
    }

    /// Does something under the lock, then wakes whom it concerned.
    pub(super) fn act_at<R>(
        &self,
        node: NodeId,
        act: impl FnOnce(&mut State, &mut WakeList) -> R,
    ) -> R {
        assert!(node.tree == self.id, "{FOREIGN_NODE}");
        self.act(act)
    }

    /// The same, of no node.
    pub(super) fn act<R>(&self, act: impl FnOnce(&mut State, &mut WakeList) -> R) -> R {
        let mut state = self.lock();
        let mut wakes = WakeList::new();
        let result = act(&mut state, &mut wakes);
        Self::finish(state, wakes);
        result
    }

    /// Ends an operation that may have changed what others wait for.
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

    /// The lock, for what must not panic.
    #[inline]
    pub(super) fn lock_unless_broken(&self) -> Option<MutexGuard<'_, State>> {
        self.state.lock_unless_poisoned()
    }

    /// The lock, once it is sure that `node` is ours.
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
