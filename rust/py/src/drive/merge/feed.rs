//! `MergeFeed`: one way of taking what the sources of a merge give.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use pyo3::exceptions::{PyBaseException, PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::identity::check_loop;
use super::merge::Merge;
use super::slot::{Key, Outcome, Slot};
use super::state::{OnError, Phase, State, Waiter};
use crate::errors;
use crate::feed::{Drawn, Wait};
use crate::gc;
use crate::gil::GilCell;

/// Which item is the next one.
#[derive(Debug)]
enum Policy {
    /// The one that came first. With cutoffs, until one of them gives something.
    Race,
    /// Of each source in turn.
    RoundRobin,
    /// As in a race, but each source once in a round.
    RaceRobin,
    /// All of the first source, then all of the next.
    Concat,
    /// One of each source, as a tuple.
    Zip(Ending),
    /// The one that came first; errors only where there is nothing else.
    Any,
}

/// When rows end.
#[derive(Debug)]
enum Ending {
    /// With the first source that ends.
    Shortest,
    /// The same, but the sources stay open, and keep what they gave for a row that is not whole.
    Open,
    /// With all sources at once; otherwise it is an error.
    Strict,
    /// With the last source; this stands for what the others have no more of.
    Longest(Py<PyAny>),
}

/// How far a view has come.
#[derive(Debug, Default)]
enum Progress {
    #[default]
    Open,
    /// The sources are being closed; then this is raised, if there is something, and it ends.
    Ending(Option<PyErr>),
    Ended,
}

#[derive(Debug, Default)]
struct View {
    phase: Progress,
    /// How much of the row is there, for zip.
    complete: usize,
    /// How many rows were given.
    rows: u64,
    /// Errors of a row of which one was raised.
    failures: VecDeque<PyErr>,
    /// For `any`: who failed, and is not asked again before the others have.
    failed: Vec<(Key, PyErr)>,
    /// The round of a race-robin, and how many sources have given something in it.
    round: u64,
    served: usize,
    /// As of which change of the sources that is.
    changes: u64,
    /// Those that have an item for the next round.
    later: VecDeque<Key>,
}

/// How many merges are inside one another on the stack.
static DEPTH: AtomicUsize = AtomicUsize::new(0);

/// A merge of merges of merges is polled in place, one inside the other. From some depth on one of
/// them rests, and goes on from the loop with the stack to itself.
struct Depth(usize);

impl Depth {
    const MOST: usize = 100;

    #[inline]
    fn deeper() -> Self {
        let depth = DEPTH.load(Relaxed);
        DEPTH.store(depth + 1, Relaxed);
        Self(depth)
    }

    #[inline]
    fn is_too_deep(&self) -> bool {
        self.0 >= Self::MOST
    }
}

impl Drop for Depth {
    #[inline]
    fn drop(&mut self) {
        DEPTH.store(self.0, Relaxed);
    }
}

/// What there is to be taken.
enum Taken<'py> {
    Item(Bound<'py, PyAny>),
    /// Nothing; but somebody else may be asked now.
    Again,
    /// Nothing, until this source (or any) gives something.
    Wait(Option<Key>),
    End,
}

/// A view of a merge: a feed.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct MergeFeed {
    merge: Py<Merge>,
    policy: Policy,
    /// Raised when a cutoff gives something.
    error: Option<Py<PyAny>>,
    view: GilCell<View>,
}

