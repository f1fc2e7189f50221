//! The source over any async iterable.
//! `pull/pipeline.rs` makes it for foreign sources; `headrace/pull/source.py` and other Python modules make it, too.

use pyo3::exceptions::{PyGeneratorExit, PyRuntimeError, PyStopAsyncIteration, PyTypeError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::{SourcePoll, Wait, async_gen};
use crate::coroutine::{Inner, Step, delegate};
use crate::errors;
use crate::object::gc::{self, Traverse, traverse};
use crate::object::gil_cell::GilCell;
use crate::object::iterative_drop::IterativeDrop;
use crate::pull::cycle;
use crate::pull::link::PyPullLink;
use crate::runtime::stack_limit::Level;

/// Takes items from an async iterator, which is made at the first pull.
///
/// An async generator (of exactly that type) is driven without the `asend` object that CPython
/// makes for each item; see [`async_gen`].
#[pyclass(frozen, name = "AsyncIterSource", module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyAsyncIterSource {
    is_factory: bool,
    state: GilCell<State>,
    /// An async iterable, or a callable without arguments that makes an async iterator.
    origin: IterativeDrop<PyAny>,
}

#[derive(Debug, Default)]
struct State {
    iterator: Option<Py<PyAny>>,
    progress: Progress,
}

/// How far the iteration has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Progress {
    #[default]
    Fresh,
    /// The first item was requested through `anext()`, which installed the event loop's hooks for async generators.
    Started,
    /// A cancellation ended the generator: the next pull reports it.
    Lost,
    Ended,
    Closed,
}

impl State {
    /// Return the iterator, if it was made.
    #[inline]
    fn iterator<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.iterator
            .as_ref()
            .map(|iterator| iterator.bind(py).clone())
    }
}

traverse!(State { iterator });
traverse!(PyAsyncIterSource { origin, state });

