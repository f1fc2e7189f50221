//! `Floor`, the guaranteed minimum of a child, and `Floors`, those of all children of a node.
//! `Node` has one of each if needed; `policy/floor.rs` updates them, and `policy/dispatch.rs` searches them.

use crate::capacity::index::ready_children::{ClassId, ReadyChildren};

/// The floor of a child, in micro-slots.
#[derive(Debug)]
pub(in crate::capacity) struct Floor {
    /// As configured.
    pub(in crate::capacity) amount: u64,
    /// The part of it that is in force: less while the limit of the parent does not cover the floors of all its children.
    pub(in crate::capacity) in_force: u64,
    /// Whether the child is in [`Floors::below`], and its class and leaf there.
    pub(in crate::capacity) is_below: bool,
    pub(in crate::capacity) class: ClassId,
    pub(in crate::capacity) leaf: u32,
}

impl Floor {
    pub(in crate::capacity) fn new(amount: u64) -> Self {
        Self {
            amount,
            in_force: amount,
            is_below: false,
            class: 0,
            leaf: 0,
        }
    }
}

/// The floors of the children of a node. A node whose children have none has no record.
#[derive(Debug, Default)]
pub(in crate::capacity) struct Floors {
    /// The sum of the configured floors, in micro-slots.
    pub(in crate::capacity) sum: u128,
    /// Whether the limit does not cover the sum, so that the floors in force are less.
    pub(in crate::capacity) is_scaled: bool,
    /// The eligible children that hold less than their floor and have an offered waiter that needs slots.
    pub(in crate::capacity) below: ReadyChildren,
}
