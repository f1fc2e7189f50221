//! `PyPullLink`: the native base of every pull object. `PullObj` in `headrace/pull/base.py` derives from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple, PyWeakrefMethods, PyWeakrefReference};
use pyo3::{PyTraverseError, PyVisit};

use super::awaitable::{Pull, ResultFormat};
use super::cycle;
use super::fusion::FusionGuard;
use super::state::{Label, LinkState, Origin, Phase};
use crate::buffer::PyBuffer;
use crate::coroutine::Parked;
use crate::errors;
use crate::kernel::AnyKernel;
use crate::merge;
use crate::object::gc::{self, Traverse};
use crate::object::gil_cell::GilCell;
use crate::runtime::asyncio;
use crate::runtime::blocking_wait::this_thread;
use crate::runtime::fork_guard::ProcessId;
use crate::source::{AnySource, PyAsyncIterSource};

/// The native part of `PullObj` and its subclasses.
#[pyclass(
    name = "PullLink",
    subclass,
    generic,
    frozen,
    weakref,
    module = "headrace._core"
)]
#[derive(Debug)]
pub(crate) struct PyPullLink {
    home: ProcessId,
    pub(super) label: Option<Label>,
    /// Whether a link was ever built on this one; see [`cycle`].
    pub(super) is_attached: AtomicBool,
    pub(crate) state: GilCell<LinkState>,
}

#[pymethods]
impl PyPullLink {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::with_origin(Origin::Unset)
    }

    /// `origin` is the link upstream, with the kernel to apply to its items; or a native source; or
    /// `None`.
    #[pyo3(signature = (origin = None, kernel = None))]
    fn __init__(
        slf: &Bound<'_, Self>,
        origin: Option<&Bound<'_, PyAny>>,
        kernel: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let mut upstream = None;
        let with_origin = match (origin, kernel) {
            (None, None) => Origin::Unset,
            (Some(source), Some(kernel)) => {
                let Ok(source) = source.cast::<PyPullLink>() else {
                    return Err(errors::wrong_type("source", "a pull object", source));
                };
                let kernel = AnyKernel::of(kernel)?;
                cycle::attach(source);
                upstream = Some(source);
                Origin::Stage {
                    kernel,
                    source: source.clone().unbind().into(),
                }
            }
            (Some(feed), None) => Origin::Source(AnySource::of(feed)?),
            (None, Some(kernel)) => {
                return Err(errors::wrong_type("kernel", "given with an origin", kernel));
            }
        };
        let old = std::mem::replace(&mut this.state.borrow(py).origin, with_origin);
        if cycle::is_cyclic(slf) {
            let circular = std::mem::replace(&mut this.state.borrow(py).origin, old);
            drop(circular);
            let owner = slf.get_type().name()?.to_string();
            return Err(cycle::cycle_error(
                &owner,
                "source",
                upstream.unwrap_or(slf),
            ));
        }
        drop(old);
        if let Some(upstream) = upstream {
            upstream.get().state.borrow(py).consumers += 1;
        }
        Ok(())
    }

    /// Return whether the class overrides a method of the protocol, so that no pipeline may fuse it.
    #[classattr]
    #[pyo3(name = "_is_opaque")]
    fn is_opaque() -> bool {
        false
    }

    /// Return whether the class has its own `pull_impl`.
    #[classattr]
    #[pyo3(name = "_has_own_pull")]
    fn has_own_pull() -> bool {
        false
    }

    fn __aiter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __anext__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        Pull::make(slf, ResultFormat::Item)
    }

    /// Return the next item as `IteratorResult(value, done)`.
    fn next(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        Pull::make(slf, ResultFormat::Result)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| self.state.traverse(visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        // Dropped after the borrow: a destructor may access this link.
        let gone = self.state.borrow(py).clear();
        drop(gone);
    }
}

impl PyPullLink {
    /// Create a link.
    pub(super) fn with_origin(origin: Origin) -> Self {
        Self {
            home: ProcessId::current(),
            label: None,
            is_attached: AtomicBool::new(false),
            state: GilCell::new(LinkState::with_origin(origin)),
        }
    }

    /// Create a plain link whose errors name this operator and parameter.
    pub(super) fn with_label(origin: Origin, label: Label) -> Self {
        Self {
            label: Some(label),
            ..Self::with_origin(origin)
        }
    }

    pub(crate) fn home(&self) -> ProcessId {
        self.home
    }

    /// Return a copy of the link's origin.
    pub(super) fn origin(&self, py: Python<'_>) -> Origin {
        let state = self.state.borrow(py);
        match &state.origin {
            Origin::Source(feed) => Origin::Source(feed.clone_ref(py)),
            Origin::Stage { source, kernel } => Origin::Stage {
                kernel: kernel.clone_ref(py),
                source: source.clone_ref(py).into(),
            },
            Origin::Unset => Origin::Unset,
        }
    }

