//! Which plain tasks were called and have not ended.

use std::collections::HashMap;

use pyo3::intern;
use pyo3::prelude::*;

use crate::object::gc::{Traverse, VisitError, Visitor};
use crate::object::gil_cell::GilCell;
use crate::object::int_hasher::BuildIntHasher;
use crate::runtime::asyncio;

/// One of them.
#[derive(Debug)]
pub(super) struct Live {
    /// The asyncio task that it runs in. Not there in its first step, if it has one of its own.
    pub(super) task: Option<Py<PyAny>>,
    /// Whether it was asked to stop before it had.
    pub(super) disturbed: bool,
}

/// By their ids.
#[derive(Debug, Default)]
pub(super) struct Roll(GilCell<HashMap<u64, Live, BuildIntHasher>>);

impl Roll {
    pub(super) fn len(&self, py: Python<'_>) -> usize {
        self.0.borrow(py).len()
    }

    pub(super) fn add(&self, py: Python<'_>, id: u64, task: Option<Py<PyAny>>) {
        let live = Live {
            task,
            disturbed: false,
        };
        self.0.borrow(py).insert(id, live);
    }

    /// Its first step is over, and this is its asyncio task. Whether it was asked to stop and has not.
    pub(super) fn is_in(&self, py: Python<'_>, id: u64, task: Py<PyAny>) -> bool {
        let mut roll = self.0.borrow(py);
        let Some(live) = roll.get_mut(&id) else {
            drop(roll);
            drop(task);
            return false;
        };
        live.task = Some(task);
        live.disturbed
    }

    /// It has ended. Gives what was known of it.
    pub(super) fn remove(&self, py: Python<'_>, id: u64) -> Option<Live> {
        self.0.borrow(py).remove(&id)
    }

    /// Whether the caller is one of them.
    pub(super) fn inside(&self, py: Python<'_>) -> bool {
        let current = asyncio::current_task(py);
        let roll = self.0.borrow(py);
        roll.values().any(|live| match (&live.task, &current) {
            // Whoever asks is called by it: nothing else runs during its first step.
            (None, _) => true,
            (Some(task), Some(current)) => current.is(task),
            (Some(_), None) => false,
        })
    }

    pub(super) fn is_disturbed(&self, py: Python<'_>, id: u64) -> bool {
        self.0
            .borrow(py)
            .get(&id)
            .is_some_and(|live| live.disturbed)
    }

    /// Asks one to stop; whether it is one of them.
    pub(super) fn cancel(&self, py: Python<'_>, id: u64) -> PyResult<bool> {
        let task = {
            let mut roll = self.0.borrow(py);
            let Some(live) = roll.get_mut(&id) else {
                return Ok(false);
            };
            if live.disturbed {
                return Ok(true);
            }
            live.disturbed = true;
            live.task.as_ref().map(|task| task.clone_ref(py))
        };
        // In its first step it is cancelled when that is over: see `is_in`.
        if let Some(task) = task {
            let reached = task.bind(py).call_method0(intern!(py, "cancel"))?;
            if !reached.is_truthy()?
                && let Some(live) = self.0.borrow(py).get_mut(&id)
            {
                live.disturbed = false;
            }
        }
        Ok(true)
    }

    /// Asks all of them to stop, in the order in which they were taken up.
    pub(super) fn cancel_all(&self, py: Python<'_>) -> PyResult<()> {
        let mut ids: Vec<_> = self.0.borrow(py).keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.cancel(py, id)?;
        }
        Ok(())
    }

    pub(super) fn clear(&self, py: Python<'_>) {
        let roll = std::mem::take(&mut *self.0.borrow(py));
        drop(roll);
    }
}

impl Traverse for Roll {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        let Some(roll) = self.0.peek_for_gc() else {
            return Ok(());
        };
        for task in roll.values().filter_map(|live| live.task.as_ref()) {
            visit(task)?;
        }
        Ok(())
    }
}
