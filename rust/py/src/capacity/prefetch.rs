//! Asks that stand in line before it is known what they are for.
//!
//! Who asks for one slot at a time, and for the next when it has the last, gets no share of what is freed in one turn of its loop. The
//! first slot goes to whoever is owed most, and for the others nobody asks; in the next turn they are there for the first to
//! come, whatever the weights. So a run that has more to do than may be done keeps asks in line for as many slots as might be freed in a
//! turn: twice as many as it holds, but no more than it had a use for since it last had nothing to do. Where nobody else holds or waits
//! for anything it keeps none; nor where somebody else holds or waits for anything at the same node.
//!
//! There is one set of them for a run, which the feeder of its engine uses.
//! Nobody waits for them, so they may stand only while the puller waits for its own place, which is in front of them, or comes
//! back for the next by itself. [Cleared](Asks::clear) they are in the step in which it waits for anything else, or ends: what
//! was granted and not taken is annulled, and goes to others. A task that is called again
//! joins the end of the queue, as anybody does.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Poll;

use headrace_core::capacity::{Amount, PermitId, ResourceId};
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::acquire::{Acquiring, Begun, Waiting, one_slot};
use super::node::Capacity;
use super::permit::Permit;
use crate::coroutine::Parked;
use crate::object::gil_cell::GilCell;
use crate::runtime::asyncio;

/// The most that are kept.
const MOST: usize = 1024;

/// See the top of this file. Each is for one slot.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct Asks {
    capacity: Py<Capacity>,
    ahead: GilCell<Ahead>,
    /// How often it was cleared.
    cleared: AtomicUsize,
}

/// Taken out while it changes, since whom that wakes may be Python's.
#[derive(Debug, Default)]
struct Ahead {
    line: VecDeque<Box<Waiting>>,
    /// How many slots were asked for that there was a use for, since it was cleared.
    used: usize,
}

/// What the run has of its node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own {
    /// How many of its tasks run.
    pub(crate) running: usize,
    /// How many others of its tasks wait, beside the one that is asked for.
    pub(crate) waiting: usize,
}

impl Asks {
    /// One slot, if it can be had now.
    #[inline]
    pub(super) fn take_one(&self, py: Python<'_>) -> PyResult<Option<Permit>> {
        let this = self.capacity.get();
        let stands = !self.ahead.borrow(py).line.is_empty();
        let id = if stands {
            self.take_granted(py)?
        } else {
            this.take(py, &one_slot(this.enter(py)?.1))?
        };
        let Some(id) = id else {
            return Ok(None);
        };
        self.ahead.borrow(py).used += 1;
        Ok(Some(Permit::new(this.shared()?, id)))
    }

    /// What the first in line was granted.
    #[cold]
    fn take_granted(&self, py: Python<'_>) -> PyResult<Option<PermitId>> {
        let capacity = self.capacity.get();
        capacity.enter(py)?;
        let answer = self.change(py, |ahead| {
            let polled = ahead.line.front_mut().map(|first| first.poll());
            match polled {
                Some(Poll::Ready(answer)) => {
                    ahead.line.pop_front();
                    Some(answer)
                }
                Some(Poll::Pending) | None => None,
            }
        });
        match answer {
            None => Ok(None),
            Some(Ok(permit)) => Ok(Some(permit.into_id())),
            Some(Err(error)) => {
                self.clear(py);
                Err(capacity.refuse(py, &one_slot(capacity.place()?.1), &error))
            }
        }
    }

