//! Prefetched permits: requests that are queued before the task that uses them is known.
//! The pool's `Engine` holds them, and `permit.rs` takes them.
//!
//! # Problem
//!
//! Several slots may be released in one iteration of the event loop. A run that requests one slot at a time, each after the
//! previous grant, gets no fair share of them:
//!
//! 1. The first slot is granted to the run with the greatest lag.
//! 2. No request is queued for the other slots, so they stay free.
//! 3. In the next iteration they are granted to the first request, whatever the weights.
//!
//! # Approach
//!
//! A run with more tasks than slots keeps requests queued for as many slots as may be released in one iteration. The number is
//! twice the slots that it holds, but at most the number that it has used since it was last idle. It keeps none in two cases:
//! no other run holds or waits for capacity in the tree, or another one does so at the same node.
//!
//! A run has one set of prefetched permits, which the feeder of its engine uses. No task waits for them. So they may be queued
//! only while the feeder waits for its own request, which is ahead of them, or returns for the next permit by itself. They are
//! [cleared](PyPermitPrefetch::clear) in the step in which the feeder waits for anything else, or ends. Granted permits that
//! were not taken are then released, and go to other requests. A task that is retried joins the end of the wait queue.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Poll;

use headrace_core::capacity::{Amount, PermitId, ResourceId};
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::acquire::{AcquireAwaitable, QueuedAcquire, Started, one_slot};
use super::node::PyCapacity;
use super::permit::TreePermit;
use crate::coroutine::Parked;
use crate::object::gil_cell::GilCell;
use crate::runtime::asyncio;

/// The most that are kept.
const LIMIT: usize = 1024;

/// The prefetched permits of a run, of one slot each.
#[pyclass(name = "PermitPrefetch", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyPermitPrefetch {
    capacity: Py<PyCapacity>,
    prefetched: GilCell<Prefetched>,
    /// The number of calls to `clear`.
    clear_count: AtomicUsize,
}

/// The queued requests. Moved out of the cell during a change: it may wake Python code, which may call this object.
#[derive(Debug, Default)]
struct Prefetched {
    queue: VecDeque<Box<QueuedAcquire>>,
    /// The number of slots that were used, or waited for, since the last `clear`.
    used: usize,
}

/// The tasks of a run at its node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunUsage {
    /// The number of running tasks.
    pub(crate) running: usize,
    /// The number of waiting tasks, without the one that the permit is for.
    pub(crate) waiting: usize,
}

impl PyPermitPrefetch {
    /// Take one slot, if it is available now.
    #[inline]
    pub(super) fn take_one(&self, py: Python<'_>) -> PyResult<Option<TreePermit>> {
        let this = self.capacity.get();
        let has_queued = !self.prefetched.borrow(py).queue.is_empty();
        let id = if has_queued {
            self.take_granted(py)?
        } else {
            this.try_take(py, &one_slot(this.enter(py)?.1))?
        };
        let Some(id) = id else {
            return Ok(None);
        };
        self.prefetched.borrow(py).used += 1;
        Ok(Some(TreePermit::new(py, this.tree_and_node()?.0, id)))
    }

    /// Take the permit of the first queued request, if it was granted.
    #[cold]
    fn take_granted(&self, py: Python<'_>) -> PyResult<Option<PermitId>> {
        let capacity = self.capacity.get();
        capacity.enter(py)?;
        let answer = self.change(py, |prefetched| {
            let polled = prefetched.queue.front_mut().map(|first| first.poll());
            match polled {
                Some(Poll::Ready(answer)) => {
                    prefetched.queue.pop_front();
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
                Err(capacity.acquire_error(py, &one_slot(capacity.tree_and_node()?.1), &error))
            }
        }
    }

    /// Queue the puller's request for one slot now, and prefetched requests behind it. Returns the awaitable of the lease.
    #[cold]
    pub(super) fn wait_for_one<'py>(
        &self,
        py: Python<'py>,
        usage: RunUsage,
    ) -> PyResult<Bound<'py, PyAny>> {
        let capacity = self.capacity.bind(py);
        let Some(first) = self.take_first(py)? else {
            return AcquireAwaitable::make(capacity.clone(), None, false, None);
        };
        let (requesting, used) = {
            let mut prefetched = self.prefetched.borrow(py);
            prefetched.used += 1;
            (prefetched.queue.len() + 1, prefetched.used)
        };
        if let Some(running) = self.running_if_shared(py, requesting, usage)? {
            let wanted = used.min(2 * running.max(1)).min(LIMIT);
            self.change(py, |prefetched| {
                while prefetched.queue.len() < wanted
                    && let Some(waiting) = self.enqueue(py)?
                {
                    prefetched.queue.push_back(waiting);
                }
                PyResult::Ok(())
            })?;
        }
        AcquireAwaitable::queued(capacity.clone(), first)
    }

