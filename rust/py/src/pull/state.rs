//! How a link stands: what it is made of, who waits for it, what it keeps.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use pyo3::prelude::*;
use pyo3::types::PyWeakrefReference;

use super::closing::Closing;
use super::fifo::Turn;
use super::fusion::Claim;
use super::link::PullLink;
use super::pipeline::Line;
use super::suspended::Flight;
use crate::buffer::Buffer;
use crate::kernel::AnyKernel;
use crate::object::gc::{Traverse, VisitError, Visitor};
use crate::object::iterative_drop::IterativeDrop;
use crate::runtime::blocking_wait::this_thread;
use crate::source::AnySource;

/// What a link is made of.
#[derive(Debug)]
pub(crate) enum Origin {
    /// Nothing: a subclass of the user, whose `pull_impl` is its source.
    Unset,
    /// A source of ours.
    Feed(AnySource),
    /// A kernel over another link.
    Stage {
        kernel: AnyKernel,
        source: IterativeDrop<PullLink>,
    },
}

/// What an error out of a link's callable is said to come from, where that is not its class.
#[derive(Debug, Clone, Copy)]
pub(super) struct Label {
    pub(super) operator: &'static str,
    pub(super) parameter: &'static str,
}

/// How far a link has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    #[default]
    Open,
    /// It came to its end; `restart()` begins a new cycle.
    Ended,
    /// Somebody closed it.
    Closed,
}

/// How a pull may begin.
#[derive(Debug)]
pub(crate) enum Start {
    /// It is its turn, and this is the line to run.
    Line(Box<Line>),
    /// The link is the far end of this buffer.
    FarEnd(Py<Buffer>),
    /// Something has to be seen to first.
    Slow,
}

#[derive(Debug)]
pub(crate) struct State {
    /// The feed over `pull_impl`, made at the first pull of a subclass that overrides it.
    pub(super) implementation: Option<AnySource>,
    pub(crate) phase: Phase,
    pub(crate) turn: Turn,
    /// A step of this link's line is on the stack: the line is with it.
    pub(crate) running: bool,
    pub(crate) line: Option<Box<Line>>,
    pub(crate) flight: Option<Box<Flight>>,
    /// Items that left this link and came back: the next ones to leave it.
    pub(super) returned: VecDeque<Py<PyAny>>,
    /// An item that a cancelled pull left here, on its way into this link's kernel.
    pub(super) kept: Option<Py<PyAny>>,
    /// What its kernel made of the last item, of which there is more to come.
    pub(super) pending: Option<AnySource>,
    /// The line of another link that runs this one, and where in it this one is.
    pub(super) claim: Option<(Arc<Claim>, usize)>,
    /// How many links were built on this one.
    pub(super) consumers: usize,
    /// It was pulled directly while another link's line ran it: from now on it is nobody's part.
    pub(super) shared: bool,
    /// The buffer that this link is the far end of, once that is known.
    pub(super) far_end: Option<Py<Buffer>>,
    /// The thread that drives it, by its number, which no other thread ever has; 0 before the first pull.
    pub(super) thread: u64,
    /// The loop that drives it, from the first pull of a cycle.
    pub(super) event_loop: Option<Py<PyWeakrefReference>>,
    /// Who waits for a pull that is under way to come out, in order to close.
    pub(super) closers: Vec<Waker>,
    /// What it draws from is being closed.
    pub(super) closing: Option<Closing>,
    /// Dropped last: the way to the next link is in it.
    pub(super) origin: Origin,
}

impl State {
    /// Of a link that was not pulled yet.
    pub(super) fn made_of(origin: Origin) -> Self {
        Self {
            implementation: None,
            phase: Phase::Open,
            turn: Turn::default(),
            running: false,
            line: None,
            flight: None,
            returned: VecDeque::new(),
            kept: None,
            pending: None,
            claim: None,
            consumers: 0,
            shared: false,
            far_end: None,
            thread: 0,
            event_loop: None,
            closers: Vec::new(),
            closing: None,
            origin,
        }
    }

    /// Takes the turn and the line, if nothing at all is in the way.
    #[inline]
    pub(crate) fn start(&mut self, py: Python<'_>) -> Start {
        if self.phase != Phase::Open || self.running {
            return Start::Slow;
        }
        if self.line.is_none() {
            return match &self.far_end {
                Some(buffer) if self.returned.is_empty() => Start::FarEnd(buffer.clone_ref(py)),
                _ => Start::Slow,
            };
        }
        if self.thread != this_thread() {
            return Start::Slow;
        }
        if !self.turn.take() {
            return Start::Slow;
        }
        self.running = true;
        match self.line.take() {
            Some(line) => Start::Line(line),
            None => Start::Slow,
        }
    }

    /// Puts the line back. If nobody waits for anything the turn is over; else (`false`) it is to
    /// be passed on.
    #[inline]
    pub(crate) fn stop(&mut self, line: Box<Line>) -> bool {
        self.running = false;
        self.line = Some(line);
        self.closers.is_empty() && self.turn.give_up()
    }

    /// Whether no pull is under way and none waits for its turn.
    pub(super) fn is_idle(&self) -> bool {
        !self.running && self.turn.is_idle()
    }

    /// Who waits for the link to be idle, if it closes and is so now.
    #[inline]
    pub(crate) fn take_closers(&mut self) -> Vec<Waker> {
        if self.closers.is_empty() {
            Vec::new()
        } else {
            std::mem::take(&mut self.closers)
        }
    }

    /// Takes out all that Python objects are in. It is to be dropped without the borrow: a destructor may come back here.
    pub(super) fn clear(&mut self) -> impl Sized + use<> {
        (
            self.implementation.take(),
            self.far_end.take(),
            self.flight.take(),
            std::mem::take(&mut self.returned),
            self.kept.take(),
            self.pending.take(),
            self.line.take(),
            self.closing.take(),
            // Last, as in a deallocator.
            std::mem::replace(&mut self.origin, Origin::Unset),
        )
    }
}

impl Traverse for State {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        match &self.origin {
            Origin::Unset => {}
            Origin::Feed(feed) => visit(feed.as_any())?,
            Origin::Stage { source, kernel } => {
                visit(source.as_any())?;
                visit(kernel.as_any())?;
            }
        }
        if let Some(feed) = &self.implementation {
            visit(feed.as_any())?;
        }
        if let Some(buffer) = &self.far_end {
            visit(buffer.as_any())?;
        }
        if let Some(feed) = &self.pending {
            visit(feed.as_any())?;
        }
        if let Some(flight) = &self.flight {
            flight.traverse(visit)?;
        }
        if let Some(line) = &self.line {
            line.traverse(visit)?;
        }
        if let Some(closing) = &self.closing {
            closing.traverse(visit)?;
        }
        self.returned.iter().try_for_each(&mut *visit)?;
        self.kept.as_ref().map_or(Ok(()), visit)
    }
}
