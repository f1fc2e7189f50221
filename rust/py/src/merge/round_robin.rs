//! The policies that deliver one source's item at a time: first ready, fair, round-robin, concat and any.
//! `view.rs` calls the policy at each pull.

use headrace_core::sync::Key;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use super::merge::PyMerge;
use super::source::{Outcome, PollState};
use super::state::State;
use super::view::{Policy, PyMergeView, TakeResult, group};

/// The choice of a policy among the current outcomes.
enum Pick {
    /// An item without a label.
    Item(Py<PyAny>),
    Outcome(Key, Outcome),
    /// This entry of the list is outdated: pick again.
    Next,
    /// The next source has no outcome, but can be polled now.
    Poll,
    /// The policy waits for this source.
    Wait(Key),
    /// The list is empty.
    None,
}

impl State {
    /// Maintain the list `ready` from now on.
    pub(super) fn keep_ready(&mut self) {
        if std::mem::replace(&mut self.keeps_ready, true) {
            return;
        }
        for key in self.order.clone() {
            if let Some(entry) = self.sources.get_mut(key) {
                while entry.hints < entry.queue.len() {
                    entry.hints += 1;
                    self.ready.push_back(key);
                }
            }
        }
    }

    pub(super) fn clear_to_poll(&mut self) {
        self.promote_idle(usize::MAX);
        for key in std::mem::take(&mut self.to_poll) {
            if let Some(entry) = self.sources.get_mut(key) {
                entry.poll_state = PollState::No;
            }
        }
    }

    /// Take a source's oldest outcome if it is an item without a label, which is the most common case.
    #[inline]
    fn take_item(&mut self, key: Key) -> Option<Py<PyAny>> {
        let entry = self.sources.get_mut(key)?;
        if entry.is_labelled {
            return None;
        }
        match entry.queue.pop_front()? {
            Outcome::Item(item) => {
                self.request_next(key);
                Some(item)
            }
            other => {
                entry.queue.push_front(other);
                None
            }
        }
    }

    /// Take a source's oldest outcome, and request its next item.
    fn take(&mut self, key: Key) -> Option<Outcome> {
        let entry = self.sources.get_mut(key)?;
        let outcome = entry.queue.pop_front()?;
        if matches!(outcome, Outcome::End) {
            // An end is the last outcome.
            let _ = self.discard(key);
        } else {
            self.request_next(key);
        }
        Some(outcome)
    }

    /// Count the sources that gave an outcome in this round.
    fn served(&self, round: u64) -> usize {
        self.unfinished()
            .filter(|entry| entry.round == round)
            .count()
    }
}

impl PyMergeView {
    /// Take the next item if no source must be polled for it. Succeeds for most items of sources that are always ready.
    #[inline]
    pub(super) fn take_ready(&self, state: &mut State) -> Option<Py<PyAny>> {
        match self.policy {
            Policy::RoundRobin => {
                let key = *state.ring.front()?;
                let item = state.take_item(key)?;
                state.ring.rotate_left(1);
                Some(item)
            }
            Policy::FirstReady => {
                let key = *state.ready.front()?;
                let item = state.take_item(key)?;
                state.ready.pop_front();
                if let Some(entry) = state.sources.get_mut(key) {
                    entry.hints -= 1;
                }
                Some(item)
            }
            Policy::Fair | Policy::Concat | Policy::Zip(_) | Policy::Any => None,
        }
    }

