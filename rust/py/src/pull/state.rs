//! `LinkState`: a link's origin, its lock, and the items that it holds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use pyo3::prelude::*;
use pyo3::types::PyWeakrefReference;

use super::closing::Closing;
use super::fifo::FifoLock;
use super::fusion::FusionGuard;
use super::link::PyPullLink;
use super::pipeline::Pipeline;
use super::suspended::SuspendedPull;
use crate::buffer::PyBuffer;
use crate::kernel::AnyKernel;
use crate::object::gc::traverse;
use crate::object::iterative_drop::IterativeDrop;
use crate::runtime::blocking_wait::this_thread;
use crate::source::AnySource;

/// The source or kernel that produces a link's items.
#[derive(Debug)]
pub(crate) enum Origin {
    /// None yet: a user's subclass, with `pull_impl` as its source.
    Unset,
    /// A native source.
    Source(AnySource),
    /// A kernel over another link.
    Stage {
        kernel: AnyKernel,
        source: IterativeDrop<PyPullLink>,
    },
}

/// The operator and parameter that an error note names instead of the link's class.
#[derive(Debug, Clone, Copy)]
pub(super) struct Label {
    pub(super) operator: &'static str,
    pub(super) parameter: &'static str,
}

/// The lifecycle of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    #[default]
    Open,
    /// The source has ended. `restart()` opens the link again.
    Ended,
    /// `aclose()` was called.
    Closed,
}

/// The ways in which a pull can start.
#[derive(Debug)]
pub(crate) enum Start {
    /// The pull owns the lock, and runs this pipeline.
    Pipeline(Box<Pipeline>),
    /// The link's source is this buffer.
    Buffer(Py<PyBuffer>),
    /// A check failed; take the slow path.
    Slow,
}

#[derive(Debug)]
pub(crate) struct LinkState {
    /// The source over `pull_impl`, created at the first pull of a subclass that overrides it.
    pub(super) implementation: Option<AnySource>,
    pub(crate) phase: Phase,
    pub(crate) lock: FifoLock,
    /// A step of this link's pipeline is on the stack, and holds the pipeline.
    pub(crate) running: bool,
    pub(crate) pipeline: Option<Box<Pipeline>>,
    pub(crate) suspended: Option<Box<SuspendedPull>>,
    /// Items that were handed back to this link. The next pull delivers them first.
    pub(super) returned: VecDeque<Py<PyAny>>,
    /// An item that a cancelled pull left here. This link's kernel processes it next.
    pub(super) retained: Option<Py<PyAny>>,
    /// The iterable that its kernel returned for the last item, with items still to deliver.
    pub(super) inner_source: Option<AnySource>,
    /// The guard of the pipeline of another link that runs this one, and this link's position in
    /// it.
    pub(super) fused_into: Option<(Arc<FusionGuard>, usize)>,
    /// The number of links built on this one.
    pub(super) consumers: usize,
    /// It was pulled directly while another link's pipeline ran it, so no pipeline may run it
    /// again.
    pub(super) shared: bool,
    /// The buffer that is the link's source, once that is known.
    pub(super) buffer_source: Option<Py<PyBuffer>>,
    /// The id of the thread that drives the link; ids are never reused. 0 before the first pull.
    pub(super) thread: u64,
    /// The event loop that drives the link, from the first pull until the restart.
    pub(super) event_loop: Option<Py<PyWeakrefReference>>,
    /// Wakers of the closers that wait until the current pull has ended.
    pub(super) closers: Vec<Waker>,
    /// Set while the link's source is being closed.
    pub(super) closing: Option<Closing>,
    /// The last field, since it leads to the next link; see [`crate::object::iterative_drop`].
    pub(super) origin: Origin,
}

impl LinkState {
    /// The state of a link that was never pulled.
    pub(super) fn with_origin(origin: Origin) -> Self {
        Self {
            implementation: None,
            phase: Phase::Open,
            lock: FifoLock::default(),
            running: false,
            pipeline: None,
            suspended: None,
            returned: VecDeque::new(),
            retained: None,
            inner_source: None,
            fused_into: None,
            consumers: 0,
            shared: false,
            buffer_source: None,
            thread: 0,
            event_loop: None,
            closers: Vec::new(),
            closing: None,
            origin,
        }
    }

    /// Acquire the lock and the pipeline if all checks pass.
    #[inline]
    pub(crate) fn start(&mut self, py: Python<'_>) -> Start {
        if self.phase != Phase::Open || self.running {
            return Start::Slow;
        }
        if self.pipeline.is_none() {
            return match &self.buffer_source {
                Some(buffer) if self.returned.is_empty() => Start::Buffer(buffer.clone_ref(py)),
                _ => Start::Slow,
            };
        }
        if self.thread != this_thread() {
            return Start::Slow;
        }
        if !self.lock.try_acquire() {
            return Start::Slow;
        }
        self.running = true;
        match self.pipeline.take() {
            Some(pipeline) => Start::Pipeline(pipeline),
            None => Start::Slow,
        }
    }

    /// Return the pipeline and release the lock. Return `false` if the lock must be handed to a
    /// waiter.
    #[inline]
    pub(crate) fn stop(&mut self, pipeline: Box<Pipeline>) -> bool {
        self.running = false;
        self.pipeline = Some(pipeline);
        self.closers.is_empty() && self.lock.try_release()
    }

    /// Whether no pull is running, suspended or queued.
    pub(super) fn is_idle(&self) -> bool {
        !self.running && self.lock.is_free()
    }

    /// Take the wakers of the closers, now that no pull holds the lock.
    #[inline]
    pub(crate) fn take_closers(&mut self) -> Vec<Waker> {
        if self.closers.is_empty() {
            Vec::new()
        } else {
            std::mem::take(&mut self.closers)
        }
    }

    /// Take out all fields that hold Python objects. Drop them after the borrow has ended, since a
    /// destructor may access this link.
    pub(super) fn clear(&mut self) -> impl Sized + use<> {
        (
            self.implementation.take(),
            self.buffer_source.take(),
            self.suspended.take(),
            std::mem::take(&mut self.returned),
            self.retained.take(),
            self.inner_source.take(),
            self.pipeline.take(),
            self.closing.take(),
            // Last, as in the destructor.
            std::mem::replace(&mut self.origin, Origin::Unset),
        )
    }
}

traverse!(LinkState {
    origin,
    implementation,
    buffer_source,
    inner_source,
    suspended,
    pipeline,
    closing,
    returned,
    retained
});

traverse!(enum Origin { Unset {}, Source(source), Stage { source, kernel } });
