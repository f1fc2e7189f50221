//! The feeder: the part of a run that pulls items and calls their tasks, as long as there is room.

use std::ffi::CStr;

use pyo3::exceptions::PyIndexError;
use pyo3::intern;
use pyo3::prelude::*;

use super::engine::Engine;
use super::request::Requested;
use super::start::Admitted;
use crate::coroutine::{Class, Coroutine, Inner, Step};
use crate::errors::RaisedError;
use crate::object::gc::{Traverse, VisitError, Visitor, traverse};
use crate::pull::awaitable::{Pull, ResultFormat};
use crate::runtime::yield_budget;

/// For how many seconds it goes on without an event-loop iteration: tasks may end in their first step, and the source may always have
/// more.
const TIME: f64 = 0.0005;

/// The number of asyncio tasks that it starts in an iteration, where each lives until the next one though its task may have ended. With
/// more of them CPython's collector runs repeatedly and finds nothing: it runs whenever 700 more objects were created than freed.
const PILE: u32 = 96;

/// One pull of the source.
#[derive(Debug)]
enum SourcePull {
    /// Of a link whose class has not changed how it is pulled.
    Link(Pull),
    Other(Inner),
}

impl SourcePull {
    #[inline]
    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        match self {
            Self::Link(pull) => pull.send(value).map_err(|raised| raised.fetch(value.py())),
            Self::Other(pull) => pull.send(value),
        }
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        match self {
            Self::Link(pull) => pull.throw(py, error),
            Self::Other(pull) => pull.throw(py, error),
        }
    }
}

impl Traverse for SourcePull {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        match self {
            Self::Link(pull) => pull.traverse(visit),
            Self::Other(pull) => visit(pull.object()),
        }
    }
}

/// See [`Engine::feed`].
#[derive(Debug)]
pub(crate) struct Feeder {
    engine: Py<Engine>,
    /// The items that earlier runs have pulled and not called; `None` once there are none.
    kept: Option<Py<PyAny>>,
    pull: Option<SourcePull>,
    /// The task whose request it drives.
    driven: Option<u64>,
    /// The number of asyncio tasks that it has started since the last iteration.
    begun: u32,
    /// When the current iteration began, as far as it knows.
    since: Option<f64>,
    /// Whether the current pull has waited for one iteration.
    yielded: bool,
}

static CLASS: Class = Class::new();

impl Feeder {
    pub(super) fn new(engine: Py<Engine>, kept: Py<PyAny>) -> Self {
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
        let stepped = self.go_on(value);
        // No permits are prefetched while it waits for its source, or has nothing to do. One bare iteration is no such wait.
        let goes_on = match &stepped {
            Ok(Step::Yield(_)) if self.pull.is_none() => true,
            Ok(Step::Yield(awaited)) => {
                awaited.is_none() && !std::mem::replace(&mut self.yielded, true)
            }
            Ok(Step::Return(_)) | Err(_) => false,
        };
        if !goes_on {
            self.engine.get().client.clear(value.py());
        }
        stepped
    }

    fn go_on<'py>(&mut self, value: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = value.py();
        let engine = self.engine.bind(py).clone();
        let this = engine.get();
        loop {
            if let Some(id) = self.driven {
                match Engine::step_request(&engine, id, value)? {
                    Requested::Waits(waits_for) => {
                        self.rest();
                        return Ok(Step::Yield(waits_for));
                    }
                    Requested::Settled => self.driven = None,
                    Requested::OfFeeder | Requested::Elsewhere => {
                        self.driven = None;
                        return Ok(Step::Return(py.None().into_bound(py)));
                    }
                }
            }
            let admitted = if let Some(held) = this.take_held(py) {
                Engine::admit_held(&engine, held)?
            } else {
                let item = match self.next_item(&engine, value) {
                    Ok(Step::Return(item)) => item,
                    Ok(Step::Yield(waits_for)) => {
                        self.rest();
                        return Ok(Step::Yield(waits_for));
                    }
                    Err(None) => return Ok(Step::Return(py.None().into_bound(py))),
                    Err(Some(error)) => return Err(error),
                };
                Engine::admit(&engine, &item)?
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
                || (self.begun >= PILE && this.needs_flush());
            if is_long || yield_budget::take_rested() {
                self.rest();
                return Ok(Step::Yield(py.None().into_bound(py)));
            }
        }
    }

    /// The next item, or the object that its pull waits for. `None` if nothing may be pulled now.
    #[inline]
    fn next_item<'py>(
        &mut self,
        engine: &Bound<'py, Engine>,
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
            let pull = match this.link(py) {
                Some(link) => SourcePull::Link(Pull::new(link.clone(), ResultFormat::Item)),
                None => SourcePull::Other(Inner::of(this.pull(py)?)?),
            };
            self.yielded = false;
            self.pull.insert(pull).send(py.None().bind(py))
        };
        if !matches!(pulled, Ok(Step::Yield(_))) {
            self.pull = None;
        }
        pulled.map_err(Some)
    }

    /// The next item that an earlier run has kept.
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

    /// An event-loop iteration follows.
    fn rest(&mut self) {
        self.since = None;
        self.begun = 0;
    }
}

impl Coroutine for Feeder {
    const NAME: &'static CStr = c"headrace._core.Feeder";

    fn class() -> &'static Class {
        &CLASS
    }

    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        let py = value.py();
        RaisedError::set_from(py, self.step(value))
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        let engine = self.engine.bind(py).clone();
        engine.get().client.clear(py);
        if let Some(id) = self.driven.take() {
            // The task stays in the registry.
            engine.get().cancel_request(py, id)?;
            return Err(error);
        }
        // Between two pulls there is nothing to lose.
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
                Engine::admit(&engine, &item)?;
                Ok(Step::Return(py.None().into_bound(py)))
            }
        }
    }

    fn abandon(&mut self, py: Python<'_>) {
        if let Some(SourcePull::Link(pull)) = &mut self.pull {
            pull.abandon(py);
        }
        self.pull = None;
        self.engine.get().client.clear(py);
    }
}

traverse!(Feeder { engine, kept, pull });
