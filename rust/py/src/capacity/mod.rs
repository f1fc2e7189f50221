//! The tree of capacities, as Python sees it: a thin layer over [`headrace_core::capacity`].
//!
//! | file | what it holds |
//! |---|---|
//! | [`node`] | `Capacity`, a node of a tree |
//! | [`tree`] | what the nodes of one tree share: the core's tree, its clock, the alarms of the loops |
//! | [`acquire`] | the awaitable that gives a lease, which `async with` takes too |
//! | [`queued`] | a future of the core, which leaves its line at the time of now |
//! | [`prefetch`] | asks that are made before it is known what they are for |
//! | [`permit`] | what the core asks for itself: a permit without a lease |
//! | [`lease`] | `Lease`, and giving one back for a while |
//! | [`timer`] | how a loop, or a thread, is told when time has made something ready |
//! | [`arguments`] | numbers and costs that a user gave |
//! | [`convert`] | limits and snapshots as tuples |
//! | [`core_error`] | the core's errors as Python's |
//!
//! Nothing of Python runs under the lock of a tree. A clock that is foreign code is read before a call, on the caller's
//! thread, and the tree goes by what it showed. [`shared::Shared`] lists the ways to the tree, each of which sees to that.

mod acquire;
mod arguments;
mod convert;
mod core_error;
mod lease;
mod node;
mod permit;
mod prefetch;
mod queued;
mod timer;
mod tree;

use pyo3::prelude::*;

pub(crate) use node::Capacity;
pub(crate) use permit::{Grant, Granter, Next, is_number};
pub(crate) use prefetch::{Asks, Own};

use crate::coroutine::Native;
use crate::coroutine::operation::Ready;
use crate::object::freelist;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<node::Capacity>()?;
    module.add_class::<lease::Lease>()?;
    module.add_class::<lease::Suspended>()?;
    let py = module.py();
    freelist::register::<lease::Lease>(py)?;
    Native::<acquire::Acquiring>::register(py)?;
    Native::<Ready<lease::Retaking>>::register(py)
}