#[pymethods]
impl MergeFeed {
    #[new]
    #[pyo3(signature = (merge, policy, *, fill = None, error = None))]
    fn new(
        merge: &Bound<'_, Merge>,
        policy: &str,
        fill: Option<&Bound<'_, PyAny>>,
        error: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let py = merge.py();
        let policy = match policy {
            "race" => Policy::Race,
            "round_robin" => Policy::RoundRobin,
            "race_robin" => Policy::RaceRobin,
            "concat" => Policy::Concat,
            "zip" => Policy::Zip(Ending::Shortest),
            "zip_open" => Policy::Zip(Ending::Open),
            "zip_strict" => Policy::Zip(Ending::Strict),
            "zip_longest" => Policy::Zip(Ending::Longest(
                fill.map_or_else(|| py.None(), |fill| fill.clone().unbind()),
            )),
            "any" => Policy::Any,
            _ => {
                return Err(PyValueError::new_err(format!(
                    "there is no policy {policy:?}"
                )));
            }
        };
        {
            let mut state = merge.get().state.borrow(py);
            match policy {
                Policy::RoundRobin | Policy::Concat => {
                    if !state.keeps_ring {
                        state.keeps_ring = true;
                        state.ring = state.order.iter().copied().collect();
                    }
                    if matches!(policy, Policy::Concat) {
                        state.asks_head_only = true;
                        state.forget_wanted();
                    }
                }
                Policy::Race | Policy::RaceRobin | Policy::Any => state.keep_ready(),
                Policy::Zip(_) => {}
            }
        }
        Ok(Self {
            merge: merge.clone().unbind(),
            policy,
            error: error.map(|error| error.clone().unbind()),
            view: GilCell::new(View {
                round: 1,
                ..View::default()
            }),
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::show(&visit, |see| {
            see(self.merge.as_any())?;
            if let Some(error) = &self.error {
                see(error)?;
            }
            match &self.policy {
                Policy::Zip(Ending::Longest(fill)) => see(fill),
                _ => Ok(()),
            }
        })
    }
}

impl State {
    /// Notes from now on in which order things come.
    fn keep_ready(&mut self) {
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

    fn forget_wanted(&mut self) {
        for key in std::mem::take(&mut self.wanted) {
            if let Some(slot) = self.slots.get_mut(key) {
                slot.is_wanted = false;
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
                if !std::mem::replace(&mut slot.is_wanted, true) {
                    self.wanted.push_back(key);
                }
                Some(item)
            }
            other => {
                slot.queue.push_front(other);
                None
            }
        }
    }

    /// Takes a source's oldest outcome. It is asked again by the next pull.
    fn take(&mut self, key: Key) -> Option<Outcome> {
        let slot = self.slots.get_mut(key)?;
        let outcome = slot.queue.pop_front()?;
        if matches!(outcome, Outcome::End) {
            // There is nothing behind it.
            let _ = self.dismiss(key);
        } else {
            self.want(key);
        }
        Some(outcome)
    }
}

impl MergeFeed {
    /// The sources that it takes from.
    pub(crate) fn merge(&self, py: Python<'_>) -> Py<Merge> {
        self.merge.clone_ref(py)
    }

    /// The next item.
    pub(crate) fn draw<'py>(&self, py: Python<'py>) -> PyResult<Drawn<'py>> {
        let merge = self.merge.bind(py);
        let depth = Depth::deeper();
        loop {
            if depth.is_too_deep() || Merge::ask(merge)? {
                let rest = Wait::Merge { waiter: None };
                return Ok(Drawn::Wait(Box::new(rest), py.None().into_bound(py)));
            }
            match self.take(merge)? {
                Taken::Item(item) => return Ok(Drawn::Item(item)),
                Taken::Again => {}
                Taken::Wait(target) => return Self::wait(merge, target),
                Taken::End => return Ok(Drawn::End),
            }
        }
    }

    pub(crate) fn resume<'py>(
        &self,
        py: Python<'py>,
        waiter: Option<&Py<PyAny>>,
        sent: Result<&Bound<'py, PyAny>, PyErr>,
    ) -> PyResult<Drawn<'py>> {
        self.abandon(py, waiter);
        // What came meanwhile stays where it is.
        sent?;
        self.draw(py)
    }

    /// A pull that waited does so no more.
    pub(crate) fn abandon(&self, py: Python<'_>, waiter: Option<&Py<PyAny>>) {
        let Some(waiter) = waiter else { return };
        let gone = {
            let mut state = self.merge.get().state.borrow(py);
            let place = state
                .waiters
                .iter()
                .position(|other| other.future.is(waiter));
            place.map(|place| state.waiters.swap_remove(place))
        };
        drop(gone);
    }

    fn wait<'py>(merge: &Bound<'py, Merge>, target: Option<Key>) -> PyResult<Drawn<'py>> {
        let py = merge.py();
        let event_loop = merge.get().event_loop(py)?;
        check_loop(&event_loop)?;
        let future = merge.get().future(py)?;
        merge.get().state.borrow(py).waiters.push(Waiter {
            future: future.clone().unbind(),
            target,
        });
        let waiter = Some(future.clone().unbind());
        Ok(Drawn::Wait(Box::new(Wait::Merge { waiter }), future))
    }

    pub(crate) fn restart(&self, py: Python<'_>) -> PyResult<()> {
        let merge = self.merge.bind(py);
        Merge::restart(merge)?;
        let old = std::mem::replace(
            &mut *self.view.borrow(py),
            View {
                round: 1,
                ..View::default()
            },
        );
        drop(old);
        Ok(())
    }

    pub(crate) fn close<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Merge::closing(self.merge.bind(py))
    }

    /// What is there.
    #[inline]
    fn take<'py>(&self, merge: &Bound<'py, Merge>) -> PyResult<Taken<'py>> {
        let py = merge.py();
        if let Some(taken) = self.look_around(merge)? {
            return Ok(taken);
        }
        match &self.policy {
            Policy::Race => self.take_first(merge),
            Policy::RaceRobin => self.take_first_of_round(merge),
            Policy::RoundRobin | Policy::Concat => self.take_in_turn(merge),
            Policy::Any => self.take_success(merge),
            Policy::Zip(ending) => self.take_row(py, merge, ending),
        }
    }

    /// What goes before anything that a source gave.
    #[inline]
    fn look_around<'py>(&self, merge: &Bound<'py, Merge>) -> PyResult<Option<Taken<'py>>> {
        let py = merge.py();
        {
            let view = self.view.borrow(py);
            let state = merge.get().state.borrow(py);
            if matches!(view.phase, Progress::Open)
                && view.failures.is_empty()
                && state.complaints.is_empty()
                && !state.is_cut
                && state.phase == Phase::Open
            {
                return Ok(None);
            }
        }
        self.look_closely(merge)
    }

    #[cold]
    fn look_closely<'py>(&self, merge: &Bound<'py, Merge>) -> PyResult<Option<Taken<'py>>> {
        let py = merge.py();
        let this = merge.get();
        let (is_ending, is_ended) = {
            let view = self.view.borrow(py);
            (
                matches!(view.phase, Progress::Ending(_)),
                matches!(view.phase, Progress::Ended),
            )
        };
        if is_ended {
            return Ok(Some(Taken::End));
        }
        if is_ending {
            return self.finish(merge).map(Some);
        }
        let failure = self.view.borrow(py).failures.pop_front();
        let complaint = match failure {
            Some(failure) => Some(failure),
            None => this.state.borrow(py).complaints.pop_front(),
        };
        if let Some(error) = complaint {
            return self.raise(merge, error).map(Some);
        }
        if this.state.borrow(py).is_cut {
            let error = self
                .error
                .as_ref()
                .map(|error| PyErr::from_value(error.bind(py).clone()));
            return self.end(merge, error).map(Some);
        }
        if this.state.borrow(py).phase == Phase::Closed {
            // By another view of the same sources, or by one whose stream was dropped.
            return self.end(merge, None).map(Some);
        }
        Ok(None)
    }

    /// An error goes to the consumer; it may be the last thing that does.
    fn raise<'py>(&self, merge: &Bound<'py, Merge>, error: PyErr) -> PyResult<Taken<'py>> {
        if merge.get().on_error == OnError::Stop && error.is_instance_of::<PyException>(merge.py())
        {
            return self.end(merge, Some(error));
        }
        Err(error)
    }

    /// The stream ends: what is left of the sources is closed first.
    #[cold]
    fn end<'py>(&self, merge: &Bound<'py, Merge>, error: Option<PyErr>) -> PyResult<Taken<'py>> {
        let py = merge.py();
        let old = std::mem::replace(&mut self.view.borrow(py).phase, Progress::Ending(error));
        drop(old);
        Merge::close_all(merge)?;
        self.finish(merge)
    }

    /// Ends, if everything is closed.
    fn finish<'py>(&self, merge: &Bound<'py, Merge>) -> PyResult<Taken<'py>> {
        let py = merge.py();
        if merge.get().state.borrow(py).live > 0 {
            return Ok(Taken::Wait(None));
        }
        let phase = std::mem::replace(&mut self.view.borrow(py).phase, Progress::Ended);
        let mut errors = merge.get().take_errors(py);
        if let Progress::Ending(Some(error)) = phase {
            for closing in errors {
                let note = format!("while closing: {:?}", closing.value(py));
                let _ = errors::note(py, &error, &note);
            }
            return Err(error);
        }
        match errors.len() {
            0 => Ok(Taken::End),
            1 => Err(errors.remove(0)),
            _ => Err(group(py, "several sources failed to close", errors)?),
        }
    }

    /// Nothing is there: the end, or something may still come.
    fn nothing<'py>(&self, merge: &Bound<'py, Merge>) -> PyResult<Taken<'py>> {
        let (active, wanted) = {
            let state = merge.get().state.borrow(merge.py());
            (state.active, !state.wanted.is_empty())
        };
        if active == 0 {
            self.end(merge, None)
        } else if wanted {
            Ok(Taken::Again)
        } else {
            Ok(Taken::Wait(None))
        }
    }

    /// What an outcome is to the consumer.
    #[inline]
    fn deliver<'py>(
        &self,
        merge: &Bound<'py, Merge>,
        key: Key,
        outcome: Outcome,
    ) -> PyResult<Taken<'py>> {
        let py = merge.py();
        match outcome {
            Outcome::Item(item) => {
                let item = item.into_bound(py);
                let label = match merge.get().state.borrow(py).slots.get(key) {
                    Some(slot) if slot.is_labelled => Some(slot.name.clone_ref(py)),
                    _ => None,
                };
                match label {
                    None => Ok(Taken::Item(item)),
                    Some(label) => {
                        let pair = PyTuple::new(py, [label.into_bound(py), item])?;
                        Ok(Taken::Item(pair.into_any()))
                    }
                }
            }
            Outcome::Error(error) => self.raise(merge, *error),
            Outcome::End => {
                merge.get().retire(py, key);
                Ok(Taken::Again)
            }
        }
    }

    fn take_first<'py>(&self, merge: &Bound<'py, Merge>) -> PyResult<Taken<'py>> {
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

    fn take_first_of_round<'py>(&self, merge: &Bound<'py, Merge>) -> PyResult<Taken<'py>> {
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

    fn take_in_turn<'py>(&self, merge: &Bound<'py, Merge>) -> PyResult<Taken<'py>> {
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

    fn take_success<'py>(&self, merge: &Bound<'py, Merge>) -> PyResult<Taken<'py>> {
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

    fn take_row<'py>(
        &self,
        py: Python<'py>,
        merge: &Bound<'py, Merge>,
        ending: &Ending,
    ) -> PyResult<Taken<'py>> {
        let this = merge.get();
        let row = {
            let mut view = self.view.borrow(py);
            let mut state = this.state.borrow(py);
            let stops = matches!(ending, Ending::Shortest | Ending::Open);
            // Sources may have come and gone since.
            view.complete = view.complete.min(state.order.len());
            while let Some(key) = state.order.get(view.complete).copied() {
                let is_missing = state
                    .slots
                    .get(key)
                    .is_some_and(|slot| slot.queue.is_empty() && !slot.is_done);
                if is_missing {
                    if stops && state.is_short() {
                        break;
                    }
                    if state.may_ask(key) {
                        state.want(key);
                        return Ok(Taken::Again);
                    }
                    return Ok(Taken::Wait(Some(key)));
                }
                view.complete += 1;
            }
            view.complete = 0;
            state.survey()
        };
        if row.has_failed {
            return self.row_failed(merge);
        }
        let rows = self.view.borrow(py).rows;
        match ending {
            Ending::Open if row.has_end => return Ok(Taken::End),
            Ending::Shortest if row.has_end => return self.end(merge, None),
            Ending::Strict if row.has_end && row.has_item => {
                return self.end(merge, Some(this.uneven(py, rows)));
            }
            _ if !row.has_item => return self.end(merge, None),
            _ => {}
        }
        let fill = match ending {
            Ending::Longest(fill) => Some(fill),
            _ => None,
        };
        let mut items = Vec::with_capacity(row.width);
        let mut labels = Vec::new();
        {
            let mut state = this.state.borrow(py);
            for number in 0..state.order.len() {
                let key = state.order[number];
                let Some(slot) = state.slots.get_mut(key) else {
                    continue;
                };
                if slot.is_done && slot.queue.is_empty() {
                    continue;
                }
                if slot.is_labelled {
                    labels.push(slot.name.clone_ref(py));
                }
                match slot.queue.pop_front() {
                    Some(Outcome::Item(item)) => {
                        items.push(item.into_bound(py));
                        if !std::mem::replace(&mut slot.is_wanted, true) {
                            state.wanted.push_back(key);
                        }
                    }
                    other => {
                        slot.queue.extend(other);
                        items.extend(fill.map(|fill| fill.bind(py).clone()));
                    }
                }
            }
        }
        self.view.borrow(py).rows += 1;
        if !labels.is_empty() {
            items = labels
                .into_iter()
                .zip(items)
                .map(|(label, item)| Ok(PyTuple::new(py, [label.into_bound(py), item])?.into_any()))
                .collect::<PyResult<_>>()?;
        }
        Ok(Taken::Item(PyTuple::new(py, items)?.into_any()))
    }

    /// A source failed: the row is lost, and the first error is what is to be raised.
    #[cold]
    fn row_failed<'py>(&self, merge: &Bound<'py, Merge>) -> PyResult<Taken<'py>> {
        let py = merge.py();
        let (failures, lost) = {
            let mut state = merge.get().state.borrow(py);
            let mut failures = VecDeque::new();
            let mut lost = Vec::new();
            for number in 0..state.order.len() {
                let key = state.order[number];
                let Some(slot) = state.slots.get_mut(key) else {
                    continue;
                };
                match slot.queue.pop_front() {
                    Some(Outcome::Error(error)) => failures.push_back(*error),
                    Some(Outcome::End) => {
                        slot.queue.push_front(Outcome::End);
                        continue;
                    }
                    Some(item) => lost.push(item),
                    None => {}
                }
                state.want(key);
            }
            (failures, lost)
        };
        drop(lost);
        let first = {
            let mut view = self.view.borrow(py);
            view.rows += 1;
            view.failures = failures;
            view.failures.pop_front()
        };
        first.map_or(Ok(Taken::Again), |error| self.raise(merge, error))
    }
}

