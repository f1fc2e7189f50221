//! Sources of a merge that wait for a future: `suspend` starts the wait in a step (`step.rs`), and the future's
//! callback calls `resume`.

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::callbacks::{LoopAction, LoopCallback};
use super::cancel::cancel;
use super::source::Status;
use super::source_ref::SourceRef;
use super::step::StepFrom;
use crate::errors;
use crate::source::Wait;

impl SourceRef<'_, '_> {
    /// Register that a source waits for `object`, which is `None` for one event-loop iteration. If the object cannot be awaited,
    /// return the error to throw into the source.
    pub(super) fn suspend(
        self,
        wait: Box<Wait>,
        object: &Bound<'_, PyAny>,
    ) -> PyResult<Option<PyErr>> {
        let py = self.py();
        let event_loop = self.merge.get().event_loop(py)?;
        let refusal = if object.is_none() {
            None
        } else {
            awaiting_error(&event_loop, object)?
        };
        let future = (!object.is_none() && refusal.is_none()).then(|| object.clone().unbind());
        let (callback, keywords, cancellation) = {
            let mut state = self.state();
            let Some(entry) = state.sources.get_mut(self.key) else {
                return Ok(None);
            };
            entry.is_prompt = false;
            entry.status = Status::Waiting { wait, future };
            if object.is_none() {
                drop(state);
                self.yield_once()?;
                return Ok(None);
            }
            (
                entry.callback.as_ref().map(|args| args.clone_ref(py)),
                entry.keywords.as_ref().map(|dict| dict.clone_ref(py)),
                entry.cancellation.as_ref().map(|error| error.clone_ref(py)),
            )
        };
        if refusal.is_some() {
            return Ok(refusal);
        }
        let (callback, keywords) = match callback {
            Some(known) => (known, keywords),
            None => self.callback()?,
        };
        let keywords = keywords.as_ref().map(|keywords| keywords.bind(py));
        object.setattr(intern!(py, "_asyncio_future_blocking"), false)?;
        object
            .getattr(intern!(py, "add_done_callback"))?
            .call(callback.bind(py), keywords)?;
        if let Some(cancellation) = cancellation
            && cancel(object, &cancellation)?
        {
            self.set_cancellation(None);
        }
        Ok(None)
    }

    /// Create the arguments of `add_done_callback` for the futures of a source, at its first wait.
    #[cold]
    fn callback(self) -> PyResult<(Py<PyTuple>, Option<Py<PyDict>>)> {
        let py = self.py();
        let callback = LoopCallback::make(self.merge, LoopAction::Resume(self.key))?;
        let args = PyTuple::new(py, [callback])?.unbind();
        let task_context = self.with(|entry| entry.own_context(py));
        let keywords = match task_context.flatten() {
            Some(task_context) => {
                let keywords = PyDict::new(py);
                keywords.set_item(intern!(py, "context"), task_context.context)?;
                Some(keywords.unbind())
            }
            None => None,
        };
        self.with(|entry| {
            entry.callback = Some(args.clone_ref(py));
            entry.keywords = keywords.as_ref().map(|keywords| keywords.clone_ref(py));
        });
        Ok((args, keywords))
    }

    /// Resume a source whose wait is over.
    pub(super) fn resume(self, from: StepFrom) -> PyResult<()> {
        let py = self.py();
        let found = self.with(|entry| match &entry.status {
            Status::Waiting { future, .. } => Some(future.as_ref().map(|it| it.clone_ref(py))),
            Status::Paused | Status::Running => None,
        });
        let Some(future) = found.flatten() else {
            return Ok(());
        };
        let thrown =
            future.and_then(|future| future.bind(py).call_method0(intern!(py, "result")).err());
        self.step(from, thrown)?;
        self.read_ahead(from)
    }

    /// Read ahead as far as `prefetch` allows, without waiting for the next pull.
    pub(super) fn read_ahead(self, from: StepFrom) -> PyResult<()> {
        while self.merge.get().prefetch > 1 && self.can_poll() {
            self.step(from, None)?;
        }
        Ok(())
    }
}

/// Return the error for an object that a source yielded to its task, if it cannot be awaited.
fn awaiting_error(
    event_loop: &Bound<'_, PyAny>,
    object: &Bound<'_, PyAny>,
) -> PyResult<Option<PyErr>> {
    let py = object.py();
    let error = |message: &str| {
        Ok(Some(PyRuntimeError::new_err(format!(
            "{message}: {}",
            errors::describe(object)
        ))))
    };
    match object.getattr_opt(intern!(py, "_asyncio_future_blocking"))? {
        None => error("a source awaits an object that asyncio cannot wait for"),
        Some(blocking) if !blocking.is_truthy()? => {
            error("a source yielded a future instead of awaiting it")
        }
        Some(_) if !object.call_method0(intern!(py, "get_loop"))?.is(event_loop) => {
            error("a source awaits a future of another event loop")
        }
        Some(_) => Ok(None),
    }
}
