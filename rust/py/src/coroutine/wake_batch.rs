//! The wake-ups of one turn of a loop, called together.
//!
//! A release may wake ten waiters, and ten releases of one turn a hundred. Each of them is a [`Future`] whose callbacks
//! the loop is to call in its next turn. They wait here for that, in order, and the loop is asked once: by the first. Its
//! turn then calls those of all, each in its own context, as the loop would have done one by one:
//!
//! - one that fails is told of by the loop's exception handler, and the others are called;
//! - `KeyboardInterrupt` and `SystemExit` come out of the loop at once, and those that are left go into its next turn;
//! - who is woken while they are called waits for the turn after.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyWeakrefMethods};
use pyo3::{PyTraverseError, PyVisit};

use super::future::Future;
use super::loop_mailbox::{Mailbox, with_saved_exception};
use crate::object::gc::{self, traverse};
use crate::object::gil_cell::GilCell;

/// What the loop calls in its next turn, if it was asked to.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    next: Vec<Py<Future>>,
    /// The memory of the last ones.
    spare: Vec<Py<Future>>,
}

traverse!(Wakes { next });

impl Mailbox {
    /// Whether the loop was asked already to call the callbacks of some in its next turn.
    pub(super) fn has_wakes(&self, py: Python<'_>) -> bool {
        !self.wakes.borrow(py).next.is_empty()
    }

    /// Has the loop call those of a future that is done, in its next turn. Called in the loop's thread.
    pub(super) fn call_back(self: &Arc<Self>, future: &Bound<'_, Future>) -> PyResult<()> {
        let py = future.py();
        let future = future.clone().unbind();
        let turn = if self.wakes_together {
            let mut wakes = self.wakes.borrow(py);
            wakes.next.push(future);
            if wakes.next.len() > 1 {
                return Ok(());
            }
            Turn::of(self, Vec::new())
        } else {
            Turn::of(self, vec![future])
        };
        turn.ask(py)
    }

    /// Those of the turn that begins.
    pub(super) fn take_wakes(&self, py: Python<'_>) -> Vec<Py<Future>> {
        let mut wakes = self.wakes.borrow(py);
        let spare = std::mem::take(&mut wakes.spare);
        std::mem::replace(&mut wakes.next, spare)
    }

    /// Calls the callbacks of these.
    pub(super) fn call_all(
        self: &Arc<Self>,
        py: Python<'_>,
        mut futures: Vec<Py<Future>>,
    ) -> PyResult<()> {
        let mut left = futures.drain(..);
        while let Some(future) = left.next() {
            let future = future.into_bound(py);
            while let Err(error) = Future::call_back(&future) {
                let Err(error) = self.report(&future, error) else {
                    continue;
                };
                let rest: Vec<_> = std::iter::once(future.unbind()).chain(left).collect();
                Turn::of(self, rest).ask(py)?;
                return Err(error);
            }
        }
        drop(left);
        self.wakes.borrow(py).spare = futures;
        Ok(())
    }

    /// Tells of what a callback raised, as the loop does; what ends the loop comes back.
    #[cold]
    fn report(&self, future: &Bound<'_, Future>, error: PyErr) -> PyResult<()> {
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

/// What the loop is asked to call.
#[pyclass(frozen, module = "headrace._core")]
struct Turn {
    mailbox: Arc<Mailbox>,
    /// These; or those of the mailbox, if there are none.
    own: GilCell<Vec<Py<Future>>>,
    called: AtomicBool,
}

impl Turn {
    fn of(mailbox: &Arc<Mailbox>, own: Vec<Py<Future>>) -> Self {
        Self {
            mailbox: Arc::clone(mailbox),
            own: GilCell::new(own),
            called: AtomicBool::new(false),
        }
    }

    /// If the loop is closed or gone, this is dropped right here, and does what is left to do.
    fn ask(self, py: Python<'_>) -> PyResult<()> {
        let Some(event_loop) = self.mailbox.event_loop.bind(py).upgrade() else {
            return Ok(());
        };
        let call_soon = intern!(py, "call_soon");
        event_loop
            .call_method1(call_soon, (Py::new(py, self)?,))
            .map(drop)
    }

    fn take(&self, py: Python<'_>) -> Vec<Py<Future>> {
        let own = std::mem::take(&mut *self.own.borrow(py));
        if own.is_empty() {
            self.mailbox.take_wakes(py)
        } else {
            own
        }
    }
}

#[pymethods]
impl Turn {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        self.called.store(true, Ordering::Relaxed);
        self.mailbox.call_all(py, self.take(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(own) = self.own.peek_for_gc() else {
            return Ok(());
        };
        gc::visit(&visit, |visit| {
            own.iter().try_for_each(|future| visit(future.as_any()))
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        let own = std::mem::take(&mut *self.own.borrow(py));
        drop(own);
    }
}

impl Drop for Turn {
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
