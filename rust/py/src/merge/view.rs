//! `MergeFeed`: one way of taking what the sources of a merge give.

use std::collections::VecDeque;

use pyo3::exceptions::{PyBaseException, PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::merge::Merge;
use super::nesting::Depth;
use super::source::{Key, Outcome, Slot};
use super::state::{ErrorPolicy, Phase, State, Waiter};
use super::task_context::is_first_to_run;
use super::zip::Ending;
use crate::errors;
use crate::object::gc;
use crate::object::gil_cell::GilCell;
use crate::source::{Drawn, Wait};

/// Which item is the next one.
#[derive(Debug)]
pub(super) enum Policy {
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
pub(super) struct View {
    phase: Progress,
    /// How much of the row is there, for zip.
    pub(super) complete: usize,
    /// How many rows were given.
    pub(super) rows: u64,
    /// Errors of a row of which one was raised.
    pub(super) failures: VecDeque<PyErr>,
    /// For `any`: who failed, and is not asked again before the others have.
    pub(super) failed: Vec<(Key, PyErr)>,
    /// The round of a race-robin, and how many sources have given something in it.
    pub(super) round: u64,
    pub(super) served: usize,
    /// As of which change of the sources that is.
    pub(super) changes: u64,
    /// Those that have an item for the next round.
    pub(super) later: VecDeque<Key>,
}

/// What there is to be taken.
pub(super) enum Taken<'py> {
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
    pub(super) policy: Policy,
    /// Raised when a cutoff gives something.
    error: Option<Py<PyAny>>,
    pub(super) view: GilCell<View>,
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
            "merge" => Policy::Race,
            "round_robin" => Policy::RoundRobin,
            "merge_fair" => Policy::RaceRobin,
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
        gc::visit(&visit, |visit| {
            visit(self.merge.as_any())?;
            if let Some(error) = &self.error {
                visit(error)?;
            }
            match &self.policy {
                Policy::Zip(Ending::Longest(fill)) => visit(fill),
                _ => Ok(()),
            }
        })
    }
}

impl MergeFeed {
    /// The sources that it takes from.
    pub(crate) fn merge(&self, py: Python<'_>) -> Py<Merge> {
        self.merge.clone_ref(py)
    }

    /// The next item, if no source has to be asked for it.
    #[inline]
    pub(crate) fn ready<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let view = self.view.borrow(py);
        let mut state = self.merge.get().state.borrow(py);
        if !state.wanted.is_empty() || !is_plain(&view, &state) {
            return None;
        }
        if !state.tasks.is_empty()
            && !state
                .event_loop
                .as_ref()
                .is_some_and(|known| is_first_to_run(known, state.thread, py))
        {
            return None;
        }
        let item = self.take_ready(&mut state)?;
        state.pay();
        Some(item.into_bound(py))
    }

    /// The next item.
    pub(crate) fn draw<'py>(&self, py: Python<'py>) -> PyResult<Drawn<'py>> {
        let merge = self.merge.bind(py);
        let depth = Depth::deeper();
        if let Some(event_loop) = merge.get().busy_loop(py) {
            merge.get().check_loop(&event_loop)?;
        }
        merge.get().state.borrow(py).pay();
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
        merge.get().check_loop(&event_loop)?;
        let rests = {
            let state = merge.get().state.borrow(py);
            match target {
                None => !state.resting.is_empty(),
                Some(key) => state.slots.get(key).is_some_and(Slot::is_resting),
            }
        };
        if rests {
            // What is awaited goes on in the next turn, and so does this.
            let rest = Wait::Merge { waiter: None };
            return Ok(Drawn::Wait(Box::new(rest), py.None().into_bound(py)));
        }
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
            if is_plain(&view, &state) {
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
    pub(super) fn raise<'py>(
        &self,
        merge: &Bound<'py, Merge>,
        error: PyErr,
    ) -> PyResult<Taken<'py>> {
        if merge.get().error_policy == ErrorPolicy::Stop
            && error.is_instance_of::<PyException>(merge.py())
        {
            return self.end(merge, Some(error));
        }
        Err(error)
    }

    /// The stream ends: what is left of the sources is closed first.
    #[cold]
    pub(super) fn end<'py>(
        &self,
        merge: &Bound<'py, Merge>,
        error: Option<PyErr>,
    ) -> PyResult<Taken<'py>> {
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
    pub(super) fn nothing<'py>(&self, merge: &Bound<'py, Merge>) -> PyResult<Taken<'py>> {
        let (active, wanted) = {
            let mut state = merge.get().state.borrow(merge.py());
            if state.wanted.is_empty() {
                state.rouse_some();
            }
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
    pub(super) fn deliver<'py>(
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
}

/// Whether nothing goes before what the sources gave.
#[inline]
fn is_plain(view: &View, state: &State) -> bool {
    matches!(view.phase, Progress::Open)
        && view.failures.is_empty()
        && state.complaints.is_empty()
        && !state.is_cut
        && state.phase == Phase::Open
}

/// Several errors as one.
pub(super) fn group(py: Python<'_>, message: &str, errors: Vec<PyErr>) -> PyResult<PyErr> {
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
