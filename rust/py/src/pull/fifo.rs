//! Whose turn it is: concurrent pulls of one link are served in the order of their first step.
//!
//! Hand-off, not a race: whoever leaves names the next owner before waking it, so a newcomer that
//! arrives in between finds the link taken and queues. An owner that was named and then cancelled
//! before it ran leaves like any other.

use std::collections::BTreeMap;
use std::task::Waker;

/// One pull's place. Numbers only grow, so their order is the order of arrival.
pub(crate) type Ticket = u64;

/// The ticket of a pull that found nobody there and never queued. There is one such owner at a time.
pub(crate) const FIRST: Ticket = 0;

/// The queue of the pulls of one link.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// The pull that may run the line, or is suspended in it.
    owner: Option<Ticket>,
    /// The others. An ordered map gives the oldest, and lets any of them leave, in O(log n).
    waiting: BTreeMap<Ticket, Waker>,
    last: Ticket,
}

impl Turn {
    /// Takes the turn, with the ticket [`FIRST`], if nobody has it.
    #[inline]
    pub(crate) fn take(&mut self) -> bool {
        if self.owner.is_some() {
            return false;
        }
        self.owner = Some(FIRST);
        true
    }

    /// Joins the queue.
    pub(crate) fn queue(&mut self, waker: Waker) -> Ticket {
        self.last += 1;
        self.waiting.insert(self.last, waker);
        self.last
    }

    /// Replaces the waker of a pull that is still in the queue.
    pub(crate) fn wait_with(&mut self, ticket: Ticket, waker: Waker) {
        self.waiting.insert(ticket, waker);
    }

    /// Whether it is this pull's turn.
    pub(crate) fn is_owner(&self, ticket: Ticket) -> bool {
        self.owner == Some(ticket)
    }

    /// Whether nobody pulls and nobody waits to.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.owner.is_none()
    }

    /// Ends the owner's turn if nobody waits for it.
    #[inline]
    pub(crate) fn give_up(&mut self) -> bool {
        let alone = self.waiting.is_empty();
        if alone {
            self.owner = None;
        }
        alone
    }

    /// Leaves, as owner or from the queue. If that makes it another's turn, its waker is returned:
    /// wake it with no borrow open.
    #[inline]
    #[must_use]
    pub(crate) fn leave(&mut self, ticket: Ticket) -> Option<Waker> {
        if self.owner != Some(ticket) {
            self.waiting.remove(&ticket);
            return None;
        }
        if self.waiting.is_empty() {
            self.owner = None;
            return None;
        }
        self.hand_off()
    }

    #[cold]
    fn hand_off(&mut self) -> Option<Waker> {
        let (next, waker) = self.waiting.pop_first()?;
        self.owner = Some(next);
        Some(waker)
    }

    /// Everybody who waits, for a link that closes. They keep their tickets, which are now
    /// nobody's.
    pub(crate) fn dismiss(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.waiting).into_values().collect()
    }
}
