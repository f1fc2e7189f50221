//! Asks that stand in line before it is known what they are for.
//!
//! Who asks for one slot at a time, and for the next when it has the last, gets no share of what is freed in one turn of its loop. The
//! first slot goes to whoever is owed most, and for the others nobody asks; in the next turn they are there for the first to
//! come, whatever the weights. So who has more to do than may be done keeps asks in line for as many slots as might be freed in a turn:
//! twice as many as it holds, but no more than it had a use for since it last had nothing to do. Where nobody else holds or waits for
//! anything it keeps none; nor where somebody else holds or waits for anything at the same node.
//!
//! Nobody waits for them, so whoever keeps them looks each turn, and [clears](Ahead::clear) them when there is nothing to do:
//! what was granted and not taken is annulled, and goes to others.

use std::collections::VecDeque;
use std::task::Poll;

use headrace_core::sched::{Amount, PermitId, Resource};
use pyo3::prelude::*;

use super::acquire::{Acquiring, Begun, Waiting, one_slot};
use super::grant::Permit;
use super::lease::Lease;
use super::node::Capacity;
use crate::asyncio;
use crate::awaitable::Parked;
use crate::gil::GilCell;

/// The most that are kept.
const MOST: usize = 1024;

/// See the top of this file. Each is for one slot.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    line: VecDeque<Box<Waiting>>,
    /// How many slots were asked for that there was a use for, since it was cleared.
    used: usize,
}

impl Ahead {
    /// One slot, if it can be had now.
    #[inline]
    pub(super) fn take(&mut self, capacity: &Bound<'_, Capacity>) -> PyResult<Option<Permit>> {
        let py = capacity.py();
        let this = capacity.get();
        let id = if self.line.is_empty() {
            this.take(py, &one_slot(this.enter(py)?.1))?
        } else {
            self.take_granted(capacity)?
        };
        let Some(id) = id else {
            return Ok(None);
        };
        self.used += 1;
        Ok(Some(Permit::new(this.shared()?, id)))
    }

    /// What the first in line was granted.
    #[cold]
    fn take_granted(&mut self, capacity: &Bound<'_, Capacity>) -> PyResult<Option<PermitId>> {
        let py = capacity.py();
        capacity.get().enter(py)?;
        let Some(first) = self.line.front_mut() else {
            return Ok(None);
        };
        let Poll::Ready(answer) = first.poll() else {
            return Ok(None);
        };
        self.line.pop_front();
        match answer {
            Ok(permit) => Ok(Some(permit.into_id())),
            Err(error) => {
                self.clear();
                Err(capacity
                    .get()
                    .refuse(py, &one_slot(capacity.get().place()?.1), &error))
            }
        }
    }

    /// What gives a lease of one slot when awaited; its place in line is taken now, and others behind it. So many tasks `run`.
    #[cold]
    pub(super) fn wait<'py>(
        &mut self,
        capacity: &Bound<'py, Capacity>,
        running: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = capacity.py();
        capacity.get().check_one(py)?;
        let first = match self.line.pop_front() {
            Some(first) => first,
            None => match Self::begin(capacity)? {
                Some(first) => first,
                None => return Acquiring::make(capacity.clone(), None, false, None),
            },
        };
        self.used += 1;
        self.stock(capacity, running)?;
        Acquiring::standing(capacity.clone(), first)
    }

    fn begin(capacity: &Bound<'_, Capacity>) -> PyResult<Option<Box<Waiting>>> {
        let py = capacity.py();
        let (_, node) = capacity.get().enter(py)?;
        let shared = capacity.get().shared()?;
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

    fn stock(&mut self, capacity: &Bound<'_, Capacity>, running: usize) -> PyResult<()> {
        let (tree, node) = capacity.get().enter(capacity.py())?;
        let mut root = node;
        while let Some(parent) = tree.parent(root) {
            root = parent;
        }
        let asking = self.line.len() + 1;
        let held = tree.held(node, Resource::SLOTS);
        // Those at the same node stand in one line: there many asks would be more than a share.
        let has_node = tree.waiting(node) == asking && held == Amount::units(running as u64);
        let is_alone = tree.waiting(root) == asking && tree.held(root, Resource::SLOTS) == held;
        if !has_node || is_alone {
            return Ok(());
        }
        let wanted = self.used.min(2 * running.max(1)).min(MOST);
        while self.line.len() < wanted {
            match Self::begin(capacity)? {
                Some(waiting) => self.line.push_back(waiting),
                None => break,
            }
        }
        Ok(())
    }

    /// Leaves the line, with all that was granted and not taken.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.used = 0;
        // From behind, so that what the first was granted does not go to the next.
        while let Some(last) = self.line.pop_back() {
            drop(last);
        }
    }
}

/// The same for Python.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct Asks {
    capacity: Py<Capacity>,
    ahead: GilCell<Ahead>,
}

impl Asks {
    /// They are taken out meanwhile, since whom a change wakes may be Python's.
    fn out(&self, py: Python<'_>) -> Ahead {
        std::mem::take(&mut *self.ahead.borrow(py))
    }

    fn put_back(&self, py: Python<'_>, ahead: Ahead) {
        let old = std::mem::replace(&mut *self.ahead.borrow(py), ahead);
        drop(old);
    }
}

#[pymethods]
impl Asks {
    #[new]
    fn new(capacity: Py<Capacity>) -> Self {
        Self {
            capacity,
            ahead: GilCell::default(),
        }
    }

    /// A lease of one slot, if it can be had now.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, Lease>>> {
        let capacity = self.capacity.bind(py);
        let mut ahead = self.out(py);
        let permit = ahead.take(capacity);
        self.put_back(py, ahead);
        permit?
            .map(|permit| Lease::make(capacity, permit.into_id()))
            .transpose()
    }

    /// What gives one when awaited; its place in line is taken now. So many tasks run.
    fn wait<'py>(&self, py: Python<'py>, running: usize) -> PyResult<Bound<'py, PyAny>> {
        let mut ahead = self.out(py);
        let waiting = ahead.wait(self.capacity.bind(py), running);
        self.put_back(py, ahead);
        waiting
    }

    /// How many stand in line.
    fn __len__(&self, py: Python<'_>) -> usize {
        self.ahead.borrow(py).line.len()
    }

    /// Leaves the line.
    fn clear(&self, py: Python<'_>) {
        drop(self.out(py));
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.clear();
    }
}
