//! A source that is somebody else's: any async iterable.

use pyo3::exceptions::{PyRuntimeError, PyStopAsyncIteration, PyTypeError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::{Drawn, Wait, async_gen};
use crate::coroutine::{Inner, Step};
use crate::errors;
use crate::object::gc;
use crate::object::gil_cell::GilCell;
use crate::object::iterative_drop::Deep;
use crate::pull::cycle;
use crate::pull::link::PyPullLink;
use crate::runtime::stack_limit::Level;

/// Takes items from an async iterator that is made when the first one is wanted.
///
/// An async generator (of exactly that type) is driven without the `asend` object that CPython
/// makes for each item; see [`async_gen`].
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct ForeignFeed {
    is_factory: bool,
    state: GilCell<State>,
    /// An async iterable, or a callable without arguments that makes an async iterator.
    origin: Deep<PyAny>,
}

#[derive(Debug, Default)]
struct State {
    iterator: Option<Py<PyAny>>,
    progress: Progress,
}

/// How far a source has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Progress {
    #[default]
    Fresh,
    /// Its first item has been asked for, so that the loop's hooks for async generators are
    /// installed.
    Started,
    /// A cancellation went through it: say so at the next pull.
    Lost,
    Ended,
    Closed,
}

#[pymethods]
impl ForeignFeed {
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
        gc::visit(&visit, |visit| {
            visit(&self.origin)?;
            match self.state.peek_for_gc().as_deref() {
                Some(State {
                    iterator: Some(iterator),
                    ..
                }) => visit(iterator),
                _ => Ok(()),
            }
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        let old = self.state.borrow(py).iterator.take();
        drop(old);
    }
}

impl ForeignFeed {
    /// Over an async iterable.
    pub(crate) fn over(iterable: &Bound<'_, PyAny>) -> Self {
        Self::new(iterable, false)
    }

    /// What it is over.
    pub(crate) fn origin<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.origin.bind(py).clone()
    }

    /// Over what a callable makes.
    pub(crate) fn made_by(factory: &Bound<'_, PyAny>) -> Self {
        Self::new(factory, true)
    }
}

/// Whether this is an async generator that can be driven directly.
fn is_agen(iterator: &Bound<'_, PyAny>) -> bool {
    // SAFETY: reading the type of a live object.
    unsafe {
        std::ptr::eq(
            ffi::Py_TYPE(iterator.as_ptr()),
            &raw const ffi::PyAsyncGen_Type,
        )
    }
}

