//! The order of the events of an ordered run. `EventQueue` holds it.
//!
//! Each accepted task has a slot. Only the events of the first task that has not ended are readable. The events of later tasks are
//! held in their slots until their task is the first. Slots are numbered from the start of the run, so that a look-up in the ring is
//! O(1).

use std::collections::VecDeque;

use pyo3::prelude::*;

use crate::object::gc::traverse;

/// The slots of an ordered run, in the order in which its tasks were accepted.
#[derive(Debug, Default)]
pub(super) struct OutputSlots {
    slots: VecDeque<Slot>,
    /// The number of the first slot in `slots`.
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
    /// Append a slot. Return its number.
    pub(super) fn add(&mut self) -> u64 {
        self.slots.push_back(Slot::default());
        self.first + self.slots.len() as u64 - 1
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Return the slot of the first task that has not ended.
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

    /// Hold an event in a slot. Return it instead if it is readable at once.
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

    /// End a slot. Return the events that become readable.
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
