//! Data structures of the scheduler. They import neither its records (`model`) nor its decisions (`policy`).
//!
//! | file | contents |
//! |---|---|
//! | `demand` | the multiset of the amounts that the waiters of a node need of a resource |
//! | `ready_children` | the eligible children of a node, in the order in which a search visits them |
//! | `run_list` | the rest of a wait queue, behind the offered waiters |
//! | `sorted_set` | a sorted set that is cheap while it is small |
//! | `tournament_tree` | the order of the children in `ready_children` |

pub(in crate::capacity) mod demand;
pub(in crate::capacity) mod ready_children;
pub(in crate::capacity) mod run_list;
pub(in crate::capacity) mod sorted_set;
pub(in crate::capacity) mod tournament_tree;

/// The absent index: no node, waiter or entry.
pub(in crate::capacity) const NIL: u32 = u32::MAX;
