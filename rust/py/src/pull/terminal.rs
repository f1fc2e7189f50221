//! Terminals: one awaitable that pulls a stream to its end.
//!
//! A terminal is a pull that goes on. It takes the line once and keeps it from item to item, and
//! puts it back only to suspend; so an item costs what the line costs, and no awaitable, no turn and
//! no way through the interpreter between two of them. Everything else, a suspension, a
//! cancellation, an end, is that of the pull inside it.
//!
//! What a terminal had when it failed goes back to the stream ([`PullLink::hand_back`]): the next
//! pull gets it first.

use std::ffi::CStr;

use pyo3::exceptions::{PyStopAsyncIteration, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::awaitable::{Delivery, Pull};
use super::link::PullLink;
use super::pipeline::Advance;
use super::state::{Label, Origin, Start};
use crate::coroutine::{Class, Coroutine, Native, Step};
use crate::errors::Raised;
use crate::kernel::{AnyKernel, MapKernel, ReduceKernel};
use crate::object::gc::{Traverse, VisitError, Visitor};

/// What becomes of the items.
#[derive(Debug)]
enum Goal {
    /// A list from the first item on: to make one of a million items at the end would hold up the loop.
    Collect(Py<PyList>),
    Count(u64),
    /// The kernel that they went through has the outcome.
    Fold(Py<ReduceKernel>),
    /// They have served their purpose.
    Drop,
}

impl Goal {
    #[inline]
    fn take(&mut self, item: &Bound<'_, PyAny>) -> PyResult<()> {
        match self {
            Self::Collect(items) => items.bind(item.py()).append(item)?,
            Self::Count(count) => *count += 1,
            Self::Fold(_) | Self::Drop => {}
        }
        Ok(())
    }

    /// The outcome, at the end of the stream.
    fn reached<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::Collect(items) => Ok(items.bind(py).clone().into_any()),
            Self::Count(count) => Ok(count.into_pyobject(py)?.into_any()),
            Self::Fold(kernel) => match kernel.get().accumulator(py) {
                Some(result) => Ok(result.into_bound(py)),
                None => Err(PyTypeError::new_err(
                    "reduce() of an empty stream without an initial value; give it one",
                )),
            },
            Self::Drop => Ok(py.None().into_bound(py)),
        }
    }
}

/// A stream on its way to its end.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// What is pulled: the stream, or a link of our own that applies a callable to its items.
    link: Option<Py<PullLink>>,
    /// The stream, if that is another.
    stream: Option<Py<PullLink>>,
    /// The pull that is under way.
    pull: Pull,
    goal: Goal,
}

static CLASS: Class = Class::new();

impl Terminal {
    fn over<'py>(stream: &Bound<'py, PullLink>, goal: Goal) -> PyResult<Bound<'py, PyAny>> {
        let (link, pull) = (stream.clone(), Pull::new(stream.clone(), Delivery::Item));
        Native::alloc(stream.py(), || Self {
            link: Some(link.unbind()),
            stream: None,
            pull,
            goal,
        })
    }

    /// Over what a kernel makes of the items. The link that holds it is nobody's but this
    /// terminal's, so that the stream is not taken for one with two consumers later.
    fn applying<'py>(
        stream: &Bound<'py, PullLink>,
        kernel: AnyKernel,
        label: Label,
        goal: Goal,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = stream.py();
        let origin = Origin::Stage {
            kernel,
            source: stream.clone().unbind().into(),
        };
        let link = Bound::new(py, PullLink::labelled(origin, label))?;
        let pull = Pull::new(link.clone(), Delivery::Item);
        let stream = stream.clone().unbind();
        Native::alloc(py, || Self {
            link: Some(link.unbind()),
            stream: Some(stream),
            pull,
            goal,
        })
    }

    /// From one item to the next, for as long as they are ready.
    #[inline(never)]
    fn run<'py>(&mut self, link: &Bound<'py, PullLink>) -> Result<Step<'py>, Raised> {
        let py = link.py();
        let mut line = match Pull::start(link)? {
            Start::Line(line) => line,
            other => return self.pull.begin_without(link, other),
        };
        let outcome = loop {
            match line.advance(py, link, None) {
                Ok(Advance::Item(item)) => {
                    if let Err(error) = self.goal.take(&item) {
                        break Err(error);
                    }
                }
                outcome => break outcome.map_err(|raised| raised.fetch(py)),
            }
        };
        Raised::lower(py, self.pull.finish(link, line, outcome, None))
    }

    /// What a step of the pull came to, and all that can be done after it.
    fn go_on<'py>(
        &mut self,
        link: &Bound<'py, PullLink>,
        mut step: Result<Step<'py>, Raised>,
    ) -> Result<Step<'py>, Raised> {
        let py = link.py();
        loop {
            match step {
                Ok(Step::Return(item)) => {
                    self.pull = Pull::new(link.clone(), Delivery::Item);
                    step = match self.goal.take(&item) {
                        Ok(()) => self.run(link),
                        Err(error) => Err(Raised::set(py, error)),
                    };
                }
                Ok(Step::Yield(object)) => return Ok(Step::Yield(object)),
                Err(raised) => {
                    let error = raised.fetch(py);
                    let reached = error.is_instance_of::<PyStopAsyncIteration>(py);
                    self.leave(py, reached);
                    let outcome = if reached {
                        self.goal.reached(py).map(Step::Return)
                    } else {
                        Err(error)
                    };
                    return Raised::lower(py, outcome);
                }
            }
        }
    }

    /// Lets go of the stream. Unless the goal was reached, the stream gets back what was taken out of it.
    fn leave(&mut self, py: Python<'_>, reached: bool) {
        let Some(link) = self.link.take() else { return };
        let mut items = match &self.goal {
            Goal::Collect(items) if !reached => items.bind(py).iter().map(Bound::unbind).collect(),
            _ => Vec::new(),
        };
        match self.stream.take() {
            None => PullLink::hand_back(link.bind(py), items),
            Some(stream) => {
                // The item whose callable was cancelled.
                items.extend(link.get().take_kept(py).map(Bound::unbind));
                // Its line first, which has a hold on the stream's own links.
                drop(link);
                PullLink::hand_back(stream.bind(py), items);
            }
        }
    }
}

