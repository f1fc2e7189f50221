//! `Branch`: one of the sinks of a fan. `PyFan` holds them.
//!
//! A branch that is a stock pipeline is fused: it runs without a Python call. A branch that is only
//! a list or callbacks takes a faster path.

use std::cell::Cell;
use std::sync::atomic::AtomicBool;

use pyo3::exceptions::PyRecursionError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::awaitable::{InFlight, Push};
use super::callbacks::PyCallbacks;
use super::cycle;
use super::deliver::{Delivered, Mode, answer_nowait};
use super::link::{Outlet, PyPushLink};
use super::pipeline::{End, Pipeline, annotate};
use super::work_stack::PushState;
use crate::coroutine::delegate::is_awaitable;
use crate::kernel::call_one;
use crate::object::gc::traverse;
use crate::object::iterative_drop::IterativeDrop;
use crate::object::iterator_result::PyIteratorResult;
use crate::runtime::nesting::Nesting;

thread_local! {
    /// The number of fans that are nested on this thread's stack.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// The maximum nesting of fans: each level uses native stack.
const MAX_DEPTH: usize = 400;

/// One sink of a fan.
#[derive(Debug)]
pub(super) struct Branch {
    /// The sink, if it can be fused.
    fused: Option<FusedBranch>,
    /// It accepts no more items.
    pub(super) is_done: AtomicBool,
    pub(super) sink: IterativeDrop<PyAny>,
}

/// A fused branch.
#[derive(Debug)]
struct FusedBranch {
    link: Py<PyPushLink>,
    /// The list or callbacks, if the branch consists of that alone.
    direct: Option<DirectSink>,
}

#[derive(Debug)]
enum DirectSink {
    List(Py<PyList>),
    Callbacks(Py<PyCallbacks>),
}

impl FusedBranch {
    fn of(link: &Bound<'_, PyPushLink>) -> PyResult<Self> {
        let direct = if PyPushLink::has_implementation(link)? {
            None
        } else {
            match link.get().outlet(link.py()) {
                Outlet::End(End::Collect(list, None)) => Some(DirectSink::List(list)),
                Outlet::End(End::Call(callbacks)) => Some(DirectSink::Callbacks(callbacks)),
                _ => None,
            }
        };
        Ok(Self {
            link: link.clone().unbind(),
            direct,
        })
    }

    /// Push directly into the list or callback, if there is one.
    #[inline]
    fn push_direct<'py>(
        &self,
        item: &Bound<'py, PyAny>,
        mode: Mode,
    ) -> PyResult<Option<Pushed<'py>>> {
        let Some(direct) = &self.direct else {
            return Ok(None);
        };
        let py = item.py();
        let link = self.link.bind(py);
        link.get().check(item)?;
        match direct {
            DirectSink::List(list) => list.bind(py).append(item)?,
            DirectSink::Callbacks(_) if mode == Mode::NoWait => return Ok(None),
            DirectSink::Callbacks(callbacks) => {
                let Some(function) = callbacks.get().single(py) else {
                    return Ok(None);
                };
                let result = call_one(&function, item)
                    .map_err(|raised| annotate(link, raised.fetch(py), "callbacks", Some(item)))?;
                if is_awaitable(&result) {
                    let pipeline = PyPushLink::pipeline(link)?;
                    let wait = Pipeline::pending_callback(result, item);
                    let state = PushState::of(item);
                    let rest = Push::pending(link, InFlight { pipeline, state }, wait)?;
                    return Ok(Some(Pushed::Pending(Some(rest), false)));
                }
            }
        }
        Ok(Some(Pushed::Accepted))
    }
}

impl Branch {
    pub(super) fn of(sink: Bound<'_, PyAny>) -> PyResult<Self> {
        cycle::attach(&sink);
        let fused = match sink.cast::<PyPushLink>() {
            Ok(link) if PyPushLink::can_fuse(link)? => Some(FusedBranch::of(link)?),
            _ => None,
        };
        Ok(Self {
            fused,
            is_done: AtomicBool::new(false),
            sink: sink.unbind().into(),
        })
    }

    /// Push an item as far as possible without waiting.
    #[inline]
    pub(super) fn push<'py>(&self, item: &Bound<'py, PyAny>, mode: Mode) -> PyResult<Pushed<'py>> {
        let py = item.py();
        let Some(fused) = &self.fused else {
            return self.push_foreign(item, mode);
        };
        if let Some(pushed) = fused.push_direct(item, mode)? {
            return Ok(pushed);
        }
        let nesting = Nesting::enter(&DEPTH);
        if nesting.depth >= MAX_DEPTH {
            return Err(PyRecursionError::new_err(format!(
                "more than {MAX_DEPTH} fan-outs are nested in each other"
            )));
        }
        let link = fused.link.bind(py);
        let pipeline = PyPushLink::open_pipeline(link, item)?;
        if mode == Mode::NoWait {
            return Pushed::from_result(&pipeline.push_nowait(link, item)?);
        }
        let mut state = PushState::of(item);
        match pipeline.run_until_wait(link, &mut state, Some((item.clone(), 0)), mode) {
            Ok(None) if state.is_done() => Ok(Pushed::Done),
            Ok(None) => Ok(Pushed::Accepted),
            Ok(Some(wait)) => {
                let has_it = !state.caller_owns();
                let rest = Push::pending(link, InFlight { pipeline, state }, wait)?;
                Ok(Pushed::Pending(Some(rest), has_it))
            }
            Err(error) => Err(InFlight { pipeline, state }.fail(link, error, false)),
        }
    }

    fn push_foreign<'py>(&self, item: &Bound<'py, PyAny>, mode: Mode) -> PyResult<Pushed<'py>> {
        let py = item.py();
        let sink = self.sink.bind(py);
        match mode {
            // `next` is called in the task that awaits it.
            Mode::Await => Ok(Pushed::Pending(None, false)),
            Mode::NoWait => {
                let result = sink.call_method1(intern!(py, "next_nowait"), (item,))?;
                match answer_nowait(sink, result)? {
                    Delivered::Answered(result) => Pushed::from_result(&result),
                    _ => Ok(Pushed::Accepted),
                }
            }
        }
    }

    pub(super) fn has_room(&self, py: Python<'_>) -> bool {
        let Some(fused) = &self.fused else {
            return true;
        };
        let link = fused.link.bind(py);
        PyPushLink::pipeline(link).is_ok_and(|pipeline| pipeline.has_room(link))
    }
}

traverse!(Branch { sink, fused });
traverse!(FusedBranch { link, direct });
traverse!(
    enum DirectSink {
        List(list),
        Callbacks(callbacks),
    }
);

/// The result of pushing into a branch.
pub(super) enum Pushed<'py> {
    Accepted,
    Done,
    /// The awaitable to wait for, or `None` for the sink's own `next`; and whether a stage of the
    /// branch has already consumed the item.
    Pending(Option<Bound<'py, PyAny>>, bool),
}

impl<'py> Pushed<'py> {
    fn from_result(result: &Bound<'py, PyAny>) -> PyResult<Self> {
        Ok(if result.cast::<PyIteratorResult>()?.get().is_done() {
            Self::Done
        } else {
            Self::Accepted
        })
    }
}
