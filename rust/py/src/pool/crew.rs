//! The workers of a lane: asyncio tasks that are used again, for tasks that need none of their own.
//!
//! There are as many as plain tasks ever ran at once, which the capacity bounds. One that has nothing to do parks on a
//! future, and is the next to be used: the last one to rest is the warmest.
//!
//! What is stepped is the plain task, under the name of its asyncio task, which is parked meanwhile. As long as it waits for
//! nothing but turns of the loop, one callback a turn steps all that do so ([`Crew::turn`]); only one that waits for a
//! future wakes its asyncio task, which goes on with it.
//!
//! What one plain task did to the asyncio task must not reach the next one. A cancellation that nobody undid is undone. One
//! that is on its way still, since the plain task asked for it in its last step, is waited for before the worker rests. But
//! whoever kept the asyncio task, and cancels it when its work is over, hits whatever runs there then.

use pyo3::exceptions::{PyGeneratorExit, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::field::Field;
use super::lane::Lane;
use super::worker::{Job, Worker};
use crate::coroutine::{Native, Step};
use crate::merge::task_context::TaskGuard;
use crate::object::gc::traverse;
use crate::object::gil_cell::GilCell;
use crate::runtime::asyncio;

/// One worker.
#[derive(Debug)]
struct Member {
    task: Py<PyAny>,
    coroutine: Py<PyAny>,
    /// What it waits on while it has nothing to do. Without one, a step of its asyncio task is due.
    park: Option<Py<PyAny>>,
    /// Whether it is among the idle.
    rests: bool,
    /// Whether what it does waits for a turn of the loop, while it is parked.
    turns: bool,
    /// Whether its park was seen to wait still, at the end of what it did.
    is_clean: bool,
}

#[derive(Debug, Default)]
pub(super) struct Crew {
    members: Vec<Option<Member>>,
    /// Those that may be given something to do.
    idle: Vec<usize>,
    /// Places of those that ended.
    free: Vec<usize>,
    /// Those that wait for a turn of the loop, and perhaps some that do not any more.
    turning: Vec<usize>,
    /// Whether they end as soon as they have nothing to do.
    is_over: bool,
}

impl Crew {
    /// Has a worker begin with a plain task, which is live from then on.
    pub(super) fn launch(lane: &Bound<'_, Lane>, job: Job) -> PyResult<()> {
        let py = lane.py();
        let this = lane.get();
        let (task, coroutine) = Self::idle(lane)?;
        this.roll
            .add(py, job.ticket.id, Some(task.clone().unbind()));
        let mut entered = TaskGuard::default();
        entered.enter(this.event_loop(py), task.clone(), true)?;
        Native::<Worker>::drive(&coroutine, |worker| worker.begin(&task, job)).map(drop)
    }

    /// A worker that has nothing to do: its asyncio task and its coroutine.
    fn idle<'py>(lane: &Bound<'py, Lane>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let py = lane.py();
        let mut crew = lane.get().crew.borrow(py);
        if let Some(number) = crew.idle.pop()
            && let Some(member) = &mut crew.members[number]
        {
            member.rests = false;
            return Ok((
                member.task.bind(py).clone(),
                member.coroutine.bind(py).clone(),
            ));
        }
        drop(crew);
        Self::hire(lane)
    }

    #[cold]
    fn hire<'py>(lane: &Bound<'py, Lane>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let py = lane.py();
        let this = lane.get();
        let number = {
            let mut crew = this.crew.borrow(py);
            crew.free.pop().unwrap_or_else(|| {
                crew.members.push(None);
                crew.members.len() - 1
            })
        };
        let coroutine = Native::alloc(py, || Worker::new(lane.clone().unbind(), number))?;
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "loop"), this.event_loop(py))?;
        keywords.set_item(
            intern!(py, "name"),
            format!("{}: worker {}", this.name(), number + 1),
        )?;
        // Not by the loop's factory, which might start it before anybody knows of it.
        let task = asyncio::task_type(py)?.call((&coroutine,), Some(&keywords))?;
        let member = Member {
            task: task.clone().unbind(),
            coroutine: coroutine.clone().unbind(),
            park: None,
            rests: false,
            turns: false,
            is_clean: false,
        };
        this.crew.borrow(py).members[number] = Some(member);
        Ok((task, coroutine))
    }

    /// What a worker does waits for a turn of the loop; whether it will have it from here. An asyncio task that has not begun
    /// brings it itself.
    pub(super) fn await_turn(lane: &Bound<'_, Lane>, number: usize) -> PyResult<bool> {
        let py = lane.py();
        let is_first = {
            let mut crew = lane.get().crew.borrow(py);
            match crew.member(number) {
                Some(member) if member.park.is_some() => member.turns = true,
                _ => return Ok(false),
            }
            crew.turning.push(number);
            crew.turning.len() == 1
        };
        if is_first {
            lane.get().call_soon(lane, intern!(py, "turn"))?;
        }
        Ok(true)
    }

    /// The turn has come: steps all who wait for it.
    pub(super) fn turn(lane: &Bound<'_, Lane>) -> PyResult<()> {
        let py = lane.py();
        let due = std::mem::take(&mut lane.get().crew.borrow(py).turning);
        let mut entered = TaskGuard::default();
        let mut outcome = Ok(());
        for number in due {
            // One that fails has not to do with the others.
            outcome = outcome.and(Self::step(lane, number, &mut entered));
        }
        outcome
    }

    fn step<'py>(
        lane: &Bound<'py, Lane>,
        number: usize,
        entered: &mut TaskGuard<'py>,
    ) -> PyResult<()> {
        let py = lane.py();
        let (task, coroutine, park) = {
            let mut crew = lane.get().crew.borrow(py);
            match crew.member(number) {
                Some(Member {
                    task,
                    coroutine,
                    park: Some(park),
                    turns,
                    ..
                }) if *turns => {
                    *turns = false;
                    (
                        task.bind(py).clone(),
                        coroutine.bind(py).clone(),
                        park.bind(py).clone(),
                    )
                }
                _ => return Ok(()),
            }
        };
        if is_done(&park)? {
            // It was cancelled, and its asyncio task is about to say so.
            return Ok(());
        }
        entered.enter(lane.get().event_loop(py), task.clone(), false)?;
        Native::<Worker>::drive(&coroutine, |worker| worker.turn(&task)).map(drop)
    }

    /// The asyncio task of a worker goes on with what waited for a turn: it was cancelled.
    pub(super) fn take_over(lane: &Bound<'_, Lane>, number: usize) {
        let py = lane.py();
        let park = (lane.get().crew.borrow(py).member(number)).and_then(|member| {
            member.turns = false;
            member.park.take()
        });
        drop(park);
    }

    /// The asyncio task of a worker is to go on with what that began.
    pub(super) fn wake(lane: &Bound<'_, Lane>, number: usize) -> PyResult<()> {
        let py = lane.py();
        let park =
            (lane.get().crew.borrow(py).member(number)).and_then(|member| member.park.take());
        let Some(park) = park else {
            return Ok(());
        };
        let park = park.bind(py);
        match park.call_method1(intern!(py, "set_result"), (py.None(),)) {
            Ok(_) => Ok(()),
            // It was cancelled by the very step, and will wake for that.
            Err(_) if is_done(park)? => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What a worker began is over, in its first step.
    pub(super) fn rest_ahead(lane: &Bound<'_, Lane>, number: usize) -> PyResult<()> {
        let py = lane.py();
        let mut crew = lane.get().crew.borrow(py);
        let (task, park) = match crew.member(number) {
            Some(member) if member.is_clean => {
                member.is_clean = false;
                crew.list(number);
                return Ok(());
            }
            Some(member) => (
                member.task.clone_ref(py),
                member.park.as_ref().map(|park| park.clone_ref(py)),
            ),
            None => return Ok(()),
        };
        drop(crew);
        let struck = match park {
            // Whoever cancelled the asyncio task has cancelled this.
            Some(park) if !is_done(park.bind(py))? => false,
            Some(_) => {
                absolve(task.bind(py))?;
                true
            }
            None => is_struck(task.bind(py))?,
        };
        if !struck {
            lane.get().crew.borrow(py).list(number);
        }
        Ok(())
    }

    /// What a worker began is over: the next thing that its asyncio task waits for.
    pub(super) fn rest<'py>(lane: &Bound<'py, Lane>, number: usize) -> PyResult<Step<'py>> {
        let py = lane.py();
        let task = lane.get().crew.borrow(py).task(py, number);
        match task {
            Some(task) if is_struck(task.bind(py))? => Ok(Step::Yield(py.None().into_bound(py))),
            _ => Self::park(lane, number),
        }
    }

    /// A worker has nothing to do: a future to wait on; or its end, if there will never be anything again.
    pub(super) fn park<'py>(lane: &Bound<'py, Lane>, number: usize) -> PyResult<Step<'py>> {
        let py = lane.py();
        if lane.get().crew.borrow(py).is_over {
            Self::dismiss(lane, number);
            return Ok(Step::Return(py.None().into_bound(py)));
        }
        let park = lane
            .get()
            .event_loop(py)
            .call_method0(intern!(py, "create_future"))?;
        park.setattr(intern!(py, "_asyncio_future_blocking"), true)?;
        let old = {
            let mut crew = lane.get().crew.borrow(py);
            crew.list(number);
            crew.member(number)
                .and_then(|member| member.park.replace(park.clone().unbind()))
        };
        drop(old);
        Ok(Step::Yield(park))
    }

    /// An error was thrown into a worker that has nothing to do.
    #[cold]
    pub(super) fn struck<'py>(
        lane: &Bound<'py, Lane>,
        number: usize,
        error: PyErr,
    ) -> PyResult<Step<'py>> {
        let py = lane.py();
        let task = lane.get().crew.borrow(py).task(py, number);
        let is_left_over = !error.is_instance_of::<PyGeneratorExit>(py)
            && match task {
                Some(task) => !is_cancelled(task.bind(py))?,
                None => false,
            };
        if is_left_over {
            return Self::park(lane, number);
        }
        Self::dismiss(lane, number);
        Err(error)
    }

    /// A worker ends.
    fn dismiss(lane: &Bound<'_, Lane>, number: usize) {
        let mut crew = lane.get().crew.borrow(lane.py());
        let member = crew.members.get_mut(number).and_then(Option::take);
        if member.is_some() {
            crew.idle.retain(|&idle| idle != number);
            crew.free.push(number);
        }
        drop(crew);
        drop(member);
    }

    /// Has all workers end that have nothing to do, and the others when they have not; gives their asyncio tasks.
    pub(super) fn end<'py>(lane: &Bound<'py, Lane>) -> PyResult<Bound<'py, PyList>> {
        let py = lane.py();
        let (tasks, parks) = {
            let mut crew = lane.get().crew.borrow(py);
            crew.is_over = true;
            let idle = std::mem::take(&mut crew.idle);
            let parks: Vec<_> = (idle.into_iter())
                .filter_map(|number| crew.member(number)?.park.take())
                .collect();
            let members = crew.members.iter().flatten();
            let tasks: Vec<_> = members.map(|member| member.task.clone_ref(py)).collect();
            (tasks, parks)
        };
        for park in parks {
            let park = park.bind(py);
            if !is_done(park)? {
                park.call_method1(intern!(py, "set_result"), (py.None(),))?;
            }
        }
        PyList::new(py, tasks)
    }

    fn member(&mut self, number: usize) -> Option<&mut Member> {
        self.members.get_mut(number)?.as_mut()
    }

    fn task(&self, py: Python<'_>, number: usize) -> Option<Py<PyAny>> {
        let member = self.members.get(number)?.as_ref()?;
        Some(member.task.clone_ref(py))
    }

    /// What it waited on when it was given something to do, and waits on still.
    fn parked(&self, py: Python<'_>, number: usize) -> Option<Py<PyAny>> {
        let park = self.members.get(number)?.as_ref()?.park.as_ref()?;
        Some(park.clone_ref(py))
    }

    /// It is among the idle, once.
    fn list(&mut self, number: usize) {
        if let Some(member) = self.member(number)
            && !member.rests
        {
            member.rests = true;
            self.idle.push(number);
        }
    }
}

