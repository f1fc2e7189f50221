//! `ResultPull`: the awaitable of the next result of a concurrent `map`. `calls.rs` makes it.

use std::ffi::CStr;

use pyo3::intern;
use pyo3::prelude::*;

use super::calls::PyConcurrentCalls;
use crate::coroutine::{Coroutine, Parked, Step, own_class};
use crate::errors::{self, RaisedError};
use crate::object::gc::traverse;

/// One pull of a result.
#[derive(Debug)]
pub(crate) struct ResultPull {
    calls: Py<PyConcurrentCalls>,
    parked: Option<Parked>,
}

impl ResultPull {
    pub(super) fn new(calls: Py<PyConcurrentCalls>) -> Self {
        Self {
            calls,
            parked: None,
        }
    }

    fn step<'py>(&mut self, py: Python<'py>) -> PyResult<Step<'py>> {
        self.stop_waiting(py);
        let calls = self.calls.bind(py);
        let this = calls.get();
        // Nothing below suspends, so a taken result cannot be lost.
        if let Some(outcome) = this.take(py) {
            return outcome.into_result(py).map(Step::Return);
        }
        if this.is_over(py) {
            return Err(errors::end());
        }
        calls.call_method0(intern!(py, "_start"))?;
        let parked = Parked::new(py)?;
        this.set_consumer(py, &parked)?;
        let future = parked.hand_up(py)?;
        self.parked = Some(parked);
        Ok(Step::Yield(future))
    }

    fn stop_waiting(&mut self, py: Python<'_>) {
        if self.parked.take().is_some() {
            self.calls.get().remove_consumer(py);
        }
    }
}

impl Coroutine for ResultPull {
    const NAME: &'static CStr = c"headrace._core.ResultPull";

    own_class!();

    #[inline]
    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        let py = value.py();
        RaisedError::set_from(py, self.step(py))
    }

    fn abandon(&mut self, py: Python<'_>) {
        self.stop_waiting(py);
    }
}

traverse!(ResultPull { calls, parked });
