//! Sources that wait for a future, and how they go on.

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::callbacks::Resumption;
use super::cancel::cancel;
use super::merge::Merge;
use super::source::{Key, Status};
use super::step::Where;
use crate::errors;
use crate::source::Wait;

impl Merge {
    /// A source waits for `object`. Gives an error to be thrown into it if that cannot be awaited.
    pub(super) fn suspend(
        slf: &Bound<'_, Self>,
        key: Key,
        wait: Box<Wait>,
        object: &Bound<'_, PyAny>,
    ) -> PyResult<Option<PyErr>> {
        let py = slf.py();
        let this = slf.get();
        let event_loop = this.event_loop(py)?;
        let refused = if object.is_none() {
            None
        } else {
            refuse(&event_loop, object)?
        };
        let awaits = (!object.is_none() && refused.is_none()).then(|| object.clone().unbind());
        let (resumption, keywords, struck) = {
            let mut state = this.state.borrow(py);
            let Some(slot) = state.slots.get_mut(key) else {
                return Ok(None);
            };
            slot.is_prompt = false;
            slot.status = Status::Waiting {
                wait,
                future: awaits,
            };
            if object.is_none() {
                drop(state);
                Self::rest(slf, key)?;
                return Ok(None);
            }
            (
                slot.resumption.as_ref().map(|known| known.clone_ref(py)),
                slot.keywords.as_ref().map(|known| known.clone_ref(py)),
                slot.struck.as_ref().map(|error| error.clone_ref(py)),
            )
        };
        if refused.is_some() {
            return Ok(refused);
        }
        let (resumption, keywords) = match resumption {
            Some(known) => (known, keywords),
            None => Self::resumption(slf, key)?,
        };
        let keywords = keywords.as_ref().map(|keywords| keywords.bind(py));
        object.setattr(intern!(py, "_asyncio_future_blocking"), false)?;
        object
            .getattr(intern!(py, "add_done_callback"))?
            .call(resumption.bind(py), keywords)?;
        if let Some(struck) = struck
            && cancel(object, &struck)?
        {
            this.set_struck(py, key, None);
        }
        Ok(None)
    }

    /// The callback of a source, and with which keywords it is called, made when it first waits for
    /// a future.
    #[cold]
    fn resumption(slf: &Bound<'_, Self>, key: Key) -> PyResult<(Py<PyTuple>, Option<Py<PyDict>>)> {
        let py = slf.py();
        let merge = slf.clone().unbind();
        let made = PyTuple::new(py, [Py::new(py, Resumption { merge, key })?])?.unbind();
        let context = slf
            .get()
            .state
            .borrow(py)
            .slots
            .get(key)
            .filter(|slot| slot.is_foreign)
            .and_then(|slot| Some(slot.identity.as_ref()?.context.clone_ref(py)));
        let keywords = match context {
            Some(context) => {
                let keywords = PyDict::new(py);
                keywords.set_item(intern!(py, "context"), context)?;
                Some(keywords.unbind())
            }
            None => None,
        };
        if let Some(slot) = slf.get().state.borrow(py).slots.get_mut(key) {
            slot.resumption = Some(made.clone_ref(py));
            slot.keywords = keywords.as_ref().map(|keywords| keywords.clone_ref(py));
        }
        Ok((made, keywords))
    }

    /// What a source waited for is there.
    pub(super) fn resume(slf: &Bound<'_, Self>, key: Key, from: Where) -> PyResult<()> {
        let py = slf.py();
        let this = slf.get();
        let future = {
            let state = this.state.borrow(py);
            match state.slots.get(key).map(|slot| &slot.status) {
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

    /// What is to be read ahead is read now: nobody may pull for a while.
    pub(super) fn read_ahead(slf: &Bound<'_, Self>, key: Key, from: Where) -> PyResult<()> {
        let this = slf.get();
        while this.prefetch > 1 && this.may_be_asked(slf.py(), key) {
            Self::step(slf, key, from, None)?;
        }
        Ok(())
    }
}

/// Why an object that a source yielded to its task cannot be awaited.
fn refuse(event_loop: &Bound<'_, PyAny>, object: &Bound<'_, PyAny>) -> PyResult<Option<PyErr>> {
    let py = object.py();
    let complain = |what: &str| {
        Ok(Some(PyRuntimeError::new_err(format!(
            "{what}: {}",
            errors::describe(object)
        ))))
    };
    match object.getattr_opt(intern!(py, "_asyncio_future_blocking"))? {
        None => complain("a source yielded what asyncio cannot wait for"),
        Some(blocking) if !blocking.is_truthy()? => {
            complain("a source yielded a future instead of awaiting it")
        }
        Some(_) if !object.call_method0(intern!(py, "get_loop"))?.is(event_loop) => {
            complain("a source awaits a future of another event loop")
        }
        Some(_) => Ok(None),
    }
}