    /// Return the source over a subclass's `pull_impl`.
    pub(super) fn implementation(link: &Bound<'_, Self>) -> PyResult<AnySource> {
        let py = link.py();
        if let Some(feed) = &link.get().state.borrow(py).implementation {
            return Ok(feed.clone_ref(py));
        }
        let method = link.as_any().getattr(intern!(py, "pull_impl"))?;
        let feed = AnySource::AsyncIter(Py::new(py, PyAsyncIterSource::made_by(&method))?);
        link.get().state.borrow(py).implementation = Some(feed.clone_ref(py));
        Ok(feed)
    }

    /// Return whether a subclass has its own `pull_impl`, which then is its source regardless of its
    /// origin.
    pub(super) fn has_implementation(link: &Bound<'_, Self>) -> PyResult<bool> {
        Self::has_flag(link, intern!(link.py(), "_has_own_pull"))
    }

    /// Return the value of a class attribute.
    fn has_flag(link: &Bound<'_, Self>, name: &Bound<'_, PyString>) -> PyResult<bool> {
        link.get_type().getattr(name)?.is_truthy()
    }

    /// Return whether a pipeline of a link downstream may run this link.
    pub(super) fn can_fuse(link: &Bound<'_, Self>) -> PyResult<bool> {
        let py = link.py();
        if Self::has_flag(link, intern!(py, "_is_opaque"))? {
            return Ok(false);
        }
        // Drop the link's own pipeline from earlier direct pulls. The links hold everything that
        // must survive.
        let old = {
            let mut state = link.get().state.borrow(py);
            if state.shared
                || state.consumers > 1
                || state.running
                || !state.lock.is_free()
                || state.phase != Phase::Open
            {
                return Ok(false);
            }
            state.pipeline.take()
        };
        drop(old);
        Ok(true)
    }

    /// Return whether it runs no user code that could read the current task: it has a native source, and
    /// its kernels have no callables.
    pub(crate) fn is_plain(link: &Bound<'_, Self>) -> PyResult<bool> {
        let py = link.py();
        let mut link = link.clone();
        loop {
            if Self::has_flag(&link, intern!(py, "_is_opaque"))? {
                return Ok(false);
            }
            let source = match link.get().origin(py) {
                Origin::Source(feed) => return Ok(!matches!(feed, AnySource::AsyncIter(_))),
                Origin::Stage {
                    source,
                    kernel: AnyKernel::Batch(_) | AnyKernel::Take(_) | AnyKernel::Skip(_),
                } => source,
                Origin::Unset | Origin::Stage { .. } => return Ok(false),
            };
            link = source.bind(py).clone();
        }
    }

    /// Reject a pull by a source of this same stream, which would wait for itself.
    pub(super) fn reject_own_source(link: &Bound<'_, Self>) -> PyResult<()> {
        let py = link.py();
        let mut link = link.clone();
        loop {
            link = match link.get().origin(py) {
                Origin::Stage { source, .. } => source.bind(py).clone(),
                Origin::Source(AnySource::Merge(feed)) if feed.get().merge(py).get().is_own(py) => {
                    return Err(merge::own_source_error());
                }
                Origin::Source(_) | Origin::Unset => return Ok(()),
            };
        }
    }

    pub(super) fn set_fused_into(&self, py: Python<'_>, guard: &Arc<FusionGuard>, position: usize) {
        self.state.borrow(py).fused_into = Some((Arc::clone(guard), position));
    }

    pub(super) fn retain(&self, item: Bound<'_, PyAny>) {
        let old = self.state.borrow(item.py()).retained.replace(item.unbind());
        debug_assert!(
            old.is_none(),
            "only one pull runs at a time, and it takes the retained item first"
        );
    }

    /// Take back items that the link delivered. The next pulls deliver them again.
    pub(crate) fn hand_back(link: &Bound<'_, Self>, items: Vec<Py<PyAny>>) {
        if items.is_empty() {
            return;
        }
        let py = link.py();
        let mut state = link.get().state.borrow(py);
        if state.phase == Phase::Closed {
            drop(state);
            drop(items);
            return;
        }
        for item in items.into_iter().rev() {
            state.returned.push_front(item);
        }
        if let Some(pipeline) = &mut state.pipeline {
            pipeline.add_pending_tail();
        }
        let guard = state.fused_into.clone();
        drop(state);
        // The pipeline that runs this link rebuilds itself before its next item.
        if let Some((guard, _)) = guard {
            guard.revoked.store(true, Relaxed);
        }
    }

