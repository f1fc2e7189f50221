//! The awaitable that waits until the reading threads have closed their files. `PyLinesSource` returns it.

use std::ffi::CStr;
use std::sync::Arc;

use pyo3::prelude::*;

use super::pipe::Pipe;
use crate::coroutine::{Coroutine, Native, Parked, Step, own_class};
use crate::errors::RaisedError;
use crate::object::gc::traverse;
use crate::runtime::asyncio;

/// The awaitable of `close()`. A cancellation is raised only at the end, because the read in progress ends soon and the caller
/// wants the file closed.
#[derive(Debug)]
pub(super) struct Closing {
    pipes: Vec<Arc<Pipe>>,
    parked: Option<Parked>,
    cancellation: Option<PyErr>,
}

impl Closing {
    /// Make an awaitable that is done when no job of these pipes is running.
    pub(super) fn make(py: Python<'_>, pipes: Vec<Arc<Pipe>>) -> PyResult<Bound<'_, PyAny>> {
        Native::alloc(py, || Self {
            pipes,
            parked: None,
            cancellation: None,
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
        match self.cancellation.take() {
            Some(error) => Err(error),
            None => Ok(Step::Return(py.None().into_bound(py))),
        }
    }
}

impl Coroutine for Closing {
    const NAME: &'static CStr = c"headrace._core.Closing";

    own_class!();

    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        let py = value.py();
        RaisedError::set_from(py, self.step(py))
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        if !asyncio::is_cancelled_error(py, &error) {
            self.abandon(py);
            return Err(error);
        }
        self.cancellation.get_or_insert(error);
        self.step(py)
    }

    fn abandon(&mut self, _py: Python<'_>) {
        self.pipes.clear();
        self.parked = None;
        self.cancellation = None;
    }
}

traverse!(Closing { parked });

/// Create the Python type.
pub(crate) fn register_closing(py: Python<'_>) -> PyResult<()> {
    Native::<Closing>::register(py)
}
