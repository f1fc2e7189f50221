//! A line's hold on the links that it runs.
//!
//! While a link is pulled directly, no line above another link may run it. So each link knows the
//! line that does, and takes itself away from it: at once, if the line is elsewhere, or as soon as
//! it has come out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::Waker;

use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};

use super::link::PullLink;
use crate::object::gil_cell::GilCell;

/// A line's hold on the links that it runs.
#[derive(Debug)]
pub(crate) struct Claim {
    /// The link that the line ends in, and belongs to.
    tail: Py<PyWeakrefReference>,
    pub(super) revoked: AtomicBool,
    /// A link in its middle closes: the pull that is inside it is to come out.
    pub(super) interrupted: AtomicBool,
    /// Where the line is: [`Claim::IDLE`], 0 in its feed, `k + 1` in its stage `k`.
    pub(super) at: AtomicUsize,
    /// Who waits until it is idle.
    waiting: GilCell<Vec<Waker>>,
}

impl Claim {
    /// The hold of a line that ends in this link.
    pub(super) fn of(tail: &Bound<'_, PullLink>) -> PyResult<Arc<Self>> {
        Ok(Arc::new(Self {
            tail: PyWeakrefReference::new(tail)?.unbind(),
            revoked: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
            at: AtomicUsize::new(Self::IDLE),
            waiting: GilCell::default(),
        }))
    }

    /// No pull is under way.
    pub(super) const IDLE: usize = usize::MAX - 1;
    /// The line is gone.
    pub(super) const GONE: usize = usize::MAX;

    /// Whether there is still a line behind it.
    pub(crate) fn is_alive(&self) -> bool {
        self.at.load(Relaxed) != Self::GONE
    }

    /// Takes the link at `position` away from the line. `false` if the line is in that link or
    /// above it just now; then `waker` is called when it no longer is.
    pub(crate) fn revoke(
        &self,
        py: Python<'_>,
        position: usize,
        waker: impl FnOnce() -> PyResult<Waker>,
    ) -> PyResult<bool> {
        // From its next item on the line looks for itself what it may run; what is under way stays
        // where it is.
        self.revoked.store(true, Relaxed);
        let is_free = || self.at.load(Relaxed) > position;
        if is_free() {
            return Ok(true);
        }
        let waker = waker()?;
        // Making it may have run Python code, and nobody else will call it then.
        if is_free() {
            return Ok(true);
        }
        self.waiting.borrow(py).push(waker);
        Ok(false)
    }

    /// Cancels the pull that is under way in the line, in its own task.
    pub(crate) fn interrupt(&self, py: Python<'_>) -> PyResult<()> {
        if self.interrupted.swap(true, Relaxed) {
            return Ok(());
        }
        let Some(tail) = self.tail.bind(py).upgrade() else {
            return Ok(());
        };
        tail.cast::<PullLink>()?.get().cancel_flight(py)
    }

    #[inline]
    pub(super) fn settle(&self, py: Python<'_>, at: usize) {
        self.at.store(at, Relaxed);
        if self.revoked.load(Relaxed) {
            self.admit(py);
        }
    }

    #[cold]
    fn admit(&self, py: Python<'_>) {
        let waiting = std::mem::take(&mut *self.waiting.borrow(py));
        waiting.into_iter().for_each(Waker::wake);
    }
}
