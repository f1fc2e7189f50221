//! `Push`: the awaitable of one `next(item)`, or of the flush before the end.
//! `PyPushLink` and the branches of a fan make it.

use std::ffi::CStr;
use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::deliver::{Delivered, Mode};
use super::link::PyPushLink;
use super::pipeline::Pipeline;
use super::resume::{Advance, Failure};
use super::wait::{PendingWait, SuspendPoint};
use super::work_stack::PushState;
use crate::buffer::PyBuffer;
use crate::coroutine::{Coroutine, Native, Step, own_class};
use crate::errors;
use crate::errors::RaisedError;
use crate::object::gc::traverse;
use crate::object::iterator_result::PyIteratorResult;
use crate::runtime::asyncio::Cancels;
use crate::runtime::yield_budget;

/// One item on its way to a sink, or the flush of a pipeline.
#[derive(Debug)]
pub(crate) struct Push {
    head: Py<PyPushLink>,
    phase: PushPhase,
}

#[derive(Debug)]
enum PushPhase {
    New(Py<PyAny>),
    NewFlush,
    /// A fan has delivered the item as far as possible without waiting.
    Pending(Box<PendingPush>),
    Suspended(Box<SuspendedPush>),
    Done,
}

/// The task's count of cancellation requests when the push first waited for foreign code. `None`
/// before that: then a thrown error is a cancellation, and any other error is not.
pub(super) type CancelBaseline = Option<Cancels>;

/// A push between two steps.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) state: PushState,
}

traverse!(InFlight { state });

/// A push whose next wait has not started.
#[derive(Debug)]
struct PendingPush(InFlight, PendingWait);

traverse!(PendingPush { 0, 1 });

/// A suspended push.
#[derive(Debug)]
struct SuspendedPush(InFlight, SuspendPoint, CancelBaseline);

traverse!(SuspendedPush { 0, 1 });

