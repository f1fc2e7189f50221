//! `PyPushLink`: the native base of every push object. `PushObj` in `headrace/push/base.py` derives from it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::awaitable::Push;
use super::cycle;
use super::pipeline::{End, Pipeline};
use super::work_stack::{PushState, Retained};
use crate::buffer::PyBuffer;
use crate::errors;
use crate::kernel::AnyKernel;
use crate::object::gc::{self, Traverse, traverse};
use crate::object::gil_cell::GilCell;
use crate::object::int_setting::check_int;
use crate::object::iterative_drop::IterativeDrop;
use crate::runtime::fork_guard::ProcessId;

/// The destination of a link's items.
#[derive(Debug)]
pub(crate) enum Outlet {
    /// None yet: a user's subclass, with `next_impl` as its sink.
    Unset,
    /// A kernel, then another push object.
    Stage {
        kernel: AnyKernel,
        sink: IterativeDrop<PyAny>,
    },
    /// The end of a pipeline.
    End(End),
    /// None: the garbage collector cleared the link.
    Gone,
}

traverse!(enum Outlet {
    Unset {},
    Stage { sink, kernel },
    End(end),
    Gone {},
});

/// The states of a link. Accepts items.
const OPEN: u8 = 0;
/// Being ended.
const ENDING: u8 = 1;
/// The end was cancelled: the link accepts no items, but has not delivered the ones that it holds.
const INTERRUPTED: u8 = 2;
const ENDED: u8 = 3;

/// The native part of `PushObj` and its subclasses.
#[pyclass(
    name = "PushLink",
    subclass,
    generic,
    frozen,
    weakref,
    module = "headrace._core"
)]
#[derive(Debug)]
pub(crate) struct PyPushLink {
    home: ProcessId,
    end: AtomicU8,
    pipeline: GilCell<Option<Arc<Pipeline>>>,
    /// Outputs of its kernel whose pushes were cancelled downstream. They precede the next item.
    retained: GilCell<VecDeque<Retained>>,
    has_retained: AtomicBool,
    /// Whether a push object was ever built on this one; see [`cycle`].
    pub(super) is_attached: AtomicBool,
    /// The last field, since it leads to the next link; see [`crate::object::iterative_drop`].
    outlet: GilCell<Outlet>,
}

#[pymethods]
impl PyPushLink {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self {
            home: ProcessId::current(),
            end: AtomicU8::new(OPEN),
            pipeline: GilCell::new(None),
            retained: GilCell::new(VecDeque::new()),
            has_retained: AtomicBool::new(false),
            is_attached: AtomicBool::new(false),
            outlet: GilCell::new(Outlet::Unset),
        }
    }

    /// `outlet` is the push object downstream, with the kernel to apply first; or a list, with an
    /// optional `maxsize`; or a buffer, callbacks or a fan; or `None`.
    #[pyo3(signature = (outlet = None, kernel = None, *, maxsize = None))]
    fn __init__(
        slf: &Bound<'_, Self>,
        outlet: Option<&Bound<'_, PyAny>>,
        kernel: Option<&Bound<'_, PyAny>>,
        maxsize: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let maxsize = maxsize
            .map(|maxsize| check_int("maxsize", 1, maxsize))
            .transpose()?
            .map(|maxsize| usize::try_from(maxsize).unwrap_or(usize::MAX));
        let leads = match (outlet, kernel) {
            (None, None) => Outlet::Unset,
            (Some(sink), Some(kernel)) => {
                cycle::attach(sink);
                Outlet::Stage {
                    kernel: AnyKernel::of(kernel)?,
                    sink: sink.clone().unbind().into(),
                }
            }
            (Some(end), None) => Outlet::End(End::of(end, maxsize)?),
            (None, Some(kernel)) => {
                return Err(errors::wrong_type("kernel", "given with an outlet", kernel));
            }
        };
        let old = std::mem::replace(&mut *this.outlet.borrow(py), leads);
        if cycle::is_cyclic(slf) {
            let circular = std::mem::replace(&mut *this.outlet.borrow(py), old);
            drop(circular);
            return Err(cycle::cycle_error(slf, outlet.unwrap_or(slf)));
        }
        drop(old);
        Ok(())
    }

    /// Return whether the class overrides a method of the protocol, so that no pipeline may fuse it.
    #[classattr]
    #[pyo3(name = "_is_opaque")]
    fn is_opaque() -> bool {
        false
    }

    /// Return whether the class has its own `next_impl`.
    #[classattr]
    #[pyo3(name = "_has_own_push")]
    fn has_own_push() -> bool {
        false
    }

    /// Push one item. Done when a sink has accepted it.
    fn next<'py>(slf: Bound<'py, Self>, item: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        Push::make(slf, item)
    }

    /// Push one item without waiting, or raise `WouldBlock`, which carries the item.
    fn next_nowait<'py>(
        slf: &Bound<'py, Self>,
        item: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let pipeline = Self::open_pipeline(slf, item)?;
        pipeline.push_nowait(slf, item)
    }

    /// Return whether it was ended.
    #[getter]
    fn closed(&self) -> bool {
        self.is_closed()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| {
            self.outlet.traverse(visit)?;
            self.retained.traverse(visit)?;
            match self.pipeline.peek_for_gc().as_deref() {
                Some(Some(pipeline)) if Arc::strong_count(pipeline) == 1 => {
                    pipeline.traverse(visit)
                }
                // Otherwise a running push holds it too, and visits it.
                _ => Ok(()),
            }
        })
    }

    fn __clear__(&self, py: Python<'_>) {
        let outlet = std::mem::replace(&mut *self.outlet.borrow(py), Outlet::Gone);
        let pipeline = self.pipeline.borrow(py).take();
        let retained = self.take_retained(py);
        // The outlet last, as in the destructor.
        drop((pipeline, retained, outlet));
    }
}

