//! `PyBuffer`: a buffer between producers and consumers.
//! `headrace/buffer.py` and `headrace/pool/event_queue.py` use it; pulls and pushes access it natively.

use std::num::NonZeroUsize;
use std::sync::Arc;

use headrace_core::buffer::{self as core, Order, Overflow, PutError};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::ops::{self, Core};
use super::order::{incomparable, parse_order, parse_overflow};
use super::put::{PendingPut, Refused};
use crate::coroutine::Pending;
use crate::errors;
use crate::object::gc::{self, Traverse, traverse};
use crate::object::gil_cell::GilCell;
use crate::runtime::blocking_wait::{self, Blocking};
use crate::runtime::fork_guard::ProcessId;

const GET: Blocking = Blocking {
    name: "get_sync()",
    instead: "await anext(source)",
};

const PUT: Blocking = Blocking {
    name: "put_sync()",
    instead: "await sink.next(item)",
};

/// A buffer between any number of producers and consumers, in any threads and event loops.
#[pyclass(name = "Buffer", generic, frozen, weakref, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyBuffer {
    process: ProcessId,
    core: Arc<Core>,
    /// The treatment of an item when the buffer is full.
    overflow: Overflow,
    /// Whether its items are compared.
    is_sorted: bool,
    /// The function that computes an item's key. If set, the core holds tuples of key and item.
    key: Option<Py<PyAny>>,
    /// The error with which the producers ended, until a consumer raises it.
    error: GilCell<Option<Py<PyAny>>>,
}

#[pymethods]
impl PyBuffer {
    #[new]
    #[pyo3(signature = (maxsize, overflow, order, key))]
    fn new(
        maxsize: Option<&Bound<'_, PyAny>>,
        overflow: &Bound<'_, PyAny>,
        order: &Bound<'_, PyAny>,
        key: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let maxsize = maxsize.map(bound).transpose()?;
        let overflow = parse_overflow(overflow)?;
        let order = parse_order(order, key.is_some())?;
        if let Some(key) = &key {
            if !key.is_callable() {
                return Err(errors::wrong_type("key", "callable or None", key));
            }
            if !matches!(order, Order::Sorted(_)) {
                return Err(PyValueError::new_err(format!(
                    "key is only for order='priority', got {}",
                    errors::describe(key)
                )));
            }
        }
        let is_sorted = matches!(order, Order::Sorted(_));
        Ok(Self {
            process: ProcessId::current(),
            is_sorted,
            core: core::Buffer::with(maxsize, overflow, order),
            overflow,
            key: key.map(Bound::unbind),
            error: GilCell::new(None),
        })
    }

    /// Return the greatest number of items, or `None`.
    #[getter]
    fn maxsize(&self) -> Option<usize> {
        self.core.maxsize().map(NonZeroUsize::get)
    }

    /// End the supply: consumers drain the stored items, then the stream ends.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        self.check(py)?;
        self.core.finish();
        Ok(())
    }

    /// End the supply like `finish`; after the last item one consumer raises `error` before the stream ends.
    fn fail(&self, error: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = error.py();
        self.check(py)?;
        if self.core.is_finished() {
            return Ok(());
        }
        self.error.set(py, Some(error.clone().unbind()));
        self.core.finish();
        Ok(())
    }

    /// Store an item from a thread without an event loop, waiting for space at most `timeout` seconds.
    #[pyo3(signature = (item, timeout = None))]
    fn put_sync(&self, item: Bound<'_, PyAny>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let py = item.py();
        self.check(py)?;
        let held = self.hold(item)?.unbind();
        let waits = self.overflow == Overflow::Block;
        match ops::block_on(py, PUT, timeout, || ops::put(&self.core, held, waits))? {
            Some(stored) => {
                stored.map_err(|refused| self.refused(py, refused).into_error(py, None))
            }
            None => Err(blocking_wait::late(
                "there was no space for the item",
                timeout,
            )),
        }
    }

    /// Remove and return the next item in a thread without an event loop, waiting at most `timeout` seconds.
    #[pyo3(signature = (timeout = None))]
    fn get_sync<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.check(py)?;
        match ops::block_on(py, GET, timeout, || ops::get(&self.core))? {
            Some(Ok(item)) => Ok(self.reveal(item.into_bound(py))),
            Some(Err(core::Ended)) => Err(self.ended(py)),
            None => Err(blocking_wait::late("no item came", timeout)),
        }
    }

    /// Return the next item without removing it.
    fn peek<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.check(py)?;
        let next = self
            .core
            .peek_with(|item| item.map(|item| item.clone_ref(py)));
        match next {
            Some(item) => Ok(self.reveal(item.into_bound(py))),
            None if self.core.is_finished() => Err(no_more(py)),
            None => Err(errors::would_block(py, "the buffer is empty")),
        }
    }

    /// Return size, high-water mark, number of dropped items, waiting consumers, waiting producers.
    fn statistics(&self, py: Python<'_>) -> PyResult<(usize, usize, u64, usize, usize)> {
        self.check(py)?;
        let now = self.core.statistics();
        Ok((
            now.len,
            now.high_water,
            now.dropped,
            now.waiting_getters,
            now.waiting_putters,
        ))
    }

    /// Return whether the buffer refuses further items.
    #[getter]
    fn is_finished(&self) -> bool {
        self.core.is_finished()
    }

    /// Return the number of consumers waiting for an item.
    #[getter]
    fn waiting_getters(&self) -> usize {
        self.core.waiting_getters()
    }

    /// Return the number of producers waiting for space.
    #[getter]
    fn waiting_putters(&self) -> usize {
        self.core.waiting_putters()
    }

    fn __len__(&self) -> usize {
        self.core.len()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| self.traverse(visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        let error = self.error.take(py);
        let left = self.core.close();
        drop((error, left));
    }
}

