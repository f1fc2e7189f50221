//! How a push goes on: it begins to wait, is resumed where it was suspended, or given up there.

use std::sync::Arc;

use pyo3::exceptions::PyGeneratorExit;
use pyo3::prelude::*;

use super::awaitable::Since;
use super::deliver::{Carried, Entry, Mode, Walked, answer};
use super::link::PushLink;
use super::nowait::has_acceptors;
use super::pipeline::{End, Line, blame};
use super::wait::{Halt, Missing, Place};
use super::work_stack::{Kept, Todo};
use crate::buffer::Putting;
use crate::coroutine::delegate::is_awaitable;
use crate::coroutine::{Inner, Step};
use crate::kernel::call_one;
use crate::runtime::asyncio;
use crate::source::{AnySource, SourcePoll};

/// What running a line came to.
pub(super) enum Advance<'py> {
    Done,
    Suspend(Place, Bound<'py, PyAny>),
}

/// What a wait came to.
enum Went<'py> {
    /// The item goes on here.
    On(Entry<'py>),
    /// It is through.
    Carried(Carried<'py>),
    /// There was no item.
    Nothing,
    Suspended(Place, Bound<'py, PyAny>),
}

impl Line {
    /// Runs to the end of the push, or to a suspension.
    #[inline]
    pub(super) fn run<'py>(
        &self,
        head: &Bound<'py, PushLink>,
        todo: &mut Todo,
        entry: Option<Entry<'py>>,
    ) -> PyResult<Advance<'py>> {
        match self.walk(head, todo, entry, Mode::Await)? {
            Walked::Done => Ok(Advance::Done),
            Walked::Halted(halt) => self.wait(head, todo, halt),
        }
    }

    /// Begins to wait.
    #[inline(never)]
    pub(super) fn wait<'py>(
        &self,
        head: &Bound<'py, PushLink>,
        todo: &mut Todo,
        halt: Halt,
    ) -> PyResult<Advance<'py>> {
        let went = self.begin(head, todo, halt)?;
        self.go_on(head, todo, went)
    }

    fn go_on<'py>(
        &self,
        head: &Bound<'py, PushLink>,
        todo: &mut Todo,
        mut went: Went<'py>,
    ) -> PyResult<Advance<'py>> {
        loop {
            let entry = match went {
                Went::On(entry) => Some(entry),
                Went::Nothing => None,
                Went::Suspended(place, object) => return Ok(Advance::Suspend(place, object)),
                Went::Carried(Carried::Halted(halt)) => {
                    went = self.begin(head, todo, halt)?;
                    continue;
                }
                Went::Carried(carried) => {
                    self.settle(todo, carried)?;
                    if todo.is_over() {
                        return Ok(Advance::Done);
                    }
                    None
                }
            };
            match self.walk(head, todo, entry, Mode::Await)? {
                Walked::Done => return Ok(Advance::Done),
                Walked::Halted(halt) => went = self.begin(head, todo, halt)?,
            }
        }
    }

    fn begin<'py>(
        &self,
        head: &Bound<'py, PushLink>,
        todo: &mut Todo,
        halt: Halt,
    ) -> PyResult<Went<'py>> {
        let py = head.py();
        let none = py.None().into_bound(py);
        match halt {
            Halt::Rest(item) => Ok(Went::Suspended(Place::Rest(item), none)),
            Halt::Call {
                awaitable,
                item,
                number,
            } => {
                let inner = Inner::of(awaitable.into_bound(py))
                    .map_err(|error| self.stages[number].blame(head, error))?;
                let step = inner.send(&none);
                self.called(head, todo, inner, item.into_bound(py), number, step)
            }
            Halt::Room(putting) => Self::put(py, todo, putting),
            Halt::Sink { awaitable, missing } => {
                let inner = Inner::of(awaitable.into_bound(py))?;
                let step = inner.send(&none);
                Self::handed(inner, missing, step)
            }
            Halt::Callback {
                awaitable,
                functions,
                item,
                next,
            } => {
                let inner = Inner::of(awaitable.into_bound(py))?;
                let step = inner.send(&none);
                let item = item.into_bound(py);
                Self::called_back(self.last(head), inner, functions, item, next, step)
            }
            Halt::Select { awaitable, item } => {
                let inner = Inner::of(awaitable.into_bound(py))?;
                let step = inner.send(&none);
                self.selected(head, inner, item.into_bound(py), step)
            }
            Halt::Draw(feed, entry) => {
                let drawn = feed.poll_next(py);
                self.drawn(head, todo, feed, entry, drawn)
            }
        }
    }

    /// Goes on where a push was suspended, with what its task sent or threw.
    pub(super) fn resume<'py>(
        &self,
        head: &Bound<'py, PushLink>,
        todo: &mut Todo,
        place: Place,
        sent: Result<&Bound<'py, PyAny>, PyErr>,
        since: Since,
    ) -> Result<Advance<'py>, Failure> {
        let py = head.py();
        // What is thrown in where nothing runs that could catch it comes out as it is. A
        // `GeneratorExit` comes from `close()`: whoever pushed has gone.
        let is_cancelled = sent.as_ref().is_err_and(|error| {
            !place.runs_others() || error.is_instance_of::<PyGeneratorExit>(py)
        });
        let missing = match &place {
            Place::Sink {
                missing: Some((item, numbers)),
                ..
            } => Some((item.clone_ref(py), numbers.clone_ref(py))),
            _ => None,
        };
        let strikes = |error: &PyErr| {
            asyncio::is_cancelled_error(py, error)
                && since.is_some_and(|cancels| cancels.rose_since(py))
        };
        let went = self.went(head, todo, place, sent, since).map_err(|error| {
            let was_cancelled = is_cancelled || strikes(&error);
            match missing {
                Some(missing) if was_cancelled => self.keep_part(py, todo, missing),
                // A sink that is not run in place has taken it all the same.
                None if has_acceptors(py, &error) => todo.taken = None,
                _ => {}
            }
            Failure {
                error,
                was_cancelled,
            }
        })?;
        self.go_on(head, todo, went).map_err(|error| Failure {
            was_cancelled: strikes(&error),
            error,
        })
    }

    /// A push that was suspended will never go on.
    pub(super) fn abandon(&self, py: Python<'_>, todo: &mut Todo, place: Place) {
        match place {
            Place::Draw { wait, feed, entry } => {
                feed.abandon(py, wait);
                todo.push(entry, Kept::Rest(feed), false);
            }
            Place::Sink { inner, missing } => {
                // Dropped first: its clean-up has the last word on who lacks the item.
                drop(inner);
                if let Some(missing) = missing {
                    self.keep_part(py, todo, missing);
                }
            }
            place => drop(place),
        }
    }

    /// Some branches of the fan at the end have what a stage made of an item, these do not.
    fn keep_part(&self, py: Python<'_>, todo: &mut Todo, (item, numbers): Missing) {
        // Otherwise it is the caller's.
        if todo.taken.take().is_none() {
            return;
        }
        let numbers: Vec<usize> = numbers.bind(py).extract().unwrap_or_default();
        if !numbers.is_empty() {
            todo.push(self.stages.len(), Kept::Part(item, numbers), false);
        }
    }

    fn went<'py>(
        &self,
        head: &Bound<'py, PushLink>,
        todo: &mut Todo,
        place: Place,
        sent: Result<&Bound<'py, PyAny>, PyErr>,
        since: Since,
    ) -> PyResult<Went<'py>> {
        let py = head.py();
        let step = |inner: &Inner, sent: Result<&Bound<'py, PyAny>, PyErr>| match sent {
            Ok(value) => Ok(inner.send(value)),
            Err(error) => {
                let left = error.is_instance_of::<PyGeneratorExit>(py);
                let step = inner.throw(py, error);
                // That one is nobody's fault, so nobody is named for it.
                if left && let Err(error) = step {
                    return Err(error);
                }
                Ok(step)
            }
        };
        match place {
            Place::Rest(item) => {
                sent?;
                Ok(item.map_or(Went::Nothing, |item| Went::On((item.into_bound(py), 0))))
            }
            Place::Room(putting) => {
                // Dropping it gives up its place; the item is still the push's.
                sent?;
                Self::put(py, todo, putting)
            }
            Place::Sink { inner, missing } => {
                let step = step(&inner, sent)?;
                Self::handed(inner, missing, step)
            }
            Place::Call {
                inner,
                item,
                number,
            } => {
                let step = step(&inner, sent)?;
                self.called(head, todo, inner, item.into_bound(py), number, step)
            }
            Place::Callback {
                inner,
                functions,
                item,
                next,
            } => {
                let step = step(&inner, sent)?;
                let item = item.into_bound(py);
                Self::called_back(self.last(head), inner, functions, item, next, step)
            }
            Place::Select { inner, item } => {
                let step = step(&inner, sent)?;
                self.selected(head, inner, item.into_bound(py), step)
            }
            Place::Draw { wait, feed, entry } => {
                let drawn = feed.resume(wait, sent, py);
                if let Err(error) = &drawn
                    && asyncio::is_cancelled_error(py, error)
                    && since.is_some_and(|cancels| cancels.rose_since(py))
                {
                    feed.cancelled(py);
                    todo.push(entry, Kept::Rest(feed), false);
                    return Err(drawn.expect_err("it was matched as an error"));
                }
                self.drawn(head, todo, feed, entry, drawn)
            }
        }
    }

    /// Waits for room, unless some came in between.
    fn put<'py>(py: Python<'py>, todo: &Todo, mut putting: Box<Putting>) -> PyResult<Went<'py>> {
        match putting.step(py) {
            Ok(None) => Ok(Went::Carried(Carried::Through)),
            Ok(Some(object)) => Ok(Went::Suspended(Place::Room(putting), object)),
            Err(refused) => Err(refused.into_error(py, todo.callers(py))),
        }
    }

    /// A step of somebody else's `next`.
    fn handed(
        inner: Inner,
        missing: Option<Missing>,
        step: PyResult<Step<'_>>,
    ) -> PyResult<Went<'_>> {
        match step? {
            Step::Yield(object) => Ok(Went::Suspended(Place::Sink { inner, missing }, object)),
            Step::Return(result) => answer(result).map(Went::Carried),
        }
    }

    /// A step of what the callable of stage `number` returned.
    fn called<'py>(
        &self,
        head: &Bound<'py, PushLink>,
        todo: &mut Todo,
        inner: Inner,
        item: Bound<'py, PyAny>,
        number: usize,
        step: PyResult<Step<'py>>,
    ) -> PyResult<Went<'py>> {
        let stage = &self.stages[number];
        let flow = match step {
            Ok(Step::Return(result)) => stage.kernel.resume(&item, result),
            Ok(Step::Yield(object)) => {
                let place = Place::Call {
                    inner,
                    item: item.unbind(),
                    number,
                };
                return Ok(Went::Suspended(place, object));
            }
            Err(error) => Err(error),
        };
        let flow = flow.map_err(|error| stage.blame(head, error))?;
        Ok(match self.turn(todo, number, flow) {
            Some(output) => Went::On((output, number + 1)),
            None => Went::Carried(Carried::Through),
        })
    }

    /// Calls the callbacks at the end from number `next` on.
    pub(super) fn call<'py>(
        link: &Bound<'py, PushLink>,
        functions: Arc<[Py<PyAny>]>,
        item: Bound<'py, PyAny>,
        mut next: usize,
    ) -> PyResult<Carried<'py>> {
        let py = link.py();
        while let Some(function) = functions.get(next) {
            next += 1;
            let result = call_one(function.bind(py), &item)
                .map_err(|raised| blame(link, raised.fetch(py), "callbacks"))?;
            if is_awaitable(&result) {
                return Ok(Carried::Halted(Halt::Callback {
                    awaitable: result.unbind(),
                    functions,
                    item: item.unbind(),
                    next,
                }));
            }
        }
        Ok(Carried::Through)
    }

    /// The one callback at the end returned this for an item.
    #[cold]
    pub(super) fn called_one(awaitable: Bound<'_, PyAny>, item: &Bound<'_, PyAny>) -> Halt {
        Halt::Callback {
            awaitable: awaitable.unbind(),
            functions: Arc::new([]),
            item: item.clone().unbind(),
            next: 0,
        }
    }

    /// A step of what a callback returned.
    fn called_back<'py>(
        link: &Bound<'py, PushLink>,
        inner: Inner,
        functions: Arc<[Py<PyAny>]>,
        item: Bound<'py, PyAny>,
        next: usize,
        step: PyResult<Step<'py>>,
    ) -> PyResult<Went<'py>> {
        match step.map_err(|error| blame(link, error, "callbacks"))? {
            Step::Return(_) => Self::call(link, functions, item, next).map(Went::Carried),
            Step::Yield(object) => {
                let place = Place::Callback {
                    inner,
                    functions,
                    item: item.unbind(),
                    next,
                };
                Ok(Went::Suspended(place, object))
            }
        }
    }

    /// A step of what the selector at the end returned.
    fn selected<'py>(
        &self,
        head: &Bound<'py, PushLink>,
        inner: Inner,
        item: Bound<'py, PyAny>,
        step: PyResult<Step<'py>>,
    ) -> PyResult<Went<'py>> {
        let link = self.last(head);
        match step.map_err(|error| blame(link, error, "selector"))? {
            Step::Return(choice) => match &self.end {
                End::Fan(fan) => fan
                    .get()
                    .deliver_by(link, &item, &choice, Mode::Await)
                    .map(Went::Carried),
                _ => unreachable!("only a fan selects"),
            },
            Step::Yield(object) => {
                let place = Place::Select {
                    inner,
                    item: item.unbind(),
                };
                Ok(Went::Suspended(place, object))
            }
        }
    }

    /// What asking for the next item of what a stage hands on came to.
    fn drawn<'py>(
        &self,
        head: &Bound<'py, PushLink>,
        todo: &mut Todo,
        feed: AnySource,
        entry: usize,
        drawn: PyResult<SourcePoll<'py>>,
    ) -> PyResult<Went<'py>> {
        match drawn.map_err(|error| self.stages[entry - 1].blame(head, error))? {
            SourcePoll::Item(item) => Ok(Went::On(todo.drew(feed, item, entry))),
            SourcePoll::End => Ok(Went::Nothing),
            SourcePoll::Wait(wait, object) => {
                todo.touch();
                let wait = *wait;
                Ok(Went::Suspended(Place::Draw { wait, feed, entry }, object))
            }
        }
    }
}

/// How a push that had been suspended failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: PyErr,
    /// Its task was cancelled, or whoever pushed has gone.
    pub(super) was_cancelled: bool,
}