impl ForeignFeed {
    #[inline]
    pub(crate) fn draw<'py>(&self, py: Python<'py>) -> PyResult<Drawn<'py>> {
        let level = Level::enter();
        level.check()?;
        let iterator = {
            let mut state = self.state.borrow(py);
            match state.progress {
                Progress::Fresh | Progress::Started => {}
                Progress::Ended | Progress::Closed => return Ok(Drawn::End),
                Progress::Lost => {
                    state.progress = Progress::Ended;
                    drop(state);
                    return Err(errors::source_cancelled(py));
                }
            }
            match &state.iterator {
                Some(iterator) if state.progress == Progress::Started => {
                    Some(iterator.bind(py).clone())
                }
                _ => None,
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

    /// The async generator that this is over, if it has begun and can be stepped directly.
    #[inline]
    pub(crate) fn running_agen<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let state = self.state.borrow(py);
        let iterator = state.iterator.as_ref()?.bind(py);
        let is_ready = state.progress == Progress::Started;
        (is_ready && async_gen::can_bypass() && is_agen(iterator)).then(|| iterator.clone())
    }

    /// Makes the iterator, if it is not there yet.
    fn open<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if let Some(iterator) = &self.state.borrow(py).iterator {
            return Ok(iterator.bind(py).clone());
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

    /// One item by the way that the language has for it.
    fn anext<'py>(&self, iterator: &Bound<'py, PyAny>) -> PyResult<Drawn<'py>> {
        let py = iterator.py();
        let inner = Self::ask(iterator)?;
        let step = inner.send(&py.None().into_bound(py));
        self.inner_step(py, inner, step)
    }

    /// What `anext()` gives to be awaited.
    fn ask(iterator: &Bound<'_, PyAny>) -> PyResult<Inner> {
        let py = iterator.py();
        // SAFETY: the slot is called as CPython calls it; it returns an owned reference, or null
        // with an exception.
        let awaitable = unsafe {
            let methods = (*ffi::Py_TYPE(iterator.as_ptr())).tp_as_async;
            match if methods.is_null() {
                None
            } else {
                (*methods).am_anext
            } {
                Some(am_anext) => Bound::from_owned_ptr_or_err(py, am_anext(iterator.as_ptr()))?,
                None => iterator.call_method0(intern!(py, "__anext__"))?,
            }
        };
        Inner::of(awaitable)
    }

    fn inner_step<'py>(
        &self,
        py: Python<'py>,
        inner: Inner,
        step: PyResult<Step<'py>>,
    ) -> PyResult<Drawn<'py>> {
        match step {
            Ok(Step::Return(item)) => Ok(Drawn::Item(item)),
            Ok(Step::Yield(object)) => Ok(Drawn::Wait(Box::new(Wait::Inner(inner)), object)),
            Err(error) if error.is_instance_of::<PyStopAsyncIteration>(py) => {
                self.end(py);
                Ok(Drawn::End)
            }
            Err(error) => Err(error),
        }
    }

    /// What a step of [`Self::running_agen`] came to.
    pub(crate) fn agen_step<'py>(
        &self,
        step: PyResult<async_gen::Stepped<'py>>,
    ) -> PyResult<Drawn<'py>> {
        match step? {
            async_gen::Stepped::Item(item) => Ok(Drawn::Item(item)),
            async_gen::Stepped::Suspended(object) => Ok(Drawn::Wait(Box::new(Wait::Agen), object)),
            async_gen::Stepped::End(py) => {
                self.end(py);
                Ok(Drawn::End)
            }
        }
    }

    pub(crate) fn resume<'py>(
        &self,
        wait: Wait,
        sent: Result<&Bound<'py, PyAny>, PyErr>,
        py: Python<'py>,
    ) -> PyResult<Drawn<'py>> {
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
                    // From here on as the language has it: `athrow` knows how to end a generator.
                    Err(error) => self.throw(&iterator, error),
                }
            }
            Wait::Core(_) | Wait::Batch(_) | Wait::Merge { .. } => {
                unreachable!("a foreign source waits for nothing of ours")
            }
        }
    }

    fn throw<'py>(&self, iterator: &Bound<'py, PyAny>, error: PyErr) -> PyResult<Drawn<'py>> {
        let py = iterator.py();
        let awaitable = iterator.call_method1(intern!(py, "athrow"), (error.into_value(py),))?;
        let inner = Inner::of(awaitable)?;
        let step = inner.send(&py.None().into_bound(py));
        self.inner_step(py, inner, step)
    }

    /// Throws an error in between two items: at the `yield` of a generator. Another iterator hears
    /// of it like any coroutine that was cancelled before it began.
    pub(crate) fn strike<'py>(&self, py: Python<'py>, error: PyErr) -> PyResult<Drawn<'py>> {
        let iterator = self.open(py)?;
        if self.can_throw(py) {
            return self.throw(&iterator, error);
        }
        let inner = Self::ask(&iterator)?;
        let step = inner.throw(py, error);
        self.inner_step(py, inner, step)
    }

    /// Whether it stands at a `yield` where something can be thrown into it.
    pub(crate) fn can_throw(&self, py: Python<'_>) -> bool {
        let state = self.state.borrow(py);
        let begun = (state.progress != Progress::Fresh).then_some(state.iterator.as_ref());
        let Some(iterator) = begun.flatten().map(|iterator| iterator.bind(py).clone()) else {
            return false;
        };
        drop(state);
        iterator.hasattr(intern!(py, "athrow")).unwrap_or(false)
    }

    /// Whether its iterator was made.
    pub(crate) fn has_begun(&self, py: Python<'_>) -> bool {
        self.state.borrow(py).iterator.is_some()
    }

    /// Whether there is anything to close.
    pub(crate) fn can_close(&self, py: Python<'_>) -> PyResult<bool> {
        let iterator = match &self.state.borrow(py).iterator {
            Some(iterator) => iterator.bind(py).clone(),
            None => self.origin.bind(py).clone(),
        };
        iterator.hasattr(intern!(py, "aclose"))
    }

    /// Its source begins a new cycle by itself.
    pub(crate) fn forget(&self, py: Python<'_>) {
        let old = std::mem::take(&mut *self.state.borrow(py));
        drop(old);
    }

    /// Nobody will resume the generator inside its item. It can still be closed, which runs its
    /// `finally`; for that it must not be taken for running.
    pub(crate) fn abandon(&self, py: Python<'_>) {
        let iterator = match &self.state.borrow(py).iterator {
            Some(iterator) => iterator.bind(py).clone(),
            None => return,
        };
        if async_gen::can_bypass() && is_agen(&iterator) {
            async_gen::set_running(&iterator, false);
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
        // Only a generator is ended by an error that goes through it. What another iterator lost,
        // if anything, only it can know.
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
        let old = std::mem::take(&mut *self.state.borrow(py));
        drop(old);
        Ok(())
    }

    /// Closing it failed: it can be tried again.
    pub(crate) fn reopen(&self, py: Python<'_>) {
        self.state.borrow(py).progress = Progress::Ended;
    }

    /// Ends it. What comes back is to be awaited, once: the iterator's own `aclose()`.
    pub(crate) fn close<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let iterator = {
            let mut state = self.state.borrow(py);
            if state.progress == Progress::Closed {
                return Ok(None);
            }
            state.progress = Progress::Closed;
            state
                .iterator
                .as_ref()
                .map(|iterator| iterator.bind(py).clone())
        };
        // One that was never started is closed too: it may be an open connection.
        let iterator = match iterator {
            Some(iterator) => iterator,
            None if self.is_factory => return Ok(None),
            None => self.origin.bind(py).clone(),
        };
        match iterator.getattr_opt(intern!(py, "aclose"))? {
            Some(aclose) => Ok(Some(aclose.call0()?)),
            None => Ok(None),
        }
    }
}
