//! The capacity that the current task holds without being the owner: that of a task of a pool, which the pool acquired for it.
//! `acquire.rs` assigns it to the task before the task waits, so that the core detects a wait for the task's own release.
//!
//! The pool registers the function that finds it, because the pool imports this module, and not the reverse. Only a request that
//! has to wait calls it, so a task of a pool costs no more for it.

use std::sync::{Arc, OnceLock};

use headrace_core::capacity::{AcquireRequest, Amount, PermitId, ResourceId};
use pyo3::prelude::*;

use super::node::PyCapacity;
use super::tree::TreeHandle;

/// The permit of the current task, and the capacity that it was acquired from.
#[derive(Debug)]
pub(crate) struct TaskHolding {
    pub(crate) capacity: Py<PyCapacity>,
    pub(crate) permit: PermitId,
}

/// Finds the holding of the current task. It may return `None` if a wait for this number of slots cannot be one for the task's own
/// release.
pub(crate) type Finder = fn(Python<'_>, u64) -> PyResult<Option<TaskHolding>>;

static FINDER: OnceLock<Finder> = OnceLock::new();

/// Register the function that finds holdings.
pub(crate) fn register_finder(finder: Finder) {
    // Another interpreter registers the same function.
    let _ = FINDER.set(finder);
}

/// Make the current task, the owner of `request`, the owner of the capacity that a pool acquired for it in the same tree.
pub(super) fn adopt(
    py: Python<'_>,
    handle: &Arc<TreeHandle>,
    request: &AcquireRequest,
) -> PyResult<()> {
    let (Some(owner), Some(find)) = (request.owner, FINDER.get()) else {
        return Ok(());
    };
    let slots = request.cost.get(ResourceId::SLOTS).as_micros();
    let slots = slots.div_ceil(Amount::ONE.as_micros());
    if let Some(TaskHolding { capacity, permit }) = find(py, slots)?
        && Arc::ptr_eq(capacity.get().handle()?, handle)
    {
        handle.enter(py)?.own(permit, owner);
    }
    Ok(())
}
