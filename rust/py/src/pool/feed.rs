//! What pulls tasks and has them called, as long as they are plain and there is room.

use std::ffi::CStr;

use pyo3::prelude::*;

use super::lane::{Lane, Launch};
use super::waiting::{Waited, Waiting};
use crate::coroutine::{Class, Coroutine, Inner, Step};
use crate::errors::RaisedError;
use crate::object::gc::{Traverse, VisitError, Visitor, traverse};
use crate::pull::awaitable::{Pull, ResultFormat};
use crate::runtime::yield_budget;

/// For how long it goes on without a turn of the loop, in seconds: what is called may end at once, and its
/// source always have more.
const TIME: f64 = 0.0005;

/// How many asyncio tasks it begins in a turn where each lives until the next, though it may have ended: with more of them
/// CPython's collector runs again and again, and finds nothing. (It does whenever 700 more objects were made than went, and
/// each of them is three; what they do in their first step has the rest.)
const PILE: u32 = 96;

/// One pull of the source.
#[derive(Debug)]
enum Draw {
    /// Of a link whose class has left pulling alone.
    Link(Pull),
    Other(Inner),
}

impl Draw {
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

impl Traverse for Draw {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        match self {
            Self::Link(pull) => pull.traverse(visit),
            Self::Other(pull) => visit(pull.object()),
        }
    }
}

/// See [`Lane::feed`].
#[derive(Debug)]
pub(crate) struct Feed {
    lane: Py<Lane>,
    draw: Option<Draw>,
    /// How many asyncio tasks it has begun since then that live until the loop turns.
    begun: u32,
    /// Whether what it pulled last waits for its capacity.
    waits: bool,
    /// When it last came from a turn of the loop, as far as it knows.
    since: Option<f64>,
    /// Whether the pull under way has let the loop turn once.
    turned: bool,
}

static CLASS: Class = Class::new();

impl Feed {
    pub(super) fn new(py: Python<'_>, lane: Py<Lane>) -> Self {
        // As a rule nothing does, since Python withdraws what waited in a feed that ended.
        let waits = lane.get().waiting.borrow(py).is_some();
        Self {
            lane,
            draw: None,
            begun: 0,
            waits,
            since: None,
            turned: false,
        }
    }

    fn step<'py>(&mut self, value: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let stepped = self.go_on(value);
        // If it waits for its source, or has nothing, nobody looks at what is granted. One bare turn of the loop is no such wait; and
        // who gets an item asks for it.
        let goes_on = match &stepped {
            Ok(Step::Yield(_)) if self.draw.is_none() => true,
            Ok(Step::Yield(awaited)) => {
                awaited.is_none() && !std::mem::replace(&mut self.turned, true)
            }
            Ok(Step::Return(item)) => !item.is(self.lane.bind(value.py())),
            Err(_) => false,
        };
        if !goes_on {
            self.lane.get().granter.clear(value.py());
        }
        stepped
    }

    fn go_on<'py>(&mut self, value: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = value.py();
        let lane = self.lane.bind(py).clone();
        let this = lane.get();
        loop {
            if self.waits {
                match Waiting::step(&lane, value)? {
                    Waited::Still(waits_for) => {
                        self.rest();
                        return Ok(Step::Yield(waits_for));
                    }
                    Waited::Called => self.waits = false,
                    Waited::Left => {
                        self.waits = false;
                        return Ok(Step::Return(lane.into_any()));
                    }
                }
            }
            let pulled = match &mut self.draw {
                Some(draw) => draw.send(value),
                None if this.is_open() => {
                    let draw = match this.link(py) {
                        Some(link) => Draw::Link(Pull::new(link.clone(), ResultFormat::Item)),
                        None => Draw::Other(Inner::of(this.pull(py)?)?),
                    };
                    self.turned = false;
                    self.draw.insert(draw).send(py.None().bind(py))
                }
                None => return Ok(Step::Return(lane.into_any())),
            };
            let item = match pulled {
                Ok(Step::Yield(waits_for)) => {
                    self.rest();
                    return Ok(Step::Yield(waits_for));
                }
                Ok(Step::Return(item)) => item,
                Err(error) => {
                    self.draw = None;
                    return Err(error);
                }
            };
            self.draw = None;
            if !this.is_open() {
                return Ok(Step::Return(item));
            }
            let called = match Lane::launch(&lane, &item)? {
                Launch::Called(called) => called,
                Launch::Waits => {
                    self.waits = true;
                    continue;
                }
                Launch::Refused => continue,
                Launch::Left => return Ok(Step::Return(item)),
            };
            self.begun += 1;
            let is_long = called - *self.since.get_or_insert(called) > TIME
                || (self.begun >= PILE && this.piles_up());
            if is_long || yield_budget::take_rested() {
                self.rest();
                return Ok(Step::Yield(py.None().into_bound(py)));
            }
        }
    }

    /// The loop turns.
    fn rest(&mut self) {
        self.since = None;
        self.begun = 0;
    }
}

impl Coroutine for Feed {
    const NAME: &'static CStr = c"headrace._core.Feed";

    fn class() -> &'static Class {
        &CLASS
    }

    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        let py = value.py();
        RaisedError::set_from(py, self.step(value))
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        self.lane.get().granter.clear(py);
        if self.waits {
            // The task stays with the lane, from which Python withdraws it.
            self.waits = false;
            Waiting::stop(self.lane.get(), py)?;
            return Err(error);
        }
        // Between two pulls nothing is held that could be lost.
        let Some(draw) = &mut self.draw else {
            return Err(error);
        };
        match draw.throw(py, error)? {
            Step::Yield(waits_for) => Ok(Step::Yield(waits_for)),
            // Python calls it, or keeps it.
            Step::Return(item) => Ok(Step::Return(item)),
        }
    }

    fn abandon(&mut self, py: Python<'_>) {
        if let Some(Draw::Link(pull)) = &mut self.draw {
            pull.abandon(py);
        }
        self.draw = None;
        self.lane.get().granter.clear(py);
    }
}

traverse!(Feed { lane, draw });