traverse!(Crew { members });
traverse!(Member {
    task,
    coroutine,
    park
});

fn is_done(future: &Bound<'_, PyAny>) -> PyResult<bool> {
    static STATE: Field = Field::new("_state");
    let py = future.py();
    match STATE.read(future) {
        Some(state) => {
            let (state, pending) = (state?, intern!(py, "PENDING"));
            Ok(!state.is(pending) && state.ne(pending)?)
        }
        None => (future.call_method0(intern!(py, "done"))?).is_truthy(),
    }
}

fn is_cancelled(task: &Bound<'_, PyAny>) -> PyResult<bool> {
    task.call_method0(intern!(task.py(), "cancelling"))?
        .is_truthy()
}

/// Undoes the cancellations that a plain task left behind. Whether one of them is still on its way: before 3.13 `uncancel`
/// does not stop it.
fn is_struck(task: &Bound<'_, PyAny>) -> PyResult<bool> {
    absolve(task)?;
    must_cancel(task)
}

/// The error by which an asyncio task, that of a worker perhaps, was cancelled in the step that it is in, if it was, and there is no
/// other step to come that would meet it.
pub(super) fn struck_now<'py>(
    crew: &GilCell<Crew>,
    task: &Bound<'py, PyAny>,
    worker: Option<usize>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = task.py();
    let parked = worker.and_then(|number| crew.borrow(py).parked(py, number));
    // What it parked on it still waits for, and that is what was cancelled then. From 3.13 on asyncio lets `uncancel` undo it.
    let (is_struck, cancelled) = match &parked {
        Some(park) => {
            let is_clean = !is_done(park.bind(py))?;
            if is_clean
                && let Some(number) = worker
                && let Some(member) = crew.borrow(py).member(number)
            {
                member.is_clean = true;
            }
            let is_struck = !is_clean && (!cfg!(Py_3_13) || is_cancelled(task)?);
            (is_struck, park.bind(py))
        }
        None => (must_cancel(task)?, task),
    };
    if is_struck {
        let error = cancelled.call_method0(intern!(py, "_make_cancelled_error"))?;
        return Ok(Some(error));
    }
    Ok(None)
}

/// Whether a cancellation is on its way that no step has met.
fn must_cancel(task: &Bound<'_, PyAny>) -> PyResult<bool> {
    static MUST_CANCEL: Field = Field::new("_must_cancel");
    if let Some(must) = MUST_CANCEL.read(task) {
        return must?.is_truthy();
    }
    match task.getattr_opt(intern!(task.py(), "_must_cancel"))? {
        Some(must) => must.is_truthy(),
        None => Err(PyRuntimeError::new_err(
            "this interpreter's asyncio.Task has no _must_cancel, which a pool needs",
        )),
    }
}

fn absolve(task: &Bound<'_, PyAny>) -> PyResult<()> {
    while is_cancelled(task)? {
        task.call_method0(intern!(task.py(), "uncancel"))?;
    }
    Ok(())
}
