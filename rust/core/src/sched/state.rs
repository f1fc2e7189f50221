use crate::sync::{Key, Left, WaitList, WakeList};
use std::collections::BTreeMap;
use std::task::Waker;

/// What the lock of a [`Tree`](super::Tree) guards. Nodes go by their indices here, which the tree has checked.
pub(super) struct State {
    /// The root first, and each node after its parent.
    nodes: Vec<Node>,
    /// Where somebody waits: the node of each line that is not empty, by the ticket of the first in it. In other words,
    /// whom a dispatch considers, in its order.
    heads: BTreeMap<u64, u32>,
    /// Given to waiters as they come, never twice: the lower, the older.
    next_ticket: u64,
}

pub(super) struct Node {
    /// `None` at the root.
    parent: Option<u32>,
    pub(super) limit: u64,
    /// What the permits at this node and below hold, those that were granted but not collected yet included.
    pub(super) held: u64,
    /// How many wait at this node and below.
    pub(super) waiting: usize,
    line: WaitList<Request>,
}

/// What the tree has to know of a waiter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    cost: u64,
    ticket: u64,
}

impl Node {
    fn new(parent: Option<u32>, limit: u64) -> Self {
        Self {
            parent,
            limit,
            held: 0,
            waiting: 0,
            line: WaitList::new(),
        }
    }

    /// What the limit leaves over.
    #[inline]
    pub(super) fn free(&self) -> u64 {
        self.limit.saturating_sub(self.held)
    }
}

impl State {
    /// A tree of its root.
    pub(super) fn new(limit: u64) -> Self {
        Self {
            nodes: vec![Node::new(None, limit)],
            heads: BTreeMap::new(),
            next_ticket: 0,
        }
    }

    /// A new node; `None` if there is no index left.
    pub(super) fn add(&mut self, parent: u32, limit: u64) -> Option<u32> {
        let index = u32::try_from(self.nodes.len()).ok()?;
        self.nodes.push(Node::new(Some(parent), limit));
        Some(index)
    }

    /// How many nodes there are.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    #[inline]
    pub(super) fn node(&self, index: u32) -> &Node {
        &self.nodes[index as usize]
    }

    #[inline]
    fn node_mut(&mut self, index: u32) -> &mut Node {
        &mut self.nodes[index as usize]
    }

    /// The node and its ancestors, upward. A loop, so depth costs no stack.
    #[inline]
    pub(super) fn path(&self, index: u32) -> impl Iterator<Item = (u32, &Node)> {
        let mut next = Some(index);
        std::iter::from_fn(move || {
            let index = next?;
            let node = self.node(index);
            next = node.parent;
            Some((index, node))
        })
    }

    /// The same, to be changed.
    #[inline]
    fn for_path(&mut self, index: u32, mut change: impl FnMut(&mut Node)) {
        let mut next = Some(index);
        while let Some(index) = next {
            let node = self.node_mut(index);
            change(node);
            next = node.parent;
        }
    }

    /// The nearest node on the path whose limit is below `cost`, and that limit.
    #[inline]
    pub(super) fn too_low_for(&self, index: u32, cost: u64) -> Option<(u32, u64)> {
        self.path(index)
            .find(|(_, node)| node.limit < cost)
            .map(|(index, node)| (index, node.limit))
    }

    #[inline]
    fn fits(&self, index: u32, cost: u64) -> bool {
        // The root first: it is what everybody shares, so in a busy tree most checks end here.
        cost <= self.node(0).free() && self.path(index).all(|(_, node)| cost <= node.free())
    }

    #[inline]
    fn charge(&mut self, index: u32, cost: u64) {
        // No overflow: it fits, so the sum is at most the limit.
        self.for_path(index, |node| node.held += cost);
    }

    /// Takes back a charge. Dispatch afterwards, if anyone waits.
    #[inline]
    pub(super) fn discharge(&mut self, index: u32, cost: u64) {
        self.for_path(index, |node| node.held -= cost);
    }

