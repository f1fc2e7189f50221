//! `PullLink`: the base of every pull object.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyWeakrefMethods, PyWeakrefReference};
use pyo3::{PyTraverseError, PyVisit};

use super::awaitable::{Delivery, Pull};
use super::circle;
use super::fusion::Claim;
use super::state::{Label, Origin, Phase, State};
use crate::buffer::Buffer;
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

/// The native part of a pull object: `PullObj` and everything derived from it.
#[pyclass(subclass, generic, frozen, weakref, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PullLink {
    home: ProcessId,
    pub(super) label: Option<Label>,
    /// Whether something pulls it, or did; see [`circle`].
    pub(super) is_attached: AtomicBool,
    pub(crate) state: GilCell<State>,
}

#[pymethods]
impl PullLink {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::made_of(Origin::Unset)
    }

    /// `origin`: the link above, with the kernel to apply to its items; or a feed; or nothing.
    #[pyo3(signature = (origin = None, kernel = None))]
    fn __init__(
        slf: &Bound<'_, Self>,
        origin: Option<&Bound<'_, PyAny>>,
        kernel: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let made_of = match (origin, kernel) {
            (None, None) => Origin::Unset,
            (Some(source), Some(kernel)) => {
                let Ok(source) = source.cast::<PullLink>() else {
                    return Err(errors::wrong_type("source", "a pull object", source));
                };
                let kernel = AnyKernel::of(kernel)?;
                circle::attach(source);
                Origin::Stage {
                    kernel,
                    source: source.clone().unbind().into(),
                }
            }
            (Some(feed), None) => Origin::Feed(AnySource::of(feed)?),
            (None, Some(kernel)) => {
                return Err(errors::wrong_type("kernel", "given with an origin", kernel));
            }
        };
        let old = std::mem::replace(&mut this.state.borrow(py).origin, made_of);
        if circle::leads_to_itself(slf) {
            let circular = std::mem::replace(&mut this.state.borrow(py).origin, old);
            drop(circular);
            let owner = slf.get_type().name()?.to_string();
            let source = kernel.and(origin).unwrap_or(slf);
            return Err(circle::refusal(&owner, "source", source));
        }
        drop(old);
        if let (Some(source), Some(_)) = (origin, kernel)
            && let Ok(source) = source.cast::<PullLink>()
        {
            source.get().state.borrow(py).consumers += 1;
        }
        Ok(())
    }

    /// Whether the class overrides any method of the protocol, so that no line may run it in place.
    #[classattr]
    #[pyo3(name = "_is_opaque")]
    fn is_opaque() -> bool {
        false
    }

    /// Whether the class has a `pull_impl` of its own.
    #[classattr]
    #[pyo3(name = "_has_own_pull")]
    fn has_own_pull() -> bool {
        false
    }

    fn __aiter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __anext__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        Pull::make(slf, Delivery::Item)
    }

    /// The next item as `IteratorResult(value, done)`.
    fn next(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        Pull::make(slf, Delivery::Result)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(state) = self.state.peek_for_gc() else {
            return Ok(());
        };
        gc::visit(&visit, |visit| state.traverse(visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        // Taken out under the borrow, dropped after it: a destructor may come back here.
        let gone = self.state.borrow(py).clear();
        drop(gone);
    }
}

impl PullLink {
    /// A new link.
    pub(super) fn made_of(origin: Origin) -> Self {
        Self {
            home: ProcessId::current(),
            label: None,
            is_attached: AtomicBool::new(false),
            state: GilCell::new(State::made_of(origin)),
        }
    }

    /// A new link of no class of its own, with what errors are to call it.
    pub(super) fn labelled(origin: Origin, label: Label) -> Self {
        Self {
            label: Some(label),
            ..Self::made_of(origin)
        }
    }

    pub(crate) fn home(&self) -> ProcessId {
        self.home
    }

    /// What it is made of.
    pub(super) fn origin(&self, py: Python<'_>) -> Origin {
        let state = self.state.borrow(py);
        match &state.origin {
            Origin::Feed(feed) => Origin::Feed(feed.clone_ref(py)),
            Origin::Stage { source, kernel } => Origin::Stage {
                kernel: kernel.clone_ref(py),
                source: source.clone_ref(py).into(),
            },
            Origin::Unset => Origin::Unset,
        }
    }

    /// The feed over `pull_impl` of a subclass.
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

    /// Whether a subclass has a `pull_impl` of its own, which then is its source whatever it is
    /// made of.
    pub(super) fn has_implementation(link: &Bound<'_, Self>) -> PyResult<bool> {
        link.get_type()
            .getattr(intern!(link.py(), "_has_own_pull"))?
            .is_truthy()
    }

    /// Whether this link may be run by a line that goes on above another link.
    pub(super) fn can_fuse(link: &Bound<'_, Self>) -> PyResult<bool> {
        let py = link.py();
        if link
            .get_type()
            .getattr(intern!(py, "_is_opaque"))?
            .is_truthy()?
        {
            return Ok(false);
        }
        // A line of its own, left from being pulled directly, is given up: what must stay is kept
        // in the links.
        let old = {
            let mut state = link.get().state.borrow(py);
            if state.shared
                || state.consumers > 1
                || state.running
                || !state.turn.is_idle()
                || state.phase != Phase::Open
            {
                return Ok(false);
            }
            state.line.take()
        };
        drop(old);
        Ok(true)
    }

    /// Whether it runs no code of the user's that could ask for its task: native sources, and
    /// kernels without callables over them.
    pub(crate) fn is_plain(link: &Bound<'_, Self>) -> PyResult<bool> {
        let py = link.py();
        let mut link = link.clone();
        loop {
            let class = link.get_type();
            if class.getattr(intern!(py, "_is_opaque"))?.is_truthy()? {
                return Ok(false);
            }
            let source = match link.get().origin(py) {
                Origin::Feed(feed) => return Ok(!matches!(feed, AnySource::AsyncIter(_))),
                Origin::Stage {
                    source,
                    kernel: AnyKernel::Window(_) | AnyKernel::Take(_) | AnyKernel::Skip(_),
                } => source,
                Origin::Unset | Origin::Stage { .. } => return Ok(false),
            };
            link = source.bind(py).clone();
        }
    }

    /// Refuses a pull by a source of this very stream: it would wait for itself.
    pub(super) fn refuse_own_source(link: &Bound<'_, Self>) -> PyResult<()> {
        let py = link.py();
        let mut link = link.clone();
        loop {
            link = match link.get().origin(py) {
                Origin::Stage { source, .. } => source.bind(py).clone(),
                Origin::Feed(AnySource::Merge(feed)) if feed.get().merge(py).get().is_own(py) => {
                    return Err(merge::own_source());
                }
                Origin::Feed(_) | Origin::Unset => return Ok(()),
            };
        }
    }

    pub(super) fn claimed_by(&self, py: Python<'_>, claim: &Arc<Claim>, position: usize) {
        self.state.borrow(py).claim = Some((Arc::clone(claim), position));
    }

    pub(super) fn keep(&self, item: Bound<'_, PyAny>) {
        let old = self.state.borrow(item.py()).kept.replace(item.unbind());
        debug_assert!(
            old.is_none(),
            "one pull at a time, and it starts with what is kept"
        );
    }

    /// Takes back items that left it: they are the next ones to leave it.
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
        if let Some(line) = &mut state.line {
            line.load_tail();
        }
        let claim = state.claim.clone();
        drop(state);
        // The line of another link that runs this one looks around before its next item.
        if let Some((claim, _)) = claim {
            claim.revoked.store(true, Relaxed);
        }
    }

    pub(super) fn take_returned<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.state
            .borrow(py)
            .returned
            .pop_front()
            .map(|item| item.into_bound(py))
    }

    /// What there is more of.
    pub(super) fn pending(&self, py: Python<'_>) -> Option<AnySource> {
        self.state
            .borrow(py)
            .pending
            .as_ref()
            .map(|feed| feed.clone_ref(py))
    }

    pub(super) fn set_pending(&self, py: Python<'_>, feed: Option<AnySource>) {
        let old = std::mem::replace(&mut self.state.borrow(py).pending, feed);
        drop(old);
    }

    /// Whether something is left here that goes before what comes from above.
    pub(super) fn is_loaded(&self, py: Python<'_>) -> bool {
        let state = self.state.borrow(py);
        state.kept.is_some() || state.pending.is_some() || !state.returned.is_empty()
    }

    pub(super) fn take_kept<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.state
            .borrow(py)
            .kept
            .take()
            .map(|item| item.into_bound(py))
    }

    /// Cancels what the pull that is under way waits for, which makes its task go on.
    ///
    /// # Errors
    ///
    /// `RuntimeError` if that pull is on the stack: it cannot wait for its own end.
    pub(super) fn cancel_flight(&self, py: Python<'_>) -> PyResult<()> {
        let awaiting = {
            let state = self.state.borrow(py);
            if state.running {
                return Err(PyRuntimeError::new_err(
                    "a stream cannot be closed from inside its own callable, for whose end it would wait; let the consumer close it",
                ));
            }
            state
                .flight
                .as_ref()
                .map(|flight| flight.awaiting.clone_ref(py))
        };
        match awaiting {
            Some(awaiting) => asyncio::cancel(awaiting.bind(py)),
            None => Ok(()),
        }
    }

    /// The line of another link that runs this one, if there is one.
    pub(super) fn claim(&self, py: Python<'_>) -> Option<(Arc<Claim>, usize)> {
        let gone = self
            .state
            .borrow(py)
            .claim
            .take_if(|(claim, _)| !claim.is_alive());
        drop(gone);
        self.state.borrow(py).claim.clone()
    }

    /// Makes sure that it is this link's to be pulled. If another link's line is inside it just
    /// now, gives the place to wait at.
    pub(super) fn release_claim(&self, py: Python<'_>) -> PyResult<Option<Parked>> {
        let Some((claim, position)) = self.claim(py) else {
            return Ok(None);
        };
        let mut parked = None;
        let free = claim.revoke(py, position, || {
            let place = Parked::new(py)?;
            let waker = place.waker();
            parked = Some(place);
            Ok(waker)
        })?;
        self.state.borrow(py).shared = true;
        if free {
            self.state.borrow(py).claim = None;
            return Ok(None);
        }
        Ok(parked)
    }

    /// The buffer that this link is the far end of, if that is all it is; remembered from then on.
    pub(super) fn find_far_end(link: &Bound<'_, Self>) -> PyResult<Option<Py<Buffer>>> {
        let py = link.py();
        let feed = match &link.get().state.borrow(py).origin {
            Origin::Feed(AnySource::Buffer(feed)) => feed.clone_ref(py),
            _ => return Ok(None),
        };
        if Self::has_implementation(link)? {
            return Ok(None);
        }
        let buffer = feed.get().buffer(py);
        let old = link
            .get()
            .state
            .borrow(py)
            .far_end
            .replace(buffer.clone_ref(py));
        drop(old);
        Ok(Some(buffer))
    }

    /// Binds the link to the running loop for this cycle, or refuses another one.
    ///
    /// A link that is idle goes on in the next loop once its own is closed or gone, in any thread. One in which a pull is
    /// suspended does not: that pull can never end, and the next one would wait for it.
    pub(super) fn bind_loop(&self, py: Python<'_>) -> PyResult<()> {
        // Driven by hand, without a loop, it belongs to nobody.
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
        // Asking whether a loop is closed runs Python code, during which another loop may have been quicker.
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
        "this stream is under way on another event loop; use it there, or call restart() once it has ended or aclose() there",
    )
}
