//! Everything of a merge that changes, and what keeps its lists in step.

use std::collections::{HashMap, HashSet, VecDeque};

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::source::{Asked, Key, Outcome, Slot, Slots, Status};

/// What becomes of an error of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorPolicy {
    /// A pull raises it, and the stream goes on.
    Raise,
    /// It is dropped.
    Skip,
    /// A pull raises it, and it was the last one.
    Stop,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    #[default]
    Open,
    /// Everything is being closed, or is closed.
    Closed,
}

/// A pull that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) future: Py<PyAny>,
    /// Only this source will do.
    pub(super) target: Option<Key>,
}

/// Everything of a merge that changes.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "what the views ask for is independent of one another"
)]
pub(super) struct State {
    pub(super) slots: Slots,
    /// The sources, in the order in which they were given and added.
    pub(super) order: Vec<Key>,
    /// Those to be asked by the next pull.
    pub(super) wanted: VecDeque<Key>,
    /// Those to be asked together with them, or when there is nothing else to be taken, in the order
    /// in which something of them was taken.
    pub(super) idle: VecDeque<Key>,
    /// How many steps the pulls have paid for that made none.
    pub(super) paid: usize,
    /// Those that let the loop have a turn. While there are any, a callback is on its way.
    pub(super) resting: Vec<Key>,
    /// Those that have something, in the order in which it came, for who takes what is first. Some
    /// may have been emptied by somebody else meanwhile.
    pub(super) ready: VecDeque<Key>,
    pub(super) keeps_ready: bool,
    /// Whose turn it is, for who takes them in turn.
    pub(super) ring: VecDeque<Key>,
    pub(super) keeps_ring: bool,
    /// Nobody is asked but the head of the ring.
    pub(super) asks_head_only: bool,
    pub(super) waiters: Vec<Waiter>,
    /// Those, cutoffs aside, whose end was not taken yet.
    pub(super) active: usize,
    /// Those that are not closed yet.
    pub(super) live: usize,
    /// A cutoff gave something.
    pub(super) is_cut: bool,
    /// Errors that belong to no item: those of closing a source that ended.
    pub(super) complaints: VecDeque<PyErr>,
    /// Errors of closing everything.
    pub(super) errors: Vec<PyErr>,
    /// Errors of closing those that were removed.
    pub(super) parted: Vec<(Py<PyAny>, PyErr)>,
    pub(super) phase: Phase,
    pub(super) event_loop: Option<Py<PyAny>>,
    /// The thread that ran that loop when it was met. A loop that runs a step of a task may run it in another thread, too.
    pub(super) thread: u64,
    pub(super) call_soon: Option<Py<PyAny>>,
    pub(super) create_future: Option<Py<PyAny>>,
    /// The tasks of the sources, by address.
    pub(super) tasks: HashSet<usize>,
    /// What they are taken from, by address: all that have not ended.
    pub(super) members: HashMap<usize, Key>,
    /// How many hold their end.
    pub(super) ends: usize,
    pub(super) given: usize,
    /// Counts the changes of the list of sources.
    pub(super) changes: u64,
    pub(super) is_inspecting: bool,
}

