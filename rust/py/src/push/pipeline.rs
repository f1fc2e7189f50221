//! `Pipeline`: a fused stretch of push links, and the end where items leave it. `Push` runs it; `PyPushLink` stores it.
//!
//! Unlike a pull pipeline it has no state: concurrent pushes share it. Each
//! [`super::awaitable::Push`] holds its own suspension, and the links hold retained items. A
//! pipeline is built once, at the first push, since the sinks of a push object are fixed at
//! construction.

use pyo3::prelude::*;
use pyo3::types::PyList;

use super::callbacks::PyCallbacks;
use super::fan::PyFan;
use super::link::{Outlet, PyPushLink};
use super::work_stack::{PushState, Retained};
use crate::buffer::PyBuffer;
use crate::errors;
use crate::kernel::AnyKernel;
use crate::object::gc::traverse;

/// One link of a pipeline, with its kernel.
#[derive(Debug)]
pub(super) struct Stage {
    /// `None` for the first link, which owns the pipeline.
    pub(super) link: Option<Py<PyPushLink>>,
    pub(super) kernel: AnyKernel,
    /// Whether processing an item changes the kernel, so that an item must not be processed twice.
    pub(super) is_stateful: bool,
}

/// The end of a pipeline, where items leave it.
#[derive(Debug)]
pub(crate) enum End {
    /// `link.next_impl(item)` of a subclass.
    Implementation,
    /// A list, and the maximum number of its items.
    Collect(Py<PyList>, Option<usize>),
    /// A buffer.
    Queue(Py<PyBuffer>),
    /// Callables.
    Call(Py<PyCallbacks>),
    /// Many push objects.
    Fan(Py<PyFan>),
    /// `sink.next(item)` of a sink that is not fused.
    Foreign(Py<PyAny>),
    /// None: the class overrides nothing.
    Unset,
}

impl End {
    /// Return the end that consists of this object.
    pub(super) fn of(object: &Bound<'_, PyAny>, maxsize: Option<usize>) -> PyResult<Self> {
        if let Ok(list) = object.cast_exact::<PyList>() {
            Ok(Self::Collect(list.clone().unbind(), maxsize))
        } else if let Ok(buffer) = object.cast_exact::<PyBuffer>() {
            Ok(Self::Queue(buffer.clone().unbind()))
        } else if let Ok(callbacks) = object.cast_exact::<PyCallbacks>() {
            Ok(Self::Call(callbacks.clone().unbind()))
        } else if let Ok(fan) = object.cast_exact::<PyFan>() {
            Ok(Self::Fan(fan.clone().unbind()))
        } else {
            Err(errors::wrong_type(
                "outlet",
                "a push object with a kernel, a list, a buffer, callbacks or a fan",
                object,
            ))
        }
    }

    pub(super) fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Implementation => Self::Implementation,
            Self::Collect(list, maxsize) => Self::Collect(list.clone_ref(py), *maxsize),
            Self::Queue(buffer) => Self::Queue(buffer.clone_ref(py)),
            Self::Call(callbacks) => Self::Call(callbacks.clone_ref(py)),
            Self::Fan(fan) => Self::Fan(fan.clone_ref(py)),
            Self::Foreign(sink) => Self::Foreign(sink.clone_ref(py)),
            Self::Unset => Self::Unset,
        }
    }
}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(super) stages: Vec<Stage>,
    /// The link at the end, unless that is the first link or foreign.
    pub(super) last: Option<Py<PyPushLink>>,
    pub(super) end: End,
}

