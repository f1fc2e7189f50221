//! `Index`: where the last record of each call is in the file. `file.rs` uses it.
//!
//! Keys stay on disk. Two calls may have the same hash, so the caller compares the key of the record that a slot refers to.
//!
//! The calls are distributed over 64 open-addressing tables by six bits of their hashes. A slot is 16 bytes. A table is at most 4/5 full,
//! and grows by a quarter. From 10,000 calls on, the index therefore has 20 to 25 bytes a call, 22 on average. While a table grows, it
//! exists twice. That is less than one byte a call, because only one table grows at a time, and no call waits while all others are moved.
//!
//! A call is moved four to five times while the index grows. The place of a call in a table is proportional to its hash, so the calls of
//! a table are moved in the order of their places, which reads and writes memory in order.

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

/// The number of bits of a hash that select the table.
const TABLE_BITS: u32 = 6;
const LEAST_SLOTS: usize = 4;

/// One of the tables.
#[derive(Debug, Default)]
struct Table {
    slots: Vec<Slot>,
    len: usize,
}

impl Table {
    /// Return the first place of a hash, which is proportional to the bits that did not select the table.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the product is below the number of slots"
    )]
    fn first_place(&self, hash: u64) -> usize {
        let scaled = u128::from(hash << TABLE_BITS) * self.slots.len() as u128;
        (scaled >> u64::BITS) as usize
    }

    fn next(&self, place: usize) -> usize {
        if place + 1 == self.slots.len() {
            0
        } else {
            place + 1
        }
    }

    fn insert(&mut self, slot: Slot) {
        if (self.len + 1) * 5 > self.slots.len() * 4 {
            let size = LEAST_SLOTS.max(self.slots.len() * 5 / 4 + 1);
            let old = std::mem::replace(&mut self.slots, vec![Slot::default(); size]);
            for slot in old.into_iter().filter(|slot| slot.hash != 0) {
                self.place(slot);
            }
        }
        self.len += 1;
        self.place(slot);
    }

    fn place(&mut self, slot: Slot) {
        let mut place = self.first_place(slot.hash);
        while self.slots[place].hash != 0 {
            place = self.next(place);
        }
        self.slots[place] = slot;
    }
}

/// The calls of a journal: see the [module](self).
#[derive(Debug)]
pub(super) struct Index {
    tables: Box<[Table; 1 << TABLE_BITS]>,
    len: usize,
    hasher: RandomState,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            tables: Box::new(std::array::from_fn(|_| Table::default())),
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

    /// Return the memory of the tables in bytes.
    pub(super) fn memory(&self) -> usize {
        let slots: usize = self.tables.iter().map(|table| table.slots.len()).sum();
        size_of_val(&*self.tables) + slots * size_of::<Slot>()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> {
        let slots = self.tables.iter().flat_map(|table| &table.slots);
        let used = slots.filter(|slot| slot.hash != 0);
        used.map(|slot| slot.entry)
    }

    /// Return the entry with this hash for which `is_same` returns true.
    pub(super) fn find<E>(
        &mut self,
        hash: u64,
        mut is_same: impl FnMut(Entry) -> Result<bool, E>,
    ) -> Result<Option<&mut Entry>, E> {
        let table = self.table(hash);
        if table.slots.is_empty() {
            return Ok(None);
        }
        let mut place = table.first_place(hash);
        loop {
            let slot = table.slots[place];
            if slot.hash == 0 {
                return Ok(None);
            }
            if slot.hash == hash && is_same(slot.entry)? {
                return Ok(Some(&mut table.slots[place].entry));
            }
            place = table.next(place);
        }
    }

    /// Add an entry that is not in the index.
    pub(super) fn insert(&mut self, hash: u64, entry: Entry) {
        self.len += 1;
        self.table(hash).insert(Slot { hash, entry });
    }

    fn table(&mut self, hash: u64) -> &mut Table {
        &mut self.tables[(hash >> (u64::BITS - TABLE_BITS)) as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;

    use super::{Entry, Index};

    /// A generator of numbers that look random: `SplitMix64`.
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)).max(1)
        }
    }

    fn offset_of(index: &mut Index, hash: u64, offset: u64) -> Option<u64> {
        let is_same = |entry: Entry| Ok::<_, Infallible>(entry.offset() == Some(offset));
        let Ok(found) = index.find(hash, is_same);
        found.and_then(|entry| entry.offset())
    }

    #[test]
    fn calls_with_few_and_equal_hashes_are_found() {
        let mut numbers = Numbers(1);
        for hashes in [1, 3, 50, 100_000] {
            let mut index = Index::default();
            let mut model = HashMap::<u64, Vec<u64>>::new();
            for offset in 1..2_000 {
                // All bits are set at the end of a table.
                let hash = match numbers.next() % hashes {
                    0 => u64::MAX,
                    number => Numbers(number).next(),
                };
                index.insert(hash, Entry::at(offset, true));
                model.entry(hash).or_default().push(offset);
                assert_eq!(index.len() as u64, offset);
            }
            for (&hash, offsets) in &model {
                for &offset in offsets {
                    assert_eq!(offset_of(&mut index, hash, offset), Some(offset));
                    assert_eq!(offset_of(&mut index, hash, offset + 10_000), None);
                }
            }
            assert_eq!(offset_of(&mut index, 12_345, 1), None);
            let mut offsets: Vec<_> = index.entries().filter_map(Entry::offset).collect();
            offsets.sort_unstable();
            assert!(offsets.into_iter().eq(1..2_000));
        }
    }

    #[test]
    fn a_call_takes_at_most_26_bytes() {
        let mut numbers = Numbers(2);
        let mut index = Index::default();
        for number in 1..=300_000 {
            index.insert(numbers.next(), Entry::at(number, true));
            let memory = index.memory();
            assert!(
                number < 10_000 || memory <= index.len() * 26,
                "{memory} for {number}"
            );
        }
    }

    #[test]
    #[ignore = "a measurement: two million calls"]
    fn memory_of_a_call() {
        let mut numbers = Numbers(3);
        let mut index = Index::default();
        let (mut worst, mut sum) = (0.0_f64, 0.0);
        for number in 1..=2_000_000_u32 {
            index.insert(numbers.next(), Entry::at(number.into(), true));
            if number < 10_000 {
                continue;
            }
            #[expect(clippy::cast_precision_loss, reason = "the numbers are small")]
            let each = index.memory() as f64 / f64::from(number);
            worst = worst.max(each);
            sum += each;
            if [1_000_000, 1_300_000, 1_700_000, 2_000_000].contains(&number) {
                println!("{each:.1} bytes a call for {number} calls");
            }
        }
        println!("worst {worst:.1}, average {:.1}", sum / 1_990_001.0);
    }
}
