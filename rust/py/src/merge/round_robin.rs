//! The policies that deliver one source's item at a time: first ready, fair, round-robin, concat and any.

use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use super::merge::PyMerge;
use super::source::{Key, Outcome, PollState};
use super::state::State;
use super::view::{Policy, PyMergeView, TakeResult, group};

impl State {
    /// Maintains the list `ready` from now on.
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

    /// Takes a source's oldest outcome if it is an item without a label, which is the most common case.
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

    /// Takes a source's oldest outcome, and requests its next item.
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

    /// Counts the sources that gave an outcome in this round.
    fn served(&self, round: u64) -> usize {
        self.unfinished()
            .filter(|entry| entry.round == round)
            .count()
    }
}

impl PyMergeView {
    /// Takes the next item if no source must be polled for it. Succeeds for most items of sources that are always ready.
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

    pub(super) fn take_first<'py>(&self, merge: &Bound<'py, PyMerge>) -> PyResult<TakeResult<'py>> {
        let py = merge.py();
        loop {
            let next = {
                let mut state = merge.get().state.borrow(py);
                match state.ready.pop_front() {
                    None => None,
                    Some(key) => {
                        if let Some(entry) = state.sources.get_mut(key) {
                            entry.hints -= 1;
                        }
                        if let Some(item) = state.take_item(key) {
                            return Ok(TakeResult::Item(item.into_bound(py)));
                        }
                        match state.take(key) {
                            None => continue,
                            Some(outcome) => Some((key, outcome)),
                        }
                    }
                }
            };
            match next {
                None => return self.end_or_wait(merge),
                Some((key, outcome)) => match self.deliver(merge, key, outcome)? {
                    TakeResult::Retry => {}
                    taken => return Ok(taken),
                },
            }
        }
    }

    pub(super) fn take_fair<'py>(&self, merge: &Bound<'py, PyMerge>) -> PyResult<TakeResult<'py>> {
        let py = merge.py();
        loop {
            let next = {
                let mut view = self.view.borrow(py);
                let mut state = merge.get().state.borrow(py);
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
                    break;
                };
                let Some(entry) = state.sources.get_mut(key) else {
                    continue;
                };
                let is_served = entry.round == view.round;
                let is_end = matches!(entry.queue.front(), Some(Outcome::End));
                if is_served && !is_end {
                    view.later.push_back(key);
                    continue;
                }
                entry.hints -= 1;
                entry.round = view.round;
                let Some(outcome) = state.take(key) else {
                    continue;
                };
                match (is_served, is_end) {
                    (true, true) => view.served -= 1,
                    (false, false) => view.served += 1,
                    _ => {}
                }
                (key, outcome)
            };
            match self.deliver(merge, next.0, next.1)? {
                TakeResult::Retry => {}
                taken => return Ok(taken),
            }
        }
        self.end_or_wait(merge)
    }

    pub(super) fn take_round_robin<'py>(
        &self,
        merge: &Bound<'py, PyMerge>,
    ) -> PyResult<TakeResult<'py>> {
        let py = merge.py();
        let keeps_head = matches!(self.policy, Policy::Concat);
        loop {
            let next = {
                let mut state = merge.get().state.borrow(py);
                let Some(key) = state.ring.front().copied() else {
                    break;
                };
                if !keeps_head && let Some(item) = state.take_item(key) {
                    state.ring.rotate_left(1);
                    return Ok(TakeResult::Item(item.into_bound(py)));
                }
                let Some(outcome) = state.take(key) else {
                    if state.sources.get(key).is_none_or(|entry| entry.is_done) {
                        state.ring.pop_front();
                        continue;
                    }
                    if state.can_poll_empty(key) {
                        state.promote_some_idle();
                        state.request_poll(key);
                        return Ok(TakeResult::Retry);
                    }
                    return Ok(TakeResult::Wait(Some(key)));
                };
                let is_end = matches!(outcome, Outcome::End);
                if is_end || !keeps_head {
                    state.ring.pop_front();
                }
                if !is_end && !keeps_head {
                    state.ring.push_back(key);
                }
                (key, outcome)
            };
            match self.deliver(merge, next.0, next.1)? {
                TakeResult::Retry => {}
                taken => return Ok(taken),
            }
        }
        self.end_or_wait(merge)
    }

    pub(super) fn take_any<'py>(&self, merge: &Bound<'py, PyMerge>) -> PyResult<TakeResult<'py>> {
        let py = merge.py();
        loop {
            let next = {
                let mut state = merge.get().state.borrow(py);
                match state.ready.pop_front() {
                    None => None,
                    Some(key) => {
                        let Some(entry) = state.sources.get_mut(key) else {
                            continue;
                        };
                        entry.hints -= 1;
                        match entry.queue.pop_front() {
                            None => continue,
                            Some(Outcome::End) => {
                                let _ = state.discard(key);
                                Some((key, Outcome::End))
                            }
                            Some(outcome) => Some((key, outcome)),
                        }
                    }
                }
            };
            match next {
                Some((key, Outcome::Item(item))) => {
                    merge.get().state.borrow(py).request_poll(key);
                    self.retry_failed(merge);
                    return self.deliver(merge, key, Outcome::Item(item));
                }
                Some((key, Outcome::Error(error))) => {
                    if !error.is_instance_of::<PyException>(py) {
                        merge.get().state.borrow(py).request_poll(key);
                        return Err(*error);
                    }
                    self.view.borrow(py).failed.push((key, *error));
                }
                Some((key, Outcome::End)) => merge.get().forget(py, key),
                None => {
                    let active = merge.get().state.borrow(py).active;
                    let failed = self.view.borrow(py).failed.len();
                    if failed == 0 || failed < active {
                        return self.end_or_wait(merge);
                    }
                    let failed = self.retry_failed(merge);
                    let mut errors: Vec<PyErr> =
                        failed.into_iter().map(|(_, error)| error).collect();
                    return Err(match errors.len() {
                        1 => errors.remove(0),
                        _ => group(py, "all sources failed", errors)?,
                    });
                }
            }
        }
    }

    /// Polls the failed sources again.
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
