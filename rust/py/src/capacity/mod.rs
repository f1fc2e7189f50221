//! Capacities for Python: a thin layer over [`headrace_core::capacity`].
//!
//! | file | contents |
//! |---|---|
//! | [`node`] | `PyCapacity`: a node of a tree |
//! | [`request`] | access to a node's tree, and its acquire requests |
//! | [`tree`] | `TreeHandle`: the core's tree, its clock and the timers of the event loops, shared by all nodes |
//! | [`acquire`] | the awaitable that returns a lease, also an async context manager |
//! | [`queued`] | a future of the core in a wait queue of the tree |
//! | [`lease`] | `PyLease`, and suspending a lease |
//! | [`outcome`] | the outcome of work that raised an error, for adaptive limits and breakers |
//! | [`permit`] | a permit without a lease, for the task pool |
//! | [`prefetch`] | permits requested before the task that uses them is known |
//! | [`listing`] | what a tree holds and what waits for it, as tuples |
//! | [`timer`] | timers that serve the tree when time makes capacity available |
//! | [`watch`] | calls Python when a tree gets a waiter |
//! | [`arguments`] | parses amounts, costs, priorities and weights |
//! | [`convert`] | limits and snapshots as tuples |
//! | [`breaker`] | breakers as tuples |
//! | [`core_error`] | converts the core's errors |
//!
//! No Python code runs under the lock of a tree. A clock that is a Python function is read before a call, on the caller's
//! thread; the tree uses the value read last. [`tree::TreeHandle`] lists the ways to access a tree.

mod acquire;
mod arguments;
mod breaker;
mod convert;
mod core_error;
mod lease;
mod listing;
mod node;
mod outcome;
mod permit;
mod prefetch;
mod queued;
mod request;
mod task_holding;
mod timer;
mod tree;
mod watch;

use pyo3::prelude::*;

pub(crate) use arguments::Argument;
pub(crate) use node::PyCapacity;
pub(crate) use outcome::outcome_of;
pub(crate) use permit::{CapacityClient, Next, TaskPermit, is_number};
pub(crate) use prefetch::{PyPermitPrefetch, RunUsage};
pub(crate) use task_holding::{TaskHolding, register_finder};

use crate::coroutine::Native;
use crate::coroutine::operation::Ready;
use crate::object::freelist;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<node::PyCapacity>()?;
    module.add_class::<lease::PyLease>()?;
    module.add_class::<lease::PySuspended>()?;
    module.add_function(wrap_pyfunction!(listing::tree_of, module)?)?;
    module.add_function(wrap_pyfunction!(listing::tree_activity, module)?)?;
    module.add_function(wrap_pyfunction!(listing::tree_listing, module)?)?;
    module.add_function(wrap_pyfunction!(watch::set_tree_watcher, module)?)?;
    module.add_function(wrap_pyfunction!(watch::tree_unwatched, module)?)?;
    let py = module.py();
    freelist::register::<lease::PyLease>(py)?;
    Native::<acquire::AcquireAwaitable>::register(py)?;
    Native::<Ready<lease::ResumeAwaitable>>::register(py)
}
