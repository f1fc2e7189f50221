//! Waiting until the threads that read have let go of their files.

use std::ffi::CStr;
use std::sync::Arc;

use pyo3::prelude::*;

use super::pipe::Pipe;
use crate::coroutine::{Class, Coroutine, Native, Parked, Step};
use crate::errors::RaisedError;
use crate::object::gc::traverse;
use crate::runtime::asyncio;

/// What is awaited to close. A cancellation meanwhile is raised at the end: a read lasts no longer
/// than a read, and who closes wants the file closed.
#[derive(Debug)]
pub(super) struct Closing {
    pipes: Vec<Arc<Pipe>>,
    parked: Option<Parked>,
    struck: Option<PyErr>,
}

static CLASS: Class = Class::new();

impl Closing {
    /// An awaitable that is done when no job of these pipes is under way.
    pub(super) fn make(py: Python<'_>, pipes: Vec<Arc<Pipe>>) -> PyResult<Bound<'_, PyAny>> {
        Native::alloc(py, || Self {
            pipes,
            parked: None,
            struck: None,
        })
    }

    fn step<'py>(&mut self, py: Python<'py>) -> PyResult<Step<'py>> {
        self.parked = None;
        while let Some(pipe) = self.pipes.last() {
            let parked = Parked::new(py)?;
            if pipe.wait_for_job(parked.waker()) {
                let future = parked.hand_up(py)?;
                self.parked = Some(parked);
                return Ok(Step::Yield(future));
            }
            self.pipes.pop();
        }
        match self.struck.take() {
            Some(error) => Err(error),
            None => Ok(Step::Return(py.None().into_bound(py))),
        }
    }
}

impl Coroutine for Closing {
    const NAME: &'static CStr = c"headrace._core.Closing";

    fn class() -> &'static Class {
        &CLASS
    }

    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        let py = value.py();
        RaisedError::set_from(py, self.step(py))
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        if !asyncio::is_cancelled_error(py, &error) {
            self.abandon(py);
            return Err(error);
        }
        self.struck.get_or_insert(error);
        self.step(py)
    }

    fn abandon(&mut self, _py: Python<'_>) {
        self.pipes.clear();
        self.parked = None;
        self.struck = None;
    }
}

traverse!(Closing { parked });

/// Makes the type.
pub(crate) fn register_closing(py: Python<'_>) -> PyResult<()> {
    Native::<Closing>::register(py)
}
