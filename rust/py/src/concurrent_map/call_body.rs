//! `CallBody`: one call, from its awaitable to its end. The coroutine of its asyncio task drives it. `calls.rs` makes it.

use std::ffi::CStr;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::calls::PyConcurrentCalls;
use super::partitions::Claim;
use crate::asyncio_task::Body;
use crate::coroutine::{Inner, Parked, Step, own_class};
use crate::errors::RaisedError;
use crate::kernel::{Kernel, Output};
use crate::object::gc::traverse;

/// The progress of a call.
#[derive(Debug)]
pub(super) enum Progress {
    /// The item waits for its key, and was not passed to the callable.
    Waiting(Option<Box<Parked>>),
    New(Py<PyAny>),
    Running(Inner),
    /// The end was reported.
    Ended,
}

traverse!(
    enum Progress {
        Waiting(parked),
        New(awaitable),
        Running(inner),
        Ended,
    }
);

/// The call. It reports its end just before it returns or raises.
#[derive(Debug)]
pub(crate) struct CallBody {
    calls: Py<PyConcurrentCalls>,
    item: Py<PyAny>,
    pub(super) slot: Option<u64>,
    /// With a `partition_by`, the claim on the key.
    pub(super) claim: Option<Claim>,
    progress: Progress,
}

impl CallBody {
    pub(super) fn new(
        calls: &Bound<'_, PyConcurrentCalls>,
        item: &Bound<'_, PyAny>,
        progress: Progress,
        slot: Option<u64>,
        claim: Option<Claim>,
    ) -> Self {
        Self {
            calls: calls.clone().unbind(),
            item: item.clone().unbind(),
            slot,
            claim,
            progress,
        }
    }

    /// Take the first step.
    #[inline]
    fn begin<'py>(&mut self, value: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        match std::mem::replace(&mut self.progress, Progress::Ended) {
            Progress::New(awaitable) => self.run(awaitable.into_bound(value.py()), value),
            Progress::Waiting(parked) => self.wait(parked, value),
            Progress::Running(_) | Progress::Ended => {
                Err(PyRuntimeError::new_err("a call was stepped after its end"))
            }
        }
    }

    /// Take the first step of the awaitable.
    #[inline]
    fn run<'py>(
        &mut self,
        awaitable: Bound<'py, PyAny>,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<Step<'py>> {
        let inner = Inner::of(awaitable)?;
        let stepped = inner.send(value);
        self.progress = Progress::Running(inner);
        stepped
    }

    /// Wait until the key has a call for the item, then call the callable.
    #[inline(never)]
    fn wait<'py>(
        &mut self,
        parked: Option<Box<Parked>>,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<Step<'py>> {
        let py = value.py();
        let calls = self.calls.bind(py).get();
        drop(parked);
        let claim = self.claim.expect("it waits for its key");
        if let Some(parked) = calls.wait_for_key(py, claim)? {
            let future = parked.hand_up(py)?;
            self.progress = Progress::Waiting(Some(Box::new(parked)));
            return Ok(Step::Yield(future));
        }
        let output = calls.kernel.get().process(self.item.bind(py));
        match output.map_err(|raised: RaisedError| raised.fetch(py))? {
            Output::Await(awaitable) => self.run(awaitable, py.None().bind(py)),
            Output::Emit(value) => Ok(Step::Return(value)),
            _ => unreachable!("map emits or awaits"),
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
        let calls = self.calls.bind(py);
        let item = self.item.bind(py);
        PyConcurrentCalls::finish(calls, self.slot, self.claim, result, item, task)?;
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
            Progress::Waiting(_) | Progress::New(_) | Progress::Ended => self.begin(value),
        };
        self.finish_if_done(value.py(), stepped, task)
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        let stepped = match &self.progress {
            Progress::Running(inner) => inner.throw(py, error),
            Progress::Waiting(_) | Progress::New(_) => Err(error),
            // Its asyncio task was cancelled before it got the stored result.
            Progress::Ended => return Err(error),
        };
        self.finish_if_done(py, stepped, None)
    }
}

traverse!(CallBody {
    calls,
    item,
    progress
});
