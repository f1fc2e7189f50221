//! What the task of a source runs: it parks, hears of cancellations, and closes the source.

use std::ffi::CStr;

use pyo3::exceptions::PyGeneratorExit;
use pyo3::intern;
use pyo3::prelude::*;

use super::merge::Merge;
use super::source::Key;
use crate::coroutine::{Class, Coroutine, Inner, Native, Step};
use crate::errors::RaisedError;
use crate::object::gc::{Traverse, VisitError, Visitor};

static CLASS: Class = Class::new();

/// The coroutine of a source's task.
///
/// While the source is stepped in place this only waits on a future, so that the task is there to
/// be asked about and to be cancelled. A cancellation arrives here, and is passed on into the
/// source. When the source is to be closed, its `aclose()` runs here, as in any task.
#[derive(Debug)]
pub(crate) struct Anchor {
    merge: Py<Merge>,
    key: Key,
    closing: Option<Inner>,
}

impl Anchor {
    pub(super) fn make<'py>(merge: &Bound<'py, Merge>, key: Key) -> PyResult<Bound<'py, PyAny>> {
        Native::alloc(merge.py(), || Self {
            merge: merge.clone().unbind(),
            key,
            closing: None,
        })
    }

    /// Whether it is what a task runs.
    pub(super) fn is_in(task: &Bound<'_, PyAny>) -> PyResult<bool> {
        let coroutine = task.call_method0(intern!(task.py(), "get_coro"))?;
        Ok(Native::<Self>::is(&coroutine))
    }

    /// Parks, or begins to close.
    fn settle<'py>(&mut self, py: Python<'py>) -> PyResult<Step<'py>> {
        let merge = self.merge.bind(py).clone();
        if !Merge::is_to_close(&merge, self.key) {
            return Merge::park(&merge, self.key).map(Step::Yield);
        }
        let step = match Merge::begin_to_close(&merge, self.key) {
            Ok(Some(closing)) => {
                let step = closing.send(&py.None().into_bound(py));
                self.closing = Some(closing);
                step
            }
            Ok(None) => Ok(Step::Return(py.None().into_bound(py))),
            Err(error) => Err(error),
        };
        Ok(self.went(py, step))
    }

    /// What a step of closing came to. An error is the merge's business, not the task's.
    fn went<'py>(&mut self, py: Python<'py>, step: PyResult<Step<'py>>) -> Step<'py> {
        let error = match step {
            Ok(Step::Yield(object)) => return Step::Yield(object),
            Ok(Step::Return(_)) => None,
            Err(error) => Some(error),
        };
        self.closing = None;
        Merge::gone(self.merge.bind(py), self.key, error);
        Step::Return(py.None().into_bound(py))
    }
}

impl Coroutine for Anchor {
    const NAME: &'static CStr = c"headrace._core.Anchor";

    fn class() -> &'static Class {
        &CLASS
    }

    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        let py = value.py();
        if let Some(closing) = &self.closing {
            let step = closing.send(value);
            return Ok(self.went(py, step));
        }
        RaisedError::set_from(py, self.settle(py))
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        if error.is_instance_of::<PyGeneratorExit>(py) {
            return Err(error);
        }
        if let Some(closing) = &self.closing {
            let step = closing.throw(py, error);
            return Ok(self.went(py, step));
        }
        let merge = self.merge.bind(py).clone();
        Merge::strike(&merge, self.key, error)?;
        self.settle(py)
    }

    fn abandon(&mut self, _py: Python<'_>) {
        self.closing = None;
    }
}

impl Traverse for Anchor {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        visit(self.merge.as_any())?;
        match &self.closing {
            Some(closing) => visit(closing.object()),
            None => Ok(()),
        }
    }
}
