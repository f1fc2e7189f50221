//! `PyQueue`: the buffer under the names of `asyncio.Queue`, also for threads.
//! `headrace/queue.py` derives the public `Queue` from it.

use std::sync::{Arc, OnceLock};

use headrace_core::buffer::{Ended, Order, Overflow, PutError, TryGetError};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::ops::{self, Core};
use super::order::{by_priority, incomparable};
use super::queue_ops::{GetOp, JoinOp, PutOp, QueueAwaitable};
use crate::errors::{self, RaisedError};
use crate::object::gc::{self, Traverse, traverse};
use crate::runtime::blocking_wait::Blocking;
use crate::runtime::fork_guard::ProcessId;

const GET: Blocking = Blocking {
    name: "get_sync()",
    instead: "await get()",
};

const PUT: Blocking = Blocking {
    name: "put_sync()",
    instead: "await put(item)",
};

/// The native part of a queue.
#[pyclass(
    name = "Queue",
    subclass,
    generic,
    frozen,
    weakref,
    module = "headrace._core"
)]
#[derive(Debug)]
pub(crate) struct PyQueue {
    process: ProcessId,
    /// Set by `__init__`, which a subclass may override.
    core: OnceLock<Initialized>,
}

#[derive(Debug)]
struct Initialized {
    core: Arc<Core>,
    /// As the user passed it.
    maxsize: Py<PyAny>,
}

#[pymethods]
impl PyQueue {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self {
            process: ProcessId::current(),
            core: OnceLock::new(),
        }
    }

    /// Read the order from the class attribute `_order`.
    fn __init__(slf: &Bound<'_, Self>, maxsize: Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        let order: String = slf.getattr(intern!(py, "_order"))?.extract()?;
        let order = match order.as_str() {
            "lifo" => Order::Lifo,
            "priority" => by_priority(false),
            _ => Order::Fifo,
        };
        let initialized = Initialized {
            core: Core::with(bound(&maxsize)?, Overflow::Block, order),
            maxsize: maxsize.unbind(),
        };
        let result = slf.get().core.set(initialized);
        result.map_err(|_| PyRuntimeError::new_err("this queue is initialised already"))
    }

    #[classattr]
    #[pyo3(name = "_order")]
    fn order() -> &'static str {
        "fifo"
    }

    /// Remove and return the next item, waiting for one.
    fn get(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        QueueAwaitable::make(slf, GetOp)
    }

    /// Store an item, waiting for space.
    fn put<'py>(slf: Bound<'py, Self>, item: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        QueueAwaitable::make(slf, PutOp(item.unbind()))
    }

    /// Remove and return the next item, or raise `QueueEmpty`.
    fn get_nowait<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.core(py)?.try_get() {
            Ok(item) => Ok(item.into_bound(py)),
            Err(TryGetError::Empty) => Err(error(py, "QueueEmpty")),
            Err(TryGetError::Ended) => Err(error(py, "QueueShutDown")),
        }
    }

    /// Store an item, or raise `QueueFull`.
    fn put_nowait(&self, item: Bound<'_, PyAny>) -> PyResult<()> {
        let py = item.py();
        stored(py, self.core(py)?.try_put(item.unbind()))
    }

    /// Remove and return the next item in a thread without an event loop, waiting at most `timeout` seconds.
    #[pyo3(signature = (timeout = None))]
    fn get_sync<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let core = self.core(py)?;
        match ops::block_on(py, GET, timeout, || ops::get(core))? {
            Some(output) => received(py, output),
            None => Err(error(py, "QueueEmpty")),
        }
    }

    /// Store an item from a thread without an event loop, waiting for space at most `timeout` seconds.
    #[pyo3(signature = (item, timeout = None))]
    fn put_sync(&self, item: Bound<'_, PyAny>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let py = item.py();
        let core = self.core(py)?;
        match ops::block_on(py, PUT, timeout, || ops::put(core, item.unbind(), true))? {
            Some(output) => stored(py, output),
            None => Err(error(py, "QueueFull")),
        }
    }

    /// Count the items that are not promised to a waiting `get()`.
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
        Ok(self.initialized()?.maxsize.clone_ref(py))
    }

    /// Mark one received item as processed.
    fn task_done(&self, py: Python<'_>) -> PyResult<()> {
        if self.core(py)?.task_done() {
            Ok(())
        } else {
            Err(PyValueError::new_err("task_done() called too many times"))
        }
    }

    /// Wait until all items are processed.
    fn join(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        slf.get().core(slf.py())?;
        QueueAwaitable::make(slf, JoinOp)
    }

    /// End the queue: refuse further items and, if `immediate`, drop the stored ones.
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

    /// Return the numbers of `repr`: waiting getters, waiting putters, unfinished items, whether it was shut down.
    fn _figures(&self, py: Python<'_>) -> PyResult<(usize, usize, usize, bool)> {
        let core = self.core(py)?;
        let now = core.statistics();
        Ok((
            now.waiting_getters,
            now.waiting_putters,
            core.unfinished(),
            core.is_finished(),
        ))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| {
            let initialized = self.core.get();
            initialized.map_or(Ok(()), |initialized| initialized.traverse(visit))
        })
    }

    fn __clear__(&self) {
        if let Some(initialized) = self.core.get() {
            drop(initialized.core.close());
        }
    }
}