    /// Charges a newcomer's cost if it fits and nobody who came before waits at this node.
    #[inline]
    pub(super) fn try_charge(&mut self, index: u32, cost: u64) -> bool {
        if cost == 0 {
            // It takes nothing from anybody, so there is nothing to wait for. No waiter thus has a cost of 0, and a
            // dispatch may stop as soon as the root is full.
            return true;
        }
        let granted = self.node(index).line.waiting() == 0 && self.fits(index, cost);
        if granted {
            self.charge(index, cost);
        }
        granted
    }

    /// Whether there is anybody whom a [`dispatch`](Self::dispatch) could grant anything.
    #[inline]
    pub(super) fn anyone_waits(&self) -> bool {
        !self.heads.is_empty()
    }

    /// Whether the request of `key` was granted; then its place is left, and the charge is the caller's.
    pub(super) fn collect(&mut self, index: u32, key: Key) -> bool {
        let line = &mut self.node_mut(index).line;
        if !line.is_notified(key) {
            return false;
        }
        // Being notified it left no waker, so nothing is dropped under the lock.
        line.leave(key);
        true
    }

    /// Puts a request into the line of its node; see [`WaitList::enrol`] for the answer and for `spare`.
    pub(super) fn enrol(
        &mut self,
        index: u32,
        cost: u64,
        key: &mut Option<Key>,
        waker: &Waker,
        spare: &mut Option<Waker>,
    ) -> bool {
        let newcomer = key.is_none();
        let ticket = self.next_ticket;
        let node = self.node_mut(index);
        if !node
            .line
            .enrol(key, waker, spare, || Request { cost, ticket })
        {
            return false;
        }
        if newcomer {
            let first = node.line.waiting() == 1;
            self.next_ticket += 1;
            if first {
                self.heads.insert(ticket, index);
            }
            self.for_path(index, |node| node.waiting += 1);
        }
        true
    }

    /// The request of `key` is withdrawn; a grant that it had not collected is annulled. What comes back is to be
    /// dropped and woken after unlocking.
    pub(super) fn withdraw(&mut self, index: u32, key: Key) -> (Option<Left<Request>>, WakeList) {
        let first = self.first_ticket(index);
        let left = self.node_mut(index).line.leave(key);
        match &left {
            None => {}
            Some(Left::Notified(request)) => self.discharge(index, request.cost),
            Some(Left::Waiting(..)) => {
                self.for_path(index, |node| node.waiting -= 1);
                self.move_head(index, first);
            }
        }
        // Also after a waiter: if it was the first, the one behind it may be smaller and fit.
        (left, self.dispatch())
    }

    /// Grants, oldest first, every first waiter that fits, until none does.
    ///
    /// One pass suffices. A grant only takes away, so those that were passed over still do not fit; and the one that it
    /// brings to the front of its line is younger, so the pass has yet to come to it.
    pub(super) fn dispatch(&mut self) -> WakeList {
        let mut wakes = WakeList::new();
        let mut from = 0;
        while self.node(0).free() > 0
            && let Some((&ticket, &index)) = self.heads.range(from..).next()
        {
            from = ticket + 1;
            if let Some(waker) = self.grant_first(index) {
                wakes.push(waker);
            }
        }
        debug_assert!(
            self.heads.values().all(|&index| {
                let first = self.node(index).line.first();
                first.is_some_and(|first| !self.fits(index, first.cost))
            }),
            "whoever is first in a line does not fit",
        );
        wakes
    }

    /// Grants the first waiter of a node if it fits, and returns whom to wake.
    fn grant_first(&mut self, index: u32) -> Option<Waker> {
        let &Request { cost, ticket } = self.node(index).line.first()?;
        if !self.fits(index, cost) {
            return None;
        }
        self.charge(index, cost);
        self.for_path(index, |node| node.waiting -= 1);
        let (waker, _) = self.node_mut(index).line.notify_first()?;
        self.move_head(index, Some(ticket));
        Some(waker)
    }

    fn first_ticket(&self, index: u32) -> Option<u64> {
        self.node(index).line.first().map(|request| request.ticket)
    }

    /// Brings `heads` up to date after a waiter left the line whose first ticket was `before`.
    fn move_head(&mut self, index: u32, before: Option<u64>) {
        let now = self.first_ticket(index);
        if now == before {
            return;
        }
        if let Some(before) = before {
            self.heads.remove(&before);
        }
        if let Some(now) = now {
            self.heads.insert(now, index);
        }
    }
}