/// What the sources have for a row.
#[derive(Debug, Default)]
struct Row {
    width: usize,
    has_item: bool,
    has_end: bool,
    has_failed: bool,
}

impl State {
    /// Whether a source may be asked now.
    fn may_ask(&self, key: Key) -> bool {
        self.slots
            .get(key)
            .is_some_and(|slot| slot.queue.is_empty() && slot.may_be_asked(1))
    }

    fn in_row(&self) -> impl Iterator<Item = &Slot> {
        self.order
            .iter()
            .filter_map(|key| self.slots.get(*key))
            .filter(|slot| !slot.is_done)
    }

    /// Whether some source has no item for the row.
    fn is_short(&self) -> bool {
        self.in_row()
            .any(|slot| matches!(slot.queue.front(), Some(Outcome::End)))
    }

    fn survey(&self) -> Row {
        let mut row = Row::default();
        for slot in self.in_row() {
            row.width += 1;
            match slot.queue.front() {
                // One without anything is not waited for, as another has ended.
                Some(Outcome::Item(_)) | None => row.has_item = true,
                Some(Outcome::Error(_)) => row.has_failed = true,
                Some(Outcome::End) => row.has_end = true,
            }
        }
        row
    }

    /// How many have given something in this round.
    fn served(&self, round: u64) -> usize {
        self.in_row().filter(|slot| slot.round == round).count()
    }
}