traverse!(Initialized { core, maxsize });

impl PyQueue {
    #[inline]
    fn initialized(&self) -> PyResult<&Initialized> {
        self.core.get().ok_or_else(uninitialised)
    }

    /// Return the core, or an error if it cannot be used. The small error type is returned in registers, a `PyErr` would not
    /// be.
    #[inline]
    pub(super) fn usable(&self, py: Python<'_>) -> Result<&Arc<Core>, RaisedError> {
        match self.core.get() {
            Some(initialized)
                if ops::check(py, self.process, &initialized.core, "queue").is_ok() =>
            {
                Ok(&initialized.core)
            }
            _ => self.unusable(py),
        }
    }

    #[cold]
    fn unusable(&self, py: Python<'_>) -> Result<&Arc<Core>, RaisedError> {
        RaisedError::set_from(py, self.core(py))
    }

    /// Return the core, or an error if it cannot be used.
    pub(super) fn core(&self, py: Python<'_>) -> PyResult<&Arc<Core>> {
        self.process.check(py, "queue")?;
        let core = &self.initialized()?.core;
        ops::check(py, self.process, core, "queue")?;
        Ok(core)
    }
}

#[cold]
fn uninitialised() -> PyErr {
    PyRuntimeError::new_err("this queue was not initialised: call super().__init__() first")
}

/// Convert `maxsize` as `asyncio.Queue` does: the queue is full with that many items or more, and unbounded if the number
/// is not positive.
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
        reason = "saturates, and NaN becomes 0: both are unbounded"
    )]
    let least = least as usize;
    Ok(std::num::NonZeroUsize::new(least).filter(|bound| bound.get() < usize::MAX))
}

/// Create an error of `headrace.queue`.
#[cold]
fn error(py: Python<'_>, name: &str) -> PyErr {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || PyResult::Ok(py.import("headrace.queue")?.unbind()));
    match module.and_then(|module| module.bind(py).getattr(name)?.call0()) {
        Ok(value) => PyErr::from_value(value),
        Err(error) => error,
    }
}

/// Convert the output of a `get()`.
#[inline]
pub(super) fn received(
    py: Python<'_>,
    output: Result<Py<PyAny>, Ended>,
) -> PyResult<Bound<'_, PyAny>> {
    match output {
        Ok(item) => Ok(item.into_bound(py)),
        Err(Ended) => Err(error(py, "QueueShutDown")),
    }
}

/// Convert the output of a `put()`. A refused item is dropped, as in `asyncio.Queue`: the caller has it.
#[inline]
pub(super) fn stored(py: Python<'_>, output: Result<(), PutError<Py<PyAny>>>) -> PyResult<()> {
    output.map_err(|refused| match refused {
        PutError::Full(_) => error(py, "QueueFull"),
        PutError::Closed(_) => error(py, "QueueShutDown"),
        PutError::Unranked(_, fault) => incomparable(py, fault),
    })
}
