//! `Push`: one `next(item)`.

use std::ffi::CStr;
use std::sync::Arc;

use pyo3::prelude::*;

use super::line::{Advance, Line, Place};
use super::link::PushLink;
use crate::awaitable::{Class, Coroutine, Native, Seen, Step, Stopped};
use crate::drive::budget;
use crate::errors::Raised;

/// One item on its way down.
#[derive(Debug)]
pub(crate) struct Push {
    head: Py<PushLink>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    New(Py<PyAny>),
    Flying(Arc<Line>, Place),
    Done,
}

static CLASS: Class = Class::new();

impl Push {
    /// An awaitable that has not started.
    #[inline]
    pub(crate) fn make<'py>(
        head: Bound<'py, PushLink>,
        item: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = head.py();
        Native::alloc(py, || Self {
            head: head.unbind(),
            stage: Stage::New(item.unbind()),
        })
    }

    fn step<'py>(&mut self, value: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = value.py();
        let head = self.head.bind(py).clone();
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::New(item) => {
                let item = item.into_bound(py);
                let line = PushLink::open_line(&head, &item)?;
                if budget::spend(py) {
                    let rest =
                        Advance::Suspend(Place::Rest(item.unbind()), py.None().into_bound(py));
                    return self.finish(line, Ok(rest));
                }
                let outcome = line.advance(&head, item, 0);
                self.finish(line, outcome)
            }
            Stage::Flying(line, place) => {
                let outcome = line.resume(&head, place, Ok(value));
                self.finish(line, outcome)
            }
            Stage::Done => unreachable!("a finished awaitable is not stepped again"),
        }
    }

    #[inline]
    fn finish<'py>(
        &mut self,
        line: Arc<Line>,
        outcome: PyResult<Advance<'py>>,
    ) -> PyResult<Step<'py>> {
        match outcome? {
            Advance::Done(result) => Ok(Step::Return(result)),
            Advance::Suspend(place, object) => {
                self.stage = Stage::Flying(line, place);
                budget::renew();
                Ok(Step::Yield(object))
            }
        }
    }
}

impl Coroutine for Push {
    const NAME: &'static CStr = c"headrace._core.Push";

    fn class() -> &'static Class {
        &CLASS
    }

    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, Raised> {
        Raised::lower(value.py(), self.step(value))
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        let head = self.head.bind(py).clone();
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Flying(line, place) => {
                let outcome = line.resume(&head, place, Err(error));
                self.finish(line, outcome)
            }
            Stage::New(_) | Stage::Done => Err(error),
        }
    }

    fn traverse(&self, see: Seen<'_>) -> Result<(), Stopped> {
        see(self.head.as_any())?;
        match &self.stage {
            Stage::New(item) => see(item),
            Stage::Flying(_, place) => place.traverse(see),
            Stage::Done => Ok(()),
        }
    }

    fn abandon(&mut self, _py: Python<'_>) {
        self.stage = Stage::Done;
    }
}
