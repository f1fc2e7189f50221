//! The slots of the executor that the user has passed: a task has one before it requests its capacity, until its work has stopped.
//! `start.rs`, `request.rs`, `readiness.rs` and `submitted.rs` call these methods of `Engine`.
//!
//! Otherwise tasks would hold capacity in the queue of the executor. Several runs may share an executor, so Python counts its slots
//! (`headrace.pool.executor.use`). If there is no free slot, the task waits in the registry without a request: the task that was pulled
//! last is held, and one that is called again is in `slotless`.
//!
//! A task that waits for its capacity lends its slot to other runs. Otherwise a few runs with full capacities could hold all slots. When it
//! gets its capacity, it has the slot again. If another run uses the slot then, its call waits in the queue of the executor.

use std::sync::atomic::Ordering::Relaxed;

use pyo3::intern;
use pyo3::prelude::*;

use super::engine::PyEngine;
use super::task_record::{ExecutorSlot, TaskRecord};

impl PyEngine {
    /// Return whether the executor of a task, if it has one, was started and has a slot, which the task then has.
    #[inline]
    pub(super) fn can_submit(&self, py: Python<'_>, record: &mut TaskRecord) -> PyResult<bool> {
        match record.executor() {
            None => Ok(true),
            Some(executor) if !self.is_started(executor) => Ok(false),
            Some(_) if !record.lacks_slot() => Ok(true),
            Some(_) => {
                let is_free = self.take_slot(py)?;
                if is_free {
                    record.set_slot();
                }
                Ok(is_free)
            }
        }
    }

    /// Take a slot for a waiting task that needs one. Return whether it has all that it needs.
    pub(super) fn try_slot_of(&self, py: Python<'_>, id: u64) -> PyResult<bool> {
        let lacks_slot = (self.registry)
            .with_waiting(py, id, |waiting| waiting.record.lacks_slot())
            .unwrap_or(false);
        if !lacks_slot {
            return Ok(true);
        }
        let is_free = self.take_slot(py)?;
        if is_free {
            (self.registry).with_waiting(py, id, |waiting| waiting.record.set_slot());
        }
        Ok(is_free)
    }

    /// Continue the tasks that wait for a slot, while there are free ones.
    pub(super) fn continue_slotless(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        while this.grants() {
            let next = this.slotless.borrow(py).pop_front();
            let Some(id) = next else {
                break;
            };
            if !this.lacks_request(py, id) {
                continue;
            }
            if !this.try_slot_of(py, id)? {
                this.slotless.borrow(py).push_front(id);
                break;
            }
            Self::request_again(slf, id)?;
        }
        this.state.lacks_slot.store(false, Relaxed);
        this.wake(py)
    }

    fn take_slot(&self, py: Python<'_>) -> PyResult<bool> {
        (self.policy.bind(py))
            .call_method0(intern!(py, "take_slot"))?
            .is_truthy()
    }

    /// Return a slot to the executor.
    pub(super) fn return_slot(&self, py: Python<'_>, slot: ExecutorSlot) -> PyResult<()> {
        if slot == ExecutorSlot::None {
            return Ok(());
        }
        let policy = self.policy.bind(py);
        if slot == ExecutorSlot::Lent {
            policy.call_method0(intern!(py, "reclaim_slot"))?;
        }
        policy.call_method0(intern!(py, "return_slot")).map(drop)
    }

    /// Return the slot of a task, if it has one.
    pub(super) fn release_slot(&self, py: Python<'_>, record: &mut TaskRecord) -> PyResult<()> {
        self.return_slot(py, record.take_executor_slot())
    }

    /// Lend the slot of a task that waits for its capacity, if it has one.
    pub(super) fn lend_slot(&self, py: Python<'_>, record: &mut TaskRecord) -> PyResult<()> {
        if record.replace_executor_slot(ExecutorSlot::Held, ExecutorSlot::Lent) {
            (self.policy.bind(py)).call_method0(intern!(py, "lend_slot"))?;
        }
        Ok(())
    }

    /// Reclaim the lent slot of a task whose capacity was granted.
    pub(super) fn reclaim_slot(&self, py: Python<'_>, record: &mut TaskRecord) -> PyResult<()> {
        if record.replace_executor_slot(ExecutorSlot::Lent, ExecutorSlot::Held) {
            (self.policy.bind(py)).call_method0(intern!(py, "reclaim_slot"))?;
        }
        Ok(())
    }
}
