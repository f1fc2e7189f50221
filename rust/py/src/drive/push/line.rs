//! A fused stretch of push links, down to where items leave it.
//!
//! Unlike a pull line it has no state: pushes run through it side by side, and what is suspended is
//! kept by each [`super::awaitable::Push`]. It is built once, at the first push, since what a push
//! object leads to is fixed when it is made.

use pyo3::exceptions::{PyNotImplementedError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyList;

use super::link::{Outlet, PushLink};
use crate::awaitable::{Inner, Seen, Step, Stopped};
use crate::buffer::{Buffer, Putting};
use crate::errors;
use crate::kernel::{AnyKernel, Flow};
use crate::result::IteratorResult;

/// One link on the way.
#[derive(Debug)]
struct Stage {
    /// `None` for the first one, which owns the line.
    link: Option<Py<PushLink>>,
    kernel: AnyKernel,
}

/// Where items leave the line.
#[derive(Debug)]
enum End {
    /// `link.next_impl(item)` of a subclass. The link is `None` if it is the head.
    Implementation,
    Collect {
        link: Option<Py<PushLink>>,
        list: Py<PyList>,
    },
    Queue {
        link: Option<Py<PushLink>>,
        buffer: Py<Buffer>,
    },
    /// `sink.next(item)` of a push object that is not run in place.
    Foreign(Py<PyAny>),
}

/// See the top of this file.
#[derive(Debug)]
pub(crate) struct Line {
    stages: Vec<Stage>,
    end: End,
}

/// Where a push is suspended.
#[derive(Debug)]
pub(crate) enum Place {
    /// It lets the loop have a turn.
    Rest(Py<PyAny>),
    /// It awaits what the callable of stage number `stage` returned for `item`.
    Stage {
        inner: Inner,
        item: Py<PyAny>,
        stage: usize,
    },
    /// It waits for room in a buffer.
    Queue(Box<Putting>),
    /// It awaits a sink that is not run in place.
    Sink(Inner),
}

impl Place {
    pub(crate) fn traverse(&self, see: Seen<'_>) -> Result<(), Stopped> {
        match self {
            Self::Rest(item) => see(item),
            Self::Stage { inner, item, .. } => {
                see(inner.object())?;
                see(item)
            }
            Self::Queue(putting) => putting.traverse(see),
            Self::Sink(inner) => see(inner.object()),
        }
    }
}

/// What running a line came to.
pub(crate) enum Advance<'py> {
    /// What `next()` gives.
    Done(Bound<'py, PyAny>),
    Suspend(Place, Bound<'py, PyAny>),
}

impl Line {
    pub(crate) fn build(head: &Bound<'_, PushLink>) -> PyResult<Self> {
        let py = head.py();
        let mut stages = Vec::new();
        let mut link = head.clone();
        let end = loop {
            let owned = (!link.is(head)).then(|| link.clone().unbind());
            if PushLink::has_implementation(&link)? {
                break End::Implementation;
            }
            match link.get().outlet(py) {
                Outlet::Collect(list) => break End::Collect { link: owned, list },
                Outlet::Queue(buffer) => {
                    break End::Queue {
                        link: owned,
                        buffer,
                    };
                }
                Outlet::Stage { sink, kernel } => {
                    stages.push(Stage {
                        link: owned,
                        kernel,
                    });
                    let sink = sink.into_bound(py);
                    match sink.cast::<PushLink>() {
                        Ok(native) if PushLink::can_fuse(native)? => link = native.clone(),
                        _ => break End::Foreign(sink.unbind()),
                    }
                }
                Outlet::Unset | Outlet::Gone => {
                    return Err(PyNotImplementedError::new_err(format!(
                        "{} accepts no items: override next_impl()",
                        link.get_type().name()?
                    )));
                }
            }
        };
        Ok(Self { stages, end })
    }

    /// Runs one item from stage number `number` to where it is accepted, or to a suspension.
    #[inline]
    pub(crate) fn advance<'py>(
        &self,
        head: &Bound<'py, PushLink>,
        mut item: Bound<'py, PyAny>,
        mut number: usize,
    ) -> PyResult<Advance<'py>> {
        let py = head.py();
        while let Some(stage) = self.stages.get(number) {
            if let Some(link) = &stage.link {
                link.get().check(&item)?;
            }
            match stage
                .kernel
                .feed(&item)
                .map_err(|raised| stage.blame(head, raised.fetch(py)))?
            {
                Flow::Emit(output) => {
                    item = output;
                    number += 1;
                }
                Flow::Skip => return accepted(py).map(Advance::Done),
                Flow::Last(_) | Flow::Stop | Flow::Many(_) => {
                    unreachable!("refused when the push object was made")
                }
                Flow::Await(awaitable) => {
                    let inner = Inner::of(awaitable).map_err(|error| stage.blame(head, error))?;
                    let step = inner.send(&py.None().into_bound(py));
                    match self.went(head, number, &item, inner, step)? {
                        Begun::Went(Some(output)) => {
                            item = output;
                            number += 1;
                        }
                        Begun::Went(None) => return accepted(py).map(Advance::Done),
                        Begun::Suspended(place, object) => {
                            return Ok(Advance::Suspend(place, object));
                        }
                    }
                }
            }
        }
        self.deliver(head, item)
    }

    /// Hands an item to what is at the end.
    #[inline]
    fn deliver<'py>(
        &self,
        head: &Bound<'py, PushLink>,
        item: Bound<'py, PyAny>,
    ) -> PyResult<Advance<'py>> {
        let py = head.py();
        match &self.end {
            End::Collect { link, list } => {
                if let Some(link) = link {
                    link.get().check(&item)?;
                }
                list.bind(py).append(item)?;
                accepted(py).map(Advance::Done)
            }
            End::Queue { link, buffer } => {
                if let Some(link) = link {
                    link.get().check(&item)?;
                }
                match Buffer::offer(buffer.bind(py), item)? {
                    None => accepted(py).map(Advance::Done),
                    Some(putting) => Self::wait(py, Box::new(putting)),
                }
            }
            End::Foreign(sink) => {
                Self::hand_over(sink.bind(py).call_method1(intern!(py, "next"), (item,))?)
            }
            End::Implementation => Self::hand_over(
                head.as_any()
                    .call_method1(intern!(py, "next_impl"), (item,))?,
            ),
        }
    }

    /// Waits for room, unless some came in between.
    fn wait(py: Python<'_>, mut putting: Box<Putting>) -> PyResult<Advance<'_>> {
        match putting.step(py)? {
            None => accepted(py).map(Advance::Done),
            Some(future) => Ok(Advance::Suspend(Place::Queue(putting), future)),
        }
    }

    /// Awaits somebody else's `next`.
    fn hand_over(awaitable: Bound<'_, PyAny>) -> PyResult<Advance<'_>> {
        let py = awaitable.py();
        let inner = Inner::of(awaitable)?;
        let step = inner.send(&py.None().into_bound(py));
        Self::handed(py, inner, step)
    }

    fn handed<'py>(
        py: Python<'py>,
        inner: Inner,
        step: PyResult<Step<'py>>,
    ) -> PyResult<Advance<'py>> {
        match step? {
            Step::Yield(object) => Ok(Advance::Suspend(Place::Sink(inner), object)),
            Step::Return(result) => outcome(py, result).map(Advance::Done),
        }
    }

    fn went<'py>(
        &self,
        head: &Bound<'py, PushLink>,
        number: usize,
        item: &Bound<'py, PyAny>,
        inner: Inner,
        step: PyResult<Step<'py>>,
    ) -> PyResult<Begun<'py>> {
        let stage = &self.stages[number];
        let result = match step {
            Ok(Step::Return(result)) => result,
            Ok(Step::Yield(object)) => {
                let place = Place::Stage {
                    inner,
                    item: item.clone().unbind(),
                    stage: number,
                };
                return Ok(Begun::Suspended(place, object));
            }
            Err(error) => return Err(stage.blame(head, error)),
        };
        match stage.kernel.resume(item, result) {
            Ok(Flow::Emit(output)) => Ok(Begun::Went(Some(output))),
            Ok(Flow::Skip) => Ok(Begun::Went(None)),
            Ok(_) => unreachable!("a kernel awaits once an item, and others were refused"),
            Err(error) => Err(stage.blame(head, error)),
        }
    }

    /// Goes on where a push was suspended, with what its task sent or threw.
    pub(crate) fn resume<'py>(
        &self,
        head: &Bound<'py, PushLink>,
        place: Place,
        sent: Result<&Bound<'py, PyAny>, PyErr>,
    ) -> PyResult<Advance<'py>> {
        let py = head.py();
        match place {
            Place::Rest(item) => {
                sent?;
                self.advance(head, item.into_bound(py), 0)
            }
            Place::Queue(putting) => {
                // Dropping it gives up its place; its item never left the caller.
                sent?;
                Self::wait(py, putting)
            }
            Place::Sink(inner) => {
                let step = match sent {
                    Ok(value) => inner.send(value),
                    Err(error) => inner.throw(py, error),
                };
                Self::handed(py, inner, step)
            }
            Place::Stage {
                inner,
                item,
                stage: number,
            } => {
                let item = item.into_bound(py);
                let step = match sent {
                    Ok(value) => inner.send(value),
                    Err(error) => inner.throw(py, error),
                };
                match self.went(head, number, &item, inner, step)? {
                    Begun::Went(Some(output)) => self.advance(head, output, number + 1),
                    Begun::Went(None) => accepted(py).map(Advance::Done),
                    Begun::Suspended(place, object) => Ok(Advance::Suspend(place, object)),
                }
            }
        }
    }

    /// One item without waiting.
    pub(crate) fn push_now<'py>(
        &self,
        head: &Bound<'py, PushLink>,
        item: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = head.py();
        // A buffer is asked directly: it says itself that it is full, from any thread, where no
        // loop runs.
        if let End::Queue { link, buffer } = &self.end
            && self.stages.is_empty()
        {
            if let Some(link) = link {
                link.get().check(&item)?;
            }
            return match buffer.get().offer_now(item) {
                Ok(()) => accepted(py),
                Err(refused) => Err(refused.into_error(py, None)),
            };
        }
        self.push_through(head, item)
    }

    fn push_through<'py>(
        &self,
        head: &Bound<'py, PushLink>,
        original: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = head.py();
        let mut item = original.clone();
        for stage in &self.stages {
            match stage
                .kernel
                .feed(&item)
                .map_err(|raised| stage.blame(head, raised.fetch(py)))?
            {
                Flow::Emit(output) => item = output,
                Flow::Skip => return accepted(py),
                Flow::Last(_) | Flow::Stop | Flow::Many(_) => {
                    unreachable!("refused when the push object was made")
                }
                Flow::Await(awaitable) => {
                    // A coroutine that nobody will await is closed, so that it does not complain.
                    if let Some(close) = awaitable.getattr_opt(intern!(py, "close"))? {
                        close.call0()?;
                    }
                    return Err(would_block(original));
                }
            }
        }
        match &self.end {
            End::Collect { link, list } => {
                if let Some(link) = link {
                    link.get().check(&original)?;
                }
                list.bind(py).append(item)?;
                accepted(py)
            }
            End::Queue { link, buffer } => {
                if let Some(link) = link {
                    link.get().check(&original)?;
                }
                match buffer.get().offer_now(item) {
                    Ok(()) => accepted(py),
                    Err(refused) => Err(refused.into_error(py, Some(original))),
                }
            }
            End::Foreign(sink) => sink
                .bind(py)
                .call_method1(intern!(py, "next_nowait"), (item,)),
            End::Implementation => Err(PyRuntimeError::new_err(format!(
                "{} has an async next_impl and cannot be pushed without waiting; await next(item)",
                head.get_type().name()?
            ))),
        }
    }

    /// Shows the collector what this holds.
    pub(crate) fn traverse(&self, see: Seen<'_>) -> Result<(), Stopped> {
        for stage in &self.stages {
            if let Some(link) = &stage.link {
                see(link.as_any())?;
            }
            see(stage.kernel.as_any())?;
        }
        let (link, store) = match &self.end {
            End::Implementation => (None, None),
            End::Collect { link, list } => (link.as_ref(), Some(list.as_any())),
            End::Queue { link, buffer } => (link.as_ref(), Some(buffer.as_any())),
            End::Foreign(sink) => (None, Some(sink)),
        };
        link.map_or(Ok(()), |link| see(link.as_any()))?;
        store.map_or(Ok(()), see)
    }
}

