//! The record of a permit, and of a grant that its future has not collected yet.

use super::share::Prices;
use crate::capacity::{Cost, OwnerId, Time};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// No place in the list of fresh leases.
pub(in crate::capacity) const NOT_FRESH: u32 = u32::MAX;

#[derive(Debug)]
pub(in crate::capacity) struct Lease {
    pub(in crate::capacity) node: u32,
    /// As settled; parts may be zero then.
    pub(in crate::capacity) cost: Cost,
    /// When it was granted, if the clock was read then.
    pub(in crate::capacity) since: Option<Time>,
    /// By which the rates that it took of know it; 0 if it took of none.
    pub(in crate::capacity) stamp: u64,
    /// Its record among the charges, if it was charged.
    pub(in crate::capacity) charge: u32,
    /// Its place among the fresh ones, if it was not.
    pub(in crate::capacity) fresh: u32,
    pub(in crate::capacity) owner: Option<OwnerId>,
    /// Whether it is in the list of its owner's leases; one that nobody had to wait for is looked up among the fresh ones.
    pub(in crate::capacity) is_listed: bool,
    /// Its neighbours in that list.
    pub(in crate::capacity) older: u32,
    pub(in crate::capacity) newer: u32,
    pub(in crate::capacity) held: Held,
}

/// What a lease was charged last.
#[derive(Debug)]
pub(in crate::capacity) struct Charge {
    /// Until when.
    pub(in crate::capacity) to: Time,
    /// When, as the tree counts.
    pub(in crate::capacity) stamp: u64,
    pub(in crate::capacity) prices: Prices,
}

/// Whether a lease holds its slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::capacity) enum Held {
    Yes,
    No,
    /// This waiter waits for them.
    Resuming(u32),
    /// That waiter was granted them, and has yet to hear of it.
    Regained,
}

impl Lease {
    /// Whether it was granted while nobody waited, and nobody has since.
    #[inline]
    pub(in crate::capacity) fn is_fresh(&self) -> bool {
        self.fresh != NOT_FRESH
    }
}

impl Held {
    /// Whether the slots are counted as held.
    pub(in crate::capacity) fn has_slots(self) -> bool {
        matches!(self, Self::Yes | Self::Regained)
    }
}

/// The newest lease of each owner.
#[derive(Debug, Default)]
pub(in crate::capacity) struct Owners(
    pub(in crate::capacity) HashMap<OwnerId, u32, BuildHasherDefault<IntHasher>>,
);

/// Spreads numbers that are addresses or counters; nobody hostile chooses them.
#[derive(Debug, Default)]
pub(in crate::capacity) struct IntHasher(u64);

impl Hasher for IntHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 ^= self.0 >> 32;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
