//! Delivering one item: through the stages of a pipeline, to the sink at its end.
//! `resume.rs`, `nowait.rs` and `branch.rs` call it.

use pyo3::exceptions::{PyNotImplementedError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;

use super::link::{PyPushLink, closed_error};
use super::pipeline::{End, Pipeline};
use super::wait::{Awaited, PendingWait};
use super::work_stack::{Checkpoint, PushState, Retained};
use crate::buffer::PyBuffer;
use crate::errors;
use crate::kernel::Output;
use crate::object::iterator_result::PyIteratorResult;
use crate::runtime::yield_budget;
use crate::source::{AnySource, SourcePoll};

/// Whether the caller can wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Await,
    NoWait,
}

/// The result of delivering an item.
#[derive(Debug)]
pub(super) enum Delivered<'py> {
    /// The item was accepted.
    Accepted,
    /// The item was accepted, and the sink wants no more.
    Done,
    /// A foreign sink returned this result.
    Answered(Bound<'py, PyAny>),
    /// The item cannot be delivered without waiting. Nothing was awaited yet.
    Pending(PendingWait),
}

/// An item, and the index of the stage that it enters next.
pub(super) type Entry<'py> = (Bound<'py, PyAny>, usize);

/// The next work of a push.
enum NextWork<'py> {
    Entry(Entry<'py>),
    Part(Bound<'py, PyAny>, Vec<usize>),
    Pending(PendingWait),
    Empty,
}

impl Pipeline {
    /// Deliver an item, then all work on the stack, until the stack is empty or a wait is needed. Return the wait.
    #[inline]
    pub(super) fn run_until_wait<'py>(
        &self,
        head: &Bound<'py, PyPushLink>,
        state: &mut PushState,
        mut entry: Option<Entry<'py>>,
        mode: Mode,
    ) -> PyResult<Option<PendingWait>> {
        loop {
            let delivered = match entry.take() {
                Some((item, number)) => self.run_stages(head, state, item, number, mode)?,
                None => match self.next_work(head, state, mode)? {
                    NextWork::Entry((item, number)) => {
                        self.run_stages(head, state, item, number, mode)?
                    }
                    NextWork::Part(item, only) => match &self.end {
                        End::Fan(fan) => {
                            let only = only.iter().copied();
                            fan.get().deliver_to(self.last(head), &item, &only, mode)?
                        }
                        _ => unreachable!("only a fan takes an item in parts"),
                    },
                    NextWork::Pending(wait) => return Ok(Some(wait)),
                    NextWork::Empty => return Ok(None),
                },
            };
            match delivered {
                Delivered::Pending(wait) => return Ok(Some(wait)),
                delivered => self.on_delivered(state, delivered)?,
            }
            if state.is_over() {
                return Ok(None);
            }
        }
    }

    /// Handle the result of delivering an item.
    #[inline]
    pub(super) fn on_delivered(
        &self,
        state: &mut PushState,
        delivered: Delivered<'_>,
    ) -> PyResult<()> {
        if state.checkpoint.is_some() {
            state.checkpoint = None;
        }
        match delivered {
            Delivered::Accepted => Ok(()),
            Delivered::Done => {
                state.end_upstream_of(self.stages.len() + 1);
                Ok(())
            }
            Delivered::Answered(result) => state.set_result(result, self.stages.len()),
            Delivered::Pending(_) => unreachable!("the caller handles a pending item"),
        }
    }

    /// Run an item from stage `number` on, until it is accepted or must wait.
    #[inline]
    fn run_stages<'py>(
        &self,
        head: &Bound<'py, PyPushLink>,
        state: &mut PushState,
        mut item: Bound<'py, PyAny>,
        mut number: usize,
        mode: Mode,
    ) -> PyResult<Delivered<'py>> {
        let py = head.py();
        while let Some(stage) = self.stages.get(number) {
            let link = stage.bind(head).get();
            if number > 0 && !link.is_open_for(py, state.flushing.is_some())? {
                return Err(state.refused(&item));
            }
            if link.has_retained() {
                state.push_later(&item, number);
                for what in link.take_retained(py).into_iter().rev() {
                    state.push(number + 1, what, false);
                }
                return Ok(Delivered::Accepted);
            }
            match stage.kernel.process(&item) {
                Ok(Output::Emit(output)) => {
                    number += 1;
                    if stage.is_stateful {
                        state.set_checkpoint(number, &output);
                    }
                    item = output;
                }
                Ok(Output::Skip) => return Ok(Delivered::Accepted),
                Ok(Output::Await(awaitable)) => {
                    return Ok(Delivered::Pending(PendingWait::Await(
                        awaitable.unbind(),
                        Awaited::Callable {
                            item: item.unbind(),
                            number,
                        },
                    )));
                }
                Ok(flow) => match self.on_output(state, number, flow) {
                    Some(output) => {
                        item = output;
                        number += 1;
                    }
                    None => return Ok(Delivered::Accepted),
                },
                Err(raised) => return Err(stage.annotate(head, raised.fetch(py), Some(&item))),
            }
        }
        self.deliver(head, state, item, mode)
    }

    /// Handle a kernel's output. Return the item that enters the next stage, if there is one.
    pub(super) fn on_output<'py>(
        &self,
        state: &mut PushState,
        number: usize,
        flow: Output<'py>,
    ) -> Option<Bound<'py, PyAny>> {
        match flow {
            Output::Emit(output) => {
                if self.stages[number].is_stateful {
                    state.set_checkpoint(number + 1, &output);
                }
                Some(output)
            }
            Output::Last(output) => {
                state.end_upstream_of(number + 1);
                state.set_checkpoint(number + 1, &output);
                Some(output)
            }
            Output::Skip => None,
            Output::Stop => {
                state.end_upstream_of(number + 1);
                None
            }
            Output::Many(source) => {
                state.push(number + 1, Retained::Inner(*source), false);
                None
            }
            Output::Await(_) => unreachable!("a kernel awaits once an item"),
        }
    }

    /// Deliver an item to the end of the pipeline, if that is open.
    #[inline]
    fn deliver<'py>(
        &self,
        head: &Bound<'py, PyPushLink>,
        state: &PushState,
        item: Bound<'py, PyAny>,
        mode: Mode,
    ) -> PyResult<Delivered<'py>> {
        let py = head.py();
        if let Some(link) = &self.last
            && !link.get().is_open_for(py, state.flushing.is_some())?
        {
            return Err(state.refused(&item));
        }
        self.deliver_to_end(head, item, mode, || state.caller_item(py))
    }

    /// Deliver an item to the end of the pipeline, which is open. A refused item is replaced by
    /// `caller_item` in the error if that is not `None`.
    #[inline]
    pub(super) fn deliver_to_end<'py>(
        &self,
        head: &Bound<'py, PyPushLink>,
        item: Bound<'py, PyAny>,
        mode: Mode,
        caller_item: impl FnOnce() -> Option<Bound<'py, PyAny>>,
    ) -> PyResult<Delivered<'py>> {
        let py = head.py();
        match &self.end {
            End::Collect(list, maxsize) => {
                let list = list.bind(py);
                let Some(maxsize) = *maxsize else {
                    return list.append(item).map(|()| Delivered::Accepted);
                };
                if list.len() < maxsize {
                    list.append(item)?;
                }
                Ok(if list.len() < maxsize {
                    Delivered::Accepted
                } else {
                    Delivered::Done
                })
            }
            End::Queue(buffer) => match PyBuffer::offer(buffer.bind(py), item) {
                Ok(None) => Ok(Delivered::Accepted),
                Ok(Some(putting)) => Ok(Delivered::Pending(PendingWait::Space(Box::new(putting)))),
                Err(refused) => Err(refused.into_error(py, caller_item())),
            },
            End::Call(callbacks) => {
                Self::call(self.last(head), callbacks.get().current(py), item, 0)
            }
            End::Fan(fan) => fan.get().deliver(self.last(head), &item, mode),
            End::Foreign(sink) => {
                let sink = sink.bind(py);
                match mode {
                    Mode::Await => sink
                        .call_method1(intern!(py, "next"), (item,))
                        .map(|next| Delivered::Pending(PendingWait::sink(next))),
                    Mode::NoWait => sink
                        .call_method1(intern!(py, "next_nowait"), (item,))
                        .and_then(|result| answer_nowait(sink, result)),
                }
            }
            End::Implementation => {
                let link = self.last(head);
                match mode {
                    Mode::Await => link
                        .call_method1(intern!(py, "next_impl"), (item,))
                        .map(|next| Delivered::Pending(PendingWait::sink(next))),
                    Mode::NoWait => Err(PyRuntimeError::new_err(format!(
                        "{} has an async next_impl and cannot be pushed without waiting; await next(item)",
                        link.get_type().name()?
                    ))),
                }
            }
            End::Unset => Err(PyNotImplementedError::new_err(format!(
                "{} accepts no items: override next_impl()",
                self.last(head).get_type().name()?
            ))),
        }
    }

    /// Take the next work: from the stack, then from flushing.
    #[cold]
    fn next_work<'py>(
        &self,
        head: &Bound<'py, PyPushLink>,
        state: &mut PushState,
        mode: Mode,
    ) -> PyResult<NextWork<'py>> {
        let py = head.py();
        loop {
            let Some(work) = state.stack.pop() else {
                match state.flushing {
                    Some(number) if number < self.stages.len() => {
                        state.flushing = Some(number + 1);
                        self.flush_stage(head, state, number);
                        continue;
                    }
                    _ => return Ok(NextWork::Empty),
                }
            };
            let entry = work.entry;
            match work.content {
                Retained::Item(item) => {
                    if !work.is_caller_item {
                        state.checkpoint = Some(Checkpoint {
                            entry,
                            output: item.clone_ref(py),
                        });
                    }
                    return Ok(NextWork::Entry((item.into_bound(py), entry)));
                }
                Retained::Part(item, only) => {
                    state.checkpoint = Some(Checkpoint {
                        entry,
                        output: item.clone_ref(py),
                    });
                    return Ok(NextWork::Part(item.into_bound(py), only));
                }
                Retained::Inner(source @ AnySource::AsyncIter(_)) => {
                    return Ok(NextWork::Pending(PendingWait::Source(source, entry)));
                }
                Retained::Inner(source) => {
                    if mode == Mode::Await && yield_budget::spend(py) {
                        state.push(entry, Retained::Inner(source), false);
                        return Ok(NextWork::Pending(PendingWait::Yield(None)));
                    }
                    let polled = match source.ready(py) {
                        Some(item) => SourcePoll::Item(item),
                        None => source
                            .poll_next(py)
                            .map_err(|error| self.stages[entry - 1].annotate(head, error, None))?,
                    };
                    match polled {
                        SourcePoll::Item(item) => {
                            let next = state.on_inner_item(source, item, entry);
                            return Ok(NextWork::Entry(next));
                        }
                        SourcePoll::End => {}
                        SourcePoll::Wait(..) => unreachable!("only a foreign source waits"),
                    }
                }
            }
        }
    }
}

