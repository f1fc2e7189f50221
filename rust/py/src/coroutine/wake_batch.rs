//! The wake-ups of one event-loop iteration, as one callback. `loop_mailbox.rs` and `future.rs` add to it.
//!
//! One release may wake ten waiters, and ten releases in one iteration a hundred. Each waiter is a [`PyFuture`] whose callbacks must be
//! called in the next iteration. They are queued here, in order; the first schedules one callback of the event loop. That calls the
//! callbacks of all futures, each in its own context, as the event loop would have done one by one:
//!
//! - An error is reported to the exception handler of the event loop, and the other callbacks are called.
//! - `KeyboardInterrupt` and `SystemExit` leave the event loop immediately. The remaining futures go into the next iteration.
//! - Futures that are resolved meanwhile wait for the iteration after.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyWeakrefMethods};
use pyo3::{PyTraverseError, PyVisit};

use super::future::PyFuture;
use super::loop_mailbox::{Mailbox, with_saved_exception};
use crate::object::gc::{self, Traverse, traverse};
use crate::object::gil_cell::GilCell;

/// The futures whose callbacks are due in the next event-loop iteration.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    next: Vec<Py<PyFuture>>,
    /// The memory of the last batch, for reuse.
    spare: Vec<Py<PyFuture>>,
}

traverse!(Wakes { next });

impl Mailbox {
    /// Return whether a batch is already scheduled for the next iteration.
    pub(super) fn has_wakes(&self, py: Python<'_>) -> bool {
        !self.wakes.borrow(py).next.is_empty()
    }

    /// Schedule the callbacks of a finished future for the next iteration. Called on the event loop's thread.
    pub(super) fn call_back(self: &Arc<Self>, future: &Bound<'_, PyFuture>) -> PyResult<()> {
        let py = future.py();
        let future = future.clone().unbind();
        let callback = if self.wakes_together {
            let mut wakes = self.wakes.borrow(py);
            wakes.next.push(future);
            if wakes.next.len() > 1 {
                return Ok(());
            }
            PyWakeCallback::of(self, Vec::new())
        } else {
            PyWakeCallback::of(self, vec![future])
        };
        callback.schedule(py)
    }

    /// Take the futures of the current iteration.
    pub(super) fn take_wakes(&self, py: Python<'_>) -> Vec<Py<PyFuture>> {
        let mut wakes = self.wakes.borrow(py);
        let spare = std::mem::take(&mut wakes.spare);
        std::mem::replace(&mut wakes.next, spare)
    }

    /// Call the callbacks of these futures.
    pub(super) fn call_all(
        self: &Arc<Self>,
        py: Python<'_>,
        mut futures: Vec<Py<PyFuture>>,
    ) -> PyResult<()> {
        let mut left = futures.drain(..);
        while let Some(future) = left.next() {
            let future = future.into_bound(py);
            while let Err(error) = PyFuture::call_back(&future) {
                let Err(error) = self.report(&future, error) else {
                    continue;
                };
                let rest: Vec<_> = std::iter::once(future.unbind()).chain(left).collect();
                PyWakeCallback::of(self, rest).schedule(py)?;
                return Err(error);
            }
        }
        drop(left);
        self.wakes.borrow(py).spare = futures;
        Ok(())
    }

    /// Report an error of a callback as the event loop does. Returns an error that must end the event loop.
    #[cold]
    fn report(&self, future: &Bound<'_, PyFuture>, error: PyErr) -> PyResult<()> {
        let py = future.py();
        if error.is_instance_of::<PyKeyboardInterrupt>(py)
            || error.is_instance_of::<PySystemExit>(py)
        {
            return Err(error);
        }
        let Some(event_loop) = self.event_loop.bind(py).upgrade() else {
            return Ok(());
        };
        let context = PyDict::new(py);
        context.set_item("message", "Exception in a callback of a future of headrace")?;
        context.set_item("exception", error)?;
        context.set_item("future", future)?;
        event_loop
            .call_method1(intern!(py, "call_exception_handler"), (context,))
            .map(drop)
    }
}

/// The callback that the event loop is scheduled to call.
#[pyclass(name = "WakeCallback", frozen, module = "headrace._core")]
struct PyWakeCallback {
    mailbox: Arc<Mailbox>,
    /// The futures of this batch; if there are none, those of the mailbox.
    own: GilCell<Vec<Py<PyFuture>>>,
    called: AtomicBool,
}

impl PyWakeCallback {
    fn of(mailbox: &Arc<Mailbox>, own: Vec<Py<PyFuture>>) -> Self {
        Self {
            mailbox: Arc::clone(mailbox),
            own: GilCell::new(own),
            called: AtomicBool::new(false),
        }
    }

    /// Schedule the callback. If the event loop is closed or gone, this is dropped here, and its drop does the rest.
    fn schedule(self, py: Python<'_>) -> PyResult<()> {
        let Some(event_loop) = self.mailbox.event_loop.bind(py).upgrade() else {
            return Ok(());
        };
        let call_soon = intern!(py, "call_soon");
        event_loop
            .call_method1(call_soon, (Py::new(py, self)?,))
            .map(drop)
    }

    fn take(&self, py: Python<'_>) -> Vec<Py<PyFuture>> {
        let own = self.own.take(py);
        if own.is_empty() {
            self.mailbox.take_wakes(py)
        } else {
            own
        }
    }
}

#[pymethods]
impl PyWakeCallback {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        self.called.store(true, Ordering::Relaxed);
        self.mailbox.call_all(py, self.take(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| self.own.traverse(visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        self.own.set(py, Vec::new());
    }
}

impl Drop for PyWakeCallback {
    fn drop(&mut self) {
        if !*self.called.get_mut() {
            with_saved_exception(|py| {
                let futures = self.take(py);
                let keys: Vec<_> = (futures.iter()).map(|future| future.get().key).collect();
                self.mailbox.give_up(py, &keys);
            });
        }
    }
}
