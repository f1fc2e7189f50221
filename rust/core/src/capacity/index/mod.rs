//! Data structures of the scheduler. They know neither its records nor its decisions.

pub(in crate::capacity) mod demand;
pub(in crate::capacity) mod ready_children;
pub(in crate::capacity) mod run_list;
pub(in crate::capacity) mod sorted_set;
pub(in crate::capacity) mod tournament_tree;

/// The index of no entry.
pub(in crate::capacity) const NIL: u32 = u32::MAX;
