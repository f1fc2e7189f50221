//! Identities of nodes, permits, owners and alarms. The methods of `Tree` and the fields of `AcquireRequest` take them.

use crate::sync::Key;

/// A node of a [`Tree`](crate::capacity::Tree). It stays the identity of that node after the node was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId {
    pub(in crate::capacity) tree: u64,
    pub(in crate::capacity) key: Key,
}

impl NodeId {
    /// Return a number that no other node of the tree ever has.
    pub fn number(self) -> u64 {
        self.key.ticket().get()
    }
}

/// A permit of a tree. It is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PermitId(pub(in crate::capacity) Key);

impl PermitId {
    /// Return a number that no other permit of the tree ever has.
    pub fn number(self) -> u64 {
        self.0.ticket().get()
    }
}

/// The task or thread that makes a request, as a number that is unique while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OwnerId(pub u64);

/// An [`Alarm`](crate::capacity::Alarm) of its tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AlarmId(pub(in crate::capacity) Key);
