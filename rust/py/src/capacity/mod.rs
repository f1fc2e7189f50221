//! The tree of capacities, as Python sees it: a thin layer over [`headrace_core::sched`].
//!
//! | file | what it holds |
//! |---|---|
//! | [`node`] | `Capacity`, a node of a tree |
//! | [`shared`] | what the nodes of one tree share: the core's tree, its clock, the alarms of the loops |
//! | [`acquire`] | the awaitable that gives a lease, which `async with` takes too |
//! | [`standing`] | a future of the core, which leaves its line at the time of now |
//! | [`ahead`] | asks that are made before it is known what they are for |
//! | [`grant`] | what the core asks for itself: a permit without a lease |
//! | [`lease`] | `Lease`, and giving one back for a while |
//! | [`alarm`] | how a loop, or a thread, is told when time has made something ready |
//! | [`amount`] | numbers and costs that a user gave |
//! | [`shape`] | limits and snapshots as tuples |
//! | [`refusal`] | the core's errors as Python's |
//!
//! Nothing of Python runs under the lock of a tree. A clock that is foreign code is read before a call, on the caller's
//! thread, and the tree goes by what it showed. [`shared::Shared`] lists the ways to the tree, each of which sees to that.

mod acquire;
mod ahead;
mod alarm;
mod amount;
mod grant;
mod lease;
mod node;
mod refusal;
mod shape;
mod shared;
mod standing;

use pyo3::prelude::*;

pub(crate) use ahead::{Asks, Own};
pub(crate) use grant::{Grant, Granter, Next, is_number};

use crate::awaitable::Native;
use crate::awaitable::ready::Ready;
use crate::recycled;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<node::Capacity>()?;
    module.add_class::<lease::Lease>()?;
    module.add_class::<lease::Released>()?;
    module.add_class::<ahead::Asks>()?;
    let py = module.py();
    recycled::register::<lease::Lease>(py)?;
    Native::<acquire::Acquiring>::register(py)?;
    Native::<Ready<lease::Retaking>>::register(py)
}