impl PushState {
    /// Deliver an item of an inner source next, and the rest of that source afterwards.
    pub(super) fn on_inner_item<'py>(
        &mut self,
        source: AnySource,
        item: Bound<'py, PyAny>,
        entry: usize,
    ) -> Entry<'py> {
        self.push(entry, Retained::Inner(source), false);
        self.set_checkpoint(entry, &item);
        (item, entry)
    }

    /// Return the pushed item, if the caller owns it again when the push fails.
    pub(super) fn caller_item<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let pushed = self.pushed.as_ref().filter(|_| self.caller_owns())?;
        Some(pushed.bind(py).clone())
    }

    /// Return the error for an item that was delivered after the end. It carries the pushed item or, if a
    /// stage has consumed that, the stage's output.
    #[cold]
    pub(super) fn refused(&self, item: &Bound<'_, PyAny>) -> PyErr {
        let caller_item = self.caller_item(item.py());
        closed_error(caller_item.as_ref().unwrap_or(item))
    }
}

/// Interpret the result of a foreign `next` or `next_impl`. `None` means acceptance.
pub(super) fn answer(result: Bound<'_, PyAny>) -> PyResult<Delivered<'_>> {
    if result.is_none() {
        return Ok(Delivered::Accepted);
    }
    if result.is_instance_of::<PyIteratorResult>() {
        return Ok(Delivered::Answered(result));
    }
    Err(errors::wrong_type(
        "the result of a push",
        "None or an IteratorResult",
        &result,
    ))
}

/// Interpret the result of a foreign `next_nowait`. The sink has already accepted the item, also if
/// the type of its result is wrong.
pub(super) fn answer_nowait<'py>(
    sink: &Bound<'py, PyAny>,
    result: Bound<'py, PyAny>,
) -> PyResult<Delivered<'py>> {
    if result.is_none() || result.is_instance_of::<PyIteratorResult>() {
        return answer(result);
    }
    let error = errors::wrong_type(
        &format!("the result of next_nowait of {}", sink.get_type().name()?),
        "None or an IteratorResult",
        &result,
    );
    error
        .value(sink.py())
        .setattr(intern!(sink.py(), "accepted_by"), (sink,))?;
    Err(error)
}
