//! `SourceTask`: the coroutine of a source's task.
//! `source_ref.rs` makes the task; its steps call `step.rs`, `cancel.rs` and `close.rs`.

use std::ffi::CStr;

use headrace_core::sync::Key;
use pyo3::exceptions::PyGeneratorExit;
use pyo3::intern;
use pyo3::prelude::*;

use super::merge::PyMerge;
use crate::coroutine::{Coroutine, Inner, Native, Step, own_class};
use crate::errors::RaisedError;
use crate::object::gc::traverse;

/// The coroutine of a source's task.
///
/// While the source is stepped in place, the coroutine waits on a future: the task exists to be the current task and to be
/// cancelled. A cancellation is thrown in here and passed on into the source. `aclose()` of the source runs here.
#[derive(Debug)]
pub(crate) struct SourceTask {
    merge: Py<PyMerge>,
    key: Key,
    closing: Option<Inner>,
}

impl SourceTask {
    pub(super) fn make<'py>(merge: &Bound<'py, PyMerge>, key: Key) -> PyResult<Bound<'py, PyAny>> {
        Native::alloc(merge.py(), || Self {
            merge: merge.clone().unbind(),
            key,
            closing: None,
        })
    }

    /// Return whether a task runs this coroutine.
    pub(super) fn is_in(task: &Bound<'_, PyAny>) -> PyResult<bool> {
        let coroutine = task.call_method0(intern!(task.py(), "get_coro"))?;
        Ok(Native::<Self>::is(&coroutine))
    }

    /// Wait, or start closing the source.
    fn settle<'py>(&mut self, py: Python<'py>) -> PyResult<Step<'py>> {
        let merge = self.merge.bind(py).clone();
        if !PyMerge::at(&merge, self.key).is_to_close() {
            return PyMerge::at(&merge, self.key).park().map(Step::Yield);
        }
        let step = match PyMerge::at(&merge, self.key).begin_to_close() {
            Ok(Some(closing)) => {
                let step = closing.send(&py.None().into_bound(py));
                self.closing = Some(closing);
                step
            }
            Ok(None) => Ok(Step::Return(py.None().into_bound(py))),
            Err(error) => Err(error),
        };
        Ok(self.on_step(py, step))
    }

    /// Handle the result of a step of closing. An error is recorded in the merge, and not raised by the task.
    fn on_step<'py>(&mut self, py: Python<'py>, step: PyResult<Step<'py>>) -> Step<'py> {
        let error = match step {
            Ok(Step::Yield(object)) => return Step::Yield(object),
            Ok(Step::Return(_)) => None,
            Err(error) => Some(error),
        };
        self.closing = None;
        PyMerge::at(self.merge.bind(py), self.key).on_closed(error);
        Step::Return(py.None().into_bound(py))
    }
}

impl Coroutine for SourceTask {
    const NAME: &'static CStr = c"headrace._core.SourceTask";

    own_class!();

    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        let py = value.py();
        if let Some(closing) = &self.closing {
            let step = closing.send(value);
            return Ok(self.on_step(py, step));
        }
        RaisedError::set_from(py, self.settle(py))
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        if error.is_instance_of::<PyGeneratorExit>(py) {
            return Err(error);
        }
        if let Some(closing) = &self.closing {
            let step = closing.throw(py, error);
            return Ok(self.on_step(py, step));
        }
        let merge = self.merge.bind(py).clone();
        PyMerge::at(&merge, self.key).cancel(error)?;
        self.settle(py)
    }

    fn abandon(&mut self, _py: Python<'_>) {
        self.closing = None;
    }
}

traverse!(SourceTask { merge, closing });
