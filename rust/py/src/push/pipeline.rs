//! A fused stretch of push links, down to where items leave it.
//!
//! Unlike a pull line it has no state: pushes run through it side by side. What is suspended is kept
//! by each [`super::awaitable::Push`], what is kept for later by the links. It is built once, at the
//! first push, since what a push object leads to is fixed when it is made.

use pyo3::prelude::*;
use pyo3::types::PyList;

use super::callbacks::Callbacks;
use super::fan::Fan;
use super::link::{Outlet, PushLink};
use super::work_stack::{Kept, Todo};
use crate::buffer::Buffer;
use crate::errors;
use crate::kernel::AnyKernel;
use crate::object::gc::{Traverse, VisitError, Visitor};

/// One link on the way.
#[derive(Debug)]
pub(super) struct Stage {
    /// `None` for the first one, which owns the line.
    pub(super) link: Option<Py<PushLink>>,
    pub(super) kernel: AnyKernel,
    /// Whether an item changes it, so that it cannot be fed to it twice.
    pub(super) keeps_state: bool,
}

/// Where items leave the line.
#[derive(Debug)]
pub(super) enum End {
    /// `link.next_impl(item)` of a subclass.
    Implementation,
    /// A list, and how many items it may hold.
    Collect(Py<PyList>, Option<usize>),
    Queue(Py<Buffer>),
    Call(Py<Callbacks>),
    Fan(Py<Fan>),
    /// `sink.next(item)` of a push object that is not run in place.
    Foreign(Py<PyAny>),
    /// Nowhere: a class that overrides nothing.
    Unset,
}

/// See the top of this file.
#[derive(Debug)]
pub(crate) struct Line {
    pub(super) stages: Vec<Stage>,
    /// The link at the end, unless it is the first one, or foreign.
    pub(super) last: Option<Py<PushLink>>,
    pub(super) end: End,
}

impl Line {
    pub(super) fn build(head: &Bound<'_, PushLink>) -> PyResult<Self> {
        let py = head.py();
        let mut stages = Vec::new();
        let mut link = head.clone();
        let end = loop {
            if PushLink::has_implementation(&link)? {
                break End::Implementation;
            }
            match link.get().outlet(py) {
                Outlet::Collect(list, maxsize) => break End::Collect(list, maxsize),
                Outlet::Queue(buffer) => break End::Queue(buffer),
                Outlet::Call(callbacks) => break End::Call(callbacks),
                Outlet::Fan(fan) => break End::Fan(fan),
                Outlet::Stage { sink, kernel } => {
                    let is_first = link.is(head);
                    stages.push(Stage {
                        link: (!is_first).then(|| link.clone().unbind()),
                        keeps_state: keeps_state(&kernel),
                        kernel,
                    });
                    let sink = sink.bind(py).clone();
                    match sink.cast::<PushLink>() {
                        Ok(native) if PushLink::can_fuse(native)? => link = native.clone(),
                        _ => break End::Foreign(sink.unbind()),
                    }
                }
                Outlet::Unset | Outlet::Gone => break End::Unset,
            }
        };
        let has_last = !link.is(head) && !matches!(end, End::Foreign(_));
        Ok(Self {
            stages,
            last: has_last.then(|| link.unbind()),
            end,
        })
    }

    /// The link at the end, or the first one.
    #[inline]
    pub(super) fn last<'a, 'py>(
        &'a self,
        head: &'a Bound<'py, PushLink>,
    ) -> &'a Bound<'py, PushLink> {
        self.last.as_ref().map_or(head, |link| link.bind(head.py()))
    }

    /// What is below the stages: what ends the line when they have been flushed.
    pub(super) fn tail<'py>(&self, head: &Bound<'py, PushLink>) -> Bound<'py, PyAny> {
        match &self.end {
            End::Foreign(sink) => sink.bind(head.py()).clone(),
            _ => self.last(head).as_any().clone(),
        }
    }

    /// Keeps what a push leaves behind for the next one: what is on the stack and, if it was
    /// cancelled, what was being carried. Gives the links that keep something of the pushed item.
    #[cold]
    pub(super) fn leave(
        &self,
        head: &Bound<'_, PushLink>,
        todo: Todo,
        was_cancelled: bool,
    ) -> Vec<Py<PushLink>> {
        let is_callers = todo.is_callers();
        let mut keepers: Vec<Py<PushLink>> = Vec::new();
        // The last on the stack is to be the first.
        for work in todo.into_left(was_cancelled) {
            if work.is_callers {
                continue;
            }
            let link = self.stages[work.entry - 1].bind(head);
            link.get().keep(head.py(), work.what);
            if !is_callers && !keepers.iter().any(|keeper| keeper.is(link)) {
                keepers.push(link.clone().unbind());
            }
        }
        keepers
    }

    /// Takes what a stage still holds, at the end of supply, and lets nothing more in.
    pub(super) fn flush_stage(&self, head: &Bound<'_, PushLink>, todo: &mut Todo, number: usize) {
        let py = head.py();
        let stage = &self.stages[number];
        let link = stage.bind(head);
        link.get().begin_end();
        let kept = link.get().take_kept(py);
        if let Some(output) = stage.kernel.flush(py) {
            todo.push(number + 1, Kept::Item(output.unbind()), false);
        }
        for what in kept.into_iter().rev() {
            todo.push(number + 1, what, false);
        }
    }
}

impl Traverse for Line {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        for stage in &self.stages {
            if let Some(link) = &stage.link {
                visit(link.as_any())?;
            }
            visit(stage.kernel.as_any())?;
        }
        if let Some(link) = &self.last {
            visit(link.as_any())?;
        }
        match &self.end {
            End::Implementation | End::Unset => Ok(()),
            End::Collect(list, _) => visit(list.as_any()),
            End::Queue(buffer) => visit(buffer.as_any()),
            End::Call(callbacks) => visit(callbacks.as_any()),
            End::Fan(fan) => visit(fan.as_any()),
            End::Foreign(sink) => visit(sink),
        }
    }
}

fn keeps_state(kernel: &AnyKernel) -> bool {
    !matches!(
        kernel,
        AnyKernel::Map(_) | AnyKernel::Filter(_) | AnyKernel::Flatten(_) | AnyKernel::FlatMap(_)
    )
}

impl Stage {
    /// The link whose place this is.
    #[inline]
    pub(super) fn bind<'a, 'py>(
        &'a self,
        head: &'a Bound<'py, PushLink>,
    ) -> &'a Bound<'py, PushLink> {
        self.link.as_ref().map_or(head, |link| link.bind(head.py()))
    }

    /// The error as it leaves the callable of this stage.
    #[cold]
    pub(super) fn blame(&self, head: &Bound<'_, PushLink>, error: PyErr) -> PyErr {
        blame(self.bind(head), error, self.kernel.parameter())
    }
}

/// The error as it leaves a callable of `link`.
#[cold]
pub(super) fn blame(link: &Bound<'_, PushLink>, error: PyErr, parameter: &str) -> PyErr {
    let operator = link
        .get_type()
        .name()
        .map_or_else(|_| "a push object".to_owned(), |name| name.to_string());
    errors::from_callable(link.py(), error, &operator, parameter)
}
