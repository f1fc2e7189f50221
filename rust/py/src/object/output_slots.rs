//! The order of the output of tasks that end in any order. `EventQueue` of the pool and `concurrent_map/calls.rs` hold one.
//!
//! Each accepted task has a slot. Only the output of the first task that has not ended is readable. The output of later tasks is held
//! in their slots until their task is the first. Slots are numbered from the start, so that a look-up in the ring is O(1).

use std::collections::VecDeque;

use crate::object::gc::{Traverse, traverse};

/// The slots, in the order in which the tasks were accepted.
#[derive(Debug)]
pub(crate) struct OutputSlots<T> {
    slots: VecDeque<Slot<T>>,
    /// The number of the first slot in `slots`.
    first: u64,
    /// The number of outputs in all slots.
    pub(crate) held: usize,
}

#[derive(Debug)]
struct Slot<T> {
    held: Vec<T>,
    has_ended: bool,
}

impl<T> Default for OutputSlots<T> {
    fn default() -> Self {
        Self {
            slots: VecDeque::new(),
            first: 0,
            held: 0,
        }
    }
}

impl<T> OutputSlots<T> {
    /// Append a slot. Return its number.
    pub(crate) fn add(&mut self) -> u64 {
        self.slots.push_back(Slot {
            held: Vec::new(),
            has_ended: false,
        });
        self.first + self.slots.len() as u64 - 1
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Return the slot of the first task that has not ended.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    pub(crate) fn is_first(&self, slot: u64) -> bool {
        slot <= self.first
    }

    fn slot(&mut self, slot: u64) -> Option<&mut Slot<T>> {
        let index = usize::try_from(slot.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(index)
    }

    /// Hold an output in a slot. Return it instead if it is readable at once.
    pub(crate) fn hold(&mut self, slot: u64, output: T) -> Option<T> {
        if self.is_first(slot) {
            return Some(output);
        }
        match self.slot(slot) {
            Some(found) => {
                found.held.push(output);
                self.held += 1;
                None
            }
            None => Some(output),
        }
    }

    /// End a slot. Return the outputs that become readable.
    pub(crate) fn end(&mut self, slot: u64) -> Vec<T> {
        if let Some(found) = self.slot(slot) {
            found.has_ended = true;
        }
        let mut ready = Vec::new();
        while self.slots.front().is_some_and(|first| first.has_ended) {
            self.slots.pop_front();
            self.first += 1;
            if let Some(next) = self.slots.front_mut() {
                self.held -= next.held.len();
                ready.append(&mut next.held);
            }
        }
        ready
    }
}

traverse!([T: Traverse] OutputSlots<T> { slots });
traverse!([T: Traverse] Slot<T> { held });
