//! `CallDriver`: the coroutine that pulls the source of a concurrent `map` and makes its calls while there is space.
//! `calls.rs` makes it; the driver's task awaits it.

use std::ffi::CStr;

use pyo3::exceptions::PyStopAsyncIteration;
use pyo3::intern;
use pyo3::prelude::*;

use super::calls::PyConcurrentCalls;
use super::state::Space;
use crate::asyncio_task::TaskFactory;
use crate::coroutine::{Coroutine, Parked, Step, own_class};
use crate::errors::RaisedError;
use crate::object::gc::traverse;
use crate::pull::source_pull::{PulledSource, SourcePull};
use crate::runtime::yield_budget;

/// The coroutine of [`PyConcurrentCalls::feed`].
#[derive(Debug)]
pub(crate) struct CallDriver {
    calls: Py<PyConcurrentCalls>,
    source: PulledSource,
    factory: TaskFactory,
    /// The number of restarts before it.
    cycle: u64,
    pull: Option<SourcePull>,
    /// Its wait for space.
    parked: Option<Parked>,
    /// The number of asyncio tasks started in the current event-loop iteration.
    begun: u32,
}

impl CallDriver {
    pub(super) fn new(
        calls: Py<PyConcurrentCalls>,
        source: &Bound<'_, PyAny>,
        event_loop: &Bound<'_, PyAny>,
        cycle: u64,
    ) -> Self {
        Self {
            calls,
            source: PulledSource::new(source),
            factory: TaskFactory::new(event_loop),
            cycle,
            pull: None,
            parked: None,
            begun: 0,
        }
    }

    fn advance<'py>(&mut self, value: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = value.py();
        let calls = self.calls.bind(py).clone();
        self.parked = None;
        loop {
            let pulled = if let Some(pull) = &mut self.pull {
                pull.send(value)
            } else {
                match calls.get().space(py, self.cycle) {
                    Space::Free => {}
                    Space::Full => return self.park(&calls),
                    Space::Stop => return Ok(Step::Return(py.None().into_bound(py))),
                }
                match self.source.pull(py) {
                    Ok(pull) => self.pull.insert(pull).send(py.None().bind(py)),
                    Err(error) => Err(error),
                }
            };
            if let Some(step) = self.on_pulled(&calls, pulled)? {
                return Ok(step);
            }
            if self.factory.is_full(self.begun) || yield_budget::take_rested() {
                self.begun = 0;
                return Ok(Step::Yield(py.None().into_bound(py)));
            }
        }
    }

    /// Handle the result of a step of the pull. Return the driver's own step, unless it continues with the next pull.
    #[inline]
    fn on_pulled<'py>(
        &mut self,
        calls: &Bound<'py, PyConcurrentCalls>,
        pulled: PyResult<Step<'py>>,
    ) -> PyResult<Option<Step<'py>>> {
        let py = calls.py();
        match pulled {
            Ok(Step::Yield(waits_for)) => {
                self.begun = 0;
                return Ok(Some(Step::Yield(waits_for)));
            }
            Ok(Step::Return(item)) => {
                self.pull = None;
                let is_started = PyConcurrentCalls::call(calls, &item, &self.factory)?;
                self.begun += u32::from(is_started);
            }
            Err(error) => {
                self.pull = None;
                if error.is_instance_of::<PyStopAsyncIteration>(py) {
                    return Ok(Some(Step::Return(py.None().into_bound(py))));
                }
                let arguments = (error.value(py),);
                let ends = calls.call_method1(intern!(py, "_source_failed"), arguments)?;
                if ends.is_truthy()? {
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    /// Wait for space.
    fn park<'py>(&mut self, calls: &Bound<'py, PyConcurrentCalls>) -> PyResult<Step<'py>> {
        let py = calls.py();
        let parked = Parked::on(self.factory.event_loop(py))?;
        calls.get().set_driver(py, &parked)?;
        let future = parked.hand_up(py)?;
        self.parked = Some(parked);
        self.begun = 0;
        Ok(Step::Yield(future))
    }
}

impl Coroutine for CallDriver {
    const NAME: &'static CStr = c"headrace._core.CallDriver";

    own_class!();

    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        let py = value.py();
        RaisedError::set_from(py, self.advance(value))
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        let calls = self.calls.bind(py).clone();
        let Some(pull) = &mut self.pull else {
            if self.parked.take().is_some() {
                calls.get().remove_driver(py);
            }
            return Err(error);
        };
        let pulled = pull.throw(py, error);
        match self.on_pulled(&calls, pulled)? {
            Some(step) => Ok(step),
            None => self.advance(py.None().bind(py)),
        }
    }

    fn abandon(&mut self, py: Python<'_>) {
        if let Some(mut pull) = self.pull.take() {
            pull.abandon(py);
        }
        self.parked = None;
    }
}

traverse!(CallDriver {
    calls,
    source,
    factory,
    pull,
    parked
});
