//! What pulls tasks and has them called, as long as they are plain and there is room.

use std::ffi::CStr;

use pyo3::prelude::*;

use super::lane::{Lane, Launch};
use super::waiting::{Waited, Waiting};
use crate::awaitable::{Class, Coroutine, Inner, Seen, Step, Stopped};
use crate::drive::budget;
use crate::errors::Raised;

/// For how long it goes on without a turn of the loop, in seconds: what is called may end at once, and its
/// source always have more.
const TIME: f64 = 0.0005;

/// See [`Lane::feed`].
#[derive(Debug)]
pub(crate) struct Feed {
    lane: Py<Lane>,
    pull: Option<Inner>,
    /// Whether what it pulled last waits for its capacity.
    waits: bool,
    /// When it last came from a turn of the loop, as far as it knows.
    since: Option<f64>,
}

static CLASS: Class = Class::new();

impl Feed {
    pub(super) fn new(py: Python<'_>, lane: Py<Lane>) -> Self {
        // As a rule nothing does, since Python withdraws what waited in a feed that ended.
        let waits = lane.get().waiting.borrow(py).is_some();
        Self {
            lane,
            pull: None,
            waits,
            since: None,
        }
    }

    fn step<'py>(&mut self, value: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = value.py();
        let lane = self.lane.bind(py).clone();
        let this = lane.get();
        loop {
            if self.waits {
                match Waiting::step(&lane, value)? {
                    Waited::Still(waits_for) => {
                        self.since = None;
                        return Ok(Step::Yield(waits_for));
                    }
                    Waited::Called => self.waits = false,
                    Waited::Left => {
                        self.waits = false;
                        return Ok(Step::Return(lane.into_any()));
                    }
                }
            }
            let pulled = match &self.pull {
                Some(pull) => pull.send(value)?,
                None if this.is_open() => {
                    let pull = self.pull.insert(Inner::of(this.pull(py)?)?);
                    pull.send(py.None().bind(py))?
                }
                None => return Ok(Step::Return(lane.into_any())),
            };
            let item = match pulled {
                Step::Yield(waits_for) => {
                    self.since = None;
                    return Ok(Step::Yield(waits_for));
                }
                Step::Return(item) => item,
            };
            self.pull = None;
            if !this.is_open() {
                return Ok(Step::Return(item));
            }
            let called = match Lane::launch(&lane, &item)? {
                Launch::Called(called) => called,
                Launch::Waits => {
                    self.waits = true;
                    continue;
                }
                Launch::Left => return Ok(Step::Return(item)),
            };
            if called - *self.since.get_or_insert(called) > TIME || budget::take_rested() {
                self.since = None;
                return Ok(Step::Yield(py.None().into_bound(py)));
            }
        }
    }
}

impl Coroutine for Feed {
    const NAME: &'static CStr = c"headrace._core.Feed";

    fn class() -> &'static Class {
        &CLASS
    }

    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, Raised> {
        let py = value.py();
        Raised::lower(py, self.step(value))
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        if self.waits {
            // The task stays with the lane, from which Python withdraws it.
            self.waits = false;
            Waiting::stop(self.lane.get(), py)?;
            return Err(error);
        }
        // Between two pulls nothing is held that could be lost.
        let Some(pull) = &self.pull else {
            return Err(error);
        };
        match pull.throw(py, error)? {
            Step::Yield(waits_for) => Ok(Step::Yield(waits_for)),
            // Python calls it, or keeps it.
            Step::Return(item) => Ok(Step::Return(item)),
        }
    }

    fn traverse(&self, see: Seen<'_>) -> Result<(), Stopped> {
        see(self.lane.as_any())?;
        self.pull.as_ref().map_or(Ok(()), |pull| see(pull.object()))
    }

    fn abandon(&mut self, _py: Python<'_>) {
        self.pull = None;
    }
}
