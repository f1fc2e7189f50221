//! Terminals: one awaitable that consumes a whole stream. `headrace/pull/_methods.py` calls them.
//!
//! A terminal is a pull that repeats. It takes the pipeline once, keeps it from item to item, and
//! returns it only to suspend. So an item costs one run of the pipeline: no awaitable, no locking
//! and no return to the interpreter. The pull inside the terminal handles suspensions,
//! cancellations and the end.
//!
//! If a terminal fails, the items that it had collected go back to the stream
//! ([`PyPullLink::hand_back`]): the next pull delivers them first.

use std::ffi::CStr;

use pyo3::exceptions::{PyStopAsyncIteration, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::awaitable::{Pull, ResultFormat};
use super::link::PyPullLink;
use super::pipeline::Advance;
use super::state::{Label, Origin, Start};
use crate::coroutine::{Coroutine, Native, Step, own_class};
use crate::errors::RaisedError;
use crate::kernel::{AnyKernel, PyMapKernel, PyReduceKernel};
use crate::object::gc::traverse;

/// The way in which a terminal reduces the items to one result.
#[derive(Debug)]
enum Reduction {
    /// A list, filled from the first item on: building it from a million items at the end would
    /// block the event loop.
    Collect(Py<PyList>),
    Count(u64),
    /// The kernel holds the running result.
    Fold(Py<PyReduceKernel>),
    /// The kernel's callable was called; the items are dropped.
    Drop,
}

impl Reduction {
    #[inline]
    fn add(&mut self, item: &Bound<'_, PyAny>) -> PyResult<()> {
        match self {
            Self::Collect(items) => items.bind(item.py()).append(item)?,
            Self::Count(count) => *count += 1,
            Self::Fold(_) | Self::Drop => {}
        }
        Ok(())
    }

    /// Return the result, at the end of the stream.
    fn result<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::Collect(items) => Ok(items.bind(py).clone().into_any()),
            Self::Count(count) => Ok(count.into_pyobject(py)?.into_any()),
            Self::Fold(kernel) => match kernel.get().accumulator(py) {
                Some(result) => Ok(result),
                None => Err(PyTypeError::new_err(
                    "reduce() of an empty stream without an initial value; give it one",
                )),
            },
            Self::Drop => Ok(py.None().into_bound(py)),
        }
    }
}

/// The awaitable of `collect()`, `count()`, `for_each()` and `reduce()`.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// The link that is pulled: the stream, or a private link that applies a callable to its items.
    link: Option<Py<PyPullLink>>,
    /// The stream, if `link` is a private link.
    stream: Option<Py<PyPullLink>>,
    /// The current pull.
    pull: Pull,
    reduction: Reduction,
}

impl Terminal {
    fn make(
        link: Bound<'_, PyPullLink>,
        stream: Option<Py<PyPullLink>>,
        reduction: Reduction,
    ) -> PyResult<Bound<'_, PyAny>> {
        let pull = Pull::new(link.clone(), ResultFormat::Item);
        Native::alloc(link.py(), || Self {
            link: Some(link.unbind()),
            stream,
            pull,
            reduction,
        })
    }

    /// Return a terminal over the items of a stream.
    fn over<'py>(
        stream: &Bound<'py, PyPullLink>,
        reduction: Reduction,
    ) -> PyResult<Bound<'py, PyAny>> {
        Self::make(stream.clone(), None, reduction)
    }

    /// Return a terminal over the outputs of a kernel. Its private link does not count as a consumer of
    /// the stream, so the stream can be fused again later.
    fn applying<'py>(
        stream: &Bound<'py, PyPullLink>,
        kernel: AnyKernel,
        label: Label,
        reduction: Reduction,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = stream.py();
        let origin = Origin::Stage {
            kernel,
            source: stream.clone().unbind().into(),
        };
        let link = Bound::new(py, PyPullLink::with_label(origin, label))?;
        Self::make(link, Some(stream.clone().unbind()), reduction)
    }

    /// Consume items while they are ready.
    #[inline(never)]
    fn run<'py>(&mut self, link: &Bound<'py, PyPullLink>) -> Result<Step<'py>, RaisedError> {
        let py = link.py();
        let mut pipeline = match Pull::start(link)? {
            Start::Pipeline(pipeline) => pipeline,
            other => return self.pull.begin_without_pipeline(link, other),
        };
        let outcome = loop {
            match pipeline.advance(py, link, None) {
                Ok(Advance::Item(item)) => {
                    if let Err(error) = self.reduction.add(&item) {
                        break Err(error);
                    }
                }
                outcome => break outcome.map_err(|raised| raised.fetch(py)),
            }
        };
        RaisedError::set_from(py, self.pull.finish(link, pipeline, outcome, None))
    }

    /// Handle one step of the pull, then continue as far as possible.
    fn after_step<'py>(
        &mut self,
        link: &Bound<'py, PyPullLink>,
        mut step: Result<Step<'py>, RaisedError>,
    ) -> Result<Step<'py>, RaisedError> {
        let py = link.py();
        loop {
            match step {
                Ok(Step::Return(item)) => {
                    self.pull = Pull::new(link.clone(), ResultFormat::Item);
                    step = match self.reduction.add(&item) {
                        Ok(()) => self.run(link),
                        Err(error) => Err(RaisedError::set(py, error)),
                    };
                }
                Ok(Step::Yield(object)) => return Ok(Step::Yield(object)),
                Err(raised) => {
                    let error = raised.fetch(py);
                    let reached = error.is_instance_of::<PyStopAsyncIteration>(py);
                    self.leave(py, reached);
                    let outcome = if reached {
                        self.reduction.result(py).map(Step::Return)
                    } else {
                        Err(error)
                    };
                    return RaisedError::set_from(py, outcome);
                }
            }
        }
    }

    /// Release the stream. Unless the end was reached, hand the collected items back.
    fn leave(&mut self, py: Python<'_>, reached: bool) {
        let Some(link) = self.link.take() else { return };
        let mut items = match &self.reduction {
            Reduction::Collect(items) if !reached => {
                items.bind(py).iter().map(Bound::unbind).collect()
            }
            _ => Vec::new(),
        };
        match self.stream.take() {
            None => PyPullLink::hand_back(link.bind(py), items),
            Some(stream) => {
                // The item whose callable was cancelled.
                items.extend(link.get().take_retained(py).map(Bound::unbind));
                // Drop the private pipeline first: it holds a fusion guard on the stream's links.
                drop(link);
                PyPullLink::hand_back(stream.bind(py), items);
            }
        }
    }
}

