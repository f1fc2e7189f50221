//! Waiting: how a push starts to wait, is resumed at its suspend point, or is abandoned there. `Push` calls it.

use std::sync::Arc;

use pyo3::exceptions::PyGeneratorExit;
use pyo3::prelude::*;

use super::awaitable::CancelBaseline;
use super::deliver::{Delivered, Entry, Mode, answer};
use super::link::PyPushLink;
use super::nowait::has_acceptors;
use super::pipeline::{End, Pipeline, annotate};
use super::wait::{Awaited, Missing, PendingWait, SuspendPoint};
use super::work_stack::{PushState, Retained};
use crate::buffer::PendingPut;
use crate::coroutine::delegate::is_awaitable;
use crate::coroutine::{Inner, Step};
use crate::kernel::call_one;
use crate::runtime::asyncio;
use crate::source::{AnySource, SourcePoll};

/// The result of running a push.
pub(super) enum Advance<'py> {
    Done,
    Suspend(SuspendPoint, Bound<'py, PyAny>),
}

/// The result of a completed wait.
enum Resumed<'py> {
    /// Continue with this item.
    Item(Entry<'py>),
    /// The item was delivered.
    Delivered(Delivered<'py>),
    /// There is no item; continue with the stack.
    NoItem,
    Suspended(SuspendPoint, Bound<'py, PyAny>),
}

impl Pipeline {
    /// Run to the end of the push, or to a suspension.
    #[inline]
    pub(super) fn run<'py>(
        &self,
        head: &Bound<'py, PyPushLink>,
        state: &mut PushState,
        entry: Option<Entry<'py>>,
    ) -> PyResult<Advance<'py>> {
        match self.run_until_wait(head, state, entry, Mode::Await)? {
            None => Ok(Advance::Done),
            Some(wait) => self.start_wait(head, state, wait),
        }
    }

    /// Start to wait.
    #[inline(never)]
    pub(super) fn start_wait<'py>(
        &self,
        head: &Bound<'py, PyPushLink>,
        state: &mut PushState,
        wait: PendingWait,
    ) -> PyResult<Advance<'py>> {
        let resumed = self.begin_wait(head, state, wait)?;
        self.continue_run(head, state, resumed)
    }

    fn continue_run<'py>(
        &self,
        head: &Bound<'py, PyPushLink>,
        state: &mut PushState,
        mut resumed: Resumed<'py>,
    ) -> PyResult<Advance<'py>> {
        loop {
            let entry = match resumed {
                Resumed::Item(entry) => Some(entry),
                Resumed::NoItem => None,
                Resumed::Suspended(point, object) => return Ok(Advance::Suspend(point, object)),
                Resumed::Delivered(Delivered::Pending(wait)) => {
                    resumed = self.begin_wait(head, state, wait)?;
                    continue;
                }
                Resumed::Delivered(delivered) => {
                    self.on_delivered(state, delivered)?;
                    if state.is_over() {
                        return Ok(Advance::Done);
                    }
                    None
                }
            };
            match self.run_until_wait(head, state, entry, Mode::Await)? {
                None => return Ok(Advance::Done),
                Some(wait) => resumed = self.begin_wait(head, state, wait)?,
            }
        }
    }

    fn begin_wait<'py>(
        &self,
        head: &Bound<'py, PyPushLink>,
        state: &mut PushState,
        wait: PendingWait,
    ) -> PyResult<Resumed<'py>> {
        let py = head.py();
        let none = py.None().into_bound(py);
        match wait {
            PendingWait::Yield(item) => Ok(Resumed::Suspended(SuspendPoint::Yield(item), none)),
            PendingWait::Await(awaitable, awaited) => {
                let inner = Inner::of(awaitable.into_bound(py)).map_err(|error| match awaited {
                    Awaited::Callable { number, ref item } => {
                        self.stages[number].annotate(head, error, Some(item.bind(py)))
                    }
                    _ => error,
                })?;
                let step = inner.send(&none);
                self.on_await(head, state, inner, awaited, step)
            }
            PendingWait::Space(putting) => Self::put_or_wait(py, state, putting),
            PendingWait::Source(source, entry) => {
                let polled = source.poll_next(py);
                self.on_source(head, state, source, entry, polled)
            }
        }
    }

    /// Resume a push where it was suspended, with the value or error that its task sent.
    pub(super) fn resume<'py>(
        &self,
        head: &Bound<'py, PyPushLink>,
        state: &mut PushState,
        point: SuspendPoint,
        sent: Result<&Bound<'py, PyAny>, PyErr>,
        baseline: CancelBaseline,
    ) -> Result<Advance<'py>, Failure> {
        let py = head.py();
        // Without foreign code that could catch it, a thrown error is raised unchanged. `close()`
        // throws `GeneratorExit`: the producer has abandoned the push.
        let is_cancelled = sent.as_ref().is_err_and(|error| {
            !point.runs_foreign_code() || error.is_instance_of::<PyGeneratorExit>(py)
        });
        let missing = match &point {
            SuspendPoint::Await(_, Awaited::Sink(Some(missing))) => Some(missing.clone_ref(py)),
            _ => None,
        };
        let is_cancellation = |error: &PyErr| {
            asyncio::is_cancelled_error(py, error)
                && baseline.is_some_and(|cancels| cancels.rose_since(py))
        };
        let resumed = self
            .on_step(head, state, point, sent, baseline)
            .map_err(|error| {
                let was_cancelled = is_cancelled || is_cancellation(&error);
                match missing {
                    Some(missing) if was_cancelled => self.keep_part(py, state, missing),
                    // A sink that is not fused has accepted the item in spite of the error.
                    None if has_acceptors(py, &error) => state.checkpoint = None,
                    _ => {}
                }
                Failure {
                    error,
                    was_cancelled,
                }
            })?;
        self.continue_run(head, state, resumed)
            .map_err(|error| Failure {
                was_cancelled: is_cancellation(&error),
                error,
            })
    }

    /// Clean up a suspended push that will never be resumed.
    pub(super) fn abandon(&self, py: Python<'_>, state: &mut PushState, point: SuspendPoint) {
        match point {
            SuspendPoint::Source(wait, source, entry) => {
                source.abandon(py, wait);
                state.push(entry, Retained::Inner(source), false);
            }
            SuspendPoint::Await(inner, Awaited::Sink(Some(missing))) => {
                // Dropped first: its clean-up decides which branches lack the item.
                drop(inner);
                self.keep_part(py, state, missing);
            }
            point => drop(point),
        }
    }

    /// Retain an output for the branches of the fan that lack it.
    fn keep_part(&self, py: Python<'_>, state: &mut PushState, missing: Missing) {
        // Without a checkpoint the caller owns the item.
        if state.checkpoint.take().is_none() {
            return;
        }
        let branches: Vec<usize> = missing.branches.bind(py).extract().unwrap_or_default();
        if !branches.is_empty() {
            state.push(
                self.stages.len(),
                Retained::Part(missing.item, branches),
                false,
            );
        }
    }

    fn on_step<'py>(
        &self,
        head: &Bound<'py, PyPushLink>,
        state: &mut PushState,
        point: SuspendPoint,
        sent: Result<&Bound<'py, PyAny>, PyErr>,
        baseline: CancelBaseline,
    ) -> PyResult<Resumed<'py>> {
        let py = head.py();
        match point {
            SuspendPoint::Yield(item) => {
                sent?;
                Ok(item.map_or(Resumed::NoItem, |item| {
                    Resumed::Item((item.into_bound(py), 0))
                }))
            }
            SuspendPoint::Space(putting) => {
                // Dropping the wait leaves the buffer's queue. The push still holds the item.
                sent?;
                Self::put_or_wait(py, state, putting)
            }
            SuspendPoint::Await(inner, awaited) => {
                let step = match sent {
                    Ok(value) => inner.send(value),
                    Err(error) => {
                        let is_close = error.is_instance_of::<PyGeneratorExit>(py);
                        let step = inner.throw(py, error);
                        // The error of a `close()` gets no note that names an operator.
                        if is_close && let Err(error) = step {
                            return Err(error);
                        }
                        step
                    }
                };
                self.on_await(head, state, inner, awaited, step)
            }
            SuspendPoint::Source(wait, source, entry) => {
                let polled = source.resume(wait, sent, py);
                if let Err(error) = &polled
                    && asyncio::is_cancelled_error(py, error)
                    && baseline.is_some_and(|cancels| cancels.rose_since(py))
                {
                    source.cancelled(py);
                    state.push(entry, Retained::Inner(source), false);
                    return Err(polled.expect_err("matched as an error above"));
                }
                self.on_source(head, state, source, entry, polled)
            }
        }
    }

    /// Put the item into the buffer, or suspend until there is space.
    fn put_or_wait<'py>(
        py: Python<'py>,
        state: &PushState,
        mut putting: Box<PendingPut>,
    ) -> PyResult<Resumed<'py>> {
        match putting.step(py) {
            Ok(None) => Ok(Resumed::Delivered(Delivered::Accepted)),
            Ok(Some(object)) => Ok(Resumed::Suspended(SuspendPoint::Space(putting), object)),
            Err(refused) => Err(refused.into_error(py, state.caller_item(py))),
        }
    }

    /// Handle one step of an awaited object.
    fn on_await<'py>(
        &self,
        head: &Bound<'py, PyPushLink>,
        state: &mut PushState,
        inner: Inner,
        awaited: Awaited,
        step: PyResult<Step<'py>>,
    ) -> PyResult<Resumed<'py>> {
        let py = head.py();
        let result = match step {
            Ok(Step::Yield(object)) => {
                let point = SuspendPoint::Await(inner, awaited);
                return Ok(Resumed::Suspended(point, object));
            }
            Ok(Step::Return(result)) => Ok(result),
            Err(error) => Err(error),
        };
        let link = self.last(head);
        let delivered = match awaited {
            Awaited::Sink(_) => answer(result?),
            Awaited::Callable { item, number } => {
                let stage = &self.stages[number];
                let output = result
                    .and_then(|result| stage.kernel.resume(item.bind(py), result))
                    .map_err(|error| stage.annotate(head, error, Some(item.bind(py))))?;
                if let Some(output) = self.on_output(state, number, output) {
                    return Ok(Resumed::Item((output, number + 1)));
                }
                Ok(Delivered::Accepted)
            }
            Awaited::Callback {
                functions,
                item,
                next,
            } => {
                result.map_err(|error| annotate(link, error, "callbacks", Some(item.bind(py))))?;
                Self::call(link, functions, item.into_bound(py), next)
            }
            Awaited::Selector(item) => {
                let choice = result
                    .map_err(|error| annotate(link, error, "selector", Some(item.bind(py))))?;
                let End::Fan(fan) = &self.end else {
                    unreachable!("only a fan selects")
                };
                fan.get()
                    .deliver_by(link, item.bind(py), &choice, Mode::Await)
            }
        };
        delivered.map(Resumed::Delivered)
    }

    /// Call the callbacks at the end, starting with number `next`.
    pub(super) fn call<'py>(
        link: &Bound<'py, PyPushLink>,
        functions: Arc<[Py<PyAny>]>,
        item: Bound<'py, PyAny>,
        mut next: usize,
    ) -> PyResult<Delivered<'py>> {
        let py = link.py();
        while let Some(function) = functions.get(next) {
            next += 1;
            let result = call_one(function.bind(py), &item)
                .map_err(|raised| annotate(link, raised.fetch(py), "callbacks", Some(&item)))?;
            if is_awaitable(&result) {
                let awaited = Awaited::Callback {
                    functions,
                    item: item.unbind(),
                    next,
                };
                return Ok(Delivered::Pending(PendingWait::Await(
                    result.unbind(),
                    awaited,
                )));
            }
        }
        Ok(Delivered::Accepted)
    }

    /// Return the wait for the awaitable that the only callback returned.
    #[cold]
    pub(super) fn pending_callback(
        awaitable: Bound<'_, PyAny>,
        item: &Bound<'_, PyAny>,
    ) -> PendingWait {
        let awaited = Awaited::Callback {
            functions: Arc::new([]),
            item: item.clone().unbind(),
            next: 0,
        };
        PendingWait::Await(awaitable.unbind(), awaited)
    }

    /// Handle the result of polling an inner source.
    fn on_source<'py>(
        &self,
        head: &Bound<'py, PyPushLink>,
        state: &mut PushState,
        source: AnySource,
        entry: usize,
        polled: PyResult<SourcePoll<'py>>,
    ) -> PyResult<Resumed<'py>> {
        match polled.map_err(|error| self.stages[entry - 1].annotate(head, error, None))? {
            SourcePoll::Item(item) => Ok(Resumed::Item(state.on_inner_item(source, item, entry))),
            SourcePoll::End => Ok(Resumed::NoItem),
            SourcePoll::Wait(wait, object) => {
                state.mark_consumed();
                let point = SuspendPoint::Source(*wait, source, entry);
                Ok(Resumed::Suspended(point, object))
            }
        }
    }
}

/// The failure of a push that had been suspended.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: PyErr,
    /// The task was cancelled, or the producer has abandoned the push.
    pub(super) was_cancelled: bool,
}
