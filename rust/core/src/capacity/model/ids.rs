//! Names of nodes, permits, owners and alarms.

use crate::sync::Key;

/// A node of a [`Tree`](crate::capacity::Tree). It names that node for ever, also after it was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId {
    pub(in crate::capacity) tree: u64,
    pub(in crate::capacity) key: Key,
}

/// Names a permit of its tree, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PermitId(pub(in crate::capacity) Key);

/// On whose behalf something is asked for: a task or a thread, by a number that is its own while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OwnerId(pub u64);

/// Names an [`Alarm`](crate::capacity::Alarm) of its tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AlarmId(pub(in crate::capacity) Key);
