//! `Fan`: one line into many.
//!
//! Branches are run in place, one after the other, for as far as they go without waiting. Those that
//! have to wait are handed, as awaitables that have not begun, to the push object of the fan, which
//! awaits them side by side, each in a task of its own (`_settle` in `headrace/push/_fan.py`).

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
use super::deliver::{Carried, Mode};
use super::link::PushLink;
use super::nowait::{is_would_block, would_block};
use super::pipeline::blame;
use super::wait::Halt;
use crate::coroutine::delegate::is_awaitable;
use crate::errors;
use crate::kernel::Callable;
use crate::object::gc::{self, Traverse};

/// Which branches an item goes to.
#[derive(Debug)]
enum Route {
    All,
    /// The one that the selector names.
    Select(Callable),
    /// One after the other; the next one is at this place.
    Ring(AtomicUsize),
}

/// See the top of this file.
#[derive(Debug)]
#[pyclass(frozen, module = "headrace._core")]
pub(crate) struct Fan {
    route: Route,
    is_concurrent: bool,
    branches: Vec<Branch>,
    /// Which branch is at each place of what the user gave, where one sink may stand twice.
    places: Vec<usize>,
    left: AtomicUsize,
}

/// What became of an item that did not go through at once.
#[derive(Debug)]
struct Trouble<'py> {
    accepted: Vec<usize>,
    waiting: Vec<(usize, Option<Bound<'py, PyAny>>)>,
    errors: Vec<(usize, PyErr)>,
}

#[pymethods]
impl Fan {
    /// `route`: "all", "ring", or the callable that selects.
    #[new]
    fn new(
        sinks: Vec<Bound<'_, PyAny>>,
        route: &Bound<'_, PyAny>,
        concurrent: bool,
    ) -> PyResult<Self> {
        let mut branches: Vec<Branch> = Vec::new();
        let mut known = HashMap::new();
        let mut places = Vec::with_capacity(sinks.len());
        for sink in sinks {
            let number = *known.entry(sink.as_ptr().addr()).or_insert(branches.len());
            places.push(number);
            if number == branches.len() {
                branches.push(Branch::of(sink)?);
            }
        }
        let route = match route.extract::<&str>() {
            Ok("all") => Route::All,
            Ok("ring") => Route::Ring(AtomicUsize::new(0)),
            _ => Route::Select(Callable::new("selector", route)?),
        };
        Ok(Self {
            route,
            is_concurrent: concurrent,
            left: AtomicUsize::new(branches.len()),
            branches,
            places,
        })
    }