impl Coroutine for Terminal {
    const NAME: &'static CStr = c"headrace._core.Terminal";

    fn never_awaited_warning(&self) -> Option<&'static CStr> {
        (self.link.is_some() && self.pull.is_new())
            .then_some(c"a terminal of a stream was never awaited: write `await stream.collect()`, `await stream.for_each(f)`, ...")
    }

    own_class!();

    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        let Some(link) = &self.link else {
            unreachable!("a finished awaitable is not stepped again")
        };
        let link = link.bind(value.py()).clone();
        let step = if self.pull.is_new() {
            self.run(&link)
        } else {
            self.pull.send(value)
        };
        self.after_step(&link, step)
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        let Some(link) = &self.link else {
            return Err(error);
        };
        let link = link.bind(py).clone();
        let step = RaisedError::set_from(py, self.pull.throw(py, error));
        self.after_step(&link, step)
            .map_err(|raised| raised.fetch(py))
    }

    fn abandon(&mut self, py: Python<'_>) {
        self.pull.abandon(py);
        self.leave(py, false);
    }
}

traverse!(Terminal {
    link,
    stream,
    pull,
    reduction
});

traverse!(
    enum Reduction {
        Collect(items),
        Fold(kernel),
        Count {},
        Drop {},
    }
);

/// Collect all items in a list.
#[pyfunction]
pub(crate) fn collect<'py>(stream: &Bound<'py, PyPullLink>) -> PyResult<Bound<'py, PyAny>> {
    let items = PyList::empty(stream.py()).unbind();
    Terminal::over(stream, Reduction::Collect(items))
}

/// Count the items.
#[pyfunction]
pub(crate) fn count<'py>(stream: &Bound<'py, PyPullLink>) -> PyResult<Bound<'py, PyAny>> {
    Terminal::over(stream, Reduction::Count(0))
}

/// Call a function with each item, and drop the results.
#[pyfunction]
pub(crate) fn for_each<'py>(
    stream: &Bound<'py, PyPullLink>,
    function: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let label = Label {
        operator: "for_each()",
        parameter: "function",
    };
    let kernel = Py::new(stream.py(), PyMapKernel::calling("function", function)?)?;
    Terminal::applying(stream, AnyKernel::Map(kernel), label, Reduction::Drop)
}

/// Reduce all items with a function of two arguments; an empty stream gives the initial value.
#[pyfunction]
#[pyo3(signature = (stream, reducer, *initial))]
pub(crate) fn reduce<'py>(
    stream: &Bound<'py, PyPullLink>,
    reducer: &Bound<'py, PyAny>,
    initial: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    let label = Label {
        operator: "reduce()",
        parameter: "reducer",
    };
    let kernel = Py::new(stream.py(), PyReduceKernel::new(reducer, initial)?)?;
    let reduction = Reduction::Fold(kernel.clone_ref(stream.py()));
    Terminal::applying(stream, AnyKernel::Reduce(kernel), label, reduction)
}
