//! The queue itself: what does not wait, and what makes that which does.

use std::sync::{Arc, OnceLock};

use headrace_core::buffer::{self as core, Order, Overflow, PutError, TryGetError};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::buffer::show_items;
use super::get_sync::take_sync;
use super::order::{by_priority, incomparable};
use super::queue_get::Taking;
use super::queue_join::Join;
use super::queue_ops::Asking;
use super::queue_put::Storing;
use crate::coroutine::Native;
use crate::coroutine::operation::Ready;
use crate::errors::{self, RaisedError};
use crate::object::gc;
use crate::runtime::blocking_wait;
use crate::runtime::blocking_wait::Blocking;
use crate::runtime::fork_guard::ProcessId;

pub(super) type Core = core::Buffer<Py<PyAny>>;

const GET: Blocking = Blocking {
    name: "get_sync()",
    instead: "await get()",
};

const PUT: Blocking = Blocking {
    name: "put_sync()",
    instead: "await put(item)",
};

/// The native part of a queue.
#[pyclass(subclass, generic, frozen, weakref, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct Queue {
    home: ProcessId,
    /// Made by `__init__`, so that a subclass may have one of its own.
    core: OnceLock<Made>,
}

#[derive(Debug)]
struct Made {
    core: Arc<Core>,
    /// As it was given.
    maxsize: Py<PyAny>,
}

#[pymethods]
impl Queue {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self {
            home: ProcessId::current(),
            core: OnceLock::new(),
        }
    }

    /// The order comes from the class.
    fn __init__(slf: &Bound<'_, Self>, maxsize: Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        let order: String = slf.getattr(intern!(py, "_order"))?.extract()?;
        let order = match order.as_str() {
            "lifo" => Order::Lifo,
            "priority" => by_priority(false),
            _ => Order::Fifo,
        };
        let made = Made {
            core: Core::with(bound(&maxsize)?, Overflow::Block, order),
            maxsize: maxsize.unbind(),
        };
        let made = slf.get().core.set(made);
        made.map_err(|_| PyRuntimeError::new_err("this queue was initialised before"))
    }

    #[classattr]
    #[pyo3(name = "_order")]
    fn order() -> &'static str {
        "fifo"
    }

    /// Takes the next item, as soon as there is one.
    fn get(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        let py = slf.py();
        Native::alloc(py, || Asking::new(slf, Taking))
    }

    /// Stores an item, as soon as there is room.
    fn put<'py>(slf: Bound<'py, Self>, item: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        Native::alloc(py, || Asking::new(slf, Storing(item.unbind())))
    }

    /// The next item, or `QueueEmpty`.
    fn get_nowait<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.core(py)?.try_get() {
            Ok(item) => Ok(item.into_bound(py)),
            Err(TryGetError::Empty) => Err(empty(py)),
            Err(TryGetError::Ended) => Err(shut_down(py)),
        }
    }

    /// Stores an item, or raises `QueueFull`.
    fn put_nowait(&self, item: Bound<'_, PyAny>) -> PyResult<()> {
        let py = item.py();
        let stored = self.core(py)?.try_put(item.unbind());
        stored.map_err(|refused| refusal(py, refused))
    }

    /// Takes the next item in a thread without a loop, waiting for it at most so many seconds.
    #[pyo3(signature = (timeout = None))]
    fn get_sync<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match take_sync(py, self.core(py)?, GET, timeout)? {
            Some(Ok(item)) => Ok(item.into_bound(py)),
            Some(Err(core::Ended)) => Err(shut_down(py)),
            None => Err(empty(py)),
        }
    }

    /// Stores an item from a thread without a loop, waiting for room at most so many seconds.
    #[pyo3(signature = (item, timeout = None))]
    fn put_sync(&self, item: Bound<'_, PyAny>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let py = item.py();
        let core = self.core(py)?;
        let deadline = timeout.map(blocking_wait::deadline).transpose()?.flatten();
        match core.try_put(item.unbind()) {
            Ok(()) => Ok(()),
            Err(PutError::Full(item)) => {
                match blocking_wait::wait(py, PUT, core.put(item), deadline)? {
                    Some(stored) => stored.map_err(|refused| refusal(py, refused)),
                    None => Err(error(py, "QueueFull")),
                }
            }
            Err(refused) => Err(refusal(py, refused)),
        }
    }

    /// How many items are free to be taken.
    fn qsize(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.core(py)?.available())
    }

    fn empty(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.core(py)?.available() == 0)
    }

    fn full(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.core(py)?.is_full())
    }

    #[getter]
    fn maxsize(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.core(py)?;
        Ok(self.made()?.maxsize.clone_ref(py))
    }

    /// One of the items that were taken is done with.
    fn task_done(&self, py: Python<'_>) -> PyResult<()> {
        if self.core(py)?.task_done() {
            Ok(())
        } else {
            Err(PyValueError::new_err("task_done() called too many times"))
        }
    }

    /// Waits until all items are done with.
    fn join(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        let py = slf.py();
        Ready::make(py, Join::new(slf)?)
    }

    /// Ends it: nothing comes in any more and, if `immediate`, nothing goes out.
    #[pyo3(signature = (immediate = false))]
    fn shutdown(&self, py: Python<'_>, immediate: bool) -> PyResult<()> {
        let core = self.core(py)?;
        if immediate {
            drop(core.close());
        } else {
            core.finish();
        }
        Ok(())
    }

    /// For `repr`: waiting getters, waiting putters, unfinished items, whether it was shut down.
    fn _figures(&self, py: Python<'_>) -> PyResult<(usize, usize, usize, bool)> {
        let core = self.core(py)?;
        let now = core.statistics();
        Ok((
            now.waiting_getters,
            now.waiting_putters,
            core.unfinished(),
            core.is_finished() || core.is_closed(),
        ))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| {
            let Some(made) = self.core.get() else {
                return Ok(());
            };
            visit(&made.maxsize)?;
            show_items(&made.core, visit)
        })
    }

    fn __clear__(&self) {
        if let Some(made) = self.core.get() {
            drop(made.core.close());
        }
    }
}

