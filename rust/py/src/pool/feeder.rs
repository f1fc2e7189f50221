//! The feeder: the coroutine of a run that pulls items and calls their tasks while there is space.
//! `engine.rs` makes it.

use std::ffi::CStr;

use pyo3::exceptions::PyIndexError;
use pyo3::intern;
use pyo3::prelude::*;

use super::engine::PyEngine;
use super::request::Requested;
use super::start::Admitted;
use crate::coroutine::{Coroutine, Step, own_class};
use crate::errors::RaisedError;
use crate::object::gc::traverse;
use crate::pull::source_pull::SourcePull;
use crate::runtime::yield_budget;

/// The maximum number of seconds between two yields to the event loop. Without it, tasks that end in their first step and a source
/// that never waits would block the event loop.
const TIME: f64 = 0.0005;

/// The coroutine of [`PyEngine::feed`].
#[derive(Debug)]
pub(crate) struct Feeder {
    engine: Py<PyEngine>,
    /// The items that earlier runs pulled and did not call; `None` once all are taken.
    kept: Option<Py<PyAny>>,
    pull: Option<SourcePull>,
    /// The task whose request for capacity the feeder drives.
    driven: Option<u64>,
    /// The number of asyncio tasks started in the current event-loop iteration.
    begun: u32,
    /// The time of the first call in the current event-loop iteration.
    since: Option<f64>,
    /// Whether the current pull has waited for one bare event-loop iteration.
    yielded: bool,
}

impl Feeder {
    pub(super) fn new(engine: Py<PyEngine>, kept: Py<PyAny>) -> Self {
        Self {
            engine,
            kept: Some(kept),
            pull: None,
            driven: None,
            begun: 0,
            since: None,
            yielded: false,
        }
    }

    fn step<'py>(&mut self, value: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let stepped = self.advance(value);
        // While the feeder waits for the source or is idle, it must hold no prefetched permits. One bare event-loop iteration is
        // too short to count as a wait.
        let keeps_permits = match &stepped {
            Ok(Step::Yield(_)) if self.pull.is_none() => true,
            Ok(Step::Yield(awaited)) => {
                awaited.is_none() && !std::mem::replace(&mut self.yielded, true)
            }
            Ok(Step::Return(_)) | Err(_) => false,
        };
        if !keeps_permits {
            self.engine.get().client.clear(value.py());
        }
        stepped
    }

    fn advance<'py>(&mut self, value: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = value.py();
        let engine = self.engine.bind(py).clone();
        let this = engine.get();
        loop {
            if let Some(id) = self.driven {
                match PyEngine::step_request(&engine, id, true, value)? {
                    Requested::Waits(waits_for) => {
                        self.start_iteration();
                        return Ok(Step::Yield(waits_for));
                    }
                    Requested::Settled => self.driven = None,
                    Requested::OfFeeder | Requested::Elsewhere => {
                        self.driven = None;
                        return Ok(Step::Return(py.None().into_bound(py)));
                    }
                }
            }
            let admitted = if let Some(held) = this.take_held(py)? {
                PyEngine::admit_held(&engine, held)?
            } else {
                let item = match self.next_item(&engine, value) {
                    Ok(Step::Return(item)) => item,
                    Ok(Step::Yield(waits_for)) => {
                        self.start_iteration();
                        return Ok(Step::Yield(waits_for));
                    }
                    Err(None) => return Ok(Step::Return(py.None().into_bound(py))),
                    Err(Some(error)) => return Err(error),
                };
                PyEngine::admit(&engine, &item)?
            };
            let called = match admitted {
                Admitted::Settled(called) => called,
                Admitted::OfFeeder(id) => {
                    self.driven = Some(id);
                    continue;
                }
                Admitted::Waits => continue,
            };
            self.begun += 1;
            let is_long = called - *self.since.get_or_insert(called) > TIME
                || this.factory.is_full(self.begun);
            if is_long || yield_budget::take_rested() {
                self.start_iteration();
                return Ok(Step::Yield(py.None().into_bound(py)));
            }
        }
    }

    /// Return the next item, or the object that its pull waits for. The error is `None` if no item may be pulled now.
    #[inline]
    fn next_item<'py>(
        &mut self,
        engine: &Bound<'py, PyEngine>,
        value: &Bound<'py, PyAny>,
    ) -> Result<Step<'py>, Option<PyErr>> {
        let py = value.py();
        let this = engine.get();
        let pulled = if let Some(pull) = &mut self.pull {
            pull.send(value)
        } else {
            if this.is_holding() || !this.is_ready(py) || !this.events.get().has_room(py, None) {
                return Err(None);
            }
            if let Some(item) = self.next_kept(py)? {
                return Ok(Step::Return(item));
            }
            let pull = this.source.pull(py)?;
            self.yielded = false;
            self.pull.insert(pull).send(py.None().bind(py))
        };
        if !matches!(pulled, Ok(Step::Yield(_))) {
            self.pull = None;
        }
        pulled.map_err(Some)
    }

    /// Return the next item that an earlier run pulled and did not call.
    #[inline]
    fn next_kept<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(kept) = &self.kept else {
            return Ok(None);
        };
        match kept.bind(py).call_method0(intern!(py, "popleft")) {
            Ok(item) => Ok(Some(item)),
            Err(error) if error.is_instance_of::<PyIndexError>(py) => {
                self.kept = None;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Reset the limits of an event-loop iteration, before the feeder yields to the event loop.
    fn start_iteration(&mut self) {
        self.since = None;
        self.begun = 0;
    }
}

impl Coroutine for Feeder {
    const NAME: &'static CStr = c"headrace._core.Feeder";

    own_class!();

    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        let py = value.py();
        RaisedError::set_from(py, self.step(value))
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        let engine = self.engine.bind(py).clone();
        engine.get().client.clear(py);
        if let Some(id) = self.driven.take() {
            // The task stays in the registry, without a request.
            engine.get().cancel_request(py, id)?;
            return Err(error);
        }
        // Between two pulls the feeder holds no item.
        let Some(pull) = &mut self.pull else {
            return Err(error);
        };
        let thrown = pull.throw(py, error);
        if !matches!(thrown, Ok(Step::Yield(_))) {
            self.pull = None;
        }
        match thrown? {
            Step::Yield(waits_for) => Ok(Step::Yield(waits_for)),
            Step::Return(item) => {
                PyEngine::admit(&engine, &item)?;
                Ok(Step::Return(py.None().into_bound(py)))
            }
        }
    }

    fn abandon(&mut self, py: Python<'_>) {
        if let Some(mut pull) = self.pull.take() {
            pull.abandon(py);
        }
        self.engine.get().client.clear(py);
    }
}

traverse!(Feeder { engine, kept, pull });
