//! `Parked`: waiting on an event loop, in a slot of its [`super::loop_mailbox`]. `pending.rs`, `capacity/acquire.rs`
//! and `pull/start.rs` wait with it.

use std::sync::Arc;
use std::task::{Wake, Waker};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::future::PyFuture;
use super::loop_mailbox::{Forward, Key, Mailbox};
use super::loop_registry::{mailbox, probable_mailbox};
use crate::object::gc::traverse;
use crate::runtime::asyncio;

/// A slot in the mailbox of the running event loop, in which an operation waits.
#[derive(Debug)]
pub(crate) struct Parked {
    mailbox: Arc<Mailbox>,
    key: Key,
    /// `None` while it only yields for one iteration.
    future: Option<Py<PyFuture>>,
    waker: Waker,
}

/// Wakes the future of a slot.
struct SlotWaker {
    mailbox: Arc<Mailbox>,
    key: Key,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.mailbox.post(self.key);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.mailbox.post(self.key);
    }
}

impl Parked {
    /// Make a future of the running event loop, and a slot for it in the mailbox.
    pub(crate) fn new(py: Python<'_>) -> PyResult<Self> {
        Self::on(&asyncio::running_loop(py)?)
    }

    /// Make a future and a slot on this event loop, which runs in this thread.
    pub(crate) fn on(event_loop: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = event_loop.py();
        let mut parked = Self::at(py, mailbox(event_loop)?);
        parked.set_future(py)?;
        Ok(parked)
    }

    /// Make a slot without a future, for an operation that polls again after one event-loop iteration.
    pub(crate) fn resting(py: Python<'_>) -> PyResult<Self> {
        Ok(Self::at(py, probable_mailbox(py)?))
    }

    fn at(py: Python<'_>, mailbox: Arc<Mailbox>) -> Self {
        let key = mailbox.futures.borrow(py).insert();
        let waker = Waker::from(Arc::new(SlotWaker {
            mailbox: Arc::clone(&mailbox),
            key,
        }));
        Self {
            mailbox,
            key,
            future: None,
            waker,
        }
    }

    /// Add a future that is not resolved yet. Afterwards the caller must check again whether there is anything to wait
    /// for.
    pub(crate) fn arm(&mut self, py: Python<'_>) -> PyResult<()> {
        let event_loop = asyncio::running_loop(py)?;
        if !self.mailbox.is_of(&event_loop) {
            // The operation continues on another event loop.
            *self = Self::new(py)?;
            return Ok(());
        }
        self.set_future(py)
    }

    fn set_future(&mut self, py: Python<'_>) -> PyResult<()> {
        let future = PyFuture::new(py, Arc::clone(&self.mailbox), self.key)?;
        let mut futures = self.mailbox.futures.borrow(py);
        let old = futures
            .slot(self.key)
            .and_then(|slot| slot.future.replace(future.clone_ref(py)));
        drop(futures);
        drop((old, self.future.replace(future)));
        Ok(())
    }

    /// Return a waker of this slot, for any thread and any number of wake-ups, also after the slot was removed.
    pub(crate) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Borrow the waker.
    pub(crate) fn as_waker(&self) -> &Waker {
        &self.waker
    }

    /// Store the function that passes on a promise if the waiter is unreachable at its wake-up. Must be called as soon
    /// as there is a queue position to give up.
    pub(crate) fn forward(&self, py: Python<'_>, give_up: Forward) {
        let mut futures = self.mailbox.futures.borrow(py);
        let old = futures
            .slot(self.key)
            .and_then(|slot| slot.forward.replace(give_up));
        drop(futures);
        drop(old);
    }

    /// Return the future, marked as awaited, for the awaitable to yield to its task.
    pub(crate) fn hand_up<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let future = self.future(py)?;
        future.get().mark();
        Ok(future.into_any())
    }

    /// Return the future, for a caller that passes it to Python.
    pub(crate) fn future<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyFuture>> {
        let future = self.future.as_ref().map(|future| future.bind(py).clone());
        future.ok_or_else(|| PyRuntimeError::new_err("a slot that only yields has no future"))
    }
}

traverse!(Parked { future });

impl Drop for Parked {
    fn drop(&mut self) {
        // Cheap: CPython drops the owner, an awaitable or a link, on an attached thread.
        Python::attach(|py| {
            let held = self.mailbox.futures.borrow(py).remove(self.key);
            drop(held);
        });
    }
}
