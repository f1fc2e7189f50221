//! `SuspendedPull`: where a pull is suspended, and how it is resumed or abandoned.

use std::sync::atomic::Ordering::Relaxed;

use pyo3::exceptions::PyGeneratorExit;
use pyo3::prelude::*;

use super::link::PyPullLink;
use super::pipeline::{Advance, Awaited, Entry, Pipeline};

use crate::coroutine::Inner;
use crate::object::gc::traverse;
use crate::runtime::asyncio::Cancels;
use crate::source::{SourcePoll, Wait};

/// The point where a pull is suspended.
#[derive(Debug)]
pub(crate) enum SuspendPoint {
    /// It has yielded to the event loop for the yield budget.
    Yield,
    /// It waits for the pipeline's source or, with an index, for the inner source of that stage.
    Source(Wait, Option<usize>),
    /// It awaits the object that the callable of stage `stage` returned for `item`.
    Callable {
        inner: Inner,
        item: Py<PyAny>,
        stage: usize,
    },
}

/// A suspended pull. The link holds it rather than the awaitable, so that closing the link can
/// cancel it.
#[derive(Debug)]
pub(crate) struct SuspendedPull {
    pub(crate) point: SuspendPoint,
    /// The object that was yielded to the task. Closing cancels it, which resumes the task.
    pub(crate) awaiting: Py<PyAny>,
    /// The task's count of cancellation requests when the pull was first suspended.
    pub(crate) cancels: Cancels,
    /// Closing has already cancelled it. Its callable or source is cleaning up.
    pub(crate) interrupted: bool,
}

traverse!(SuspendedPull { awaiting, point });

traverse!(enum SuspendPoint { Yield {}, Source(wait, _), Callable { inner, item } });

impl Pipeline {
    /// [`Self::advance`] with an unpacked error, for callers off the hot path.
    fn advance_boxed<'py>(
        &mut self,
        py: Python<'py>,
        tail: &Bound<'py, PyPullLink>,
        entry: Option<Entry<'py>>,
    ) -> PyResult<Advance<'py>> {
        self.advance(py, tail, entry)
            .map_err(|raised| raised.fetch(py))
    }

    /// Continue with an error that enters stage `from`.
    fn resume_with_error<'py>(
        &mut self,
        py: Python<'py>,
        tail: &Bound<'py, PyPullLink>,
        error: PyErr,
        from: usize,
    ) -> PyResult<Advance<'py>> {
        let entry = self
            .route_error(py, error, from)
            .map_err(|raised| raised.fetch(py))?;
        self.advance_boxed(py, tail, Some(entry))
    }

    /// Resume a pull where it was suspended, with the value or error that its task sent.
    ///
    /// `cancelled` tests whether an error that leaves the pull is a cancellation of this pull. It
    /// is called only for errors.
    pub(crate) fn resume<'py>(
        &mut self,
        py: Python<'py>,
        tail: &Bound<'py, PyPullLink>,
        point: SuspendPoint,
        sent: Result<&Bound<'py, PyAny>, PyErr>,
        cancelled: impl Fn(&PyErr) -> bool,
    ) -> PyResult<Advance<'py>> {
        // `close()` throws `GeneratorExit`: the consumer has abandoned the pull.
        let left = sent
            .as_ref()
            .err()
            .is_some_and(|error| error.is_instance_of::<PyGeneratorExit>(py));
        match point {
            SuspendPoint::Yield => {
                sent?;
                self.advance_boxed(py, tail, None)
            }
            SuspendPoint::Source(wait, stage) => {
                self.guard
                    .at
                    .store(stage.map_or(0, |number| number + 1), Relaxed);
                let pending = match stage {
                    None => None,
                    Some(number) => self.stages[number].link(tail).inner_source(py),
                };
                let source = pending.as_ref().unwrap_or(&self.source);
                match source.resume(wait, sent, py) {
                    Ok(SourcePoll::Item(item)) => {
                        let next = stage.map_or(0, |number| number + 1);
                        self.advance_boxed(py, tail, Some((item, next)))
                    }
                    Ok(SourcePoll::End) => {
                        match stage {
                            None => self.end_upstream_of(0),
                            Some(number) => {
                                self.stages[number].link(tail).set_inner_source(py, None);
                            }
                        }
                        self.advance_boxed(py, tail, None)
                    }
                    Ok(SourcePoll::Wait(wait, object)) => Ok(Self::wait(*wait, stage, object)),
                    Err(error) if left || cancelled(&error) => {
                        source.cancelled(py);
                        Err(error)
                    }
                    Err(error) => {
                        let (error, next) = match stage {
                            None => (error, 0),
                            Some(number) => (self.stages[number].annotate(tail, error), number + 1),
                        };
                        self.resume_with_error(py, tail, error, next)
                    }
                }
            }
            SuspendPoint::Callable {
                inner,
                item,
                stage: number,
            } => {
                self.guard.at.store(number + 1, Relaxed);
                let item = item.into_bound(py);
                let step = match sent {
                    Ok(value) => inner.send(value),
                    Err(error) => inner.throw(py, error),
                };
                if let Err(error) = &step
                    && (left || cancelled(error))
                {
                    self.retain(tail, number, item);
                    return Err(step.expect_err("matched as an error above"));
                }
                let entry = match self.on_step(tail, number, &item, inner, step) {
                    Ok(Awaited::Done(Some(output))) => Some((output, number + 1)),
                    Ok(Awaited::Done(None)) => None,
                    Ok(Awaited::Suspended(suspended)) => return Ok(Advance::Suspend(suspended)),
                    Err(error) => return self.resume_with_error(py, tail, error, number + 1),
                };
                self.advance_boxed(py, tail, entry)
            }
        }
    }

    /// Clean up a suspended pull that will never be resumed.
    pub(crate) fn abandon(&mut self, tail: &Bound<'_, PyPullLink>, point: SuspendPoint) {
        let py = tail.py();
        match point {
            SuspendPoint::Yield => {}
            SuspendPoint::Source(wait, stage) => {
                let pending = match stage {
                    None => None,
                    Some(number) => self.stages[number].link(tail).inner_source(py),
                };
                pending.as_ref().unwrap_or(&self.source).abandon(py, wait);
            }
            SuspendPoint::Callable { inner, item, stage } => {
                // Save the item first: dropping the coroutine runs its `finally` blocks.
                self.retain(tail, stage, item.into_bound(py));
                drop(inner);
            }
        }
    }

    fn retain(&mut self, tail: &Bound<'_, PyPullLink>, number: usize, item: Bound<'_, PyAny>) {
        self.stages[number].link(tail).retain(item);
        self.add_pending(number);
    }
}
