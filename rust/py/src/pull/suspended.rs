//! A pull that is suspended: where, and how it goes on.

use std::sync::atomic::Ordering::Relaxed;

use pyo3::exceptions::PyGeneratorExit;
use pyo3::prelude::*;

use super::link::PullLink;
use super::pipeline::{Advance, Begun, Entry, Line};

use crate::coroutine::Inner;
use crate::object::gc::{Traverse, VisitError, Visitor};
use crate::runtime::asyncio::Cancels;
use crate::source::{SourcePoll, Wait};

/// Where it is suspended.
#[derive(Debug)]
pub(crate) enum Place {
    /// It lets the loop have a turn.
    Rest,
    /// It waits for the source; or, with a number, for what that stage is handing on.
    Draw(Wait, Option<usize>),
    /// It awaits what the callable of stage number `stage` returned for `item`.
    Stage {
        inner: Inner,
        item: Py<PyAny>,
        stage: usize,
    },
}

/// A suspended pull. It is kept in the link rather than in the awaitable, so that closing the link
/// reaches it.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) place: Place,
    /// What was handed up to the task: closing cancels it, which makes the task go on.
    pub(crate) awaiting: Py<PyAny>,
    /// How often the task had been asked to cancel when the pull was suspended first.
    pub(crate) cancels: Cancels,
    /// Closing has cancelled it already; what it still does is its clean-up.
    pub(crate) interrupted: bool,
}

impl Traverse for Flight {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        visit(&self.awaiting)?;
        match &self.place {
            Place::Rest => Ok(()),
            Place::Draw(wait, _) => wait.traverse(visit),
            Place::Stage { inner, item, .. } => {
                visit(inner.object())?;
                visit(item)
            }
        }
    }
}

impl Line {
    /// [`Self::advance`], where a result may be large.
    fn go_on<'py>(
        &mut self,
        py: Python<'py>,
        tail: &Bound<'py, PullLink>,
        entry: Option<Entry<'py>>,
    ) -> PyResult<Advance<'py>> {
        self.advance(py, tail, entry)
            .map_err(|raised| raised.fetch(py))
    }

    /// Goes on with an error that comes into stage `from`.
    fn catch_in<'py>(
        &mut self,
        py: Python<'py>,
        tail: &Bound<'py, PullLink>,
        error: PyErr,
        from: usize,
    ) -> PyResult<Advance<'py>> {
        let entry = self
            .catch(py, error, from)
            .map_err(|raised| raised.fetch(py))?;
        self.go_on(py, tail, Some(entry))
    }

    /// Goes on where a pull was suspended, with what its task sent or threw.
    ///
    /// `cancelled` says whether an error that comes out is a cancellation of this pull; it is asked
    /// only then.
    pub(crate) fn resume<'py>(
        &mut self,
        py: Python<'py>,
        tail: &Bound<'py, PullLink>,
        place: Place,
        sent: Result<&Bound<'py, PyAny>, PyErr>,
        cancelled: impl Fn(&PyErr) -> bool,
    ) -> PyResult<Advance<'py>> {
        // A `GeneratorExit` that is thrown in comes from `close()`: whoever pulled has gone.
        let left = sent
            .as_ref()
            .err()
            .is_some_and(|error| error.is_instance_of::<PyGeneratorExit>(py));
        match place {
            Place::Rest => {
                sent?;
                self.go_on(py, tail, None)
            }
            Place::Draw(wait, stage) => {
                self.claim
                    .at
                    .store(stage.map_or(0, |number| number + 1), Relaxed);
                let pending = match stage {
                    None => None,
                    Some(number) => self.stages[number].link(tail).pending(py),
                };
                let feed = pending.as_ref().unwrap_or(&self.feed);
                match feed.resume(wait, sent, py) {
                    Ok(SourcePoll::Item(item)) => {
                        let next = stage.map_or(0, |number| number + 1);
                        self.go_on(py, tail, Some((item, next)))
                    }
                    Ok(SourcePoll::End) => {
                        match stage {
                            None => self.end_above(0),
                            Some(number) => self.stages[number].link(tail).set_pending(py, None),
                        }
                        self.go_on(py, tail, None)
                    }
                    Ok(SourcePoll::Wait(wait, object)) => Ok(Self::wait(*wait, stage, object)),
                    Err(error) if left || cancelled(&error) => {
                        feed.cancelled(py);
                        Err(error)
                    }
                    Err(error) => {
                        let (error, next) = match stage {
                            None => (error, 0),
                            Some(number) => (self.stages[number].blame(tail, error), number + 1),
                        };
                        self.catch_in(py, tail, error, next)
                    }
                }
            }
            Place::Stage {
                inner,
                item,
                stage: number,
            } => {
                self.claim.at.store(number + 1, Relaxed);
                let item = item.into_bound(py);
                let step = match sent {
                    Ok(value) => inner.send(value),
                    Err(error) => inner.throw(py, error),
                };
                if let Err(error) = &step
                    && (left || cancelled(error))
                {
                    self.keep(tail, number, item);
                    return Err(step.expect_err("it was matched as an error"));
                }
                let entry = match self.went(tail, number, &item, inner, step) {
                    Ok(Begun::Went(Some(output))) => Some((output, number + 1)),
                    Ok(Begun::Went(None)) => None,
                    Ok(Begun::Suspended(suspended)) => return Ok(Advance::Suspend(suspended)),
                    Err(error) => return self.catch_in(py, tail, error, number + 1),
                };
                self.go_on(py, tail, entry)
            }
        }
    }

    /// A pull that was suspended will never go on.
    pub(crate) fn abandon(&mut self, tail: &Bound<'_, PullLink>, place: Place) {
        let py = tail.py();
        match place {
            Place::Rest => {}
            Place::Draw(wait, stage) => {
                let pending = match stage {
                    None => None,
                    Some(number) => self.stages[number].link(tail).pending(py),
                };
                pending.as_ref().unwrap_or(&self.feed).abandon(py, wait);
            }
            Place::Stage { inner, item, stage } => {
                // The item first: dropping the coroutine runs its `finally`.
                self.keep(tail, stage, item.into_bound(py));
                drop(inner);
            }
        }
    }

    fn keep(&mut self, tail: &Bound<'_, PullLink>, number: usize, item: Bound<'_, PyAny>) {
        self.stages[number].link(tail).keep(item);
        self.load(number);
    }
}