enum Begun<'py> {
    /// It went through; `None` if it was dropped there.
    Went(Option<Bound<'py, PyAny>>),
    Suspended(Place, Bound<'py, PyAny>),
}

impl Stage {
    #[cold]
    fn blame(&self, head: &Bound<'_, PushLink>, error: PyErr) -> PyErr {
        let py = head.py();
        let operator = self
            .link
            .as_ref()
            .map_or_else(|| head.get_type(), |link| link.bind(py).get_type());
        let operator = operator
            .name()
            .map_or_else(|_| "a push object".to_owned(), |name| name.to_string());
        errors::from_callable(py, error, &operator, self.kernel.parameter())
    }
}

fn would_block(item: Bound<'_, PyAny>) -> PyErr {
    errors::refused(
        item.py(),
        "WouldBlock",
        "the item cannot be accepted without waiting; it is in this error's `item`",
        item,
    )
}

/// What `next` gives for an item that was accepted.
#[inline]
fn accepted(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    IteratorResult::accepted(py)
}

/// What somebody else's `next` or `next_impl` came to: its result, or acceptance if it returned
/// nothing.
fn outcome<'py>(py: Python<'py>, result: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if result.is_none() {
        return accepted(py);
    }
    if result.is_instance_of::<IteratorResult>() {
        return Ok(result);
    }
    Err(errors::wrong_type(
        "the result of a push",
        "None or an IteratorResult",
        &result,
    ))
}
