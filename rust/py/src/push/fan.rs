//! `PyFan`: one pipeline into many sinks. `headrace/push/fanout.py` makes it.
//!
//! Branches run one after the other, each as far as possible without waiting. Branches that must
//! wait are passed, as awaitables that have not started, to the fan's push object. It awaits them
//! concurrently, each in its own task (`_settle` in `headrace/push/fanout.py`).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use pyo3::exceptions::{
    PyGeneratorExit, PyIndexError, PyKeyboardInterrupt, PySystemExit, PyTypeError, PyValueError,
};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt, PyList};
use pyo3::{PyTraverseError, PyVisit};

use super::branch::{Branch, Pushed};
use super::deliver::{Delivered, Mode};
use super::link::PyPushLink;
use super::nowait::{is_would_block, would_block};
use super::pipeline::annotate;
use super::wait::{Awaited, Missing, PendingWait};
use crate::coroutine::delegate::is_awaitable;
use crate::errors;
use crate::kernel::Callable;
use crate::object::gc::{self, Traverse, traverse};

/// The rule that selects the branches of an item.
#[derive(Debug)]
enum Selector {
    All,
    /// The branch that this callable selects.
    Callable(Callable),
    /// One branch after the other; this is the position of the next one.
    RoundRobin(AtomicUsize),
}

/// See the module documentation.
#[derive(Debug)]
#[pyclass(name = "Fan", frozen, module = "headrace._core")]
pub(crate) struct PyFan {
    selection: Selector,
    is_concurrent: bool,
    branches: Vec<Branch>,
    /// The branch of each sink in the user's list, which may contain a sink twice.
    branch_of_sink: Vec<usize>,
    open_count: AtomicUsize,
}

traverse!(PyFan {
    selection,
    branches
});

traverse!(
    enum Selector {
        All {},
        Callable(selector),
        RoundRobin {},
    }
);

/// The branches' results for an item, if not all accepted it at once.
#[derive(Debug, Default)]
struct FanOutcome<'py> {
    accepted: Vec<usize>,
    waiting: Vec<(usize, Option<Bound<'py, PyAny>>)>,
    errors: Vec<(usize, PyErr)>,
}

#[pymethods]
impl PyFan {
    /// `selection`: "all", "ring", or the callable that selects.
    #[new]
    fn new(
        sinks: Vec<Bound<'_, PyAny>>,
        selection: &Bound<'_, PyAny>,
        concurrent: bool,
    ) -> PyResult<Self> {
        let mut branches: Vec<Branch> = Vec::new();
        let mut known = HashMap::new();
        let mut branch_of_sink = Vec::with_capacity(sinks.len());
        for sink in sinks {
            let number = *known.entry(sink.as_ptr().addr()).or_insert(branches.len());
            branch_of_sink.push(number);
            if number == branches.len() {
                branches.push(Branch::of(sink)?);
            }
        }
        let selection = match selection.extract::<&str>() {
            Ok("all") => Selector::All,
            Ok("ring") => Selector::RoundRobin(AtomicUsize::new(0)),
            _ => Selector::Callable(Callable::new("selector", selection)?),
        };
        Ok(Self {
            selection,
            is_concurrent: concurrent,
            open_count: AtomicUsize::new(branches.len()),
            branches,
            branch_of_sink,
        })
    }

