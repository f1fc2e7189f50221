//! The buffer itself.

use std::num::NonZeroUsize;
use std::sync::Arc;

use headrace_core::buffer::{self as core, Order, Overflow, PutError};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::get_sync::take_sync;
use super::order::{incomparable, order_of, overflow_of};
use super::put::{Putting, Refused};
use crate::coroutine::Pending;
use crate::errors;
use crate::object::gc::{self, VisitError, Visitor};
use crate::object::gil_cell::GilCell;
use crate::runtime::blocking_wait;
use crate::runtime::blocking_wait::Blocking;
use crate::runtime::fork_guard::ProcessId;

/// Items on their way from any number of producers to any number of consumers, in any threads and
/// loops.
#[pyclass(generic, frozen, weakref, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct Buffer {
    home: ProcessId,
    core: Arc<core::Buffer<Py<PyAny>>>,
    /// What becomes of an item that finds it full.
    overflow: Overflow,
    /// Whether its items are compared.
    is_sorted: bool,
    /// What makes the key of an item; if there is one, the core holds tuples of both.
    key: Option<Py<PyAny>>,
    /// What the producers ended with, until a consumer has raised it.
    error: GilCell<Option<Py<PyAny>>>,
}

#[pymethods]
impl Buffer {
    #[new]
    #[pyo3(signature = (maxsize, overflow, order, key))]
    fn new(
        maxsize: Option<&Bound<'_, PyAny>>,
        overflow: &Bound<'_, PyAny>,
        order: &Bound<'_, PyAny>,
        key: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let maxsize = maxsize.map(bound).transpose()?;
        let overflow = overflow_of(overflow)?;
        let order = order_of(order, key.is_some())?;
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
            home: ProcessId::current(),
            is_sorted,
            core: core::Buffer::with(maxsize, overflow, order),
            overflow,
            key: key.map(Bound::unbind),
            error: GilCell::new(None),
        })
    }

    /// The bound; `None` if there is none.
    #[getter]
    fn maxsize(&self) -> Option<usize> {
        self.core.maxsize().map(NonZeroUsize::get)
    }

    /// The end of supply: what is there is drained, then the stream ends.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        self.check(py)?;
        self.core.finish();
        Ok(())
    }

    /// As `finish`, but after the last item one consumer raises `error` before the stream ends.
    fn fail(&self, error: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = error.py();
        self.check(py)?;
        if self.core.is_finished() || self.core.is_closed() {
            return Ok(());
        }
        let old = self.error.borrow(py).replace(error.clone().unbind());
        drop(old);
        self.core.finish();
        Ok(())
    }

    /// Stores an item from a thread without a loop, waiting for room at most so many seconds.
    #[pyo3(signature = (item, timeout = None))]
    fn put_sync<'py>(
        slf: &Bound<'py, Self>,
        item: Bound<'py, PyAny>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        const CALL: Blocking = Blocking {
            name: "put_sync()",
            instead: "await sink.next(item)",
        };
        let py = slf.py();
        let this = slf.get();
        let until = timeout.map(blocking_wait::deadline).transpose()?.flatten();
        let put = match Self::offer(slf, item) {
            Ok(None) => return Ok(()),
            Ok(Some(putting)) => putting.put.future,
            Err(refused) => return Err(refused.into_error(py, None)),
        };
        match blocking_wait::wait(py, CALL, put, until)? {
            Some(Ok(())) => Ok(()),
            Some(Err(refused)) => Err(this.refused(py, refused).into_error(py, None)),
            None => Err(blocking_wait::late(
                "there was no room for the item",
                timeout,
            )),
        }
    }

    /// Takes the next item in a thread without a loop, waiting for it at most so many seconds.
    #[pyo3(signature = (timeout = None))]
    fn get_sync<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        const CALL: Blocking = Blocking {
            name: "get_sync()",
            instead: "await anext(source)",
        };
        self.check(py)?;
        match take_sync(py, &self.core, CALL, timeout)? {
            Some(Ok(item)) => Ok(self.reveal(item.into_bound(py))),
            Some(Err(core::Ended)) => Err(self.ended(py)),
            None => Err(blocking_wait::late("no item came", timeout)),
        }
    }

    /// The next item, which stays.
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

    /// Size, high-water mark, number of dropped items, waiting consumers, waiting producers.
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

    /// Whether nothing comes in any more.
    #[getter]
    fn is_finished(&self) -> bool {
        self.core.is_finished() || self.core.is_closed()
    }

    /// How many consumers wait for an item.
    #[getter]
    fn waiting_getters(&self) -> usize {
        self.core.waiting_getters()
    }

    /// How many producers wait for room.
    #[getter]
    fn waiting_putters(&self) -> usize {
        self.core.waiting_putters()
    }

    fn __len__(&self) -> usize {
        self.core.len()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| {
            if let Some(key) = &self.key {
                visit(key)?;
            }
            if let Some(Some(error)) = self.error.peek_for_gc().as_deref() {
                visit(error)?;
            }
            show_items(&self.core, visit)
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        let error = self.error.borrow(py).take();
        let left = self.core.close();
        drop((error, left));
    }
}

