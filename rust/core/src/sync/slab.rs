use std::num::NonZeroU64;

/// Ends the chain of vacant slots.
const NIL: u32 = u32::MAX;

/// An empty slab that once held more than this gives its memory back.
const KEEP: usize = 64;

/// Names one entry of a [`Slab`], and never another one.
///
/// The index says where, the ticket says who: tickets are never handed out twice, so a key that outlives its entry
/// finds nothing, even after the slot was reused or the slab's memory given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    index: u32,
    ticket: NonZeroU64,
}

impl Key {
    /// Where the entry stands: its name among those that live, good until it is removed.
    #[inline]
    pub fn index(self) -> u32 {
        self.index
    }

    /// Greater than that of every entry that was inserted before.
    #[inline]
    pub fn ticket(self) -> NonZeroU64 {
        self.ticket
    }
}

/// From so many entries on a slab grows by an eighth, not twofold: what it has to spare counts among the bytes of each.
const MANY: usize = 256;

/// An arena of entries with stable keys; insert, look up and remove in O(1).
///
/// Memory is proportional to the largest number of entries since the slab was last empty.
#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    /// The first vacant slot, each of which knows the next.
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
    /// An empty slab. Allocates nothing.
    pub const fn new() -> Self {
        Self {
            slots: Vec::new(),
            vacant: NIL,
            len: 0,
            next_ticket: NonZeroU64::MIN,
        }
    }

    /// How many entries live here.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no entry lives here.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts `entry` into the slot that was vacated last, or into a new one.
    ///
    /// # Panics
    ///
    /// With 2³² entries alive at once.
    #[inline]
    pub fn insert(&mut self, entry: T) -> Key {
        let ticket = self.next_ticket;
        // At one insertion a nanosecond this lasts 584 years.
        self.next_ticket = ticket.checked_add(1).expect("tickets outlast the process");
        self.len += 1;
        let index = self.vacant;
        let index = if let Some(slot) = self.slots.get_mut(index as usize)
            && let Slot::Vacant { next } = *slot
        {
            // Written where it is to stay, over what is known to need no drop: to copy an entry that was just written stalls.
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

    /// The entry, if it still lives.
    #[inline]
    pub fn get(&self, key: Key) -> Option<&T> {
        match self.slots.get(key.index as usize) {
            Some(Slot::Occupied { ticket, entry }) if *ticket == key.ticket => Some(entry),
            _ => None,
        }
    }

    /// The entry, if it still lives.
    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slots.get_mut(key.index as usize) {
            Some(Slot::Occupied { ticket, entry }) if *ticket == key.ticket => Some(entry),
            _ => None,
        }
    }

    /// The entry that stands at `index`, for those who know that it lives.
    ///
    /// # Panics
    ///
    /// If nothing lives there.
    #[inline]
    pub fn at(&self, index: u32) -> &T {
        match &self.slots[index as usize] {
            Slot::Occupied { entry, .. } => entry,
            Slot::Vacant { .. } => vacant(index),
        }
    }

    /// The same, to be changed.
    ///
    /// # Panics
    ///
    /// If nothing lives there.
    #[inline]
    pub fn at_mut(&mut self, index: u32) -> &mut T {
        match &mut self.slots[index as usize] {
            Slot::Occupied { entry, .. } => entry,
            Slot::Vacant { .. } => vacant(index),
        }
    }

    /// The key of the entry that stands at `index`.
    ///
    /// # Panics
    ///
    /// If nothing lives there.
    #[inline]
    pub fn key_at(&self, index: u32) -> Key {
        match &self.slots[index as usize] {
            &Slot::Occupied { ticket, .. } => Key { index, ticket },
            Slot::Vacant { .. } => vacant(index),
        }
    }

    /// Takes the entry out, if it still lives.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let slot = &mut self.slots[key.index as usize];
        let Slot::Occupied { entry, .. } =
            std::mem::replace(slot, Slot::Vacant { next: self.vacant })
        else {
            unreachable!("`get` has just found the entry");
        };
        self.vacated(key.index);
        Some(entry)
    }

    /// Drops the entry where it stands, if it still lives.
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
            self.give_back();
        }
    }

    /// All slots are vacant, so this runs no code of the caller's; old keys stay dead by their tickets.
    #[cold]
    fn give_back(&mut self) {
        self.slots = Vec::new();
        self.vacant = NIL;
    }

    /// All entries with their indices, by these. O(slots).
    pub fn entries(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..)
            .zip(&self.slots)
            .filter_map(|(index, slot)| match slot {
                Slot::Occupied { entry, .. } => Some((index, entry)),
                Slot::Vacant { .. } => None,
            })
    }

    /// All entries, to be changed. O(slots).
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|slot| match slot {
            Slot::Occupied { entry, .. } => Some(entry),
            Slot::Vacant { .. } => None,
        })
    }

    /// All entries, in no promised order. O(slots).
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Occupied { entry, .. } => Some(entry),
            Slot::Vacant { .. } => None,
        })
    }
}

#[cold]
#[inline(never)]
fn vacant(index: u32) -> ! {
    panic!("nothing lives at {index}")
}