    #[getter]
    fn selector<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        match &self.selection {
            Selector::Callable(selector) => selector.get(py),
            Selector::All | Selector::RoundRobin(_) => None,
        }
    }

    #[setter]
    fn set_selector(&self, selector: &Bound<'_, PyAny>) -> PyResult<()> {
        match &self.selection {
            Selector::Callable(old) => old.set(selector),
            Selector::All | Selector::RoundRobin(_) => {
                Err(PyValueError::new_err("this fan has no selector"))
            }
        }
    }

    /// Return the distinct sinks, in the order of branch numbers.
    #[getter]
    pub(super) fn sinks<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyAny>> {
        self.branches
            .iter()
            .map(|branch| branch.sink.bind(py).clone())
            .collect()
    }

    /// Note that branch `number` accepts no more items.
    fn finish(&self, number: usize) {
        if let Some(branch) = self.branches.get(number)
            && !branch.is_done.swap(true, Relaxed)
        {
            self.open_count.fetch_sub(1, Relaxed);
        }
    }

    /// Return whether no branch accepts items.
    #[getter]
    fn is_done(&self) -> bool {
        self.open_count.load(Relaxed) == 0
    }

    /// Note that the push into branch `number` failed: the next push takes that branch, unless
    /// another push has moved on.
    fn step_back(&self, number: usize) {
        let Selector::RoundRobin(next) = &self.selection else {
            return;
        };
        let count = self.branch_of_sink.len();
        let before = (next.load(Relaxed) + count - 1) % count;
        if self.branch_of_sink[before] == number {
            next.store(before, Relaxed);
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| self.traverse(visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        // The branches stay, like the items of a tuple: the collector breaks a cycle through them
        // at the push object that holds the fan.
        if let Selector::Callable(selector) = &self.selection {
            selector.clear(py);
        }
    }
}

impl PyFan {
    /// Deliver an item to the selected branches.
    #[inline]
    pub(super) fn deliver<'py>(
        &self,
        owner: &Bound<'py, PyPushLink>,
        item: &Bound<'py, PyAny>,
        mode: Mode,
    ) -> PyResult<Delivered<'py>> {
        let py = item.py();
        match &self.selection {
            Selector::All => {
                if mode == Mode::NoWait && !self.has_room(py) {
                    return Err(would_block(item));
                }
                self.deliver_to(owner, item, &(0..self.branches.len()), mode)
            }
            Selector::Callable(selector) => {
                let choice = selector
                    .call(item)
                    .map_err(|raised| annotate(owner, raised.fetch(py), "selector", Some(item)))?;
                if is_awaitable(&choice) {
                    return Ok(Delivered::Pending(PendingWait::Await(
                        choice.unbind(),
                        Awaited::Selector(item.clone().unbind()),
                    )));
                }
                self.deliver_by(owner, item, &choice, mode)
            }
            Selector::RoundRobin(next) => {
                let Some(number) = self.next_round_robin(next) else {
                    return Ok(Delivered::Done);
                };
                let delivered = self.deliver_to(owner, item, &std::iter::once(number), mode);
                if let Err(error) = &delivered
                    && is_would_block(py, error)
                {
                    self.step_back(number);
                }
                delivered
            }
        }
    }

    /// Deliver an item to the branch that the selector returned.
    pub(super) fn deliver_by<'py>(
        &self,
        owner: &Bound<'py, PyPushLink>,
        item: &Bound<'py, PyAny>,
        choice: &Bound<'py, PyAny>,
        mode: Mode,
    ) -> PyResult<Delivered<'py>> {
        // A selector by label returns `None` for an item to be dropped.
        if choice.is_none() && Self::drops_unmatched(owner)? {
            return Ok(self.delivered());
        }
        let number = self.selected_branch(item, choice)?;
        self.deliver_to(owner, item, &std::iter::once(number), mode)
    }

    /// Deliver an item to these branches.
    #[inline]
    pub(super) fn deliver_to<'py>(
        &self,
        owner: &Bound<'py, PyPushLink>,
        item: &Bound<'py, PyAny>,
        numbers: &(impl Iterator<Item = usize> + Clone),
        mode: Mode,
    ) -> PyResult<Delivered<'py>> {
        let mut outcome: Option<FanOutcome<'py>> = None;
        // Acceptances are recorded only from the first other result on.
        let mut skipped = Vec::new();
        let mut ahead = numbers.clone();
        for number in ahead.by_ref() {
            let branch = &self.branches[number];
            if branch.is_done.load(Relaxed) {
                skipped.push(number);
                continue;
            }
            let pushed = branch.push(item, mode);
            match pushed {
                Ok(Pushed::Accepted) if outcome.is_none() => {}
                Ok(Pushed::Done) if outcome.is_none() => self.finish(number),
                pushed => {
                    let outcome = outcome.get_or_insert_with(|| {
                        let before = numbers.clone().take_while(|before| *before != number);
                        let skipped: HashSet<usize> = skipped.iter().copied().collect();
                        FanOutcome {
                            accepted: before.filter(|it| !skipped.contains(it)).collect(),
                            ..FanOutcome::default()
                        }
                    });
                    if outcome.record(self, item.py(), number, pushed)? && !self.is_concurrent {
                        break;
                    }
                }
            }
        }
        match outcome {
            None => Ok(self.delivered()),
            Some(outcome) => outcome.into_delivered(owner, item, ahead.collect()),
        }
    }

    fn delivered<'py>(&self) -> Delivered<'py> {
        if self.is_done() {
            Delivered::Done
        } else {
            Delivered::Accepted
        }
    }

    /// Return the next open branch in round-robin order.
    fn next_round_robin(&self, next: &AtomicUsize) -> Option<usize> {
        let first = next.load(Relaxed);
        let count = self.branch_of_sink.len();
        let position = (first..first + count)
            .map(|position| position % count)
            .find(|position| {
                !self.branches[self.branch_of_sink[*position]]
                    .is_done
                    .load(Relaxed)
            })?;
        next.store((position + 1) % count, Relaxed);
        Some(self.branch_of_sink[position])
    }

    /// Return the branch that a selector's result names.
    fn selected_branch(
        &self,
        item: &Bound<'_, PyAny>,
        choice: &Bound<'_, PyAny>,
    ) -> PyResult<usize> {
        if !choice.is_instance_of::<PyInt>() || choice.is_instance_of::<PyBool>() {
            return Err(PyTypeError::new_err(format!(
                "selector must give the number of a sink, got {} for {}",
                errors::describe(choice),
                errors::describe(item)
            )));
        }
        choice
            .extract::<usize>()
            .ok()
            .and_then(|position| self.branch_of_sink.get(position).copied())
            .ok_or_else(|| {
                PyIndexError::new_err(format!(
                    "selector must give a number from 0 to {}, got {} for {}",
                    self.branch_of_sink.len() - 1,
                    errors::describe(choice),
                    errors::describe(item)
                ))
            })
    }

    fn drops_unmatched(owner: &Bound<'_, PyPushLink>) -> PyResult<bool> {
        owner.getattr(intern!(owner.py(), "_drops"))?.is_truthy()
    }

    pub(super) fn has_room(&self, py: Python<'_>) -> bool {
        match &self.selection {
            Selector::All => self
                .branches
                .iter()
                .filter(|branch| !branch.is_done.load(Relaxed))
                .all(|branch| branch.has_room(py)),
            // The branch is not known yet.
            Selector::Callable(_) | Selector::RoundRobin(_) => true,
        }
    }
}