/// Shows the collector what is in a buffer.
pub(crate) fn show_items(
    core: &core::Buffer<Py<PyAny>>,
    visit: Visitor<'_>,
) -> Result<(), VisitError> {
    let mut outcome = Ok(());
    core.visit(&mut |item| {
        if outcome.is_ok() {
            outcome = visit(item);
        }
    });
    outcome
}

/// No item is here, and none will come.
fn no_more(py: Python<'_>) -> PyErr {
    errors::closed(py, "the buffer has ended: no item will come")
}

/// A bound for the number of items.
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
        .ok_or_else(|| {
            PyValueError::new_err(format!(
                "maxsize must be a positive integer or None, got {}",
                errors::describe(maxsize)
            ))
        })
}

impl Buffer {
    /// Fails in a forked child, and after a panic inside.
    #[inline]
    pub(crate) fn check(&self, py: Python<'_>) -> PyResult<()> {
        self.home.check(py, "buffer")?;
        if self.core.is_broken() {
            Err(errors::broken(py, "buffer"))
        } else {
            Ok(())
        }
    }

    /// Whether it may be used here, and holds items as they are, in the order of their coming or against it.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        !self.is_sorted && self.home.is_current() && !self.core.is_broken()
    }

    #[inline]
    pub(crate) fn core(&self) -> &Arc<core::Buffer<Py<PyAny>>> {
        &self.core
    }

    /// The item, out of what the core held for it.
    #[inline]
    pub(crate) fn reveal<'py>(&self, held: Bound<'py, PyAny>) -> Bound<'py, PyAny> {
        if self.key.is_none() {
            return held;
        }
        held.get_item(1).unwrap_or(held)
    }

    /// What the core is to hold for an item: the item, or its key and it.
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
            Err(error) => Err(errors::from_callable(py, error, "PushPullBufferObj", "key")),
        }
    }

    /// Stores an item, or gives what waits for room. A failure leaves the item with the caller.
    pub(crate) fn offer<'py>(
        slf: &Bound<'py, Self>,
        item: Bound<'py, PyAny>,
    ) -> Result<Option<Putting>, Refused<'py>> {
        let py = slf.py();
        let this = slf.get();
        this.check(py).map_err(Refused::Failed)?;
        let held = this.hold(item).map_err(Refused::Failed)?;
        match this.core.try_put(held.unbind()) {
            Ok(()) => Ok(None),
            Err(PutError::Full(held)) if this.overflow == Overflow::Block => Ok(Some(Putting {
                buffer: slf.clone().unbind(),
                put: Pending::new(this.core.put(held)),
            })),
            Err(refused) => Err(this.refused(py, refused)),
        }
    }

    /// Whether an item would be taken at once, or refused for good.
    pub(crate) fn has_room(&self) -> bool {
        let core = &self.core;
        let is_full = core
            .maxsize()
            .is_some_and(|maxsize| core.len() >= maxsize.get() || core.waiting_putters() > 0);
        let waits = matches!(self.overflow, Overflow::Block | Overflow::Error);
        !(is_full && waits) || core.is_finished() || core.is_closed()
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

    /// What a thread raises that finds the end: the error that the producers left, or that it is the end.
    fn ended(&self, py: Python<'_>) -> PyErr {
        self.take_error(py).unwrap_or_else(|| no_more(py))
    }

    /// The error that the producers left, the first time.
    pub(crate) fn take_error(&self, py: Python<'_>) -> Option<PyErr> {
        let error = self.error.borrow(py).take()?;
        Some(PyErr::from_value(error.into_bound(py)))
    }
}
