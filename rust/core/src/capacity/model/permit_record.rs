//! The record of a permit, and of a grant that its future has not collected yet. `State` stores them;
//! `policy/charging.rs` opens, charges and removes them.

use super::share::Prices;
use crate::capacity::{Cost, OwnerId, Time};
use crate::sync::BuildIntHasher;
use std::collections::HashMap;

/// No position in the list of uncharged permits.
pub(in crate::capacity) const CHARGED: u32 = u32::MAX;

#[derive(Debug)]
pub(in crate::capacity) struct PermitRecord {
    pub(in crate::capacity) node: u32,
    /// As settled; parts may be zero then.
    pub(in crate::capacity) cost: Cost,
    /// The time of the grant, if the clock was read then.
    pub(in crate::capacity) since: Option<Time>,
    /// Its identity at the rates that it took of; 0 without a rate.
    pub(in crate::capacity) stamp: u64,
    /// The index of its charge, if it was charged.
    pub(in crate::capacity) charge: u32,
    /// Its position among the uncharged permits, if it is one.
    pub(in crate::capacity) uncharged: u32,
    pub(in crate::capacity) owner: Option<OwnerId>,
    /// Whether it is in the list of its owner's permits. Uncharged permits are searched instead.
    pub(in crate::capacity) is_listed: bool,
    /// Whether a result was reported to adaptive limits.
    pub(in crate::capacity) is_reported: bool,
    /// Its neighbours in that list.
    pub(in crate::capacity) older: u32,
    pub(in crate::capacity) newer: u32,
    pub(in crate::capacity) held: Held,
}

/// The last charge of a permit.
#[derive(Debug)]
pub(in crate::capacity) struct Charge {
    /// The end of the stretch that was charged.
    pub(in crate::capacity) to: Time,
    /// The stamp of the charge.
    pub(in crate::capacity) stamp: u64,
    pub(in crate::capacity) prices: Prices,
}

/// Whether a permit holds its slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::capacity) enum Held {
    Yes,
    No,
    /// This waiter waits for them.
    Resuming(u32),
    /// They were granted to a waiter that has not been polled since.
    Regained,
}

impl PermitRecord {
    /// Return whether it was granted while the tree had no waiter, and the tree has had none since.
    #[inline]
    pub(in crate::capacity) fn is_uncharged(&self) -> bool {
        self.uncharged != CHARGED
    }
}

impl Held {
    /// Return whether the slots are counted as held.
    pub(in crate::capacity) fn has_slots(self) -> bool {
        matches!(self, Self::Yes | Self::Regained)
    }
}

/// The newest permit of each owner.
pub(in crate::capacity) type Owners = HashMap<OwnerId, u32, BuildIntHasher>;