impl Push {
    /// Create an awaitable that has not started.
    #[inline]
    pub(super) fn make<'py>(
        head: Bound<'py, PyPushLink>,
        item: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = head.py();
        Native::alloc(py, || Self {
            head: head.unbind(),
            phase: PushPhase::New(item.unbind()),
        })
    }

    /// Create a flush: it delivers the items that the pipeline holds, and returns the push object
    /// in which the pipeline ends.
    pub(super) fn flush<'py>(head: &Bound<'py, PyPushLink>) -> PyResult<Bound<'py, PyAny>> {
        // Built now, so that only flushing can fail later.
        PyPushLink::pipeline(head)?;
        let py = head.py();
        let head = head.clone().unbind();
        Native::alloc(py, || Self {
            head,
            phase: PushPhase::NewFlush,
        })
    }

    /// Create a push that continues with this wait.
    pub(super) fn pending<'py>(
        head: &Bound<'py, PyPushLink>,
        in_flight: InFlight,
        wait: PendingWait,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = head.py();
        let phase = PushPhase::Pending(Box::new(PendingPush(in_flight, wait)));
        let head = head.clone().unbind();
        Native::alloc(py, || Self { head, phase })
    }

    fn step<'py>(&mut self, value: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = value.py();
        let head = self.head.bind(py).clone();
        match std::mem::replace(&mut self.phase, PushPhase::Done) {
            PushPhase::New(item) => {
                self.begin(&head, &item.into_bound(py), || yield_budget::spend(py))
            }
            PushPhase::NewFlush => {
                let pipeline = PyPushLink::pipeline(&head)?;
                let mut state = PushState::flush();
                state.flushing = Some(0);
                let outcome = pipeline.run(&head, &mut state, None);
                self.on_first_step(&head, InFlight { pipeline, state }, outcome)
            }
            PushPhase::Pending(pending) => {
                let PendingPush(mut in_flight, wait) = *pending;
                let InFlight { pipeline, state } = &mut in_flight;
                let outcome = pipeline.start_wait(&head, state, wait);
                self.on_first_step(&head, in_flight, outcome)
            }
            PushPhase::Suspended(suspended) => self.resume(&head, *suspended, Ok(value)),
            PushPhase::Done => unreachable!("a finished awaitable is not stepped again"),
        }
    }

    /// Run the first step. The yield budget is charged only if the link accepts items.
    fn begin<'py>(
        &mut self,
        head: &Bound<'py, PyPushLink>,
        item: &Bound<'py, PyAny>,
        must_yield: impl FnOnce() -> bool,
    ) -> PyResult<Step<'py>> {
        let py = head.py();
        let pipeline = PyPushLink::open_pipeline(head, item)?;
        let must_yield = must_yield();
        if pipeline.stages.is_empty() && !must_yield {
            return self.push_without_stages(head, pipeline, item);
        }
        let mut state = PushState::of(item);
        let outcome = if must_yield {
            pipeline.start_wait(
                head,
                &mut state,
                PendingWait::Yield(Some(item.clone().unbind())),
            )
        } else {
            pipeline.run(head, &mut state, Some((item.clone(), 0)))
        };
        // A push that does not wait returns here, without moving its state.
        if let Ok(Advance::Done) = outcome {
            return state.result(py).map(Step::Return);
        }
        self.on_first_step(head, InFlight { pipeline, state }, outcome)
    }

    /// Run the first step of a push directly into a buffer. This path is in one piece and returns
    /// through registers; every other case branches off here.
    #[inline]
    fn store<'py>(
        &mut self,
        py: Python<'py>,
        item: Py<PyAny>,
        buffer: Py<PyBuffer>,
    ) -> Result<Step<'py>, RaisedError> {
        let must_yield = yield_budget::spend(py);
        let item = if must_yield {
            item
        } else {
            match buffer.get().core().try_put(item) {
                Ok(()) => {
                    drop(buffer.into_bound(py));
                    return RaisedError::set_from(
                        py,
                        PyIteratorResult::accepted(py).map(Step::Return),
                    );
                }
                Err(refused) => refused.into_item(),
            }
        };
        // Retry a refused item on the general path, which waits or returns the item.
        let head = self.head.bind(py).clone();
        RaisedError::set_from(py, self.begin(&head, &item.into_bound(py), || must_yield))
    }

    /// Run the first step in a pipeline without stages, which needs no push state unless it waits.
    #[inline(never)]
    fn push_without_stages<'py>(
        &mut self,
        head: &Bound<'py, PyPushLink>,
        pipeline: Arc<Pipeline>,
        item: &Bound<'py, PyAny>,
    ) -> PyResult<Step<'py>> {
        let py = head.py();
        match pipeline.deliver_to_end(head, item.clone(), Mode::Await, || None)? {
            Delivered::Accepted => PyIteratorResult::accepted(py).map(Step::Return),
            Delivered::Done => PyIteratorResult::end(py).map(Step::Return),
            Delivered::Answered(result) => Ok(Step::Return(result)),
            Delivered::Pending(wait) => {
                let mut state = PushState::of(item);
                let outcome = pipeline.start_wait(head, &mut state, wait);
                self.on_first_step(head, InFlight { pipeline, state }, outcome)
            }
        }
    }

    /// Handle the result of the first step.
    #[cold]
    fn on_first_step<'py>(
        &mut self,
        head: &Bound<'py, PyPushLink>,
        in_flight: InFlight,
        outcome: PyResult<Advance<'py>>,
    ) -> PyResult<Step<'py>> {
        let outcome = outcome.map_err(|error| Failure {
            error,
            was_cancelled: false,
        });
        self.on_step(head, in_flight, outcome, None)
    }

    fn resume<'py>(
        &mut self,
        head: &Bound<'py, PyPushLink>,
        suspended: SuspendedPush,
        sent: Result<&Bound<'py, PyAny>, PyErr>,
    ) -> PyResult<Step<'py>> {
        let SuspendedPush(mut in_flight, point, baseline) = suspended;
        let InFlight { pipeline, state } = &mut in_flight;
        let outcome = pipeline.resume(head, state, point, sent, baseline);
        self.on_step(head, in_flight, outcome, baseline)
    }

    /// Handle the result of a step: finish, suspend or fail the push.
    fn on_step<'py>(
        &mut self,
        head: &Bound<'py, PyPushLink>,
        in_flight: InFlight,
        outcome: Result<Advance<'py>, Failure>,
        baseline: CancelBaseline,
    ) -> PyResult<Step<'py>> {
        match outcome {
            Ok(Advance::Done) => in_flight.finish(head),
            Ok(Advance::Suspend(point, object)) => {
                let baseline =
                    baseline.or_else(|| point.runs_foreign_code().then(|| Cancels::now(head.py())));
                let suspended = SuspendedPush(in_flight, point, baseline);
                self.phase = PushPhase::Suspended(Box::new(suspended));
                yield_budget::renew();
                Ok(Step::Yield(object))
            }
            Err(Failure {
                error,
                was_cancelled,
            }) => Err(in_flight.fail(head, error, was_cancelled)),
        }
    }
}