#[pymethods]
impl PyAsyncIterSource {
    #[new]
    #[pyo3(signature = (origin, *, is_factory = false))]
    fn new(origin: &Bound<'_, PyAny>, is_factory: bool) -> Self {
        if let Ok(link) = origin.cast::<PyPullLink>() {
            cycle::attach(link);
        }
        Self {
            is_factory,
            state: GilCell::default(),
            origin: origin.clone().unbind().into(),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| self.traverse(visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        let old = self.state.borrow(py).iterator.take();
        drop(old);
    }
}

impl PyAsyncIterSource {
    /// Make a source over an async iterable.
    pub(crate) fn over(iterable: &Bound<'_, PyAny>) -> Self {
        Self::new(iterable, false)
    }

    /// Return the async iterable, or the callable that makes an iterator.
    pub(crate) fn origin<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.origin.bind(py).clone()
    }

    /// Make a source over the iterators that a callable makes.
    pub(crate) fn made_by(factory: &Bound<'_, PyAny>) -> Self {
        Self::new(factory, true)
    }
}

/// End the item that a generator is suspended inside, through the public API. CPython treats the generator as running
/// until the awaitable of `anext()` has ended, even if that was dropped. So the generator is closed here, which runs
/// its `finally`.
#[cold]
fn abandon_item(py: Python<'_>, inner: &Inner) {
    let thrown = py.get_type::<PyGeneratorExit>().call0().and_then(|exit| {
        // If the generator awaits again, asyncio reports that when it closes the generator.
        inner.throw(py, PyErr::from_value(exit)).map(drop)
    });
    if let Err(error) = thrown
        && !error.is_instance_of::<PyGeneratorExit>(py)
        && !error.is_instance_of::<PyStopAsyncIteration>(py)
    {
        error.write_unraisable(py, Some(inner.object().bind(py)));
    }
}

/// Return whether this is an async generator that can be driven directly.
fn is_agen(iterator: &Bound<'_, PyAny>) -> bool {
    // SAFETY: reading the type of a live object.
    unsafe {
        std::ptr::eq(
            ffi::Py_TYPE(iterator.as_ptr()),
            &raw const ffi::PyAsyncGen_Type,
        )
    }
}

impl PyAsyncIterSource {
    #[inline]
    pub(crate) fn poll_next<'py>(&self, py: Python<'py>) -> PyResult<SourcePoll<'py>> {
        let level = Level::enter();
        level.check()?;
        let iterator = {
            let mut state = self.state.borrow(py);
            match state.progress {
                Progress::Fresh | Progress::Started => {}
                Progress::Ended | Progress::Closed => return Ok(SourcePoll::End),
                Progress::Lost => {
                    state.progress = Progress::Ended;
                    drop(state);
                    return Err(errors::source_cancelled(py));
                }
            }
            if state.progress == Progress::Started {
                state.iterator(py)
            } else {
                None
            }
        };
        match iterator {
            Some(iterator) if async_gen::can_bypass() && is_agen(&iterator) => {
                self.agen_step(async_gen::step(&iterator, &py.None().into_bound(py)))
            }
            Some(iterator) => self.anext(&iterator),
            None => {
                let iterator = self.open(py)?;
                self.state.borrow(py).progress = Progress::Started;
                self.anext(&iterator)
            }
        }
    }

    /// Return the async generator, if it has started and can be stepped directly.
    #[inline]
    pub(crate) fn running_agen<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let state = self.state.borrow(py);
        let iterator = state.iterator.as_ref()?.bind(py);
        let is_ready = state.progress == Progress::Started;
        (is_ready && async_gen::can_bypass() && is_agen(iterator)).then(|| iterator.clone())
    }

    /// Return the iterator; make it at the first call.
    fn open<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if let Some(iterator) = self.state.borrow(py).iterator(py) {
            return Ok(iterator);
        }
        let origin = self.origin.bind(py);
        let iterator = if self.is_factory {
            origin.call0()?
        } else {
            origin
                .get_type()
                .call_method1(intern!(py, "__aiter__"), (origin,))?
        };
        if !iterator.hasattr(intern!(py, "__anext__"))? {
            return Err(PyTypeError::new_err(format!(
                "the source gave {}, which is no async iterator: {} must be an async generator function or return an async iterator",
                errors::describe(&iterator),
                if self.is_factory {
                    "pull_impl"
                } else {
                    "__aiter__"
                },
            )));
        }
        self.state.borrow(py).iterator = Some(iterator.clone().unbind());
        Ok(iterator)
    }

    /// Request one item through `anext()`.
    fn anext<'py>(&self, iterator: &Bound<'py, PyAny>) -> PyResult<SourcePoll<'py>> {
        self.first_step(delegate::next(iterator)?)
    }

    /// Run the first step of an awaitable of the iterator.
    fn first_step<'py>(&self, awaitable: Bound<'py, PyAny>) -> PyResult<SourcePoll<'py>> {
        let py = awaitable.py();
        let inner = Inner::of(awaitable)?;
        let step = inner.send(&py.None().into_bound(py));
        self.inner_step(py, inner, step)
    }

    fn inner_step<'py>(
        &self,
        py: Python<'py>,
        inner: Inner,
        step: PyResult<Step<'py>>,
    ) -> PyResult<SourcePoll<'py>> {
        match step {
            Ok(Step::Return(item)) => Ok(SourcePoll::Item(item)),
            Ok(Step::Yield(object)) => Ok(SourcePoll::Wait(Box::new(Wait::Inner(inner)), object)),
            Err(error) if error.is_instance_of::<PyStopAsyncIteration>(py) => {
                self.end(py);
                Ok(SourcePoll::End)
            }
            Err(error) => Err(error),
        }
    }

    /// Convert the result of a step of [`Self::running_agen`].
    pub(crate) fn agen_step<'py>(
        &self,
        step: PyResult<async_gen::Stepped<'py>>,
    ) -> PyResult<SourcePoll<'py>> {
        match step? {
            async_gen::Stepped::Item(item) => Ok(SourcePoll::Item(item)),
            async_gen::Stepped::Suspended(object) => {
                Ok(SourcePoll::Wait(Box::new(Wait::Agen), object))
            }
            async_gen::Stepped::End(py) => {
                self.end(py);
                Ok(SourcePoll::End)
            }
        }
    }

    pub(crate) fn resume<'py>(
        &self,
        wait: Wait,
        sent: Result<&Bound<'py, PyAny>, PyErr>,
        py: Python<'py>,
    ) -> PyResult<SourcePoll<'py>> {
        let _level = Level::enter();
        match wait {
            Wait::Inner(inner) => {
                let step = match sent {
                    Ok(value) => inner.send(value),
                    Err(error) => inner.throw(py, error),
                };
                self.inner_step(py, inner, step)
            }
            Wait::Agen => {
                let iterator = self.open(py)?;
                async_gen::set_running(&iterator, false);
                match sent {
                    Ok(value) => self.agen_step(async_gen::step(&iterator, value)),
                    // From here on by the public API: `athrow` knows how to end a generator.
                    Err(error) => self.athrow(&iterator, error),
                }
            }
            Wait::Core(_) | Wait::Batch(_) | Wait::Merge { .. } => {
                unreachable!("an async iterator waits for its own awaitable only")
            }
        }
    }

    fn athrow<'py>(&self, iterator: &Bound<'py, PyAny>, error: PyErr) -> PyResult<SourcePoll<'py>> {
        let py = iterator.py();
        self.first_step(iterator.call_method1(intern!(py, "athrow"), (error.into_value(py),))?)
    }

    /// Throw an error in between two items: at the `yield` of a generator. Another iterator receives it in the
    /// awaitable of its next item, like a coroutine that is cancelled before its first step.
    pub(crate) fn throw<'py>(&self, py: Python<'py>, error: PyErr) -> PyResult<SourcePoll<'py>> {
        let iterator = self.open(py)?;
        if self.can_throw(py) {
            return self.athrow(&iterator, error);
        }
        let inner = Inner::of(delegate::next(&iterator)?)?;
        let step = inner.throw(py, error);
        self.inner_step(py, inner, step)
    }

    /// Return whether the iterator is suspended at a `yield` that an error can be thrown into.
    pub(crate) fn can_throw(&self, py: Python<'_>) -> bool {
        let state = self.state.borrow(py);
        let iterator = state.iterator(py);
        let has_started = state.progress != Progress::Fresh;
        drop(state);
        has_started
            && iterator
                .is_some_and(|iterator| iterator.hasattr(intern!(py, "athrow")).unwrap_or(false))
    }

    /// Return whether the iterator was made.
    pub(crate) fn has_begun(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).iterator.is_some()
    }

    /// Return whether the iterator, or the iterable, has an `aclose()`.
    pub(crate) fn can_close(&self, py: Python<'_>) -> PyResult<bool> {
        let iterator = self.state.borrow(py).iterator(py);
        iterator
            .unwrap_or_else(|| self.origin(py))
            .hasattr(intern!(py, "aclose"))
    }

    /// Forget the iterator: its origin restarts by itself.
    pub(crate) fn forget(&self, py: Python<'_>) {
        self.state.set(py, State::default());
    }

    /// Mark a generator that will not be resumed inside its item as not running. It can then still be closed, which
    /// runs its `finally`.
    pub(crate) fn abandon(&self, py: Python<'_>, wait: Wait) {
        let Some(iterator) = self.state.borrow(py).iterator(py) else {
            return;
        };
        match wait {
            _ if !is_agen(&iterator) => drop(wait),
            Wait::Inner(inner) if !async_gen::can_bypass() => abandon_item(py, &inner),
            _ => {
                drop(wait);
                if async_gen::can_bypass() {
                    async_gen::set_running(&iterator, false);
                }
            }
        }
        self.cancelled(py);
    }

    fn end(&self, py: Python<'_>) {
        let mut state = self.state.borrow(py);
        if state.progress != Progress::Closed {
            state.progress = Progress::Ended;
        }
    }

    pub(crate) fn cancelled(&self, py: Python<'_>) {
        let mut state = self.state.borrow(py);
        // Only a generator is ended by an error that passes through it. Whether another iterator lost an item is unknown here.
        if matches!(state.progress, Progress::Fresh | Progress::Started)
            && state
                .iterator
                .as_ref()
                .is_some_and(|iterator| is_agen(iterator.bind(py)))
        {
            state.progress = Progress::Lost;
        }
    }

    pub(crate) fn restart(&self, py: Python<'_>) -> PyResult<()> {
        let origin = self.origin.bind(py);
        if !self.is_factory && origin.hasattr(intern!(py, "__anext__"))? {
            return Err(PyRuntimeError::new_err(format!(
                "cannot restart: the source {} is an async iterator, which runs once; give an async iterable that can be iterated again",
                errors::describe(origin)
            )));
        }
        self.state.set(py, State::default());
        Ok(())
    }

    /// Allow another `close()` after one that failed.
    pub(crate) fn reopen(&self, py: Python<'_>) {
        self.state.borrow(py).progress = Progress::Ended;
    }

    /// End the source. Returns the iterator's own `aclose()`, to be awaited once.
    pub(crate) fn close<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let iterator = {
            let mut state = self.state.borrow(py);
            if state.progress == Progress::Closed {
                return Ok(None);
            }
            state.progress = Progress::Closed;
            state.iterator(py)
        };
        // An iterator that was never started is closed too: it may be an open connection.
        let iterator = match iterator {
            Some(iterator) => iterator,
            None if self.is_factory => return Ok(None),
            None => self.origin(py),
        };
        let aclose = iterator.getattr_opt(intern!(py, "aclose"))?;
        aclose.map(|aclose| aclose.call0()).transpose()
    }
}