impl State {
    /// All sources, in the order in which they were given.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &Slot> {
        self.order.iter().filter_map(|key| self.slots.get(*key))
    }

    /// The sources that have not come to their end.
    pub(super) fn present(&self) -> impl Iterator<Item = &Slot> {
        self.in_order().filter(|slot| slot.is_present())
    }

    /// Takes the callbacks of those that wait for nothing.
    pub(super) fn callbacks(&mut self) -> Vec<Py<PyTuple>> {
        self.slots
            .iter_mut()
            .filter(|slot| matches!(slot.status, Status::Standing))
            .filter_map(|slot| slot.resumption.take())
            .collect()
    }

    /// A source comes in.
    pub(super) fn enter(&mut self, slot: Slot) {
        let (is_cutoff, source) = (slot.is_cutoff, slot.source.as_ptr().addr());
        self.changes += 1;
        let key = self.slots.insert(slot);
        self.members.insert(source, key);
        self.order.push(key);
        self.enlist(key, is_cutoff);
    }

    /// Where the source with this number is in the order, which is that of the numbers. There may be many: they are not
    /// looked at one by one.
    pub(super) fn place_of(&self, number: usize) -> Option<usize> {
        let number_of = |key: &Key| self.slots.get(*key).map(|slot| slot.number);
        self.order
            .binary_search_by_key(&Some(number), number_of)
            .ok()
    }

    /// A source goes out of the order.
    pub(super) fn leave(&mut self, key: Key) {
        let number = self.slots.get(key).map(|slot| slot.number);
        if let Some(place) = number.and_then(|number| self.place_of(number)) {
            self.order.remove(place);
        }
    }

    /// A source begins.
    pub(super) fn enlist(&mut self, key: Key, is_cutoff: bool) {
        self.live += 1;
        self.active += usize::from(!is_cutoff);
        if self.keeps_ring {
            self.ring.push_back(key);
        }
        if !self.asks_head_only {
            self.want(key);
        }
    }

    /// The next one to be asked.
    #[inline]
    pub(super) fn next_wanted(&mut self, prefetch: usize) -> Option<(Key, &mut Slot)> {
        // Twice looked up, as a borrow that is returned out of a loop holds for all of it.
        let key = loop {
            let key = self.wanted.pop_front()?;
            if let Some(slot) = self.slots.get_mut(key) {
                slot.asked = Asked::No;
                if slot.may_be_asked(prefetch) {
                    break key;
                }
            }
        };
        self.slots.get_mut(key).map(|slot| (key, slot))
    }

    /// It is to be asked by the next pull.
    #[inline]
    pub(super) fn want(&mut self, key: Key) {
        if let Some(slot) = self.slots.get_mut(key)
            && slot.asked != Asked::Wanted
        {
            let was_idle = std::mem::replace(&mut slot.asked, Asked::Wanted) == Asked::Idle;
            self.rouse(usize::MAX);
            if !was_idle {
                self.wanted.push_back(key);
            }
        }
    }

    /// It was to be asked just now, and is to be so by the next pull, before all others.
    #[cold]
    pub(super) fn want_first(&mut self, key: Key) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.asked = Asked::Wanted;
            self.wanted.push_front(key);
        }
    }

    /// Something of it was taken: it is to be asked for the next.
    #[inline]
    pub(super) fn want_more(&mut self, key: Key) {
        match self.slots.get_mut(key) {
            Some(slot) if slot.is_prompt && slot.asked == Asked::No => {
                slot.asked = Asked::Idle;
                self.idle.push_back(key);
            }
            Some(slot) if !slot.is_prompt => self.want(key),
            _ => {}
        }
    }

    /// So many of those that are idle are to be asked by the next pull too: before the others, as
    /// what was taken of them was taken before.
    #[inline]
    pub(super) fn rouse(&mut self, most: usize) {
        let count = self.idle.len().min(most);
        for key in self.idle.drain(..count).rev() {
            if let Some(slot) = self.slots.get_mut(key) {
                slot.asked = Asked::Wanted;
            }
            self.wanted.push_front(key);
        }
    }

    /// There is nothing to be taken: some of those that are idle are to be asked. Not all at once,
    /// as what they give is taken while it is near.
    #[inline]
    pub(super) fn rouse_some(&mut self) {
        self.rouse(64);
    }

    /// A pull has spent one item of its task's budget.
    #[inline]
    pub(super) fn pay(&mut self) {
        self.paid = (self.paid + 1).min(self.order.len());
    }

    /// Whether a step is paid for already.
    #[inline]
    pub(super) fn use_paid(&mut self) -> bool {
        let is_paid = self.paid > 0;
        self.paid -= usize::from(is_paid);
        is_paid
    }

    /// An item came of a source, and nothing else is to be seen to. Gives it back if something is.
    #[inline]
    pub(super) fn accept<'py>(
        &mut self,
        key: Key,
        item: Bound<'py, PyAny>,
        prefetch: usize,
    ) -> Result<(), Bound<'py, PyAny>> {
        let Some(slot) = self.slots.get_mut(key) else {
            return Err(item);
        };
        if slot.is_closing || slot.is_cutoff || prefetch > 1 || !self.waiters.is_empty() {
            return Err(item);
        }
        slot.status.turn(Status::Standing);
        slot.queue.push_back(Outcome::Item(item.unbind()));
        if self.keeps_ready && slot.hints < slot.queue.len() {
            slot.hints += 1;
            self.ready.push_back(key);
        }
        Ok(())
    }

    /// Something came of a source. Gives whom to wake.
    #[inline]
    pub(super) fn push(&mut self, key: Key, outcome: Outcome) -> Vec<Py<PyAny>> {
        let is_end = matches!(outcome, Outcome::End);
        let Some(slot) = self.slots.get_mut(key) else {
            return Vec::new();
        };
        if slot.is_cutoff && !matches!(outcome, Outcome::Error(_)) {
            if is_end {
                return Vec::new();
            }
            self.is_cut = true;
            return self.wake(None);
        }
        slot.queue.push_back(outcome);
        if is_end && !std::mem::replace(&mut slot.holds_end, true) {
            self.ends += 1;
        }
        if self.keeps_ready && slot.hints < slot.queue.len() {
            slot.hints += 1;
            self.ready.push_back(key);
        }
        if self.waiters.is_empty() {
            return Vec::new();
        }
        self.wake((!is_end).then_some(key))
    }

    /// Those who wait for a source, or for anything; all of them without one.
    #[must_use]
    pub(super) fn wake(&mut self, key: Option<Key>) -> Vec<Py<PyAny>> {
        let concerns = |waiter: &Waiter| match (waiter.target, key) {
            (Some(target), Some(key)) => target == key,
            _ => true,
        };
        let (woken, rest) = std::mem::take(&mut self.waiters)
            .into_iter()
            .partition::<Vec<_>, _>(concerns);
        self.waiters = rest;
        woken.into_iter().map(|waiter| waiter.future).collect()
    }

    /// The consumer is through with a source. Gives what it had.
    #[must_use]
    pub(super) fn dismiss(&mut self, key: Key) -> VecDeque<Outcome> {
        let Some(slot) = self.slots.get_mut(key) else {
            return VecDeque::new();
        };
        let source = slot.source.as_ptr().addr();
        if self.members.get(&source) == Some(&key) {
            self.members.remove(&source);
        }
        if std::mem::take(&mut slot.holds_end) {
            self.ends -= 1;
        }
        if !slot.is_done {
            slot.is_done = true;
            self.active -= usize::from(!slot.is_cutoff);
        }
        std::mem::take(&mut slot.queue)
    }
}
