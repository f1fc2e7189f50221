//! The guard against use in a forked child. Links, buffers, signals and mailboxes hold a `ProcessId`, and check it.
//!
//! A forked child has only the forking thread. A lock that another thread held during the fork stays locked forever in the child,
//! and the mailbox of an event loop notifies the parent. So each structure remembers the process that made it. In another process it
//! refuses to be used, with both process ids in the message.
//!
//! Other state belongs to the process, a thread or the running event loop. In the child it must not be used as the child's own:
//!
//! | state | in the child |
//! |---|---|
//! | this process ([`CURRENT`]) | set anew |
//! | the number of the thread ([`blocking_wait`]) | a new one, which differs from each number that the parent stored: in the most recent mailbox, the current task ([`task_id`](super::task_id)), timers, the thread of a stream |
//! | the running loop ([`asyncio`]) | forgotten: `asyncio` forgets it too, and the child may run a loop of its own |
//! | the yield budget ([`yield_budget`]) | new, and not lent: the lending task does not run in the child |
//! | promises that are being passed on ([`coroutine`]) | forgotten: they concern waiters of the parent |
//! | the mailbox of a loop | has a [`ProcessId`]; in the child it neither notifies a loop nor passes a promise on |
//! | the tokio runtime ([`blocking_pool`](super::blocking_pool)) | has a [`ProcessId`]; the child starts its own |
//! | counters of nesting ([`merge`](crate::merge), fan-outs, [`iterative_drop`](crate::object::iterative_drop), [`stack_limit`](super::stack_limit)) | kept: the frames of the parent are on the stack of the child |
//! | free lists, types, looked-up functions and classes, numbers of tasks and trees | kept: they belong to no thread and no event loop |

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use pyo3::prelude::*;

use crate::runtime::yield_budget;
use crate::runtime::{asyncio, blocking_wait};
use crate::{coroutine, errors};

/// The id of this process; renewed in a child right after the fork.
static CURRENT: AtomicU32 = AtomicU32::new(0);

/// Run in the child, before any other Python code.
#[pyfunction]
fn after_fork_in_child() {
    CURRENT.store(std::process::id(), Relaxed);
    blocking_wait::renew_after_fork();
    asyncio::forget_run();
    yield_budget::forget_after_fork();
    coroutine::forget_after_fork();
}

/// Store the id of this process, and register the function that runs after a fork.
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

    /// Return whether the current process is this one.
    pub(crate) fn is_current(self) -> bool {
        self.0 == CURRENT.load(Relaxed)
    }

    /// Return a `ForkError` in any other process than this one. Costs one load and one comparison.
    #[inline]
    pub(crate) fn check(self, py: Python<'_>, kind: &str) -> PyResult<()> {
        if self.is_current() {
            Ok(())
        } else {
            Err(self.refuse(py, kind))
        }
    }

    #[cold]
    fn refuse(self, py: Python<'_>, kind: &str) -> PyErr {
        errors::forked(
            py,
            &format!(
                "this {kind} was made in process {} and cannot be used in its forked child {}; make it after the fork",
                self.0,
                CURRENT.load(Relaxed)
            ),
        )
    }
}
