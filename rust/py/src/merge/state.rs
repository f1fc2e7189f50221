//! The mutable state of a merge, and the operations that keep its lists consistent.
//! `PyMerge` owns it; the other files of this module change it. See the [module](super) for the terms.

use std::collections::{HashMap, HashSet, VecDeque};

use headrace_core::sync::{Key, Slab};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::source::{Outcome, PollState, SourceState, Status};
use crate::object::gc::{Traverse, VisitError, Visitor, traverse};

/// The treatment of a source's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorPolicy {
    /// A pull raises it, and the stream continues.
    Raise,
    /// It is dropped.
    Skip,
    /// A pull raises it, and the stream ends.
    Stop,
}

/// Whether a merge is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    #[default]
    Open,
    /// All sources are closed or being closed.
    Closed,
}

/// A waiting pull.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) future: Py<PyAny>,
    /// The only source that it waits for.
    pub(super) target: Option<Key>,
}

traverse!(Waiter { future });

/// The event loop that drives a merge: the running one of the first call.
#[derive(Debug)]
pub(super) struct EventLoop {
    pub(super) object: Py<PyAny>,
    /// The thread of the first call. The loop may run in another thread later.
    pub(super) thread: u64,
    pub(super) call_soon: Py<PyAny>,
    pub(super) create_future: Py<PyAny>,
}

traverse!(EventLoop {
    object,
    call_soon,
    create_future
});

/// The mutable state of a merge.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the requirements of the views are independent of one another"
)]
pub(super) struct State {
    pub(super) sources: Slab<SourceState>,
    /// The sources, in the order in which they were added.
    pub(super) order: Vec<Key>,
    /// Sources to poll in the next pull.
    pub(super) to_poll: VecDeque<Key>,
    /// Prompt sources to poll together with those, or when no item is ready; in the order in which their last item was taken.
    pub(super) idle: VecDeque<Key>,
    /// The number of steps that are charged to the yield budget already, by pulls that stepped no source.
    pub(super) prepaid: usize,
    /// Sources that yielded to the event loop. While there are any, a callback is scheduled.
    pub(super) yielding: Vec<Key>,
    /// Sources with an outcome, oldest first. Another view may have emptied some of them. Kept if `keeps_ready`.
    pub(super) ready: VecDeque<Key>,
    pub(super) keeps_ready: bool,
    /// The sources in the order of the round-robin. Kept if `keeps_ring`.
    pub(super) ring: VecDeque<Key>,
    pub(super) keeps_ring: bool,
    /// Only the head of the ring is polled.
    pub(super) polls_head_only: bool,
    pub(super) waiters: Vec<Waiter>,
    /// The number of sources, except cutoffs, whose end was not taken.
    pub(super) active: usize,
    /// The number of sources that are not closed.
    pub(super) live: usize,
    /// A cutoff gave an item.
    pub(super) is_cut: bool,
    /// Errors of closing sources that had ended; the next pulls raise them.
    pub(super) close_errors: VecDeque<PyErr>,
    /// Errors of closing all sources.
    pub(super) errors: Vec<PyErr>,
    /// Errors of closing removed sources.
    pub(super) removed_errors: Vec<(Py<PyAny>, PyErr)>,
    pub(super) phase: Phase,
    pub(super) event_loop: Option<EventLoop>,
    /// The tasks of the sources, by address.
    pub(super) tasks: HashSet<usize>,
    /// The sources that have not ended, by the address of the user's object.
    pub(super) members: HashMap<usize, Key>,
    /// The number of sources with an end in their queue.
    pub(super) ends: usize,
    /// The number of sources that were ever added.
    pub(super) added: usize,
    /// Incremented at each change of the list of sources.
    pub(super) changes: u64,
    pub(super) is_check_scheduled: bool,
}

