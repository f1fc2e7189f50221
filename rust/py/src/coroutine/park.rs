//! Waiting on a loop: a place in its [`super::loop_mailbox`].

use std::sync::Arc;
use std::task::{Wake, Waker};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::future::Future;
use super::loop_mailbox::{Forward, Key, Mailbox};
use super::loop_registry::{mailbox, probable_mailbox};
use crate::object::gc::traverse;
use crate::runtime::asyncio;

/// A place on the running loop where an operation waits.
#[derive(Debug)]
pub(crate) struct Parked {
    mailbox: Arc<Mailbox>,
    key: Key,
    /// None while it rests.
    future: Option<Py<Future>>,
    waker: Waker,
}

struct Ring {
    mailbox: Arc<Mailbox>,
    key: Key,
}

impl Wake for Ring {
    fn wake(self: Arc<Self>) {
        self.mailbox.post(self.key);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.mailbox.post(self.key);
    }
}

impl Parked {
    /// Makes a future of the running loop and a place for it in the loop's mailbox.
    pub(crate) fn new(py: Python<'_>) -> PyResult<Self> {
        Self::on(&asyncio::running_loop(py)?)
    }

    /// The same on this loop, which runs in this thread.
    pub(crate) fn on(event_loop: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = event_loop.py();
        let mut parked = Self::at(py, mailbox(event_loop)?);
        parked.set_future(py)?;
        Ok(parked)
    }

    /// A place without a future, for one that looks again after a turn of the loop anyway.
    pub(crate) fn resting(py: Python<'_>) -> PyResult<Self> {
        Ok(Self::at(py, probable_mailbox(py)?))
    }

    fn at(py: Python<'_>, mailbox: Arc<Mailbox>) -> Self {
        let key = mailbox.futures.borrow(py).insert();
        let waker = Waker::from(Arc::new(Ring {
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

    /// Gives it a future that nobody has resolved yet. Whether there is still anything to wait for
    /// is to be asked after this.
    pub(crate) fn arm(&mut self, py: Python<'_>) -> PyResult<()> {
        let event_loop = asyncio::running_loop(py)?;
        if !self.mailbox.is_of(&event_loop) {
            // Somebody carries it on elsewhere.
            *self = Self::new(py)?;
            return Ok(());
        }
        self.set_future(py)
    }

    fn set_future(&mut self, py: Python<'_>) -> PyResult<()> {
        let future = Future::new(py, Arc::clone(&self.mailbox), self.key)?;
        let mut futures = self.mailbox.futures.borrow(py);
        let old = futures
            .slot(self.key)
            .and_then(|slot| slot.future.replace(future.clone_ref(py)));
        drop(futures);
        drop((old, self.future.replace(future)));
        Ok(())
    }

    /// Wakes this place, from any thread, any number of times, also when nobody is there any more.
    pub(crate) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// The same, for one who only may need it.
    pub(crate) fn as_waker(&self) -> &Waker {
        &self.waker
    }

    /// Takes note of what to do if whoever waits here turns out to be out of reach, when it is to be
    /// woken: hand on what it was promised. To be called as soon as there is a place to give up.
    pub(crate) fn forward(&self, py: Python<'_>, give_up: Forward) {
        let mut futures = self.mailbox.futures.borrow(py);
        let old = futures
            .slot(self.key)
            .and_then(|slot| slot.forward.replace(give_up));
        drop(futures);
        drop(old);
    }

    /// The future, marked as being awaited: what the awaitable hands up to its task.
    pub(crate) fn hand_up<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let future = self.future(py)?;
        future.get().mark();
        Ok(future.into_any())
    }

    /// The future itself, for a caller that hands it to Python.
    pub(crate) fn future<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, Future>> {
        let future = self.future.as_ref().map(|future| future.bind(py).clone());
        future.ok_or_else(|| PyRuntimeError::new_err("a place that rests has no future"))
    }
}

traverse!(Parked { future });

impl Drop for Parked {
    fn drop(&mut self) {
        // Dropped by an awaitable or a link, which CPython only drops on an attached thread: this
        // costs a counter.
        Python::attach(|py| {
            let held = self.mailbox.futures.borrow(py).remove(self.key);
            drop(held);
        });
    }
}