    /// What gives a lease of one slot when awaited, for who pulls; its place in line is taken now, and others behind it.
    ///
    /// `least` is what the run has of its node at least, and `own` what it has.
    #[cold]
    pub(super) fn wait_for_one<'py>(
        &self,
        py: Python<'py>,
        least: Own,
        own: impl FnOnce() -> PyResult<Own>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let capacity = self.capacity.bind(py);
        let Some(first) = self.first(py)? else {
            return Acquiring::make(capacity.clone(), None, false, None);
        };
        let (asking, used) = {
            let mut ahead = self.ahead.borrow(py);
            ahead.used += 1;
            (ahead.line.len() + 1, ahead.used)
        };
        if let Some(running) = self.shares(py, asking, least, own)? {
            let wanted = used.min(2 * running.max(1)).min(MOST);
            self.change(py, |ahead| {
                while ahead.line.len() < wanted
                    && let Some(waiting) = self.begin(py)?
                {
                    ahead.line.push_back(waiting);
                }
                PyResult::Ok(())
            })?;
        }
        Acquiring::standing(capacity.clone(), first)
    }

    /// The place that is the first of them, or else one at the end of the line; nothing if it must not wait.
    fn first(&self, py: Python<'_>) -> PyResult<Option<Box<Waiting>>> {
        self.capacity.get().check_one(py)?;
        let first = self.ahead.borrow(py).line.pop_front();
        match first {
            Some(first) => Ok(Some(first)),
            None => self.begin(py),
        }
    }

    fn begin(&self, py: Python<'_>) -> PyResult<Option<Box<Waiting>>> {
        let capacity = self.capacity.get();
        let (_, node) = capacity.enter(py)?;
        let shared = capacity.shared()?;
        let alarm = shared.alarm(&asyncio::running_loop(py)?)?;
        match Waiting::begin(py, shared, one_slot(node), Parked::resting(py)?, alarm)? {
            Begun::Waits(waiting) => Ok(Some(waiting)),
            // Whoever asks next has it, or hears of the error.
            Begun::Granted(permit) => {
                drop(Permit::new(shared, permit));
                Ok(None)
            }
            Begun::Refused(_) => Ok(None),
        }
    }

    /// How many tasks of the run run, if it has its node for itself and others are beside it.
    fn shares(
        &self,
        py: Python<'_>,
        asking: usize,
        least: Own,
        own: impl FnOnce() -> PyResult<Own>,
    ) -> PyResult<Option<usize>> {
        let (tree, node) = self.capacity.get().enter(py)?;
        let mut root = node;
        while let Some(parent) = tree.parent(root) {
            root = parent;
        }
        let (waiting, held) = (tree.waiting(node), tree.held(node, ResourceId::SLOTS));
        if tree.waiting(root) == waiting && tree.held(root, ResourceId::SLOTS) == held {
            return Ok(None);
        }
        // Those at the same node stand in one line: there many asks would be more than a share. What was granted to one of the run's
        // tasks that does not know of it yet is held, and waits no more.
        let is_all = |own: Own| {
            let ours = (own.running + own.waiting + asking).checked_sub(waiting);
            ours.is_some_and(|ours| held == Amount::units(ours as u64))
        };
        let own = if is_all(least) { least } else { own()? };
        Ok(is_all(own).then_some(own.running))
    }

    /// Changes them. Those that were cleared meanwhile are gone.
    fn change<T>(&self, py: Python<'_>, change: impl FnOnce(&mut Ahead) -> T) -> T {
        let cleared = self.cleared.load(Relaxed);
        let mut ahead = std::mem::take(&mut *self.ahead.borrow(py));
        let changed = change(&mut ahead);
        if self.cleared.load(Relaxed) == cleared {
            std::mem::swap(&mut *self.ahead.borrow(py), &mut ahead);
        }
        drop(ahead);
        changed
    }
}

#[pymethods]
impl Asks {
    #[new]
    pub(crate) fn new(capacity: Py<Capacity>) -> Self {
        Self {
            capacity,
            ahead: GilCell::default(),
            cleared: AtomicUsize::new(0),
        }
    }

    /// Leaves the line, with all that was granted and not taken.
    #[inline]
    pub(crate) fn clear(&self, py: Python<'_>) {
        self.cleared.fetch_add(1, Relaxed);
        let ahead = std::mem::take(&mut *self.ahead.borrow(py));
        drop(ahead);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.capacity)
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        // From behind, so that what the first was granted does not go to the next.
        while let Some(last) = self.line.pop_back() {
            drop(last);
        }
    }
}
