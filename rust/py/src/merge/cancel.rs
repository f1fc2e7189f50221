//! Cancellations of the task of a source, on their way into it.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::callbacks::{Errand, Note};
use super::merge::Merge;
use super::source::{Key, Outcome, Status};
use super::source_task::Anchor;
use super::step::Where;
use crate::runtime::asyncio;

impl Merge {
    /// The task of a source was cancelled: passes that on into the source.
    pub(super) fn strike(slf: &Bound<'_, Self>, key: Key, error: PyErr) -> PyResult<()> {
        enum Blow {
            Cancel(Py<PyAny>),
            Keep,
            Throw,
            Hold,
        }
        let py = slf.py();
        let this = slf.get();
        let (identity, blow, feed) = {
            let state = this.state.borrow(py);
            let Some(slot) = state.slots.get(key) else {
                return Ok(());
            };
            let Some(identity) = &slot.identity else {
                return Ok(());
            };
            let blow = match &slot.status {
                _ if !slot.is_foreign => return Ok(()),
                Status::Waiting {
                    future: Some(future),
                    ..
                } => Blow::Cancel(future.clone_ref(py)),
                Status::Waiting { future: None, .. } | Status::Running => Blow::Keep,
                Status::Standing if slot.has_ended || slot.is_closing => return Ok(()),
                // What it is to hear at its `yield` may make it go on to the next, and it must not
                // run ahead by more than one item.
                Status::Standing if slot.queue.is_empty() => Blow::Throw,
                Status::Standing => Blow::Hold,
            };
            (identity.clone_ref(py), blow, slot.feed.clone_ref(py))
        };
        if !identity.is_cancelled(py) {
            // Withdrawn meanwhile, as by the end of an `asyncio.timeout` that had just struck.
            this.set_struck(py, key, None);
            return Ok(());
        }
        match blow {
            Blow::Cancel(future) => {
                if !cancel(future.bind(py), &error)? {
                    this.set_struck(py, key, Some(error));
                }
                Ok(())
            }
            Blow::Keep => {
                this.set_struck(py, key, Some(error));
                Ok(())
            }
            Blow::Throw if feed.can_throw(py) => Self::step(slf, key, Where::Task, Some(error)),
            Blow::Throw | Blow::Hold => {
                this.set_struck(py, key, Some(error));
                Self::inspect_soon(slf)
            }
        }
    }

    /// Has a look, in the next turn, whether the program ends.
    pub(super) fn inspect_soon(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let call_soon = {
            let mut state = slf.get().state.borrow(py);
            if std::mem::replace(&mut state.is_inspecting, true) {
                return Ok(());
            }
            state.call_soon.as_ref().map(|call| call.clone_ref(py))
        };
        if let Some(call_soon) = call_soon {
            let note = Note {
                merge: slf.clone().unbind(),
                errand: Errand::Inspect,
            };
            call_soon.bind(py).call1((Py::new(py, note)?,))?;
        }
        Ok(())
    }

    /// Where every task is cancelled, as by the end of `asyncio.run`, nobody will pull any more:
    /// sources that were to hear of their cancellation when they are asked again end now.
    pub(super) fn inspect(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        this.state.borrow(py).is_inspecting = false;
        let event_loop = this.event_loop(py)?;
        let tasks = py
            .import("asyncio")?
            .call_method1(intern!(py, "all_tasks"), (event_loop,))?;
        for task in tasks.try_iter()? {
            let task = task?;
            // The tasks of sources pull nothing; and there may be new ones, of sources that were about to begin.
            let may_pull = !Anchor::is_in(&task)?;
            if may_pull && !task.call_method0(intern!(py, "cancelling"))?.is_truthy()? {
                return Ok(());
            }
        }
        let keys: Vec<Key> = {
            let state = this.state.borrow(py);
            let is_struck = |key: &Key| {
                state.slots.get(*key).is_some_and(|slot| {
                    slot.struck.is_some()
                        && !slot.is_closing
                        && matches!(slot.status, Status::Standing)
                })
            };
            state.order.iter().copied().filter(is_struck).collect()
        };
        for key in keys {
            let error = this.named(py, key, asyncio::cancellation(py, None));
            Self::came(slf, key, Outcome::Error(Box::new(error)))?;
            Self::ended(slf, key)?;
        }
        Ok(())
    }
}

/// Cancels what a source waits for, with the message that its task was cancelled with.
pub(super) fn cancel(future: &Bound<'_, PyAny>, error: &PyErr) -> PyResult<bool> {
    let py = future.py();
    let message = error.value(py).getattr(intern!(py, "args"))?;
    future
        .getattr(intern!(py, "cancel"))?
        .call1(message.cast_into::<PyTuple>()?)?
        .is_truthy()
}