    /// Take the first queued request, or queue a new one; `None` if that need not wait.
    fn take_first(&self, py: Python<'_>) -> PyResult<Option<Box<QueuedAcquire>>> {
        self.capacity.get().check_one_slot(py)?;
        let first = self.prefetched.borrow(py).queue.pop_front();
        match first {
            Some(first) => Ok(Some(first)),
            None => self.enqueue(py),
        }
    }

    fn enqueue(&self, py: Python<'_>) -> PyResult<Option<Box<QueuedAcquire>>> {
        let capacity = self.capacity.get();
        let (_, node) = capacity.enter(py)?;
        let handle = capacity.handle()?;
        let event_loop = asyncio::running_loop(py)?;
        capacity.watch(&event_loop)?;
        let timer = handle.loop_timer(&event_loop)?;
        match QueuedAcquire::start(py, handle, one_slot(node), Parked::resting(py)?, timer)? {
            Started::Pending(waiting) => Ok(Some(waiting)),
            // Suspended: the next request is granted it, or gets the error.
            Started::Granted(permit) => {
                drop(TreePermit::new(py, capacity.tree_and_node()?.0, permit));
                Ok(None)
            }
            Started::Refused(_) => Ok(None),
        }
    }

    /// Return the number of the run's running tasks if it alone uses its node, and others use other nodes of the tree.
    fn running_if_shared(
        &self,
        py: Python<'_>,
        requesting: usize,
        usage: RunUsage,
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
        // Requests at the same node share one wait queue, where many requests would get more than a fair share. A permit that
        // was granted to a task of the run, and not taken yet, counts as held and not as waiting.
        let ours = (usage.running + usage.waiting + requesting).checked_sub(waiting);
        let is_all = ours.is_some_and(|ours| held == Amount::units(ours as u64));
        Ok(is_all.then_some(usage.running))
    }

    /// Change the queue. If it is cleared meanwhile, drop the result.
    fn change<T>(&self, py: Python<'_>, change: impl FnOnce(&mut Prefetched) -> T) -> T {
        let clear_count = self.clear_count.load(Relaxed);
        let mut prefetched = self.prefetched.take(py);
        let changed = change(&mut prefetched);
        if self.clear_count.load(Relaxed) == clear_count {
            std::mem::swap(&mut *self.prefetched.borrow(py), &mut prefetched);
        }
        drop(prefetched);
        changed
    }
}

#[pymethods]
impl PyPermitPrefetch {
    #[new]
    pub(crate) fn new(capacity: Py<PyCapacity>) -> Self {
        Self {
            capacity,
            prefetched: GilCell::default(),
            clear_count: AtomicUsize::new(0),
        }
    }

    /// Cancel all requests, and release the permits that were granted and not taken.
    #[inline]
    pub(crate) fn clear(&self, py: Python<'_>) {
        // The GIL is held between the load and the store.
        let clear_count = self.clear_count.load(Relaxed);
        self.clear_count.store(clear_count.wrapping_add(1), Relaxed);
        let mut prefetched = self.prefetched.borrow(py);
        if prefetched.queue.is_empty() {
            prefetched.used = 0;
            return;
        }
        let old = std::mem::take(&mut *prefetched);
        // Dropped after the borrow: a permit that is released may wake Python code.
        drop(prefetched);
        drop(old);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.capacity)
    }
}

impl Drop for Prefetched {
    fn drop(&mut self) {
        // From the back, so that the permit of the first request is not granted to the next one.
        while let Some(last) = self.queue.pop_back() {
            drop(last);
        }
    }
}
