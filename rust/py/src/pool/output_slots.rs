//! The order of the events of an ordered run.
//!
//! Each task has a slot from its acceptance on. Only the first task that has not ended puts its events where they can be read. The
//! events of the others are held in their slots, and follow when it is their turn. The slots are a ring: the number of a slot is its
//! distance from the first one ever, so that finding it is O(1).

use std::collections::VecDeque;

use pyo3::prelude::*;

use crate::object::gc::traverse;

/// See the top of this file.
#[derive(Debug, Default)]
pub(super) struct OutputSlots {
    slots: VecDeque<Slot>,
    /// The number of the first slot.
    first: u64,
    /// The number of events in all slots.
    pub(super) held: usize,
}

#[derive(Debug, Default)]
struct Slot {
    held: Vec<Py<PyAny>>,
    has_ended: bool,
}

impl OutputSlots {
    /// Adds a slot behind the others.
    pub(super) fn add(&mut self) -> u64 {
        self.slots.push_back(Slot::default());
        self.first + self.slots.len() as u64 - 1
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The slot of the first task that has not ended.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn is_first(&self, slot: u64) -> bool {
        slot <= self.first
    }

    fn slot(&mut self, slot: u64) -> Option<&mut Slot> {
        let index = usize::try_from(slot.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(index)
    }

    /// Holds an event in a slot. Returns it if it can be read at once.
    pub(super) fn hold(&mut self, slot: u64, event: Py<PyAny>) -> Option<Py<PyAny>> {
        if self.is_first(slot) {
            return Some(event);
        }
        match self.slot(slot) {
            Some(found) => {
                found.held.push(event);
                self.held += 1;
                None
            }
            None => Some(event),
        }
    }

    /// Ends a slot. Returns the events that can be read now.
    pub(super) fn end(&mut self, slot: u64) -> Vec<Py<PyAny>> {
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

traverse!(OutputSlots { slots });
traverse!(Slot { held });