impl Merge {
    /// The error of a strict zip whose sources are of different lengths.
    fn uneven(&self, py: Python<'_>, rows: u64) -> PyErr {
        let (ended, others) = {
            let state = self.state.borrow(py);
            let (mut ended, mut others) = (Vec::new(), Vec::new());
            for slot in state.in_row() {
                let names = match slot.queue.front() {
                    Some(Outcome::End) => &mut ended,
                    _ => &mut others,
                };
                names.push(slot.name.clone_ref(py));
            }
            (ended, others)
        };
        let list = |names: Vec<Py<PyAny>>| {
            let word = if names.len() == 1 {
                "source"
            } else {
                "sources"
            };
            let names: Vec<String> = names
                .iter()
                .map(|name| {
                    let name = name.bind(py).repr();
                    name.map_or_else(|_| "?".to_owned(), |name| name.to_string())
                })
                .collect();
            format!("{word} {}", names.join(", "))
        };
        PyValueError::new_err(format!(
            "zip with strict=True: {} ended after {rows} {}, {} did not",
            list(ended),
            if rows == 1 { "item" } else { "items" },
            list(others),
        ))
    }
}

/// Several errors as one.
fn group(py: Python<'_>, message: &str, errors: Vec<PyErr>) -> PyResult<PyErr> {
    static GROUP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let class = GROUP.get_or_try_init(py, || {
        PyResult::Ok(
            py.import("builtins")?
                .getattr("BaseExceptionGroup")?
                .unbind(),
        )
    })?;
    let errors = PyList::new(py, errors.into_iter().map(|error| error.into_value(py)))?;
    let group = class.bind(py).call1((message, errors))?;
    debug_assert!(group.is_instance_of::<PyBaseException>(), "it is an error");
    Ok(PyErr::from_value(group))
}
