//! `Slab`, a store of entries under keys that are never issued twice. `WaitList` and the capacity `State` keep their
//! records in it, and `Signal` its batches.

use std::num::NonZeroU64;

/// Ends the chain of vacant slots.
const NIL: u32 = u32::MAX;

/// A slab that becomes empty frees its memory if it has more slots than this.
const KEEP: usize = 64;

/// Identifies one entry of a [`Slab`], and never another one.
///
/// The index locates the slot, the ticket identifies the entry. No ticket is issued twice, so a key that outlives its
/// entry finds nothing, even after the slot was reused or the slab's memory was freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    index: u32,
    ticket: NonZeroU64,
}

impl Key {
    /// Return the slot of the entry; unique among the current entries, and valid until the entry is removed.
    #[inline]
    pub fn index(self) -> u32 {
        self.index
    }

    /// Return the entry's ticket, greater than that of every entry inserted before.
    #[inline]
    pub fn ticket(self) -> NonZeroU64 {
        self.ticket
    }
}

/// With at least this many slots a slab grows by an eighth, not twofold, to limit the spare memory per entry.
const MANY: usize = 256;

/// An arena of entries with stable keys; insert, look up and remove in O(1).
///
/// Memory is proportional to the largest number of entries since the slab was last empty.
#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    /// The first vacant slot; each vacant slot links to the next.
    vacant: u32,
    len: usize,
    next_ticket: NonZeroU64,
}

#[derive(Debug)]
enum Slot<T> {
    Vacant { next: u32 },
    Occupied { ticket: NonZeroU64, entry: T },
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Slab<T> {
    /// Return an empty slab. Allocates nothing.
    pub const fn new() -> Self {
        Self {
            slots: Vec::new(),
            vacant: NIL,
            len: 0,
            next_ticket: NonZeroU64::MIN,
        }
    }

    /// Return the number of entries.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Return the ticket of the next entry.
    #[inline]
    pub fn next_ticket(&self) -> NonZeroU64 {
        self.next_ticket
    }

    /// Return whether there is no entry.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Insert `entry` into the most recently vacated slot, or into a new one.
    ///
    /// # Panics
    ///
    /// With 2³² entries at once.
    #[inline]
    pub fn insert(&mut self, entry: T) -> Key {
        let ticket = self.next_ticket;
        // At one insertion a nanosecond this lasts 584 years.
        self.next_ticket = ticket
            .checked_add(1)
            .expect("2^64 tickets are enough for any process");
        self.len += 1;
        let index = self.vacant;
        let index = if let Some(slot) = self.slots.get_mut(index as usize)
            && let Slot::Vacant { next } = *slot
        {
            // Written in place, over a variant without a drop: copying an entry that was just written stalls the CPU.
            *slot = Slot::Occupied { ticket, entry };
            self.vacant = next;
            index
        } else {
            self.push(Slot::Occupied { ticket, entry })
        };
        Key { index, ticket }
    }

    #[cold]
    fn push(&mut self, slot: Slot<T>) -> u32 {
        let index = u32::try_from(self.slots.len())
            .ok()
            .filter(|&index| index != NIL);
        let index = index.expect("fewer than 2^32 entries at once");
        if self.slots.len() == self.slots.capacity() && self.slots.len() >= MANY {
            self.slots.reserve_exact(self.slots.len() / 8);
        }
        self.slots.push(slot);
        index
    }

    /// Return the entry, if it still exists.
    #[inline]
    pub fn get(&self, key: Key) -> Option<&T> {
        match self.slots.get(key.index as usize) {
            Some(Slot::Occupied { ticket, entry }) if *ticket == key.ticket => Some(entry),
            _ => None,
        }
    }

    /// Return the entry, if it still exists.
    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slots.get_mut(key.index as usize) {
            Some(Slot::Occupied { ticket, entry }) if *ticket == key.ticket => Some(entry),
            _ => None,
        }
    }

    /// Return the entry in the slot `index`, for callers that know that it exists.
    ///
    /// # Panics
    ///
    /// If the slot is vacant.
    #[inline]
    pub fn at(&self, index: u32) -> &T {
        match &self.slots[index as usize] {
            Slot::Occupied { entry, .. } => entry,
            Slot::Vacant { .. } => panic_vacant(index),
        }
    }

    /// Return the same, mutable.
    ///
    /// # Panics
    ///
    /// If the slot is vacant.
    #[inline]
    pub fn at_mut(&mut self, index: u32) -> &mut T {
        match &mut self.slots[index as usize] {
            Slot::Occupied { entry, .. } => entry,
            Slot::Vacant { .. } => panic_vacant(index),
        }
    }

    /// Return the key of the entry in the slot `index`.
    ///
    /// # Panics
    ///
    /// If the slot is vacant.
    #[inline]
    pub fn key_at(&self, index: u32) -> Key {
        match &self.slots[index as usize] {
            &Slot::Occupied { ticket, .. } => Key { index, ticket },
            Slot::Vacant { .. } => panic_vacant(index),
        }
    }

    /// Remove and return the entry, if it still exists.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let slot = &mut self.slots[key.index as usize];
        let Slot::Occupied { entry, .. } =
            std::mem::replace(slot, Slot::Vacant { next: self.vacant })
        else {
            unreachable!("`get` found the entry above");
        };
        self.vacated(key.index);
        Some(entry)
    }

    /// Drop the entry in place, if it still exists.
    #[inline]
    pub fn discard(&mut self, key: Key) {
        if self.get(key).is_none() {
            return;
        }
        self.slots[key.index as usize] = Slot::Vacant { next: self.vacant };
        self.vacated(key.index);
    }

    #[inline]
    fn vacated(&mut self, index: u32) {
        self.vacant = index;
        self.len -= 1;
        if self.len == 0 && self.slots.len() > KEEP {
            self.free_memory();
        }
    }

    /// Free the memory of all slots, which are vacant, so this runs no code of the caller. Old keys stay invalid because of their tickets.
    #[cold]
    fn free_memory(&mut self) {
        self.slots = Vec::new();
        self.vacant = NIL;
    }

    /// Return all entries with their indices, in order of index. O(slots).
    pub fn entries(&self) -> impl Iterator<Item = (u32, &T)> {
        self.entries_from(0)
    }

    /// Return the same from this index on.
    pub fn entries_from(&self, from: u32) -> impl Iterator<Item = (u32, &T)> {
        (from..)
            .zip(self.slots.iter().skip(from as usize))
            .filter_map(|(index, slot)| match slot {
                Slot::Occupied { entry, .. } => Some((index, entry)),
                Slot::Vacant { .. } => None,
            })
    }

    /// Return all entries, mutable. O(slots).
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|slot| match slot {
            Slot::Occupied { entry, .. } => Some(entry),
            Slot::Vacant { .. } => None,
        })
    }

    /// Return all entries, in no guaranteed order. O(slots).
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Occupied { entry, .. } => Some(entry),
            Slot::Vacant { .. } => None,
        })
    }
}

#[cold]
#[inline(never)]
fn panic_vacant(index: u32) -> ! {
    panic!("no entry at index {index}")
}