impl PyPushLink {
    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.end.load(Relaxed) != OPEN
    }

    /// Reject an item if this link is closed, or belongs to the parent of a fork.
    #[inline]
    pub(super) fn check(&self, item: &Bound<'_, PyAny>) -> PyResult<()> {
        self.home.check(item.py(), "push object")?;
        if self.is_closed() {
            Err(closed_error(item))
        } else {
            Ok(())
        }
    }

    /// Return whether an item may enter. Items flushed upstream may also enter while this link is being
    /// ended.
    #[inline]
    pub(super) fn is_open_for(&self, py: Python<'_>, is_flush: bool) -> PyResult<bool> {
        self.home.check(py, "push object")?;
        let end = self.end.load(Relaxed);
        Ok(end == OPEN || (is_flush && end != ENDED))
    }

    /// Accept no more items.
    pub(super) fn begin_end(&self) {
        if self.end.load(Relaxed) == OPEN {
            self.end.store(ENDING, Relaxed);
        }
    }

    /// Return whether retained outputs precede the next item.
    #[inline]
    pub(super) fn has_retained(&self) -> bool {
        self.has_retained.load(Relaxed)
    }

    /// Retain an output that was not delivered.
    pub(super) fn retain(&self, py: Python<'_>, content: Retained) {
        self.retained.borrow(py).push_front(content);
        self.has_retained.store(true, Relaxed);
    }

    pub(super) fn take_retained(&self, py: Python<'_>) -> VecDeque<Retained> {
        self.has_retained.store(false, Relaxed);
        std::mem::take(&mut *self.retained.borrow(py))
    }

    /// Return the buffer at the end, if an item enters it without stages or checks.
    #[inline]
    pub(super) fn direct_buffer(&self, py: Python<'_>) -> Option<Py<PyBuffer>> {
        if self.is_closed() || !self.home.is_current() {
            return None;
        }
        match self.pipeline.borrow(py).as_deref() {
            Some(Pipeline {
                stages,
                end: End::Queue(buffer),
                ..
            }) if stages.is_empty() && buffer.get().is_plain() => Some(buffer.clone_ref(py)),
            _ => None,
        }
    }

    /// Return the pipeline that starts here, if it accepts this item.
    #[inline]
    pub(super) fn open_pipeline(
        link: &Bound<'_, Self>,
        item: &Bound<'_, PyAny>,
    ) -> PyResult<Arc<Pipeline>> {
        link.get().check(item)?;
        Self::pipeline(link)
    }

    /// Return the pipeline that starts here.
    #[inline]
    pub(super) fn pipeline(link: &Bound<'_, Self>) -> PyResult<Arc<Pipeline>> {
        let this = link.get();
        let py = link.py();
        if let Some(pipeline) = &*this.pipeline.borrow(py) {
            return Ok(Arc::clone(pipeline));
        }
        let pipeline = Arc::new(Pipeline::build(link)?);
        *this.pipeline.borrow(py) = Some(Arc::clone(&pipeline));
        Ok(pipeline)
    }

    pub(super) fn outlet(&self, py: Python<'_>) -> Outlet {
        match &*self.outlet.borrow(py) {
            Outlet::Unset => Outlet::Unset,
            Outlet::Stage { sink, kernel } => Outlet::Stage {
                kernel: kernel.clone_ref(py),
                sink: sink.clone_ref(py).into(),
            },
            Outlet::End(end) => Outlet::End(end.clone_ref(py)),
            Outlet::Gone => Outlet::Gone,
        }
    }

    /// Return whether a pipeline may fuse this link.
    pub(super) fn can_fuse(link: &Bound<'_, Self>) -> PyResult<bool> {
        Ok(!link
            .get_type()
            .getattr(intern!(link.py(), "_is_opaque"))?
            .is_truthy()?)
    }

    pub(super) fn has_implementation(link: &Bound<'_, Self>) -> PyResult<bool> {
        link.get_type()
            .getattr(intern!(link.py(), "_has_own_push"))?
            .is_truthy()
    }
}