    pub(super) fn take_returned<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        Some(self.state.borrow(py).returned.pop_front()?.into_bound(py))
    }

    /// Return the open inner source, if there is one.
    pub(super) fn inner_source(&self, py: Python<'_>) -> Option<AnySource> {
        Some(self.state.borrow(py).inner_source.as_ref()?.clone_ref(py))
    }

    pub(super) fn set_inner_source(&self, py: Python<'_>, feed: Option<AnySource>) {
        let old = std::mem::replace(&mut self.state.borrow(py).inner_source, feed);
        drop(old);
    }

    /// Return whether the link holds items that precede those from upstream.
    pub(super) fn has_pending(&self, py: Python<'_>) -> bool {
        let state = self.state.borrow(py);
        state.retained.is_some() || state.inner_source.is_some() || !state.returned.is_empty()
    }

    pub(super) fn take_retained<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        Some(self.state.borrow(py).retained.take()?.into_bound(py))
    }

    /// Cancel the object that the suspended pull awaits, which resumes its task.
    ///
    /// # Errors
    ///
    /// `RuntimeError`: that pull is running, so it would wait for its own end.
    pub(super) fn cancel_suspended(&self, py: Python<'_>) -> PyResult<()> {
        let awaiting = {
            let state = self.state.borrow(py);
            if state.running {
                return Err(PyRuntimeError::new_err(
                    "a stream cannot be closed inside its own callable: the closing would wait for that callable; let the consumer close it",
                ));
            }
            state
                .suspended
                .as_ref()
                .map(|suspended| suspended.awaiting.clone_ref(py))
        };
        match awaiting {
            Some(awaiting) => asyncio::cancel(awaiting.bind(py)),
            None => Ok(()),
        }
    }

    /// Return the pipeline of another link that runs this one, if there is one.
    pub(super) fn fused_into(&self, py: Python<'_>) -> Option<(Arc<FusionGuard>, usize)> {
        let mut state = self.state.borrow(py);
        let gone = state.fused_into.take_if(|(guard, _)| !guard.is_alive());
        let guard = state.fused_into.clone();
        drop(state);
        drop(gone);
        guard
    }

    /// Detach this link from another link's pipeline before it is pulled directly. If that pipeline
    /// is currently inside this link, return the mailbox entry to wait on.
    pub(super) fn detach(&self, py: Python<'_>) -> PyResult<Option<Parked>> {
        let Some((guard, position)) = self.fused_into(py) else {
            return Ok(None);
        };
        let parked = guard.revoke(py, position)?;
        let mut state = self.state.borrow(py);
        state.shared = true;
        let gone = state.fused_into.take_if(|_| parked.is_none());
        drop(state);
        drop(gone);
        Ok(parked)
    }

    /// Return the buffer that is this link's source, if the link consists of that alone. The result is
    /// cached.
    pub(super) fn find_buffer(link: &Bound<'_, Self>) -> PyResult<Option<Py<PyBuffer>>> {
        let py = link.py();
        let feed = match &link.get().state.borrow(py).origin {
            Origin::Source(AnySource::Buffer(feed)) => feed.clone_ref(py),
            _ => return Ok(None),
        };
        if Self::has_implementation(link)? {
            return Ok(None);
        }
        let buffer = feed.get().buffer(py);
        let mut state = link.get().state.borrow(py);
        let old = state.buffer_source.replace(buffer.clone_ref(py));
        drop(state);
        drop(old);
        Ok(Some(buffer))
    }

    /// Bind the link to the running event loop until it is restarted, or reject another loop.
    ///
    /// An idle link can move to another loop, in any thread, once its own loop is closed or was
    /// collected. A link with a suspended pull cannot: that pull never ends, and the next one would
    /// wait for it.
    pub(super) fn bind_loop(&self, py: Python<'_>) -> PyResult<()> {
        // Driven by hand, without an event loop.
        let Ok(running) = asyncio::running_loop(py) else {
            self.state.borrow(py).thread = this_thread();
            return Ok(());
        };
        let known = {
            let state = self.state.borrow(py);
            state.event_loop.as_ref().map(|weak| weak.clone_ref(py))
        };
        if let Some(known) = &known {
            let event_loop = known.bind(py).upgrade();
            if event_loop.as_ref().is_some_and(|known| known.is(&running)) {
                // The loop may run in another thread than before.
                self.state.borrow(py).thread = this_thread();
                return Ok(());
            }
            let is_over = match event_loop {
                Some(event_loop) => asyncio::is_closed(&event_loop)?,
                None => true,
            };
            if !is_over || !self.state.borrow(py).is_idle() {
                return Err(wrong_loop(py));
            }
        }
        let weak = PyWeakrefReference::new(&running)?.unbind();
        let mut state = self.state.borrow(py);
        // `is_closed` runs Python code, during which another loop may have bound the link.
        let is_same = match (&state.event_loop, &known) {
            (Some(now), Some(known)) => now.is(known),
            (None, None) => true,
            _ => false,
        };
        if !is_same || (known.is_some() && !state.is_idle()) {
            drop(state);
            return self.bind_loop(py);
        }
        let old = state.event_loop.replace(weak);
        state.thread = this_thread();
        drop(state);
        drop(old);
        Ok(())
    }
}

#[cold]
fn wrong_loop(py: Python<'_>) -> PyErr {
    errors::wrong_loop(
        py,
        "this stream is in use on another event loop; use it there, or call aclose() there, or restart() after its end",
    )
}