impl InFlight {
    #[inline]
    fn finish<'py>(mut self, head: &Bound<'py, PyPushLink>) -> PyResult<Step<'py>> {
        if self.state.flushing.is_some() {
            return Ok(Step::Return(self.pipeline.tail(head)));
        }
        self.state.result(head.py()).map(Step::Return)
    }

    /// Retain the outputs of stages in their links, and name these links in the error.
    #[cold]
    pub(super) fn fail(
        self,
        head: &Bound<'_, PyPushLink>,
        error: PyErr,
        was_cancelled: bool,
    ) -> PyErr {
        let py = head.py();
        let was_earlier = self.state.is_deferred();
        let keepers = self.pipeline.retain_rest(head, self.state, was_cancelled);
        // An exception that rejects new attributes must still be raised.
        let _ = if was_earlier {
            clear_keepers(py, &error)
        } else if keepers.is_empty() {
            Ok(())
        } else {
            name_keepers(py, &error, &keepers)
        };
        error
    }
}

/// Note in an error that it concerns an earlier, retained item.
fn clear_keepers(py: Python<'_>, error: &PyErr) -> PyResult<()> {
    error
        .value(py)
        .setattr(intern!(py, "accepted_by"), PyTuple::empty(py))?;
    errors::note(
        py,
        error,
        "this error concerns an earlier item, which had been retained; the pushed item was not accepted",
    )
}

/// Add links to the `accepted_by` of an error.
fn name_keepers(py: Python<'_>, error: &PyErr, keepers: &[Py<PyPushLink>]) -> PyResult<()> {
    let name = intern!(py, "accepted_by");
    let value = error.value(py);
    let mut all = match value.getattr_opt(name)? {
        Some(known) => known.extract::<Vec<Bound<'_, PyAny>>>()?,
        None => Vec::new(),
    };
    for keeper in keepers {
        let keeper = keeper.bind(py).as_any();
        if !all.iter().any(|known| known.is(keeper)) {
            all.push(keeper.clone());
        }
        errors::note(
            py,
            error,
            &format!("the item was accepted by {}", keeper.repr()?),
        )?;
    }
    value.setattr(name, PyTuple::new(py, all)?)
}

impl Coroutine for Push {
    const NAME: &'static CStr = c"headrace._core.Push";

    fn never_awaited_warning(&self) -> Option<&'static CStr> {
        matches!(self.phase, PushPhase::New(_)).then_some(
            c"a push was never awaited, so its item was dropped: write `await sink.next(item)`",
        )
    }

    own_class!();

    fn send<'py>(&mut self, value: &Bound<'py, PyAny>) -> Result<Step<'py>, RaisedError> {
        let py = value.py();
        if matches!(self.phase, PushPhase::New(_))
            && let Some(buffer) = self.head.get().direct_buffer(py)
            && let PushPhase::New(item) = std::mem::replace(&mut self.phase, PushPhase::Done)
        {
            return self.store(py, item, buffer);
        }
        RaisedError::set_from(py, self.step(value))
    }

    fn throw<'py>(&mut self, py: Python<'py>, error: PyErr) -> PyResult<Step<'py>> {
        let head = self.head.bind(py).clone();
        match std::mem::replace(&mut self.phase, PushPhase::Done) {
            PushPhase::Suspended(suspended) => self.resume(&head, *suspended, Err(error)),
            PushPhase::Pending(pending) => {
                let PendingPush(mut in_flight, wait) = *pending;
                // The wait never started. Outputs that stages made before it are retained.
                in_flight.state.cancel_wait(py, wait)?;
                Err(in_flight.fail(&head, error, true))
            }
            PushPhase::New(_) | PushPhase::NewFlush | PushPhase::Done => Err(error),
        }
    }

    fn abandon(&mut self, py: Python<'_>) {
        let head = self.head.bind(py).clone();
        match std::mem::replace(&mut self.phase, PushPhase::Done) {
            PushPhase::Suspended(suspended) => {
                let SuspendedPush(mut in_flight, point, _) = *suspended;
                in_flight.pipeline.abandon(py, &mut in_flight.state, point);
                in_flight.pipeline.retain_rest(&head, in_flight.state, true);
            }
            PushPhase::Pending(pending) => {
                let PendingPush(mut in_flight, wait) = *pending;
                if let Err(error) = in_flight.state.cancel_wait(py, wait) {
                    error.write_unraisable(py, None);
                }
                in_flight.pipeline.retain_rest(&head, in_flight.state, true);
            }
            PushPhase::New(_) | PushPhase::NewFlush | PushPhase::Done => {}
        }
    }
}

traverse!(Push { head, phase });

traverse!(
    enum PushPhase {
        New(item),
        NewFlush {},
        Pending(pending),
        Suspended(suspended),
        Done {},
    }
);