/// Return the error that returns an item which was pushed after the end.
pub(super) fn closed_error(item: &Bound<'_, PyAny>) -> PyErr {
    errors::refused(
        item.py(),
        "ClosedError",
        "pushed after the end; the item is in this error's `item`",
        item.clone(),
    )
}

/// Start to end a push object, which then accepts no more items. Return `False` if it is being
/// ended or has ended.
#[pyfunction]
pub(crate) fn end_push(link: &Bound<'_, PyPushLink>) -> PyResult<bool> {
    let this = link.get();
    this.home.check(link.py(), "push object")?;
    let is_mine = matches!(this.end.load(Relaxed), OPEN | INTERRUPTED);
    if is_mine {
        this.end.store(ENDING, Relaxed);
    }
    Ok(is_mine)
}

/// Finish the end that `end_push` started, for this link and the links that the flush passed: they
/// have ended, or must be ended again.
#[pyfunction]
pub(crate) fn settle_push(link: &Bound<'_, PyPushLink>, ended: bool) {
    let settle = |link: &PyPushLink| {
        if link.end.load(Relaxed) == ENDING {
            link.end
                .store(if ended { ENDED } else { INTERRUPTED }, Relaxed);
        }
    };
    let this = link.get();
    settle(this);
    let pipeline = this.pipeline.borrow(link.py()).as_ref().map(Arc::clone);
    if let Some(pipeline) = pipeline {
        for stage in &pipeline.stages {
            settle(stage.bind(link).get());
        }
    }
}

/// Flush the pipeline that starts here, which then accepts no more items. The awaitable returns the
/// push object in which the pipeline ends.
#[pyfunction]
pub(crate) fn flush_push<'py>(link: &Bound<'py, PyPushLink>) -> PyResult<Bound<'py, PyAny>> {
    Push::flush(link)
}

/// Drop the items that the pipeline holds, and accept no more. Return the push object in which the
/// pipeline ends.
#[pyfunction]
pub(crate) fn drop_push<'py>(link: &Bound<'py, PyPushLink>) -> PyResult<Bound<'py, PyAny>> {
    let pipeline = PyPushLink::pipeline(link)?;
    let mut state = PushState::flush();
    for number in 0..pipeline.stages.len() {
        pipeline.flush_stage(link, &mut state, number);
    }
    drop(state);
    Ok(pipeline.tail(link))
}
