//! Whose item is the next one, where each comes by itself: races and turns.

use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use super::merge::Merge;
use super::source::{Asked, Key, Outcome};
use super::state::State;
use super::view::{MergeFeed, Policy, Taken, group};

impl State {
    /// Notes from now on in which order things come.
    pub(super) fn keep_ready(&mut self) {
        if std::mem::replace(&mut self.keeps_ready, true) {
            return;
        }
        for key in self.order.clone() {
            if let Some(slot) = self.slots.get_mut(key) {
                while slot.hints < slot.queue.len() {
                    slot.hints += 1;
                    self.ready.push_back(key);
                }
            }
        }
    }

    pub(super) fn forget_wanted(&mut self) {
        self.rouse(usize::MAX);
        for key in std::mem::take(&mut self.wanted) {
            if let Some(slot) = self.slots.get_mut(key) {
                slot.asked = Asked::No;
            }
        }
    }

    /// Takes a source's oldest outcome if it is an item without a label: what is taken most.
    #[inline]
    fn take_item(&mut self, key: Key) -> Option<Py<PyAny>> {
        let slot = self.slots.get_mut(key)?;
        if slot.is_labelled {
            return None;
        }
        match slot.queue.pop_front()? {
            Outcome::Item(item) => {
                self.want_more(key);
                Some(item)
            }
            other => {
                slot.queue.push_front(other);
                None
            }
        }
    }

    /// Takes a source's oldest outcome. It is to be asked again.
    fn take(&mut self, key: Key) -> Option<Outcome> {
        let slot = self.slots.get_mut(key)?;
        let outcome = slot.queue.pop_front()?;
        if matches!(outcome, Outcome::End) {
            // There is nothing behind it.
            let _ = self.dismiss(key);
        } else {
            self.want_more(key);
        }
        Some(outcome)
    }

    /// How many have given something in this round.
    fn served(&self, round: u64) -> usize {
        self.in_row().filter(|slot| slot.round == round).count()
    }
}

impl MergeFeed {
    /// What can be taken without asking anybody: most of what sources give that are always ready.
    #[inline]
    pub(super) fn take_ready(&self, state: &mut State) -> Option<Py<PyAny>> {
        match self.policy {
            Policy::RoundRobin => {
                let key = *state.ring.front()?;
                let item = state.take_item(key)?;
                state.ring.rotate_left(1);
                Some(item)
            }
            Policy::Race => {
                let key = *state.ready.front()?;
                let item = state.take_item(key)?;
                state.ready.pop_front();
                if let Some(slot) = state.slots.get_mut(key) {
                    slot.hints -= 1;
                }
                Some(item)
            }
            Policy::RaceRobin | Policy::Concat | Policy::Zip(_) | Policy::Any => None,
        }
    }

    pub(super) fn take_first<'py>(&self, merge: &Bound<'py, Merge>) -> PyResult<Taken<'py>> {
        let py = merge.py();
        loop {
            let next = {
                let mut state = merge.get().state.borrow(py);
                match state.ready.pop_front() {
                    None => None,
                    Some(key) => {
                        if let Some(slot) = state.slots.get_mut(key) {
                            slot.hints -= 1;
                        }
                        if let Some(item) = state.take_item(key) {
                            return Ok(Taken::Item(item.into_bound(py)));
                        }
                        match state.take(key) {
                            None => continue,
                            Some(outcome) => Some((key, outcome)),
                        }
                    }
                }
            };
            match next {
                None => return self.nothing(merge),
                Some((key, outcome)) => match self.deliver(merge, key, outcome)? {
                    Taken::Again => {}
                    taken => return Ok(taken),
                },
            }
        }
    }

    pub(super) fn take_first_of_round<'py>(
        &self,
        merge: &Bound<'py, Merge>,
    ) -> PyResult<Taken<'py>> {
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
                    // They came before what is ready only now.
                    view.later.append(&mut state.ready);
                    std::mem::swap(&mut view.later, &mut state.ready);
                }
                let Some(key) = state.ready.pop_front() else {
                    break;
                };
                let Some(slot) = state.slots.get_mut(key) else {
                    continue;
                };
                let is_served = slot.round == view.round;
                let is_end = matches!(slot.queue.front(), Some(Outcome::End));
                if is_served && !is_end {
                    view.later.push_back(key);
                    continue;
                }
                slot.hints -= 1;
                slot.round = view.round;
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
                Taken::Again => {}
                taken => return Ok(taken),
            }
        }
        self.nothing(merge)
    }

    pub(super) fn take_in_turn<'py>(&self, merge: &Bound<'py, Merge>) -> PyResult<Taken<'py>> {
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
                    return Ok(Taken::Item(item.into_bound(py)));
                }
                let Some(outcome) = state.take(key) else {
                    if state.slots.get(key).is_none_or(|slot| slot.is_done) {
                        state.ring.pop_front();
                        continue;
                    }
                    if state.may_ask(key) {
                        state.rouse_some();
                        state.want(key);
                        return Ok(Taken::Again);
                    }
                    return Ok(Taken::Wait(Some(key)));
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
                Taken::Again => {}
                taken => return Ok(taken),
            }
        }
        self.nothing(merge)
    }

    pub(super) fn take_success<'py>(&self, merge: &Bound<'py, Merge>) -> PyResult<Taken<'py>> {
        let py = merge.py();
        loop {
            let next = {
                let mut state = merge.get().state.borrow(py);
                match state.ready.pop_front() {
                    None => None,
                    Some(key) => {
                        let Some(slot) = state.slots.get_mut(key) else {
                            continue;
                        };
                        slot.hints -= 1;
                        match slot.queue.pop_front() {
                            None => continue,
                            Some(Outcome::End) => {
                                let _ = state.dismiss(key);
                                Some((key, Outcome::End))
                            }
                            Some(outcome) => Some((key, outcome)),
                        }
                    }
                }
            };
            match next {
                Some((key, Outcome::Item(item))) => {
                    merge.get().state.borrow(py).want(key);
                    self.ask_failed_again(merge);
                    return self.deliver(merge, key, Outcome::Item(item));
                }
                Some((key, Outcome::Error(error))) => {
                    if !error.is_instance_of::<PyException>(py) {
                        merge.get().state.borrow(py).want(key);
                        return Err(*error);
                    }
                    self.view.borrow(py).failed.push((key, *error));
                }
                Some((key, Outcome::End)) => merge.get().retire(py, key),
                None => {
                    let active = merge.get().state.borrow(py).active;
                    let failed = self.view.borrow(py).failed.len();
                    if failed == 0 || failed < active {
                        return self.nothing(merge);
                    }
                    let failed = self.ask_failed_again(merge);
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

    /// Those that failed had their turn.
    fn ask_failed_again(&self, merge: &Bound<'_, Merge>) -> Vec<(Key, PyErr)> {
        let py = merge.py();
        let failed = std::mem::take(&mut self.view.borrow(py).failed);
        let mut state = merge.get().state.borrow(py);
        for (key, _) in &failed {
            state.want(*key);
        }
        drop(state);
        failed
    }
}
