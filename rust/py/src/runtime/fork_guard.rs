//! The guard against use in a forked child.
//!
//! A child has one thread of its parent's many. A lock that another thread held at that moment
//! stays locked for ever in the child, and a loop's mailbox rings in the parent. So every structure
//! remembers the process that made it, and refuses to be used in another, with both process ids in
//! the message.
//!
//! Other state belongs to the process, a thread or the running loop. In the child it must not be taken for the child's own:
//!
//! | state | in the child |
//! |---|---|
//! | this process ([`CURRENT`]) | set anew |
//! | the number of the thread ([`thread`]) | a new one, so that whatever compares it finds nothing of the parent's: the mailbox that was used last, the current task ([`owner`]), alarms, the thread of a stream |
//! | the running loop ([`asyncio`]) | forgotten: `asyncio` forgets it too, and the child may run a loop of its own |
//! | the yield budget ([`budget`]) | new, and not lent: the task that lent it does not run here |
//! | promises that are being passed on ([`awaitable`]) | forgotten: they are about waiters of the parent |
//! | the mailbox of a loop | has a [`ProcessId`]; in the child it neither notifies a loop nor passes a promise on |
//! | the tokio runtime ([`runtime`]) | has a [`ProcessId`]; the child starts its own |
//! | counters of nesting ([`merge`], fan-outs, [`deep`], [`stack`]) | kept: the frames of the parent are on the stack of the child |
//! | free lists, types, looked-up functions and classes, numbers of tasks and trees | kept: they belong to no thread and no loop |
//!
//! [`thread`]: crate::runtime::blocking_wait
//! [`owner`]: crate::runtime::task_id
//! [`budget`]: crate::runtime::yield_budget
//! [`awaitable`]: crate::coroutine
//! [`runtime`]: crate::runtime::blocking_pool
//! [`merge`]: crate::merge
//! [`deep`]: crate::object::iterative_drop
//! [`stack`]: crate::runtime::stack_limit

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use pyo3::prelude::*;

use crate::runtime::yield_budget;
use crate::runtime::{asyncio, blocking_wait};
use crate::{coroutine, errors};

/// The id of this process; renewed in a child right after the fork.
static CURRENT: AtomicU32 = AtomicU32::new(0);

/// Runs in the child, before any other Python code.
#[pyfunction]
fn after_fork_in_child() {
    CURRENT.store(std::process::id(), Relaxed);
    blocking_wait::renew_after_fork();
    asyncio::forget_run();
    yield_budget::forget_after_fork();
    coroutine::forget_after_fork();
}

/// Notes this process, and asks to be told of forks.
pub(crate) fn register(py: Python<'_>) -> PyResult<()> {
    CURRENT.store(std::process::id(), Relaxed);
    let os = py.import("os")?;
    // Windows has no fork, and no such function.
    if let Some(register) = os.getattr_opt("register_at_fork")? {
        let keywords = pyo3::types::PyDict::new(py);
        keywords.set_item(
            "after_in_child",
            pyo3::wrap_pyfunction!(after_fork_in_child, py)?,
        )?;
        register.call((), Some(&keywords))?;
    }
    Ok(())
}

/// The process that made an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProcessId(u32);

impl ProcessId {
    pub(crate) fn current() -> Self {
        Self(CURRENT.load(Relaxed))
    }

    /// Whether this is that process.
    pub(crate) fn is_current(self) -> bool {
        self.0 == CURRENT.load(Relaxed)
    }

    /// Fails in any process but the one that made the object. One load and one comparison.
    #[inline]
    pub(crate) fn check(self, py: Python<'_>, what: &str) -> PyResult<()> {
        if self.is_current() {
            Ok(())
        } else {
            Err(self.refuse(py, what))
        }
    }

    #[cold]
    fn refuse(self, py: Python<'_>, what: &str) -> PyErr {
        errors::forked(
            py,
            &format!(
                "this {what} was made in process {} and cannot be used in its forked child {}; make it after the fork",
                self.0,
                CURRENT.load(Relaxed)
            ),
        )
    }
}