traverse!(PyBuffer { key, error, core });

/// Create the error of a read after the end.
fn no_more(py: Python<'_>) -> PyErr {
    errors::closed(py, "the buffer has ended: no item will come")
}

/// Parse `maxsize`.
fn bound(maxsize: &Bound<'_, PyAny>) -> PyResult<NonZeroUsize> {
    if !maxsize.is_instance_of::<PyInt>() || maxsize.is_instance_of::<PyBool>() {
        return Err(errors::wrong_type(
            "maxsize",
            "a positive integer or None",
            maxsize,
        ));
    }
    maxsize
        .extract::<usize>()
        .ok()
        .and_then(NonZeroUsize::new)
        .ok_or_else(|| errors::wrong_value("maxsize", "be a positive integer or None", maxsize))
}

impl PyBuffer {
    /// Fail in a forked child, and after a panic inside.
    #[inline]
    pub(crate) fn check(&self, py: Python<'_>) -> PyResult<()> {
        ops::check(py, self.process, &self.core, "buffer")
    }

    /// Return whether the buffer can be used in this process and stores items unsorted and without keys.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        !self.is_sorted && self.process.is_current() && !self.core.is_broken()
    }

    #[inline]
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Extract the item from the stored object.
    #[inline]
    pub(crate) fn reveal<'py>(&self, held: Bound<'py, PyAny>) -> Bound<'py, PyAny> {
        if self.key.is_none() {
            return held;
        }
        held.get_item(1).unwrap_or(held)
    }

    /// Return the object to store for an item: the item, or a tuple of its key and the item.
    #[inline]
    fn hold<'py>(&self, item: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match &self.key {
            None => Ok(item),
            Some(key) => Self::with_key(key, item),
        }
    }

    #[cold]
    fn with_key<'py>(key: &Py<PyAny>, item: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = item.py();
        match key.bind(py).call1((&item,)) {
            Ok(key) => Ok(PyTuple::new(py, [key, item])?.into_any()),
            Err(error) => {
                let callable = "key of PushPullBufferObj";
                Err(errors::from_callable(py, error, callable, Some(&item)))
            }
        }
    }

    /// Store an item, or return the put that waits for space. If it fails, the caller keeps the item.
    pub(crate) fn offer<'py>(
        slf: &Bound<'py, Self>,
        item: Bound<'py, PyAny>,
    ) -> Result<Option<PendingPut>, Refused<'py>> {
        let py = slf.py();
        let this = slf.get();
        this.check(py).map_err(Refused::Failed)?;
        let held = this.hold(item).map_err(Refused::Failed)?;
        match ops::put(&this.core, held.unbind(), this.overflow == Overflow::Block) {
            Ok(Ok(())) => Ok(None),
            Ok(Err(refused)) => Err(this.refused(py, refused)),
            Err(put) => Ok(Some(PendingPut {
                buffer: slf.clone().unbind(),
                put: Pending::new(put),
            })),
        }
    }

    /// Return whether a put would not wait: the item is stored at once, or refused because the buffer has ended.
    pub(crate) fn has_room(&self) -> bool {
        let core = &self.core;
        let is_full = core
            .maxsize()
            .is_some_and(|maxsize| core.len() >= maxsize.get() || core.waiting_putters() > 0);
        let waits = matches!(self.overflow, Overflow::Block | Overflow::Error);
        !(is_full && waits) || core.is_finished()
    }

    #[cold]
    pub(super) fn refused<'py>(
        &self,
        py: Python<'py>,
        refused: PutError<Py<PyAny>>,
    ) -> Refused<'py> {
        match refused {
            PutError::Full(held) => Refused::Full(self.reveal(held.into_bound(py))),
            PutError::Closed(held) => Refused::Closed(self.reveal(held.into_bound(py))),
            PutError::Unranked(_, fault) => Refused::Failed(incomparable(py, fault)),
        }
    }

    /// Return the error of a blocking read after the end: the producers' error, or the end.
    fn ended(&self, py: Python<'_>) -> PyErr {
        self.take_error(py).unwrap_or_else(|| no_more(py))
    }

    /// Take the producers' error; `None` from the second call on.
    pub(crate) fn take_error(&self, py: Python<'_>) -> Option<PyErr> {
        let error = self.error.take(py)?;
        Some(PyErr::from_value(error.into_bound(py)))
    }
}