    /// Take the outcomes that a policy picks, up to the first that gives the consumer a result.
    #[inline]
    fn take_by<'py>(
        &self,
        merge: &Bound<'py, PyMerge>,
        pick: impl Fn(&mut State) -> Pick,
    ) -> PyResult<TakeResult<'py>> {
        let py = merge.py();
        loop {
            let picked = pick(&mut merge.get().state.borrow(py));
            match picked {
                Pick::Item(item) => return Ok(TakeResult::Item(item.into_bound(py))),
                Pick::Outcome(key, outcome) => match self.deliver(merge, key, outcome)? {
                    TakeResult::Retry => {}
                    taken => return Ok(taken),
                },
                Pick::Next => {}
                Pick::Poll => return Ok(TakeResult::Retry),
                Pick::Wait(key) => return Ok(TakeResult::Wait(Some(key))),
                Pick::None => return self.end_or_wait(merge),
            }
        }
    }

    pub(super) fn take_first<'py>(&self, merge: &Bound<'py, PyMerge>) -> PyResult<TakeResult<'py>> {
        self.take_by(merge, |state| {
            let Some(key) = state.ready.pop_front() else {
                return Pick::None;
            };
            if let Some(entry) = state.sources.get_mut(key) {
                entry.hints -= 1;
            }
            if let Some(item) = state.take_item(key) {
                return Pick::Item(item);
            }
            let outcome = state.take(key);
            outcome.map_or(Pick::Next, |outcome| Pick::Outcome(key, outcome))
        })
    }

    pub(super) fn take_fair<'py>(&self, merge: &Bound<'py, PyMerge>) -> PyResult<TakeResult<'py>> {
        self.take_by(merge, |state| {
            let mut view = self.view.borrow(merge.py());
            if view.changes != state.changes {
                view.changes = state.changes;
                view.served = state.served(view.round);
            }
            if view.served >= state.active && !view.later.is_empty() {
                view.round += 1;
                view.served = 0;
                // The deferred sources became ready before those in `ready`.
                view.later.append(&mut state.ready);
                std::mem::swap(&mut view.later, &mut state.ready);
            }
            let Some(key) = state.ready.pop_front() else {
                return Pick::None;
            };
            let Some(entry) = state.sources.get_mut(key) else {
                return Pick::Next;
            };
            let is_served = entry.round == view.round;
            let is_end = matches!(entry.queue.front(), Some(Outcome::End));
            if is_served && !is_end {
                view.later.push_back(key);
                return Pick::Next;
            }
            entry.hints -= 1;
            entry.round = view.round;
            let Some(outcome) = state.take(key) else {
                return Pick::Next;
            };
            match (is_served, is_end) {
                (true, true) => view.served -= 1,
                (false, false) => view.served += 1,
                _ => {}
            }
            Pick::Outcome(key, outcome)
        })
    }

    pub(super) fn take_round_robin<'py>(
        &self,
        merge: &Bound<'py, PyMerge>,
    ) -> PyResult<TakeResult<'py>> {
        let keeps_head = matches!(self.policy, Policy::Concat);
        self.take_by(merge, |state| {
            let Some(key) = state.ring.front().copied() else {
                return Pick::None;
            };
            if !keeps_head && let Some(item) = state.take_item(key) {
                state.ring.rotate_left(1);
                return Pick::Item(item);
            }
            let Some(outcome) = state.take(key) else {
                if state.sources.get(key).is_none_or(|entry| entry.is_done) {
                    state.ring.pop_front();
                    return Pick::Next;
                }
                if state.can_poll_empty(key) {
                    state.promote_some_idle();
                    state.request_poll(key);
                    return Pick::Poll;
                }
                return Pick::Wait(key);
            };
            if matches!(outcome, Outcome::End) {
                state.ring.pop_front();
            } else if !keeps_head {
                state.ring.rotate_left(1);
            }
            Pick::Outcome(key, outcome)
        })
    }

    pub(super) fn take_any<'py>(&self, merge: &Bound<'py, PyMerge>) -> PyResult<TakeResult<'py>> {
        let py = merge.py();
        loop {
            let key = merge.get().state.borrow(py).ready.pop_front();
            let Some(key) = key else { break };
            let outcome = PyMerge::at(merge, key).with(|entry| {
                entry.hints -= 1;
                entry.queue.pop_front()
            });
            match outcome.flatten() {
                None => {}
                Some(Outcome::Item(item)) => {
                    merge.get().state.borrow(py).request_poll(key);
                    self.retry_failed(merge);
                    return self.deliver(merge, key, Outcome::Item(item));
                }
                Some(Outcome::Error(error)) if error.is_instance_of::<PyException>(py) => {
                    self.view.borrow(py).failed.push((key, *error));
                }
                Some(Outcome::Error(error)) => {
                    merge.get().state.borrow(py).request_poll(key);
                    return Err(*error);
                }
                Some(Outcome::End) => {
                    let _ = merge.get().state.borrow(py).discard(key);
                    PyMerge::at(merge, key).forget();
                }
            }
        }
        let active = merge.get().state.borrow(py).active;
        let failed = self.view.borrow(py).failed.len();
        if failed == 0 || failed < active {
            return self.end_or_wait(merge);
        }
        let failed = self.retry_failed(merge);
        let errors = failed.into_iter().map(|(_, error)| error).collect();
        Err(group(py, "all sources failed", errors))
    }

    /// Poll the failed sources again.
    fn retry_failed(&self, merge: &Bound<'_, PyMerge>) -> Vec<(Key, PyErr)> {
        let py = merge.py();
        let failed = std::mem::take(&mut self.view.borrow(py).failed);
        let mut state = merge.get().state.borrow(py);
        for (key, _) in &failed {
            state.request_poll(*key);
        }
        drop(state);
        failed
    }
}