    #[getter]
    fn selector<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        match &self.route {
            Route::Select(selector) => selector.get(py),
            Route::All | Route::Ring(_) => None,
        }
    }

    #[setter]
    fn set_selector(&self, selector: &Bound<'_, PyAny>) -> PyResult<()> {
        match &self.route {
            Route::Select(old) => old.set(selector),
            Route::All | Route::Ring(_) => Err(PyValueError::new_err("this fan selects nothing")),
        }
    }

    /// The sinks, each once: what the numbers of branches mean.
    #[getter]
    pub(super) fn sinks<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyAny>> {
        self.branches
            .iter()
            .map(|branch| branch.sink.bind(py).clone())
            .collect()
    }

    /// Branch number `number` wants no more.
    fn finish(&self, number: usize) {
        if let Some(branch) = self.branches.get(number)
            && !branch.is_done.swap(true, Relaxed)
        {
            self.left.fetch_sub(1, Relaxed);
        }
    }

    /// Whether all want no more.
    #[getter]
    fn is_done(&self) -> bool {
        self.left.load(Relaxed) == 0
    }

    /// A push that had its turn at branch number `number` came to nothing: the next one has it,
    /// unless another was faster.
    fn step_back(&self, number: usize) {
        let Route::Ring(next) = &self.route else {
            return;
        };
        let count = self.places.len();
        let before = (next.load(Relaxed) + count - 1) % count;
        if self.places[before] == number {
            next.store(before, Relaxed);
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| {
            if let Route::Select(selector) = &self.route {
                selector.traverse(visit)?;
            }
            self.branches
                .iter()
                .try_for_each(|branch| branch.traverse(visit))
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        // The branches stay, as what a tuple holds: a cycle through them is broken at the push object
        // that holds this.
        if let Route::Select(selector) = &self.route {
            selector.clear(py);
        }
    }
}

impl Fan {
    /// Delivers an item to those that it is for.
    #[inline]
    pub(super) fn deliver<'py>(
        &self,
        owner: &Bound<'py, PushLink>,
        item: &Bound<'py, PyAny>,
        mode: Mode,
    ) -> PyResult<Carried<'py>> {
        let py = item.py();
        match &self.route {
            Route::All => {
                if mode == Mode::Now && !self.has_room(py) {
                    return Err(would_block(item));
                }
                self.spread(owner, item, &(0..self.branches.len()), mode)
            }
            Route::Select(selector) => {
                let choice = selector
                    .call(item)
                    .map_err(|raised| blame(owner, raised.fetch(py), "selector"))?;
                if is_awaitable(&choice) {
                    return Ok(Carried::Halted(Halt::Select {
                        awaitable: choice.unbind(),
                        item: item.clone().unbind(),
                    }));
                }
                self.deliver_by(owner, item, &choice, mode)
            }
            Route::Ring(next) => {
                let Some(number) = self.turn(next) else {
                    return Ok(Carried::Done);
                };
                let carried = self.spread(owner, item, &std::iter::once(number), mode);
                if let Err(error) = &carried
                    && is_would_block(py, error)
                {
                    self.step_back(number);
                }
                carried
            }
        }
    }

    /// Delivers an item to the branch that a selector chose.
    pub(super) fn deliver_by<'py>(
        &self,
        owner: &Bound<'py, PushLink>,
        item: &Bound<'py, PyAny>,
        choice: &Bound<'py, PyAny>,
        mode: Mode,
    ) -> PyResult<Carried<'py>> {
        // What a selector of labels gives for one that is to be dropped.
        if choice.is_none() && Self::drops(owner)? {
            return Ok(self.verdict());
        }
        let number = self.number(item, choice)?;
        self.spread(owner, item, &std::iter::once(number), mode)
    }

    /// Delivers an item to these branches.
    pub(super) fn deliver_to<'py>(
        &self,
        owner: &Bound<'py, PushLink>,
        item: &Bound<'py, PyAny>,
        numbers: &[usize],
        mode: Mode,
    ) -> PyResult<Carried<'py>> {
        self.spread(owner, item, &numbers.iter().copied(), mode)
    }

    /// Pushes an item into these branches.
    #[inline]
    fn spread<'py>(
        &self,
        owner: &Bound<'py, PushLink>,
        item: &Bound<'py, PyAny>,
        numbers: &(impl Iterator<Item = usize> + Clone),
        mode: Mode,
    ) -> PyResult<Carried<'py>> {
        let mut trouble: Option<Trouble<'py>> = None;
        // Nothing is noted of the many that accept at once, unless it is needed.
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
                Ok(Pushed::Accepted) if trouble.is_none() => {}
                Ok(Pushed::Done) if trouble.is_none() => self.finish(number),
                pushed => {
                    let trouble = trouble.get_or_insert_with(|| {
                        let before = numbers.clone().take_while(|before| *before != number);
                        let skipped: HashSet<usize> = skipped.iter().copied().collect();
                        Trouble::after(before.filter(|before| !skipped.contains(before)))
                    });
                    if trouble.add(self, item.py(), number, pushed)? && !self.is_concurrent {
                        break;
                    }
                }
            }
        }
        match trouble {
            None => Ok(self.verdict()),
            Some(trouble) => trouble.hand_over(owner, item, ahead.collect()),
        }
    }

    fn verdict<'py>(&self) -> Carried<'py> {
        if self.is_done() {
            Carried::Done
        } else {
            Carried::Through
        }
    }

    /// The branch whose turn it is; the next push has the one after it.
    fn turn(&self, next: &AtomicUsize) -> Option<usize> {
        let first = next.load(Relaxed);
        let count = self.places.len();
        let place = (first..first + count)
            .map(|place| place % count)
            .find(|place| !self.branches[self.places[*place]].is_done.load(Relaxed))?;
        next.store((place + 1) % count, Relaxed);
        Some(self.places[place])
    }

    /// The branch that a selector named.
    fn number(&self, item: &Bound<'_, PyAny>, choice: &Bound<'_, PyAny>) -> PyResult<usize> {
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
            .and_then(|place| self.places.get(place).copied())
            .ok_or_else(|| {
                PyIndexError::new_err(format!(
                    "selector must give a number from 0 to {}, got {} for {}",
                    self.places.len() - 1,
                    errors::describe(choice),
                    errors::describe(item)
                ))
            })
    }

    fn drops(owner: &Bound<'_, PushLink>) -> PyResult<bool> {
        owner.getattr(intern!(owner.py(), "_drops"))?.is_truthy()
    }

    pub(super) fn has_room(&self, py: Python<'_>) -> bool {
        match &self.route {
            Route::All => self
                .branches
                .iter()
                .filter(|branch| !branch.is_done.load(Relaxed))
                .all(|branch| branch.has_room(py)),
            // Nobody knows which one it will be.
            Route::Select(_) | Route::Ring(_) => true,
        }
    }
}

impl<'py> Trouble<'py> {
    #[cold]
    fn after(accepted: impl Iterator<Item = usize>) -> Self {
        Self {
            accepted: accepted.collect(),
            waiting: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// Notes what pushing into a branch came to. Whether that has to wait.
    fn add(
        &mut self,
        fan: &Fan,
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
            Ok(Pushed::Waits(awaitable, has_it)) => {
                self.waiting.push((number, awaitable));
                if has_it {
                    self.accepted.push(number);
                }
                return Ok(true);
            }
            Err(error) if is_one_branchs(py, &error) => self.errors.push((number, error)),
            Err(error) => return Err(error),
        }
        Ok(false)
    }

    /// What waits goes to the push object of the fan, which awaits it; if nothing does, it knows the
    /// error that all of them make.
    #[cold]
    fn hand_over(
        self,
        owner: &Bound<'py, PushLink>,
        item: &Bound<'py, PyAny>,
        later: Vec<usize>,
    ) -> PyResult<Carried<'py>> {
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
        Ok(Carried::Halted(Halt::Sink {
            awaitable: settling.unbind(),
            missing: Some((item.clone().unbind(), missing.unbind())),
        }))
    }
}

/// Whether an error concerns its branch alone. One that ends the program does not, nor does the end of a coroutine.
#[cold]
fn is_one_branchs(py: Python<'_>, error: &PyErr) -> bool {
    !(error.is_instance_of::<PyKeyboardInterrupt>(py)
        || error.is_instance_of::<PySystemExit>(py)
        || error.is_instance_of::<PyGeneratorExit>(py))
}