impl Coroutine for Terminal {
    const NAME: &'static CStr = c"headrace._core.Terminal";

    fn neglected(&self) -> Option<&'static CStr> {
        (self.link.is_some() && self.pull.is_new())
            .then_some(c"a stream was to be taken to its end, and that was never awaited: write `await stream.collect()`, `await stream.for_each(f)`, ...")
    }

    fn class() -> &'static Class {
        &CLASS
    }

    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, Raised> {
        let Some(link) = &self.link else {
            unreachable!("a finished awaitable is not stepped again")
        };
        let link = link.bind(value.py()).clone();
        let step = if self.pull.is_new() {
            self.run(&link)
        } else {
            self.pull.send(value)
        };
        self.go_on(&link, step)
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        let Some(link) = &self.link else {
            return Err(error);
        };
        let link = link.bind(py).clone();
        let step = Raised::lower(py, self.pull.throw(py, error));
        self.go_on(&link, step).map_err(|raised| raised.fetch(py))
    }

    fn abandon(&mut self, py: Python<'_>) {
        self.pull.abandon(py);
        self.leave(py, false);
    }
}

impl Traverse for Terminal {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        for link in [&self.link, &self.stream].into_iter().flatten() {
            visit(link.as_any())?;
        }
        self.pull.traverse(visit)?;
        match &self.goal {
            Goal::Collect(items) => visit(items.as_any()),
            Goal::Fold(kernel) => visit(kernel.as_any()),
            Goal::Count(_) | Goal::Drop => Ok(()),
        }
    }
}

/// All items, in a list.
#[pyfunction]
pub(crate) fn collect<'py>(stream: &Bound<'py, PullLink>) -> PyResult<Bound<'py, PyAny>> {
    let items = PyList::empty(stream.py()).unbind();
    Terminal::over(stream, Goal::Collect(items))
}

/// How many items there are.
#[pyfunction]
pub(crate) fn count<'py>(stream: &Bound<'py, PullLink>) -> PyResult<Bound<'py, PyAny>> {
    Terminal::over(stream, Goal::Count(0))
}

/// Calls a function with each item, and keeps nothing.
#[pyfunction]
pub(crate) fn for_each<'py>(
    stream: &Bound<'py, PullLink>,
    function: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let label = Label {
        operator: "for_each()",
        parameter: "function",
    };
    let kernel = Py::new(stream.py(), MapKernel::calling("function", function)?)?;
    Terminal::applying(stream, AnyKernel::Map(kernel), label, Goal::Drop)
}

/// The last running result of a function of two; of no items, what it began with.
#[pyfunction]
#[pyo3(signature = (stream, reducer, *initial))]
pub(crate) fn reduce<'py>(
    stream: &Bound<'py, PullLink>,
    reducer: &Bound<'py, PyAny>,
    initial: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    let label = Label {
        operator: "reduce()",
        parameter: "reducer",
    };
    let kernel = Py::new(stream.py(), ReduceKernel::new(reducer, initial)?)?;
    let goal = Goal::Fold(kernel.clone_ref(stream.py()));
    Terminal::applying(stream, AnyKernel::Reduce(kernel), label, goal)
}
