//! `CallBody`: one call, from its awaitable to its end. The coroutine of its asyncio task drives it. `calls.rs` makes it.

use std::ffi::CStr;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::calls::PyConcurrentCalls;
use crate::asyncio_task::Body;
use crate::coroutine::{Inner, Step, own_class};
use crate::object::gc::traverse;

/// The progress of a call.
#[derive(Debug)]
enum Progress {
    New(Py<PyAny>),
    Running(Inner),
    /// The end was reported.
    Ended,
}

traverse!(
    enum Progress {
        New(awaitable),
        Running(inner),
        Ended,
    }
);

/// The call. It reports its end just before it returns or raises.
#[derive(Debug)]
pub(crate) struct CallBody {
    calls: Py<PyConcurrentCalls>,
    slot: Option<u64>,
    progress: Progress,
}

impl CallBody {
    pub(super) fn new(
        calls: Py<PyConcurrentCalls>,
        awaitable: Py<PyAny>,
        slot: Option<u64>,
    ) -> Self {
        Self {
            calls,
            slot,
            progress: Progress::New(awaitable),
        }
    }

    /// Take the first step.
    #[inline]
    fn begin<'py>(&mut self, value: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        match std::mem::replace(&mut self.progress, Progress::Ended) {
            Progress::New(awaitable) => {
                let inner = Inner::of(awaitable.into_bound(value.py()))?;
                let stepped = inner.send(value);
                self.progress = Progress::Running(inner);
                stepped
            }
            Progress::Running(_) | Progress::Ended => {
                Err(PyRuntimeError::new_err("a call was stepped after its end"))
            }
        }
    }

    #[inline]
    fn finish_if_done<'py>(
        &mut self,
        py: Python<'py>,
        stepped: PyResult<Step<'py>>,
        task: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Step<'py>> {
        let result = match &stepped {
            Ok(Step::Yield(_)) => return stepped,
            Ok(Step::Return(value)) => Ok(value),
            Err(error) => Err(error.clone_ref(py)),
        };
        self.progress = Progress::Ended;
        PyConcurrentCalls::finish(self.calls.bind(py), self.slot, result, task)?;
        stepped
    }
}

impl Body for CallBody {
    const NAME: &'static CStr = c"headrace._core.CallCoroutine";

    own_class!();

    #[inline]
    fn send<'py>(
        &mut self,
        value: &Bound<'py, PyAny>,
        task: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Step<'py>> {
        let stepped = match &self.progress {
            Progress::Running(inner) => inner.send(value),
            Progress::New(_) | Progress::Ended => self.begin(value),
        };
        self.finish_if_done(value.py(), stepped, task)
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        let stepped = match &self.progress {
            Progress::Running(inner) => inner.throw(py, error),
            Progress::New(_) => Err(error),
            // Its asyncio task was cancelled before it got the stored result.
            Progress::Ended => return Err(error),
        };
        self.finish_if_done(py, stepped, None)
    }
}

traverse!(CallBody { calls, progress });