impl Queue {
    #[inline]
    fn made(&self) -> PyResult<&Made> {
        self.core.get().ok_or_else(uninitialised)
    }

    /// The core, if it may be used here; handed over by registers, where what could hold an error
    /// would not be.
    #[inline]
    pub(super) fn usable(&self, py: Python<'_>) -> Result<&Arc<Core>, RaisedError> {
        match self.core.get() {
            Some(made) if self.home.check(py, "queue").is_ok() && !made.core.is_broken() => {
                Ok(&made.core)
            }
            _ => self.unusable(py),
        }
    }

    #[cold]
    fn unusable(&self, py: Python<'_>) -> Result<&Arc<Core>, RaisedError> {
        RaisedError::set_from(py, self.core(py))
    }

    /// The core, if it may be used here.
    pub(super) fn core(&self, py: Python<'_>) -> PyResult<&Arc<Core>> {
        self.home.check(py, "queue")?;
        let core = &self.made()?.core;
        if core.is_broken() {
            return Err(errors::broken(py, "queue"));
        }
        Ok(core)
    }
}

#[cold]
fn uninitialised() -> PyErr {
    PyRuntimeError::new_err("this queue was not initialised: call super().__init__() first")
}

/// The bound that `asyncio.Queue` takes a number for: it is full with that many items or more, and
/// infinite if that is none.
fn bound(maxsize: &Bound<'_, PyAny>) -> PyResult<Option<std::num::NonZeroUsize>> {
    let number: f64 = maxsize
        .extract()
        .map_err(|_| errors::wrong_type("maxsize", "a number", maxsize))?;
    if let Ok(whole) = maxsize.extract::<usize>() {
        return Ok(std::num::NonZeroUsize::new(whole));
    }
    let least = number.ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, and what is no number becomes 0: both are unbounded"
    )]
    let least = least as usize;
    Ok(std::num::NonZeroUsize::new(least).filter(|bound| bound.get() < usize::MAX))
}

/// An error of `headrace.queue`.
#[cold]
fn error(py: Python<'_>, name: &str) -> PyErr {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || PyResult::Ok(py.import("headrace.queue")?.unbind()));
    match module.and_then(|module| module.bind(py).getattr(name)?.call0()) {
        Ok(value) => PyErr::from_value(value),
        Err(error) => error,
    }
}

fn empty(py: Python<'_>) -> PyErr {
    error(py, "QueueEmpty")
}

pub(super) fn shut_down(py: Python<'_>) -> PyErr {
    error(py, "QueueShutDown")
}

/// Why an item was not stored. What it was comes to nothing, as with `asyncio.Queue`: the caller has it.
#[cold]
pub(super) fn refusal(py: Python<'_>, refused: PutError<Py<PyAny>>) -> PyErr {
    match refused {
        PutError::Full(_) => error(py, "QueueFull"),
        PutError::Closed(_) => shut_down(py),
        PutError::Unranked(_, fault) => incomparable(py, fault),
    }
}
