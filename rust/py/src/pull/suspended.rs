//! `SuspendedPull`: where a pull is suspended, and how it is resumed or abandoned. `Pull` resumes and abandons it.

use std::sync::atomic::Ordering::Relaxed;

use pyo3::exceptions::PyGeneratorExit;
use pyo3::prelude::*;

use super::link::PyPullLink;
use super::pipeline::{Advance, Awaited, Entry, Pipeline};

use crate::coroutine::Inner;
use crate::object::gc::traverse;
use crate::runtime::asyncio::Cancels;
use crate::source::{AnySource, SourcePoll, Wait};

/// The point where a pull is suspended.
#[derive(Debug)]
pub(crate) enum SuspendPoint {
    /// It has yielded to the event loop for the yield budget.
    Yield,
    /// It waits for an item that will enter stage `entry`: from the pipeline's source, or from the
    /// inner source of the stage before.
    Source { wait: Wait, entry: usize },
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

traverse!(enum SuspendPoint { Yield {}, Source { wait }, Callable { inner, item } });

impl Pipeline {
    /// [`Self::advance`] with an unpacked error, for callers off the hot path.
    pub(super) fn advance_boxed<'py>(
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
        let left = matches!(&sent, Err(error) if error.is_instance_of::<PyGeneratorExit>(py));
        match point {
            SuspendPoint::Yield => {
                sent?;
                self.advance_boxed(py, tail, None)
            }
            SuspendPoint::Source { wait, entry } => {
                self.guard.at.store(entry, Relaxed);
                let inner = self.inner_source(tail, entry);
                let source = inner.as_ref().unwrap_or(&self.source);
                let owner = entry.checked_sub(1).map(|index| &self.stages[index]);
                match source.resume(wait, sent, py) {
                    Ok(SourcePoll::Item(item)) => self.advance_boxed(py, tail, Some((item, entry))),
                    Ok(SourcePoll::End) => {
                        match owner {
                            None => self.end_upstream_of(0),
                            Some(stage) => stage.link(tail).set_inner_source(py, None),
                        }
                        self.advance_boxed(py, tail, None)
                    }
                    Ok(SourcePoll::Wait(wait, object)) => Ok(Self::wait(*wait, entry, object)),
                    Err(error) if left || cancelled(&error) => {
                        source.cancelled(py);
                        Err(error)
                    }
                    Err(error) => {
                        let error = match owner {
                            None => error,
                            Some(stage) => stage.annotate(tail, error, None),
                        };
                        self.resume_with_error(py, tail, error, entry)
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
            SuspendPoint::Source { wait, entry } => {
                let inner = self.inner_source(tail, entry);
                inner.as_ref().unwrap_or(&self.source).abandon(py, wait);
            }
            SuspendPoint::Callable { inner, item, stage } => {
                // Save the item first: dropping the coroutine runs its `finally` blocks.
                self.retain(tail, stage, item.into_bound(py));
                drop(inner);
            }
        }
    }

    /// Return the inner source whose items enter stage `entry`, if there is one.
    fn inner_source(&self, tail: &Bound<'_, PyPullLink>, entry: usize) -> Option<AnySource> {
        let stage = &self.stages[entry.checked_sub(1)?];
        stage.link(tail).inner_source(tail.py())
    }

    fn retain(&mut self, tail: &Bound<'_, PyPullLink>, number: usize, item: Bound<'_, PyAny>) {
        self.stages[number].link(tail).retain(item);
        self.add_pending(number);
    }
}
