//! `Branch`: one of the many that a fan delivers to.
//!
//! A branch that is a line of ours is run in place, without a call: one that is nothing but a list or
//! callbacks by the short way.

use std::cell::Cell;
use std::sync::atomic::AtomicBool;

use pyo3::exceptions::PyRecursionError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::awaitable::{Flight, Push};
use super::callbacks::Callbacks;
use super::circle;
use super::deliver::{Carried, Mode, Walked, answer_now};
use super::link::{Outlet, PushLink};
use super::pipeline::{Line, blame};
use super::work_stack::Todo;
use crate::coroutine::delegate::is_awaitable;
use crate::kernel::call_one;
use crate::object::gc::{Traverse, VisitError, Visitor};
use crate::object::iterative_drop::IterativeDrop;
use crate::object::iterator_result::IteratorResult;

/// How deep fans may be nested: each level is one on the stack.
const DEPTH: usize = 400;

/// One of many.
#[derive(Debug)]
pub(super) struct Branch {
    /// The sink, if it may be run in place.
    native: Option<Native>,
    /// It wants no more.
    pub(super) is_done: AtomicBool,
    pub(super) sink: IterativeDrop<PyAny>,
}

/// A branch that is run in place.
#[derive(Debug)]
struct Native {
    link: Py<PushLink>,
    /// What it consists of, if that is nothing more: the short way.
    only: Option<Only>,
}

#[derive(Debug)]
enum Only {
    List(Py<PyList>),
    Callbacks(Py<Callbacks>),
}

impl Native {
    fn of(link: &Bound<'_, PushLink>) -> PyResult<Self> {
        let only = if PushLink::has_implementation(link)? {
            None
        } else {
            match link.get().outlet(link.py()) {
                Outlet::Collect(list, None) => Some(Only::List(list)),
                Outlet::Call(callbacks) => Some(Only::Callbacks(callbacks)),
                _ => None,
            }
        };
        Ok(Self {
            link: link.clone().unbind(),
            only,
        })
    }

    /// Pushes the short way, if there is one.
    #[inline]
    fn push_shortly<'py>(
        &self,
        item: &Bound<'py, PyAny>,
        mode: Mode,
    ) -> Option<PyResult<Pushed<'py>>> {
        let py = item.py();
        let only = self.only.as_ref()?;
        let link = self.link.bind(py);
        if let Err(error) = link.get().check(item) {
            return Some(Err(error));
        }
        match only {
            Only::List(list) => Some(list.bind(py).append(item).map(|()| Pushed::Accepted)),
            Only::Callbacks(callbacks) if mode == Mode::Await => {
                let function = callbacks.get().only(py)?;
                match call_one(&function, item) {
                    Ok(result) if is_awaitable(&result) => {
                        let line = match PushLink::line(link) {
                            Ok(line) => line,
                            Err(error) => return Some(Err(error)),
                        };
                        let halt = Line::called_one(result, item);
                        let todo = Todo::of(item);
                        let rest = Push::halted(link, Flight { line, todo }, halt);
                        Some(rest.map(|rest| Pushed::Waits(Some(rest), false)))
                    }
                    Ok(_) => Some(Ok(Pushed::Accepted)),
                    Err(raised) => Some(Err(blame(link, raised.fetch(py), "callbacks"))),
                }
            }
            Only::Callbacks(_) => None,
        }
    }
}

impl Branch {
    pub(super) fn of(sink: Bound<'_, PyAny>) -> PyResult<Self> {
        circle::attach(&sink);
        let native = match sink.cast::<PushLink>() {
            Ok(link) if PushLink::can_fuse(link)? => Some(Native::of(link)?),
            _ => None,
        };
        Ok(Self {
            native,
            is_done: AtomicBool::new(false),
            sink: sink.unbind().into(),
        })
    }

    /// Pushes into it, as far as that goes without waiting.
    #[inline]
    pub(super) fn push<'py>(&self, item: &Bound<'py, PyAny>, mode: Mode) -> PyResult<Pushed<'py>> {
        let py = item.py();
        let Some(native) = &self.native else {
            return self.push_foreign(item, mode);
        };
        if let Some(pushed) = native.push_shortly(item, mode) {
            return pushed;
        }
        let _level = Level::enter()?;
        let link = native.link.bind(py);
        let line = PushLink::open_line(link, item)?;
        if mode == Mode::Now {
            return Pushed::by(&line.push_now(link, item)?);
        }
        let mut todo = Todo::of(item);
        match line.walk(link, &mut todo, Some((item.clone(), 0)), mode) {
            Ok(Walked::Done) if todo.is_done() => Ok(Pushed::Done),
            Ok(Walked::Done) => Ok(Pushed::Accepted),
            Ok(Walked::Halted(halt)) => {
                let has_it = !todo.is_callers();
                let rest = Push::halted(link, Flight { line, todo }, halt)?;
                Ok(Pushed::Waits(Some(rest), has_it))
            }
            Err(error) => Err(Flight { line, todo }.fail(link, error, false)),
        }
    }

    fn push_foreign<'py>(&self, item: &Bound<'py, PyAny>, mode: Mode) -> PyResult<Pushed<'py>> {
        let py = item.py();
        let sink = self.sink.bind(py);
        match mode {
            // It is called in the task that awaits it.
            Mode::Await => Ok(Pushed::Waits(None, false)),
            Mode::Now => {
                let result = sink.call_method1(intern!(py, "next_nowait"), (item,))?;
                match answer_now(sink, result)? {
                    Carried::Answered(result) => Pushed::by(&result),
                    _ => Ok(Pushed::Accepted),
                }
            }
        }
    }

    pub(super) fn has_room(&self, py: Python<'_>) -> bool {
        let Some(native) = &self.native else {
            return true;
        };
        let link = native.link.bind(py);
        PushLink::line(link).is_ok_and(|line| line.has_room(link))
    }
}

impl Traverse for Branch {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        visit(&self.sink)?;
        let Some(native) = &self.native else {
            return Ok(());
        };
        visit(native.link.as_any())?;
        match &native.only {
            None => Ok(()),
            Some(Only::List(list)) => visit(list.as_any()),
            Some(Only::Callbacks(callbacks)) => visit(callbacks.as_any()),
        }
    }
}

/// What pushing into a branch came to.
pub(super) enum Pushed<'py> {
    Accepted,
    Done,
    /// What is to be awaited, unless that is the branch's own `next`; and whether a stage of it has
    /// taken the item all the same.
    Waits(Option<Bound<'py, PyAny>>, bool),
}

impl<'py> Pushed<'py> {
    fn by(result: &Bound<'py, PyAny>) -> PyResult<Self> {
        Ok(if result.cast::<IteratorResult>()?.get().is_done() {
            Self::Done
        } else {
            Self::Accepted
        })
    }
}

// Kept in a forked child, which has the same stack.
thread_local! { static LEVELS: Cell<usize> = const { Cell::new(0) }; }

/// One fan inside another, on the stack.
struct Level;

impl Level {
    fn enter() -> PyResult<Self> {
        LEVELS.with(|levels| {
            if levels.get() >= DEPTH {
                return Err(PyRecursionError::new_err(format!(
                    "more than {DEPTH} fan-outs are nested in each other"
                )));
            }
            levels.set(levels.get() + 1);
            Ok(Self)
        })
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        LEVELS.with(|levels| levels.set(levels.get() - 1));
    }
}
