//! One item on its way down a line.

use pyo3::exceptions::{PyNotImplementedError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;

use super::link::{PushLink, refuse};
use super::pipeline::{End, Line};
use super::wait::Halt;
use super::work_stack::{Kept, Todo};
use crate::buffer::Buffer;
use crate::errors;
use crate::kernel::Output;
use crate::object::iterator_result::IteratorResult;
use crate::runtime::yield_budget;
use crate::source::{AnySource, SourcePoll};

/// Whether whoever pushes can wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Await,
    Now,
}

/// What became of an item.
#[derive(Debug)]
pub(super) enum Carried<'py> {
    /// It was accepted, whatever that came to.
    Through,
    /// It was accepted, and no more is wanted.
    Done,
    /// A foreign sink answered this.
    Answered(Bound<'py, PyAny>),
    /// It cannot go on without waiting. Nothing was awaited yet.
    Halted(Halt),
}

/// What a line came to.
pub(super) enum Walked {
    Done,
    Halted(Halt),
}

/// An item on its way, and the stage that it enters next.
pub(super) type Entry<'py> = (Bound<'py, PyAny>, usize);

/// What goes before the end of a push.
enum Next<'py> {
    Entry(Entry<'py>),
    Part(Bound<'py, PyAny>, Vec<usize>),
    Halt(Halt),
    Nothing,
}

impl Line {
    /// Carries an item down, and then everything on the stack, until that is empty or has to wait.
    #[inline]
    pub(super) fn walk<'py>(
        &self,
        head: &Bound<'py, PushLink>,
        todo: &mut Todo,
        mut entry: Option<Entry<'py>>,
        mode: Mode,
    ) -> PyResult<Walked> {
        loop {
            let carried = match entry.take() {
                Some((item, number)) => self.carry(head, todo, item, number, mode)?,
                None => match self.next(head, todo, mode)? {
                    Next::Entry((item, number)) => self.carry(head, todo, item, number, mode)?,
                    Next::Part(item, only) => match &self.end {
                        End::Fan(fan) => {
                            fan.get().deliver_to(self.last(head), &item, &only, mode)?
                        }
                        _ => unreachable!("only a fan takes an item in parts"),
                    },
                    Next::Halt(halt) => return Ok(Walked::Halted(halt)),
                    Next::Nothing => return Ok(Walked::Done),
                },
            };
            match carried {
                Carried::Halted(halt) => return Ok(Walked::Halted(halt)),
                carried => self.settle(todo, carried)?,
            }
            if todo.is_over() {
                return Ok(Walked::Done);
            }
        }
    }

    /// An item is through.
    #[inline]
    pub(super) fn settle(&self, todo: &mut Todo, carried: Carried<'_>) -> PyResult<()> {
        if todo.taken.is_some() {
            todo.taken = None;
        }
        match carried {
            Carried::Through => Ok(()),
            Carried::Done => {
                todo.end_above(self.stages.len() + 1);
                Ok(())
            }
            Carried::Answered(result) => todo.answered(result, self.stages.len()),
            Carried::Halted(_) => unreachable!("it is not through"),
        }
    }

    /// Carries one item from stage `number` to where it is accepted, or would have to wait.
    #[inline]
    fn carry<'py>(
        &self,
        head: &Bound<'py, PushLink>,
        todo: &mut Todo,
        mut item: Bound<'py, PyAny>,
        mut number: usize,
        mode: Mode,
    ) -> PyResult<Carried<'py>> {
        let py = head.py();
        while let Some(stage) = self.stages.get(number) {
            let link = stage.bind(head).get();
            if number > 0 && !link.is_open_for(py, todo.flushing.is_some())? {
                return Err(todo.refused(&item));
            }
            if link.has_kept() {
                todo.defer(&item, number);
                for what in link.take_kept(py).into_iter().rev() {
                    todo.push(number + 1, what, false);
                }
                return Ok(Carried::Through);
            }
            match stage.kernel.process(&item) {
                Ok(Output::Emit(output)) => {
                    number += 1;
                    if stage.keeps_state {
                        todo.take(number, &output);
                    }
                    item = output;
                }
                Ok(Output::Skip) => return Ok(Carried::Through),
                Ok(Output::Await(awaitable)) => {
                    return Ok(Carried::Halted(Halt::Call {
                        awaitable: awaitable.unbind(),
                        item: item.unbind(),
                        number,
                    }));
                }
                Ok(flow) => match self.turn(todo, number, flow) {
                    Some(output) => {
                        item = output;
                        number += 1;
                    }
                    None => return Ok(Carried::Through),
                },
                Err(raised) => return Err(stage.blame(head, raised.fetch(py))),
            }
        }
        self.deliver(head, todo, item, mode)
    }

    /// What a kernel made of an item: what goes on to the next stage, if anything does.
    pub(super) fn turn<'py>(
        &self,
        todo: &mut Todo,
        number: usize,
        flow: Output<'py>,
    ) -> Option<Bound<'py, PyAny>> {
        match flow {
            Output::Emit(output) => {
                if self.stages[number].keeps_state {
                    todo.take(number + 1, &output);
                }
                Some(output)
            }
            Output::Last(output) => {
                todo.end_above(number + 1);
                todo.take(number + 1, &output);
                Some(output)
            }
            Output::Skip => None,
            Output::Stop => {
                todo.end_above(number + 1);
                None
            }
            Output::Many(feed) => {
                todo.push(number + 1, Kept::Rest(*feed), false);
                None
            }
            Output::Await(_) => unreachable!("a kernel awaits once an item"),
        }
    }

    /// Hands an item to what is at the end.
    #[inline]
    fn deliver<'py>(
        &self,
        head: &Bound<'py, PushLink>,
        todo: &Todo,
        item: Bound<'py, PyAny>,
        mode: Mode,
    ) -> PyResult<Carried<'py>> {
        let py = head.py();
        if let Some(link) = &self.last
            && !link.get().is_open_for(py, todo.flushing.is_some())?
        {
            return Err(todo.refused(&item));
        }
        self.hand_over(head, item, mode, || todo.callers(py))
    }

    /// Hands an item to what is at the end, where that is open. `callers` is what was pushed, if a
    /// refusal is to give that back instead of the item.
    #[inline]
    pub(super) fn hand_over<'py>(
        &self,
        head: &Bound<'py, PushLink>,
        item: Bound<'py, PyAny>,
        mode: Mode,
        callers: impl FnOnce() -> Option<Bound<'py, PyAny>>,
    ) -> PyResult<Carried<'py>> {
        let py = head.py();
        match &self.end {
            End::Collect(list, maxsize) => {
                let list = list.bind(py);
                let Some(maxsize) = *maxsize else {
                    return list.append(item).map(|()| Carried::Through);
                };
                if list.len() < maxsize {
                    list.append(item)?;
                }
                Ok(if list.len() < maxsize {
                    Carried::Through
                } else {
                    Carried::Done
                })
            }
            End::Queue(buffer) => match Buffer::offer(buffer.bind(py), item) {
                Ok(None) => Ok(Carried::Through),
                Ok(Some(putting)) => Ok(Carried::Halted(Halt::Room(Box::new(putting)))),
                Err(refused) => Err(refused.into_error(py, callers())),
            },
            End::Call(callbacks) => Self::call(self.last(head), callbacks.get().now(py), item, 0),
            End::Fan(fan) => fan.get().deliver(self.last(head), &item, mode),
            End::Foreign(sink) => {
                let sink = sink.bind(py);
                match mode {
                    Mode::Await => sink
                        .call_method1(intern!(py, "next"), (item,))
                        .map(|next| Carried::Halted(Halt::sink(next))),
                    Mode::Now => sink
                        .call_method1(intern!(py, "next_nowait"), (item,))
                        .and_then(|result| answer_now(sink, result)),
                }
            }
            End::Implementation => {
                let link = self.last(head);
                match mode {
                    Mode::Await => link
                        .call_method1(intern!(py, "next_impl"), (item,))
                        .map(|next| Carried::Halted(Halt::sink(next))),
                    Mode::Now => Err(PyRuntimeError::new_err(format!(
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

    /// What comes after the item that was carried.
    #[cold]
    fn next<'py>(
        &self,
        head: &Bound<'py, PushLink>,
        todo: &mut Todo,
        mode: Mode,
    ) -> PyResult<Next<'py>> {
        let py = head.py();
        loop {
            let Some(work) = todo.stack.pop() else {
                match todo.flushing {
                    Some(number) if number < self.stages.len() => {
                        todo.flushing = Some(number + 1);
                        self.flush_stage(head, todo, number);
                        continue;
                    }
                    _ => return Ok(Next::Nothing),
                }
            };
            let entry = work.entry;
            match work.what {
                Kept::Item(item) => {
                    if !work.is_callers {
                        todo.taken = Some((entry, item.clone_ref(py)));
                    }
                    return Ok(Next::Entry((item.into_bound(py), entry)));
                }
                Kept::Part(item, only) => {
                    todo.taken = Some((entry, item.clone_ref(py)));
                    return Ok(Next::Part(item.into_bound(py), only));
                }
                Kept::Rest(feed) => {
                    let waits = matches!(feed, AnySource::AsyncIter(_));
                    let feed = if waits {
                        feed
                    } else {
                        if mode == Mode::Await && yield_budget::spend(py) {
                            todo.push(entry, Kept::Rest(feed), false);
                            return Ok(Next::Halt(Halt::Rest(None)));
                        }
                        let drawn = match feed.ready(py) {
                            Some(item) => SourcePoll::Item(item),
                            None => feed
                                .poll_next(py)
                                .map_err(|error| self.stages[entry - 1].blame(head, error))?,
                        };
                        match drawn {
                            SourcePoll::Item(item) => {
                                return Ok(Next::Entry(todo.drew(feed, item, entry)));
                            }
                            SourcePoll::End => continue,
                            SourcePoll::Wait(..) => unreachable!("only a foreign feed waits"),
                        }
                    };
                    return Ok(Next::Halt(Halt::Draw(feed, entry)));
                }
            }
        }
    }
}

impl Todo {
    /// An item came out of what a stage hands on one by one.
    pub(super) fn drew<'py>(
        &mut self,
        feed: AnySource,
        item: Bound<'py, PyAny>,
        entry: usize,
    ) -> Entry<'py> {
        self.push(entry, Kept::Rest(feed), false);
        self.take(entry, &item);
        (item, entry)
    }

    /// What was pushed, if that is the caller's again when the push fails.
    pub(super) fn callers<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let original = self.original.as_ref().filter(|_| self.is_callers())?;
        Some(original.bind(py).clone())
    }

    /// The error that gives back an item which came too late: the one that was pushed, unless a
    /// stage has made something of it that is all that is left.
    #[cold]
    pub(super) fn refused(&self, item: &Bound<'_, PyAny>) -> PyErr {
        let callers = self.callers(item.py());
        refuse(callers.as_ref().unwrap_or(item))
    }
}

/// What somebody else's `next` or `next_impl` came to: its result, or acceptance if it returned
/// nothing.
pub(super) fn answer(result: Bound<'_, PyAny>) -> PyResult<Carried<'_>> {
    if result.is_none() {
        return Ok(Carried::Through);
    }
    if result.is_instance_of::<IteratorResult>() {
        return Ok(Carried::Answered(result));
    }
    Err(errors::wrong_type(
        "the result of a push",
        "None or an IteratorResult",
        &result,
    ))
}

/// The same of its `next_nowait`. What it returned comes too late to refuse the item.
pub(super) fn answer_now<'py>(
    sink: &Bound<'py, PyAny>,
    result: Bound<'py, PyAny>,
) -> PyResult<Carried<'py>> {
    if result.is_none() || result.is_instance_of::<IteratorResult>() {
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
