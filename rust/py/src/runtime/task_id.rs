//! The identity of the caller: the current asyncio task; without one, the thread.
//! `capacity/arguments.rs` uses it for the owner of a lease.
//!
//! An identity is a number. The number of a task is never reused, although its address may be: the table holds a weak reference to each
//! task, and drops dead ones.

use std::collections::HashMap;
use std::num::NonZeroU64;

use headrace_core::sync::BuildIntHasher;
use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};

use super::asyncio;
use super::blocking_wait::this_thread;
use crate::object::gil_cell::GilCell;

static TASKS: GilCell<Tasks> = GilCell::new(Tasks {
    known: None,
    next: 1,
    sweep_at: LEAST,
});

/// The most recent caller, which is recognised without a lookup of the event loop and its task. Valid in its own thread only, and so
/// not in a forked child, whose thread has another number.
static LATEST: GilCell<Latest> = GilCell::new(Latest {
    steps: None,
    thread: 0,
    number: NonZeroU64::MIN,
});

/// The smallest table size at which dead tasks are removed.
const LEAST: usize = 64;

struct Tasks {
    /// The known tasks by address. Made at the first use, because a map cannot be made in a constant.
    known: Option<HashMap<usize, Known, BuildIntHasher>>,
    next: u64,
    /// The table size at which dead tasks are removed next.
    sweep_at: usize,
}

struct Latest {
    /// The result of [`asyncio::steps`] at that time.
    steps: Option<u64>,
    thread: u64,
    number: NonZeroU64,
}

struct Known {
    task: Py<PyWeakrefReference>,
    number: u64,
}

impl Known {
    fn is(&self, task: &Bound<'_, PyAny>) -> bool {
        let known = self.task.bind(task.py()).upgrade();
        known.is_some_and(|known| known.is(task))
    }

    fn is_alive(&self, py: Python<'_>) -> bool {
        self.task.bind(py).upgrade().is_some()
    }
}

/// Return the number of the current task; without one, of the thread.
#[inline]
pub(crate) fn current(py: Python<'_>) -> PyResult<NonZeroU64> {
    let latest = LATEST.borrow(py);
    if latest.steps.is_some()
        && latest.thread == this_thread()
        && latest.steps == asyncio::steps(py)
    {
        return Ok(latest.number);
    }
    drop(latest);
    find(py)
}

fn find(py: Python<'_>) -> PyResult<NonZeroU64> {
    // Tasks have even numbers, threads odd ones.
    let number = match asyncio::current_task(py) {
        Some(task) => number_of(&task)? << 1,
        None => this_thread() << 1 | 1,
    };
    let number = NonZeroU64::new(number).expect("numbers begin at 1");
    *LATEST.borrow(py) = Latest {
        steps: asyncio::steps(py),
        thread: this_thread(),
        number,
    };
    Ok(number)
}

fn number_of(task: &Bound<'_, PyAny>) -> PyResult<u64> {
    let py = task.py();
    let address = task.as_ptr() as usize;
    let mut tasks = TASKS.borrow(py);
    if let Some(known) = tasks.known.get_or_insert_default().get(&address)
        && known.is(task)
    {
        return Ok(known.number);
    }
    drop(tasks);
    remember(task, address)
}

/// List the identities of the tasks that are alive and were the caller of anything before, each with its task.
#[pyfunction]
pub(crate) fn known_tasks(py: Python<'_>) -> Vec<(u64, Py<PyAny>)> {
    let tasks = TASKS.borrow(py);
    let known = tasks.known.iter().flat_map(HashMap::values);
    known
        .filter_map(|known| Some((known.number << 1, known.task.bind(py).upgrade()?.unbind())))
        .collect()
}

#[cold]
fn remember(task: &Bound<'_, PyAny>, address: usize) -> PyResult<u64> {
    let py = task.py();
    let reference = PyWeakrefReference::new(task)?.unbind();
    let mut tasks = TASKS.borrow(py);
    let tasks = &mut *tasks;
    let known = tasks.known.get_or_insert_default();
    if known.len() >= tasks.sweep_at {
        // Dropping a weak reference without a callback runs no Python code.
        known.retain(|_, known| known.is_alive(py));
        tasks.sweep_at = (known.len() * 2).max(LEAST);
    }
    let number = tasks.next;
    tasks.next += 1;
    known.insert(
        address,
        Known {
            task: reference,
            number,
        },
    );
    Ok(number)
}