impl State {
    /// Iterate over all sources in the order in which they were added.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &SourceState> {
        self.order.iter().filter_map(|key| self.sources.get(*key))
    }

    /// Take the callbacks of paused sources.
    pub(super) fn callbacks(&mut self) -> Vec<Py<PyTuple>> {
        self.sources
            .iter_mut()
            .filter(|entry| matches!(entry.status, Status::Paused))
            .filter_map(|entry| entry.callback.take())
            .collect()
    }

    /// Add a source.
    pub(super) fn add_source(&mut self, entry: SourceState) {
        let (is_cutoff, source) = (entry.is_cutoff, entry.source.as_ptr().addr());
        self.changes += 1;
        let key = self.sources.insert(entry);
        self.members.insert(source, key);
        self.order.push(key);
        self.start(key, is_cutoff);
    }

    /// Find the index of a source in the order, which is that of the numbers. A binary search, since there may be many.
    pub(super) fn index_of(&self, number: usize) -> Option<usize> {
        let number_of = |key: &Key| self.sources.get(*key).map(|entry| entry.number);
        self.order
            .binary_search_by_key(&Some(number), number_of)
            .ok()
    }

    /// Remove a source from the order.
    pub(super) fn remove_from_order(&mut self, key: Key) {
        let number = self.sources.get(key).map(|entry| entry.number);
        if let Some(index) = number.and_then(|number| self.index_of(number)) {
            self.order.remove(index);
        }
    }

    /// Count a new source and request its first poll.
    pub(super) fn start(&mut self, key: Key, is_cutoff: bool) {
        self.live += 1;
        self.active += usize::from(!is_cutoff);
        if self.keeps_ring {
            self.ring.push_back(key);
        }
        if !self.polls_head_only {
            self.request_poll(key);
        }
    }

    /// Take the next source to poll.
    #[inline]
    pub(super) fn next_to_poll(&mut self, prefetch: usize) -> Option<(Key, &mut SourceState)> {
        // Looked up twice: a borrow returned from inside a loop would last for the whole loop.
        let key = loop {
            let key = self.to_poll.pop_front()?;
            if let Some(entry) = self.sources.get_mut(key) {
                entry.poll_state = PollState::No;
                if entry.can_poll(prefetch) {
                    break key;
                }
            }
        };
        self.sources.get_mut(key).map(|entry| (key, entry))
    }

    /// Request that the next pull polls a source.
    #[inline]
    pub(super) fn request_poll(&mut self, key: Key) {
        if let Some(entry) = self.sources.get_mut(key)
            && entry.poll_state != PollState::Requested
        {
            let was_idle =
                std::mem::replace(&mut entry.poll_state, PollState::Requested) == PollState::Idle;
            self.promote_idle(usize::MAX);
            if !was_idle {
                self.to_poll.push_back(key);
            }
        }
    }

    /// Put a source that was just taken from the list back to its front.
    #[cold]
    pub(super) fn request_poll_first(&mut self, key: Key) {
        if let Some(entry) = self.sources.get_mut(key) {
            entry.poll_state = PollState::Requested;
            self.to_poll.push_front(key);
        }
    }

    /// Request the next item of a source after one was taken.
    #[inline]
    pub(super) fn request_next(&mut self, key: Key) {
        match self.sources.get_mut(key) {
            Some(entry) if entry.is_prompt && entry.poll_state == PollState::No => {
                entry.poll_state = PollState::Idle;
                self.idle.push_back(key);
            }
            Some(entry) if !entry.is_prompt => self.request_poll(key),
            _ => {}
        }
    }

    /// Move at most `most` idle sources to the front of `to_poll`: their items were taken before those of the others.
    #[inline]
    pub(super) fn promote_idle(&mut self, most: usize) {
        let count = self.idle.len().min(most);
        for key in self.idle.drain(..count).rev() {
            if let Some(entry) = self.sources.get_mut(key) {
                entry.poll_state = PollState::Requested;
            }
            self.to_poll.push_front(key);
        }
    }

    /// Move one batch of idle sources to `to_poll`. A bounded batch keeps the items in the processor's cache until they
    /// are taken.
    #[inline]
    pub(super) fn promote_some_idle(&mut self) {
        self.promote_idle(64);
    }

    /// Record that a pull charged one item to its task's budget.
    #[inline]
    pub(super) fn prepay(&mut self) {
        self.prepaid = (self.prepaid + 1).min(self.order.len());
    }

    /// Use one charged step; false if there is none.
    #[inline]
    pub(super) fn use_prepaid(&mut self) -> bool {
        let is_paid = self.prepaid > 0;
        self.prepaid -= usize::from(is_paid);
        is_paid
    }

    /// Queue an item on the fast path. Returns the item if its source needs the general path.
    #[inline]
    pub(super) fn accept<'py>(
        &mut self,
        key: Key,
        item: Bound<'py, PyAny>,
        prefetch: usize,
    ) -> Result<(), Bound<'py, PyAny>> {
        let Some(entry) = self.sources.get_mut(key) else {
            return Err(item);
        };
        if entry.is_closing || entry.is_cutoff || prefetch > 1 || !self.waiters.is_empty() {
            return Err(item);
        }
        entry.status.replace(Status::Paused);
        entry.queue.push_back(Outcome::Item(item.unbind()));
        if self.keeps_ready && entry.hints < entry.queue.len() {
            entry.hints += 1;
            self.ready.push_back(key);
        }
        Ok(())
    }

    /// Queue an outcome. Returns the futures of the pulls to wake.
    #[inline]
    pub(super) fn push(&mut self, key: Key, outcome: Outcome) -> Vec<Py<PyAny>> {
        let is_end = matches!(outcome, Outcome::End);
        let Some(entry) = self.sources.get_mut(key) else {
            return Vec::new();
        };
        if is_end {
            self.members.remove(&entry.source.as_ptr().addr());
        }
        if entry.is_cutoff && !matches!(outcome, Outcome::Error(_)) {
            if is_end {
                return Vec::new();
            }
            self.is_cut = true;
            return self.wake(None);
        }
        entry.queue.push_back(outcome);
        if is_end && !std::mem::replace(&mut entry.holds_end, true) {
            self.ends += 1;
        }
        if self.keeps_ready && entry.hints < entry.queue.len() {
            entry.hints += 1;
            self.ready.push_back(key);
        }
        if self.waiters.is_empty() {
            return Vec::new();
        }
        self.wake((!is_end).then_some(key))
    }

    /// Remove the pulls that wait for this source or for any; without a key, all pulls. Returns their futures.
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

    /// Mark a source as done for the consumer. Returns its remaining outcomes.
    #[must_use]
    pub(super) fn discard(&mut self, key: Key) -> VecDeque<Outcome> {
        let Some(entry) = self.sources.get_mut(key) else {
            return VecDeque::new();
        };
        let source = entry.source.as_ptr().addr();
        if self.members.get(&source) == Some(&key) {
            self.members.remove(&source);
        }
        if std::mem::take(&mut entry.holds_end) {
            self.ends -= 1;
        }
        if !entry.is_done {
            entry.is_done = true;
            self.active -= usize::from(!entry.is_cutoff);
        }
        std::mem::take(&mut entry.queue)
    }
}

impl Traverse for State {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        self.sources
            .iter()
            .try_for_each(|entry| entry.traverse(visit))?;
        self.waiters.traverse(visit)?;
        let mut removed = self.removed_errors.iter();
        removed.try_for_each(|(source, _)| visit(source))?;
        self.event_loop.traverse(visit)
    }
}