impl Pipeline {
    pub(super) fn build(head: &Bound<'_, PyPushLink>) -> PyResult<Self> {
        let py = head.py();
        let mut stages = Vec::new();
        let mut link = head.clone();
        let end = loop {
            if PyPushLink::has_implementation(&link)? {
                break End::Implementation;
            }
            match link.get().outlet(py) {
                Outlet::End(end) => break end,
                Outlet::Stage { sink, kernel } => {
                    let is_first = link.is(head);
                    stages.push(Stage {
                        link: (!is_first).then(|| link.clone().unbind()),
                        is_stateful: is_stateful(&kernel),
                        kernel,
                    });
                    let sink = sink.bind(py).clone();
                    match sink.cast::<PyPushLink>() {
                        Ok(native) if PyPushLink::can_fuse(native)? => link = native.clone(),
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

    /// Return the link at the end.
    #[inline]
    pub(super) fn last<'a, 'py>(
        &'a self,
        head: &'a Bound<'py, PyPushLink>,
    ) -> &'a Bound<'py, PyPushLink> {
        self.last.as_ref().map_or(head, |link| link.bind(head.py()))
    }

    /// Return the object downstream of the stages: ending it, after the flush, ends the pipeline.
    pub(super) fn tail<'py>(&self, head: &Bound<'py, PyPushLink>) -> Bound<'py, PyAny> {
        match &self.end {
            End::Foreign(sink) => sink.bind(head.py()).clone(),
            _ => self.last(head).as_any().clone(),
        }
    }

    /// Retain the unfinished work of a push for later pushes: the stack and, if the push was
    /// cancelled, the checkpoint. Return the links that retain outputs of the pushed item.
    #[cold]
    pub(super) fn retain_rest(
        &self,
        head: &Bound<'_, PyPushLink>,
        state: PushState,
        was_cancelled: bool,
    ) -> Vec<Py<PyPushLink>> {
        let caller_owns = state.caller_owns();
        let mut keepers: Vec<Py<PyPushLink>> = Vec::new();
        // Links prepend, so the first work to be done is retained last.
        for work in state.into_remaining(was_cancelled) {
            if work.is_caller_item {
                continue;
            }
            let link = self.stages[work.entry - 1].bind(head);
            link.get().retain(head.py(), work.content);
            if !caller_owns && !keepers.iter().any(|keeper| keeper.is(link)) {
                keepers.push(link.clone().unbind());
            }
        }
        keepers
    }

    /// Flush stage `number` at the end of supply: collect its items, and accept no more.
    pub(super) fn flush_stage(
        &self,
        head: &Bound<'_, PyPushLink>,
        state: &mut PushState,
        number: usize,
    ) {
        let py = head.py();
        let stage = &self.stages[number];
        let link = stage.bind(head);
        link.get().begin_end();
        let retained = link.get().take_retained(py);
        if let Some(output) = stage.kernel.flush(py) {
            state.push(number + 1, Retained::Item(output.unbind()), false);
        }
        for what in retained.into_iter().rev() {
            state.push(number + 1, what, false);
        }
    }
}

traverse!(Pipeline { stages, last, end });
traverse!(Stage { link, kernel });
traverse!(
    enum End {
        Implementation {},
        Collect(list, _),
        Queue(buffer),
        Call(callbacks),
        Fan(fan),
        Foreign(sink),
        Unset {},
    }
);

fn is_stateful(kernel: &AnyKernel) -> bool {
    !matches!(
        kernel,
        AnyKernel::Map(_) | AnyKernel::Filter(_) | AnyKernel::Flatten(_) | AnyKernel::FlatMap(_)
    )
}

impl Stage {
    /// Return the link of this stage.
    #[inline]
    pub(super) fn bind<'a, 'py>(
        &'a self,
        head: &'a Bound<'py, PyPushLink>,
    ) -> &'a Bound<'py, PyPushLink> {
        self.link.as_ref().map_or(head, |link| link.bind(head.py()))
    }

    /// Add a note that names this stage's operator, and the item if it is known, to an error of its callable.
    #[cold]
    pub(super) fn annotate(
        &self,
        head: &Bound<'_, PyPushLink>,
        error: PyErr,
        item: Option<&Bound<'_, PyAny>>,
    ) -> PyErr {
        annotate(self.bind(head), error, self.kernel.parameter(), item)
    }
}

/// Add a note that names the operator, and the item if it is known, to an error of a callable of `link`.
#[cold]
pub(super) fn annotate(
    link: &Bound<'_, PyPushLink>,
    error: PyErr,
    parameter: &str,
    item: Option<&Bound<'_, PyAny>>,
) -> PyErr {
    let operator = link
        .get_type()
        .name()
        .map_or_else(|_| "a push object".to_owned(), |name| name.to_string());
    errors::from_callable(
        link.py(),
        error,
        &format!("{parameter} of {operator}"),
        item,
    )
}
