//! `Index`: where the last record of each call is in the file. `file.rs` uses it.
//!
//! An open-addressing table of 16 bytes a call, at most 7/8 full: 18 to 37 bytes a call, 27 on average. Keys stay on disk. Two calls
//! may have the same hash, so the caller compares the key of the record that a slot refers to.

use std::hash::{BuildHasher, RandomState};

use super::record::Identity;

/// The state of a call: the offset of its last record, and three flags.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Entry(u64);

const ENDED: u64 = 1 << 63;
const CLAIMED: u64 = 1 << 62;
/// The call has ended, and has begun again without a later end.
const AGAIN: u64 = 1 << 61;

impl Entry {
    /// Return the entry of a call whose last record is at this offset.
    pub(super) fn at(offset: u64, has_ended: bool) -> Self {
        Self(offset | if has_ended { ENDED } else { 0 })
    }

    /// Return the entry of a call without a record.
    pub(super) fn claimed() -> Self {
        Self(CLAIMED)
    }

    /// The offset of the last record; `None` if the call has none.
    pub(super) fn offset(self) -> Option<u64> {
        let offset = self.0 & !(ENDED | CLAIMED | AGAIN);
        (offset != 0).then_some(offset)
    }

    pub(super) fn has_ended(self) -> bool {
        self.0 & ENDED != 0
    }

    /// Return the entry after another start.
    pub(super) fn begun_again(self) -> Self {
        Self(self.0 | AGAIN)
    }

    /// Return whether the call has begun and not ended since.
    pub(super) fn is_in_flight(self) -> bool {
        !self.has_ended() || self.0 & AGAIN != 0
    }

    pub(super) fn is_claimed(self) -> bool {
        self.0 & CLAIMED != 0
    }

    pub(super) fn with_claim(self, is_claimed: bool) -> Self {
        Self(self.0 & !CLAIMED | if is_claimed { CLAIMED } else { 0 })
    }
}

/// The slot of a call. A hash of 0 marks a free slot.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    hash: u64,
    entry: Entry,
}

/// The calls of a journal: see the [module](self).
#[derive(Debug)]
pub(super) struct Index {
    slots: Vec<Slot>,
    len: usize,
    hasher: RandomState,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            slots: vec![Slot::default(); 64],
            len: 0,
            hasher: RandomState::new(),
        }
    }
}

impl Index {
    /// Return the hash of a call, which is never 0.
    pub(super) fn hash(&self, identity: Identity<'_>) -> u64 {
        self.hasher.hash_one(identity).max(1)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Return the memory of the table in bytes.
    pub(super) fn memory(&self) -> usize {
        self.slots.len() * size_of::<Slot>()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> {
        let used = self.slots.iter().filter(|slot| slot.hash != 0);
        used.map(|slot| slot.entry)
    }

    /// Return the entry with this hash for which `is_same` returns true.
    pub(super) fn find<E>(
        &mut self,
        hash: u64,
        mut is_same: impl FnMut(Entry) -> Result<bool, E>,
    ) -> Result<Option<&mut Entry>, E> {
        let mask = self.slots.len() - 1;
        let mut place = self.first_place(hash);
        loop {
            let slot = self.slots[place];
            if slot.hash == 0 {
                return Ok(None);
            }
            if slot.hash == hash && is_same(slot.entry)? {
                return Ok(Some(&mut self.slots[place].entry));
            }
            place = (place + 1) & mask;
        }
    }

    /// Add an entry that is not in the index.
    pub(super) fn insert(&mut self, hash: u64, entry: Entry) {
        if (self.len + 1) * 8 > self.slots.len() * 7 {
            let size = self.slots.len() * 2;
            let old = std::mem::replace(&mut self.slots, vec![Slot::default(); size]);
            for slot in old.into_iter().filter(|slot| slot.hash != 0) {
                self.place(slot);
            }
        }
        self.len += 1;
        self.place(Slot { hash, entry });
    }

    fn place(&mut self, slot: Slot) {
        let mask = self.slots.len() - 1;
        let mut place = self.first_place(slot.hash);
        while self.slots[place].hash != 0 {
            place = (place + 1) & mask;
        }
        self.slots[place] = slot;
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low bits are as good as the others"
    )]
    fn first_place(&self, hash: u64) -> usize {
        hash as usize & (self.slots.len() - 1)
    }
}
