//! `PyMergeView`: reads the items of a merge by one policy.
//! `headrace/pull/_combination.py` makes it; the pull driver polls it as a source.

use std::cell::Cell;
use std::collections::VecDeque;

use headrace_core::sync::Key;
use pyo3::exceptions::{PyBaseExceptionGroup, PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{PyTraverseError, PyVisit};

use super::merge::PyMerge;
use super::source::{Outcome, SourceState};
use super::state::{ErrorPolicy, Phase, State, Waiter};
use super::task_context::is_first_to_run;
use super::zip::ZipEnd;
use crate::errors;
use crate::object::gc::{self, Traverse};
use crate::object::gil_cell::GilCell;
use crate::runtime::nesting::Nesting;
use crate::source::{SourcePoll, Wait};

thread_local! {
    /// The number of merges that are being polled on this thread's stack.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Beyond this depth a merge yields to the event loop, which resumes it with an empty stack.
const MAX_DEPTH: usize = 100;

/// The choice of the next item.
#[derive(Debug)]
pub(super) enum Policy {
    /// The one that was ready first. Ends when a cutoff gives an item.
    FirstReady,
    /// One item of each source, cyclically.
    RoundRobin,
    /// The one that was ready first, but each source once per round.
    Fair,
    /// All of the first source, then all of the next.
    Concat,
    /// One of each source, as a tuple.
    Zip(ZipEnd),
    /// The one that was ready first; an error only if all sources failed.
    Any,
}

/// The lifecycle of a view.
#[derive(Debug, Default)]
enum Progress {
    #[default]
    Open,
    /// The sources are being closed. Then the view raises this error, if there is one, and ends.
    Ending(Option<PyErr>),
    Ended,
}

#[derive(Debug, Default)]
pub(super) struct ViewState {
    phase: Progress,
    /// For zip: the number of sources, from the first, that have an outcome for the current row.
    pub(super) filled: usize,
    /// For zip: the number of delivered rows.
    pub(super) rows: u64,
    /// For zip: errors of a row of which one was raised.
    pub(super) row_errors: VecDeque<PyErr>,
    /// For `any`: failed sources, which are not polled again before the others have failed.
    pub(super) failed: Vec<(Key, PyErr)>,
    /// For the fair policy: the round, and the number of sources that gave an item in it.
    pub(super) round: u64,
    pub(super) served: usize,
    /// The value of `State::changes` for which `served` was counted.
    pub(super) changes: u64,
    /// Sources with an item for the next round.
    pub(super) later: VecDeque<Key>,
}

/// The result of taking the next item.
pub(super) enum TakeResult<'py> {
    Item(Bound<'py, PyAny>),
    /// No item; but a source can be polled now.
    Retry,
    /// No item until this source, or any, gives an outcome.
    Wait(Option<Key>),
    End,
}

/// Reads the items of a merge by one policy.
#[pyclass(name = "MergeView", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyMergeView {
    merge: Py<PyMerge>,
    pub(super) policy: Policy,
    /// Raised when a cutoff gives an item.
    error: Option<Py<PyAny>>,
    pub(super) view: GilCell<ViewState>,
}

#[pymethods]
impl PyMergeView {
    #[new]
    #[pyo3(signature = (merge, policy, *, fill = None, error = None))]
    fn new(
        merge: &Bound<'_, PyMerge>,
        policy: &str,
        fill: Option<&Bound<'_, PyAny>>,
        error: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let py = merge.py();
        let policy = match policy {
            "merge" => Policy::FirstReady,
            "round_robin" => Policy::RoundRobin,
            "merge_fair" => Policy::Fair,
            "concat" => Policy::Concat,
            "zip" => Policy::Zip(ZipEnd::Shortest),
            "zip_open" => Policy::Zip(ZipEnd::KeepOpen),
            "zip_strict" => Policy::Zip(ZipEnd::Strict),
            "zip_longest" => Policy::Zip(ZipEnd::Longest(
                fill.map_or_else(|| py.None(), |fill| fill.clone().unbind()),
            )),
            "any" => Policy::Any,
            _ => {
                return Err(PyValueError::new_err(format!(
                    "policy must be \"merge\", \"round_robin\", \"merge_fair\", \"concat\", \"zip\", \"zip_open\", \"zip_strict\", \"zip_longest\" or \"any\", got {policy:?}"
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
                        state.polls_head_only = true;
                        state.clear_to_poll();
                    }
                }
                Policy::FirstReady | Policy::Fair | Policy::Any => state.keep_ready(),
                Policy::Zip(_) => {}
            }
        }
        Ok(Self {
            merge: merge.clone().unbind(),
            policy,
            error: error.map(|error| error.clone().unbind()),
            view: GilCell::new(ViewState {
                round: 1,
                ..ViewState::default()
            }),
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| {
            self.merge.traverse(visit)?;
            self.error.traverse(visit)?;
            match &self.policy {
                Policy::Zip(ZipEnd::Longest(fill)) => visit(fill),
                _ => Ok(()),
            }
        })
    }
}

impl PyMergeView {
    /// Return the merge that it reads.
    pub(crate) fn merge(&self, py: Python<'_>) -> Py<PyMerge> {
        self.merge.clone_ref(py)
    }

    /// Return the next item if no source must be polled for it.
    #[inline]
    pub(crate) fn ready<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let view = self.view.borrow(py);
        let mut state = self.merge.get().state.borrow(py);
        if !state.to_poll.is_empty() || !is_plain(&view, &state) {
            return None;
        }
        if !state.tasks.is_empty()
            && !state
                .event_loop
                .as_ref()
                .is_some_and(|known| is_first_to_run(&known.object, known.thread, py))
        {
            return None;
        }
        let item = self.take_ready(&mut state)?;
        state.prepay();
        Some(item.into_bound(py))
    }

    /// Poll for the next item.
    pub(crate) fn poll_next<'py>(&self, py: Python<'py>) -> PyResult<SourcePoll<'py>> {
        let merge = self.merge.bind(py);
        let nesting = Nesting::enter(&DEPTH);
        if let Some(event_loop) = merge.get().busy_loop(py) {
            merge.get().check_loop(&event_loop)?;
        }
        merge.get().state.borrow(py).prepay();
        loop {
            if nesting.depth >= MAX_DEPTH || PyMerge::poll_requested(merge)? {
                return Ok(Self::yield_once(py));
            }
            match self.take(merge)? {
                TakeResult::Item(item) => return Ok(SourcePoll::Item(item)),
                TakeResult::Retry => {}
                TakeResult::Wait(target) => return Self::wait(merge, target),
                TakeResult::End => return Ok(SourcePoll::End),
            }
        }
    }

    pub(crate) fn resume<'py>(
        &self,
        py: Python<'py>,
        waiter: Option<&Py<PyAny>>,
        sent: Result<&Bound<'py, PyAny>, PyErr>,
    ) -> PyResult<SourcePoll<'py>> {
        self.abandon(py, waiter);
        // Outcomes that arrived meanwhile stay in their queues.
        sent?;
        self.poll_next(py)
    }

    /// Remove a waiting pull.
    pub(crate) fn abandon(&self, py: Python<'_>, waiter: Option<&Py<PyAny>>) {
        let Some(waiter) = waiter else { return };
        let removed = {
            let mut state = self.merge.get().state.borrow(py);
            let index = state
                .waiters
                .iter()
                .position(|other| other.future.is(waiter));
            index.map(|index| state.waiters.swap_remove(index))
        };
        drop(removed);
    }

    fn wait<'py>(merge: &Bound<'py, PyMerge>, target: Option<Key>) -> PyResult<SourcePoll<'py>> {
        let py = merge.py();
        let event_loop = merge.get().event_loop(py)?;
        merge.get().check_loop(&event_loop)?;
        let yields = {
            let state = merge.get().state.borrow(py);
            match target {
                None => !state.yielding.is_empty(),
                Some(key) => state.sources.get(key).is_some_and(SourceState::is_yielding),
            }
        };
        if yields {
            // The sources are resumed in the next iteration of the event loop, and so is this pull.
            return Ok(Self::yield_once(py));
        }
        let awaited = merge.get().future(py)?;
        let future = awaited.clone().unbind();
        let waiter = Some(future.clone_ref(py));
        let waiting = Waiter { future, target };
        merge.get().state.borrow(py).waiters.push(waiting);
        Ok(SourcePoll::Wait(Box::new(Wait::Merge { waiter }), awaited))
    }

    /// Make the pull yield to the event loop for one iteration.
    fn yield_once(py: Python<'_>) -> SourcePoll<'_> {
        let wait = Wait::Merge { waiter: None };
        SourcePoll::Wait(Box::new(wait), py.None().into_bound(py))
    }

    pub(crate) fn restart(&self, py: Python<'_>) -> PyResult<()> {
        let merge = self.merge.bind(py);
        PyMerge::restart(merge)?;
        let old = std::mem::replace(
            &mut *self.view.borrow(py),
            ViewState {
                round: 1,
                ..ViewState::default()
            },
        );
        drop(old);
        Ok(())
    }

    pub(crate) fn close<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        PyMerge::closing(self.merge.bind(py))
    }

    /// Take the next outcome by the policy.
    #[inline]
    fn take<'py>(&self, merge: &Bound<'py, PyMerge>) -> PyResult<TakeResult<'py>> {
        let py = merge.py();
        if let Some(taken) = self.check_pending(merge)? {
            return Ok(taken);
        }
        match &self.policy {
            Policy::FirstReady => self.take_first(merge),
            Policy::Fair => self.take_fair(merge),
            Policy::RoundRobin | Policy::Concat => self.take_round_robin(merge),
            Policy::Any => self.take_any(merge),
            Policy::Zip(ending) => self.take_zip(py, merge, ending),
        }
    }

    /// Return the result that precedes all outcomes of sources: an error, or the end.
    #[inline]
    fn check_pending<'py>(&self, merge: &Bound<'py, PyMerge>) -> PyResult<Option<TakeResult<'py>>> {
        let py = merge.py();
        {
            let view = self.view.borrow(py);
            let state = merge.get().state.borrow(py);
            if is_plain(&view, &state) {
                return Ok(None);
            }
        }
        self.handle_pending(merge)
    }

    #[cold]
    fn handle_pending<'py>(
        &self,
        merge: &Bound<'py, PyMerge>,
    ) -> PyResult<Option<TakeResult<'py>>> {
        let py = merge.py();
        let this = merge.get();
        if matches!(self.view.borrow(py).phase, Progress::Ended) {
            return Ok(Some(TakeResult::End));
        }
        if matches!(self.view.borrow(py).phase, Progress::Ending(_)) {
            return self.finish(merge).map(Some);
        }
        let row_error = self.view.borrow(py).row_errors.pop_front();
        let error = row_error.or_else(|| this.state.borrow(py).close_errors.pop_front());
        if let Some(error) = error {
            return self.raise(merge, error).map(Some);
        }
        if this.state.borrow(py).is_cut {
            let error = self.error.as_ref();
            let error = error.map(|error| PyErr::from_value(error.bind(py).clone()));
            return self.end(merge, error).map(Some);
        }
        if this.state.borrow(py).phase == Phase::Closed {
            // Closed by another view of the same sources, or by one whose stream was dropped.
            return self.end(merge, None).map(Some);
        }
        Ok(None)
    }

    /// Raise an error to the consumer, and end the view if `error_policy` is `Stop`.
    pub(super) fn raise<'py>(
        &self,
        merge: &Bound<'py, PyMerge>,
        error: PyErr,
    ) -> PyResult<TakeResult<'py>> {
        if merge.get().error_policy == ErrorPolicy::Stop
            && error.is_instance_of::<PyException>(merge.py())
        {
            return self.end(merge, Some(error));
        }
        Err(error)
    }

    /// End the view: close all sources first.
    #[cold]
    pub(super) fn end<'py>(
        &self,
        merge: &Bound<'py, PyMerge>,
        error: Option<PyErr>,
    ) -> PyResult<TakeResult<'py>> {
        let py = merge.py();
        let old = std::mem::replace(&mut self.view.borrow(py).phase, Progress::Ending(error));
        drop(old);
        PyMerge::close_all(merge)?;
        self.finish(merge)
    }

    /// End the view if all sources are closed, and otherwise waits.
    fn finish<'py>(&self, merge: &Bound<'py, PyMerge>) -> PyResult<TakeResult<'py>> {
        let py = merge.py();
        if merge.get().state.borrow(py).live > 0 {
            return Ok(TakeResult::Wait(None));
        }
        let phase = std::mem::replace(&mut self.view.borrow(py).phase, Progress::Ended);
        let errors = merge.get().take_errors(py);
        if let Progress::Ending(Some(error)) = phase {
            for closing in errors {
                let note = format!("while closing: {:?}", closing.value(py));
                let _ = errors::note(py, &error, &note);
            }
            return Err(error);
        }
        if errors.is_empty() {
            return Ok(TakeResult::End);
        }
        Err(group(py, "several sources failed to close", errors))
    }

    /// Handle an empty list: end the view, polls idle sources, or waits.
    pub(super) fn end_or_wait<'py>(
        &self,
        merge: &Bound<'py, PyMerge>,
    ) -> PyResult<TakeResult<'py>> {
        let (active, wanted) = {
            let mut state = merge.get().state.borrow(merge.py());
            if state.to_poll.is_empty() {
                state.promote_some_idle();
            }
            (state.active, !state.to_poll.is_empty())
        };
        if active == 0 {
            self.end(merge, None)
        } else if wanted {
            Ok(TakeResult::Retry)
        } else {
            Ok(TakeResult::Wait(None))
        }
    }

    /// Convert an outcome for the consumer.
    #[inline]
    pub(super) fn deliver<'py>(
        &self,
        merge: &Bound<'py, PyMerge>,
        key: Key,
        outcome: Outcome,
    ) -> PyResult<TakeResult<'py>> {
        let py = merge.py();
        match outcome {
            Outcome::Item(item) => {
                let label = PyMerge::at(merge, key)
                    .with(|entry| entry.is_labelled.then(|| entry.name.clone_ref(py)));
                let item = item.into_bound(py);
                Ok(TakeResult::Item(match label.flatten() {
                    None => item,
                    Some(label) => PyTuple::new(py, [label.into_bound(py), item])?.into_any(),
                }))
            }
            Outcome::Error(error) => self.raise(merge, *error),
            Outcome::End => {
                PyMerge::at(merge, key).forget();
                Ok(TakeResult::Retry)
            }
        }
    }
}

/// Return whether the view is open and no error precedes the outcomes of the sources.
#[inline]
fn is_plain(view: &ViewState, state: &State) -> bool {
    matches!(view.phase, Progress::Open)
        && view.row_errors.is_empty()
        && state.close_errors.is_empty()
        && !state.is_cut
        && state.phase == Phase::Open
}

/// Group several errors; return a single one as it is.
pub(super) fn group(py: Python<'_>, message: &'static str, mut errors: Vec<PyErr>) -> PyErr {
    if errors.len() == 1 {
        return errors.remove(0);
    }
    let errors: Vec<_> = errors
        .into_iter()
        .map(|error| error.into_value(py))
        .collect();
    PyBaseExceptionGroup::new_err((message, errors))
}