impl<'py> FanOutcome<'py> {
    /// Record the result of pushing into a branch. Return whether the branch must wait.
    fn record(
        &mut self,
        fan: &PyFan,
        py: Python<'py>,
        number: usize,
        pushed: PyResult<Pushed<'py>>,
    ) -> PyResult<bool> {
        match pushed {
            Ok(Pushed::Accepted) => self.accepted.push(number),
            Ok(Pushed::Done) => {
                self.accepted.push(number);
                fan.finish(number);
            }
            Ok(Pushed::Pending(awaitable, has_it)) => {
                self.waiting.push((number, awaitable));
                if has_it {
                    self.accepted.push(number);
                }
                return Ok(true);
            }
            Err(error) if is_branch_error(py, &error) => self.errors.push((number, error)),
            Err(error) => return Err(error),
        }
        Ok(false)
    }

    /// Pass the waiting branches to the fan's push object, which awaits them. If none waits, raise
    /// the error that it builds from all errors.
    #[cold]
    fn into_delivered(
        self,
        owner: &Bound<'py, PyPushLink>,
        item: &Bound<'py, PyAny>,
        later: Vec<usize>,
    ) -> PyResult<Delivered<'py>> {
        let py = owner.py();
        let Self {
            accepted,
            waiting,
            errors,
        } = self;
        let errors: Vec<_> = errors
            .into_iter()
            .map(|(number, error)| (number, error.into_value(py)))
            .collect();
        if waiting.is_empty() {
            let failure = owner.call_method1(intern!(py, "_failure"), (accepted, errors))?;
            return Err(PyErr::from_value(failure));
        }
        let having: HashSet<usize> = accepted.iter().copied().collect();
        let missing: Vec<usize> = waiting
            .iter()
            .map(|(number, _)| *number)
            .chain(later.iter().copied())
            .filter(|number| !having.contains(number))
            .collect();
        let missing = PyList::new(py, missing)?;
        let arguments = (item, &missing, accepted, errors, waiting, later);
        let settling = owner.call_method1(intern!(py, "_settle"), arguments)?;
        let missing = Missing {
            item: item.clone().unbind(),
            branches: missing.unbind(),
        };
        Ok(Delivered::Pending(PendingWait::Await(
            settling.unbind(),
            Awaited::Sink(Some(missing)),
        )))
    }
}

/// Return whether an error concerns only its branch. An exit of the program and the close of a coroutine
/// do not.
#[cold]
fn is_branch_error(py: Python<'_>, error: &PyErr) -> bool {
    !(error.is_instance_of::<PyKeyboardInterrupt>(py)
        || error.is_instance_of::<PySystemExit>(py)
        || error.is_instance_of::<PyGeneratorExit>(py))
}
