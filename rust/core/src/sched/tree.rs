use super::state::State;
use super::{AboveLimit, Acquire, Permit};
use crate::sync::{Arc, Mutex, MutexGuard};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// A tree of capacities; the [module](super) tells how it works.
///
/// ```
/// use headrace_core::Tree;
///
/// let (tree, all) = Tree::new(10);
/// let part = tree.add(all, 4);
/// let permit = tree.try_acquire(part, 3)?.expect("nobody else is here");
/// assert_eq!((tree.held(part), tree.held(all)), (3, 3));
/// assert!(tree.try_acquire(part, 2)?.is_none(), "1 is left, whatever the root has");
/// drop(permit);
/// assert_eq!(tree.available(part), 4);
/// # Ok::<(), headrace_core::sched::AboveLimit>(())
/// ```
pub struct Tree {
    /// Tells the nodes of this tree from those of others.
    id: u64,
    /// Leaf lock: nothing of the caller's runs under it.
    state: Mutex<State>,
}

/// A node of a [`Tree`], for as long as the tree lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId {
    tree: u64,
    pub(super) index: u32,
}

impl Tree {
    /// A tree of one node, its root.
    pub fn new(limit: u64) -> (Arc<Self>, NodeId) {
        // Not the shim's atomic: a name is no part of any algorithm that a model should explore.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let tree = Self {
            id,
            state: Mutex::new(State::new(limit)),
        };
        (Arc::new(tree), NodeId { tree: id, index: 0 })
    }

    /// A new node below `parent`.
    ///
    /// # Panics
    ///
    /// If `parent` is a node of another tree, as in every method that takes a node; and with 2³² nodes.
    pub fn add(&self, parent: NodeId, limit: u64) -> NodeId {
        let index = self.lock_for(parent).add(parent.index, limit);
        // The lock is free again, so this breaks no tree.
        let index = index.expect("a tree has fewer than 2^32 nodes");
        NodeId {
            tree: self.id,
            index,
        }
    }

    /// Takes `cost` at `node` and its ancestors if it fits and nobody waits at that node.
    ///
    /// # Errors
    ///
    /// [`AboveLimit`] if it could never fit.
    #[inline]
    pub fn try_acquire(
        self: &Arc<Self>,
        node: NodeId,
        cost: u64,
    ) -> Result<Option<Permit>, AboveLimit> {
        let mut state = self.lock_for(node);
        self.check_limits(&state, node, cost)?;
        let granted = state.try_charge(node.index, cost);
        drop(state);
        Ok(granted.then(|| Permit::new(Arc::clone(self), node, cost)))
    }

    /// Takes `cost` at `node` and its ancestors as soon as it is granted; see [`Acquire`].
    ///
    /// # Errors
    ///
    /// [`AboveLimit`] if it never would be.
    #[inline]
    pub fn acquire(self: &Arc<Self>, node: NodeId, cost: u64) -> Result<Acquire, AboveLimit> {
        self.check_limits(&self.lock_for(node), node, cost)?;
        Ok(Acquire::new(Arc::clone(self), node, cost))
    }

    /// The most that may be held at `node` and below.
    pub fn limit(&self, node: NodeId) -> u64 {
        self.lock_for(node).node(node.index).limit
    }

    /// What is held at `node` and below.
    pub fn held(&self, node: NodeId) -> u64 {
        self.lock_for(node).node(node.index).held
    }

    /// How many wait at `node` and below; those already granted do not.
    pub fn waiting(&self, node: NodeId) -> usize {
        self.lock_for(node).node(node.index).waiting
    }

    /// The largest cost that would fit at `node` now: what the tightest node of its path leaves over.
    ///
    /// A request of that cost may have to wait all the same, behind those who wait at that node.
    pub fn available(&self, node: NodeId) -> u64 {
        let state = self.lock_for(node);
        state
            .path(node.index)
            .map(|(_, node)| node.free())
            .min()
            .unwrap_or(0)
    }

    /// Whether a panic under the lock left the state in doubt. Every other method panics from then on; dropping
    /// permits and futures does not.
    #[inline]
    pub fn is_broken(&self) -> bool {
        self.state.is_poisoned()
    }

    /// Gives back what a permit held. In a broken tree there is nothing to give back to, and drops must not panic.
    #[inline]
    pub(super) fn give_back(&self, node: NodeId, cost: u64) {
        let Some(mut state) = self.lock_unless_broken() else {
            return;
        };
        state.discharge(node.index, cost);
        if state.anyone_waits() {
            let wakes = state.dispatch();
            drop(state);
            wakes.wake_all();
        }
    }

    /// The lock, for what must not panic.
    #[inline]
    pub(super) fn lock_unless_broken(&self) -> Option<MutexGuard<'_, State>> {
        self.state.lock_unless_poisoned()
    }

    /// The lock, once it is sure that `node` is ours; since nodes stay, it exists then.
    #[inline]
    pub(super) fn lock_for(&self, node: NodeId) -> MutexGuard<'_, State> {
        assert!(node.tree == self.id, "the node belongs to another tree");
        self.state.lock()
    }

    #[inline]
    fn check_limits(&self, state: &State, node: NodeId, cost: u64) -> Result<(), AboveLimit> {
        match state.too_low_for(node.index, cost) {
            None => Ok(()),
            Some((index, limit)) => Err(AboveLimit {
                node: NodeId {
                    tree: self.id,
                    index,
                },
                limit,
            }),
        }
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Tree");
        if let Some(state) = self.state.try_lock() {
            let root = state.node(0);
            out.field("nodes", &state.len())
                .field("limit", &root.limit)
                .field("held", &root.held)
                .field("waiting", &root.waiting);
        }
        out.finish_non_exhaustive()
    }
}
