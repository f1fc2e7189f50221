//! `FusionGuard`: a pipeline's right to run its links, which can be revoked. `Pipeline` and `LinkState` share it.
//!
//! While a link is pulled directly, no pipeline of another link may run it. So each link knows the
//! pipeline that runs it and revokes that pipeline's guard: at once if the pipeline is idle or
//! downstream of the link, otherwise as soon as it has left the link.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::Waker;

use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};

use super::link::PyPullLink;
use crate::coroutine::Parked;
use crate::object::gil_cell::GilCell;

/// A pipeline's revocable right to run its links.
#[derive(Debug)]
pub(crate) struct FusionGuard {
    /// The link in which the pipeline ends, and which owns it.
    tail: Py<PyWeakrefReference>,
    pub(super) revoked: AtomicBool,
    /// A link in the middle is being closed, so the pull inside it must end.
    pub(super) interrupted: AtomicBool,
    /// The pipeline's position: [`FusionGuard::IDLE`], 0 in its source, or `k + 1` in its stage
    /// `k`.
    pub(super) at: AtomicUsize,
    /// Wakers to call when the pipeline is idle.
    waiting: GilCell<Vec<Waker>>,
}

impl FusionGuard {
    /// Create the guard of a pipeline that ends in this link.
    pub(super) fn of(tail: &Bound<'_, PyPullLink>) -> PyResult<Arc<Self>> {
        Ok(Arc::new(Self {
            tail: PyWeakrefReference::new(tail)?.unbind(),
            revoked: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
            at: AtomicUsize::new(Self::IDLE),
            waiting: GilCell::default(),
        }))
    }

    /// No pull is running or suspended.
    pub(super) const IDLE: usize = usize::MAX - 1;
    /// The pipeline was dropped.
    pub(super) const GONE: usize = usize::MAX;

    /// Return whether the pipeline still exists.
    pub(crate) fn is_alive(&self) -> bool {
        self.at.load(Relaxed) != Self::GONE
    }

    /// Detach the link at `position` from the pipeline. If the pipeline is currently in that link or
    /// upstream of it, return the mailbox entry that is woken once it has left.
    pub(crate) fn revoke(&self, py: Python<'_>, position: usize) -> PyResult<Option<Parked>> {
        // The pipeline checks this flag before its next item. The current item is not disturbed.
        self.revoked.store(true, Relaxed);
        let is_free = || self.at.load(Relaxed) > position;
        if is_free() {
            return Ok(None);
        }
        let parked = Parked::new(py)?;
        // Creating the entry may have run Python code; a pipeline that left meanwhile wakes nothing.
        if is_free() {
            return Ok(None);
        }
        self.waiting.borrow(py).push(parked.waker());
        Ok(Some(parked))
    }

    /// Cancel the pull that is suspended in the pipeline, in its own task.
    pub(crate) fn interrupt(&self, py: Python<'_>) -> PyResult<()> {
        if self.interrupted.swap(true, Relaxed) {
            return Ok(());
        }
        let Some(tail) = self.tail.bind(py).upgrade() else {
            return Ok(());
        };
        tail.cast::<PyPullLink>()?.get().cancel_suspended(py)
    }

    #[inline]
    pub(super) fn move_to(&self, py: Python<'_>, at: usize) {
        self.at.store(at, Relaxed);
        if self.revoked.load(Relaxed) {
            self.wake_waiting(py);
        }
    }

    #[cold]
    fn wake_waiting(&self, py: Python<'_>) {
        self.waiting.take(py).into_iter().for_each(Waker::wake);
    }
}
