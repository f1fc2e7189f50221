//! Sources that wait for a future.

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::callbacks::{LoopAction, LoopCallback};
use super::cancel::cancel;
use super::merge::PyMerge;
use super::source::{Key, Status};
use super::step::StepFrom;
use crate::errors;
use crate::source::Wait;

impl PyMerge {
    /// Registers that a source waits for `object`. If that cannot be awaited, returns the error to throw into the source.
    pub(super) fn suspend(
        slf: &Bound<'_, Self>,
        key: Key,
        wait: Box<Wait>,
        object: &Bound<'_, PyAny>,
    ) -> PyResult<Option<PyErr>> {
        let py = slf.py();
        let this = slf.get();
        let event_loop = this.event_loop(py)?;
        let refusal = if object.is_none() {
            None
        } else {
            refuse(&event_loop, object)?
        };
        let awaits = (!object.is_none() && refusal.is_none()).then(|| object.clone().unbind());
        let (callback, keywords, cancellation) = {
            let mut state = this.state.borrow(py);
            let Some(entry) = state.sources.get_mut(key) else {
                return Ok(None);
            };
            entry.is_prompt = false;
            entry.status = Status::Waiting {
                wait,
                future: awaits,
            };
            if object.is_none() {
                drop(state);
                Self::yield_once(slf, key)?;
                return Ok(None);
            }
            (
                entry.callback.as_ref().map(|known| known.clone_ref(py)),
                entry.keywords.as_ref().map(|known| known.clone_ref(py)),
                entry.cancellation.as_ref().map(|error| error.clone_ref(py)),
            )
        };
        if refusal.is_some() {
            return Ok(refusal);
        }
        let (callback, keywords) = match callback {
            Some(known) => (known, keywords),
            None => Self::callback(slf, key)?,
        };
        let keywords = keywords.as_ref().map(|keywords| keywords.bind(py));
        object.setattr(intern!(py, "_asyncio_future_blocking"), false)?;
        object
            .getattr(intern!(py, "add_done_callback"))?
            .call(callback.bind(py), keywords)?;
        if let Some(cancellation) = cancellation
            && cancel(object, &cancellation)?
        {
            this.set_cancellation(py, key, None);
        }
        Ok(None)
    }

    /// Creates the callback of a source and its keyword arguments, at its first wait for a future.
    #[cold]
    fn callback(slf: &Bound<'_, Self>, key: Key) -> PyResult<(Py<PyTuple>, Option<Py<PyDict>>)> {
        let py = slf.py();
        let this = slf.get();
        let callback = LoopCallback::make(slf, LoopAction::Resume(key))?;
        let made = PyTuple::new(py, [callback])?.unbind();
        let task_context = this.with_source(py, key, |entry| entry.own_context(py));
        let keywords = match task_context.flatten() {
            Some(task_context) => {
                let keywords = PyDict::new(py);
                keywords.set_item(intern!(py, "context"), task_context.context)?;
                Some(keywords.unbind())
            }
            None => None,
        };
        this.with_source(py, key, |entry| {
            entry.callback = Some(made.clone_ref(py));
            entry.keywords = keywords.as_ref().map(|keywords| keywords.clone_ref(py));
        });
        Ok((made, keywords))
    }

    /// Resumes a source whose wait is over.
    pub(super) fn resume(slf: &Bound<'_, Self>, key: Key, from: StepFrom) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let future = {
            let state = this.state.borrow(py);
            match state.sources.get(key).map(|entry| &entry.status) {
                Some(Status::Waiting { future, .. }) => {
                    future.as_ref().map(|future| future.clone_ref(py))
                }
                _ => return Ok(()),
            }
        };
        let thrown =
            future.and_then(|future| future.bind(py).call_method0(intern!(py, "result")).err());
        Self::step(slf, key, from, thrown)?;
        Self::read_ahead(slf, key, from)
    }

    /// Reads ahead as far as `prefetch` allows, without waiting for the next pull.
    pub(super) fn read_ahead(slf: &Bound<'_, Self>, key: Key, from: StepFrom) -> PyResult<()> {
        let this = slf.get();
        while this.prefetch > 1 && this.can_poll(slf.py(), key) {
            Self::step(slf, key, from, None)?;
        }
        Ok(())
    }
}

/// Returns the error if an object that a source yielded to its task cannot be awaited.
fn refuse(event_loop: &Bound<'_, PyAny>, object: &Bound<'_, PyAny>) -> PyResult<Option<PyErr>> {
    let py = object.py();
    let error = |message: &str| {
        Ok(Some(PyRuntimeError::new_err(format!(
            "{message}: {}",
            errors::describe(object)
        ))))
    };
    match object.getattr_opt(intern!(py, "_asyncio_future_blocking"))? {
        None => error("a source yielded what asyncio cannot wait for"),
        Some(blocking) if !blocking.is_truthy()? => {
            error("a source yielded a future instead of awaiting it")
        }
        Some(_) if !object.call_method0(intern!(py, "get_loop"))?.is(event_loop) => {
            error("a source awaits a future of another event loop")
        }
        Some(_) => Ok(None),
    }
}
