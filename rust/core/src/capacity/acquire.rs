//! `Acquire` and `Resume`, the futures of the scheduler. `Tree::acquire` and `Permit::resume` return them, and their
//! polls call `policy/admission.rs`.

use super::model::state::State;
use super::policy::admission::Answer;
use super::{AcquireError, AcquireRequest, AlarmId, NodeId, OwnerId, Permit, Tree};
use crate::sync::{Arc, Key, QueuePosition, QueuedFuture, WaitQueues, WakeList};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// A request to a [`Tree`], which resolves to its permit; made by [`Tree::acquire`].
///
/// The first poll makes all checks and queues the request.
///
/// # Cancel safety
///
/// Dropping it leaks nothing. A grant that was not collected is annulled, with its slots, quota and budget, and passes to other
/// waiters in the same step. The position in the queue is lost.
///
/// # Panics
///
/// If polled after completion.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Acquire {
    request: AcquireRequest,
    pending: Pending,
}

/// The resumption of a suspended permit, which resolves when its slots are granted again; made by [`Permit::resume`].
///
/// # Cancel safety
///
/// Dropping it leaves the permit suspended, even if the slots were granted already.
///
/// # Panics
///
/// If polled after completion.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Resume {
    node: NodeId,
    permit: Key,
    requester: Option<OwnerId>,
    alarm: Option<AlarmId>,
    pending: Pending,
}

/// The waiter of a future.
#[derive(Debug)]
struct Pending {
    /// `None` once complete.
    tree: Option<Arc<Tree>>,
    /// From the first poll that was not answered at once until completion.
    key: Option<Key>,
}

impl Pending {
    fn new(tree: Arc<Tree>) -> Self {
        Self {
            tree: Some(tree),
            key: None,
        }
    }

    fn tree(&self) -> &Arc<Tree> {
        self.tree.as_ref().expect("polled after completion")
    }

    fn queue_position(&self) -> Option<QueuePosition<Tree>> {
        Some(QueuePosition::new(self.tree.as_ref()?, (), self.key?))
    }

    /// Queue at `node` by `join`, which may be answered at once.
    fn join(
        &mut self,
        node: NodeId,
        waker: &Waker,
        join: impl FnOnce(&mut State, &mut Option<Waker>, &mut WakeList) -> Answer,
    ) -> Poll<Result<Key, AcquireError>> {
        // Cloned outside the lock, and dropped there if it is not needed.
        let mut spare = Some(waker.clone());
        let answer = self
            .tree()
            .act_at(node, |state, wakes| join(state, &mut spare, wakes));
        self.settle(answer)
    }

    /// Return the answer of the waiter, or store the waker. `None` if there is no waiter, or if its position was
    /// [given up](QueuePosition::give_up): the future must then queue.
    fn poll_answer(
        &mut self,
        node: NodeId,
        waker: &Waker,
    ) -> Option<Poll<Result<Key, AcquireError>>> {
        let key = self.key?;
        // Outlives the guards: a waker that is moved here is dropped after unlocking.
        let mut spare = None;
        loop {
            let mut state = self.tree().lock_for(node);
            match state.answer(key) {
                Some(Answer::Queued(_)) => {}
                Some(answer) => {
                    drop(state);
                    return Some(self.settle(answer));
                }
                None => {
                    drop(state);
                    self.key = None;
                    return None;
                }
            }
            let record = state.waiters.get_mut(key);
            let record = record.expect("a waiter has a record");
            if let Some(old) = &record.waker
                && old.will_wake(waker)
            {
                return Some(Poll::Pending);
            }
            if spare.is_some() {
                std::mem::swap(&mut record.waker, &mut spare);
                return Some(Poll::Pending);
            }
            drop(state);
            spare = Some(waker.clone());
        }
    }

    fn settle(&mut self, answer: Answer) -> Poll<Result<Key, AcquireError>> {
        match answer {
            Answer::Queued(key) => {
                self.key = Some(key);
                Poll::Pending
            }
            Answer::Granted(permit) => {
                self.key = None;
                Poll::Ready(Ok(permit))
            }
            Answer::Refused(error) => {
                self.key = None;
                self.tree = None;
                Poll::Ready(Err(error))
            }
        }
    }
}

impl Drop for Pending {
    #[inline]
    fn drop(&mut self) {
        if let (Some(tree), Some(key)) = (&self.tree, self.key) {
            tree.leave((), key);
        }
    }
}

impl WaitQueues for Tree {
    /// Each node has a wait queue, which the tree finds by the key.
    type Queue = ();

    fn leave(&self, (): (), key: Key) {
        // A broken tree has no grant to pass on.
        let Some(mut state) = self.lock_unless_broken() else {
            return;
        };
        let mut wakes = WakeList::new();
        let waker = state.withdraw(key, &mut wakes);
        Self::finish(state, wakes);
        drop(waker);
    }
}

impl Acquire {
    #[inline]
    pub(super) fn new(tree: Arc<Tree>, request: AcquireRequest) -> Self {
        let pending = Pending::new(tree);
        Self { request, pending }
    }

    /// Return the request.
    #[inline]
    pub fn request(&self) -> &AcquireRequest {
        &self.request
    }

    fn granted(&mut self, permit: Key) -> Permit {
        let tree = self
            .pending
            .tree
            .take()
            .expect("it is there until completion");
        Permit::new(tree, self.request.node, permit)
    }
}

impl QueuedFuture for Acquire {
    type Owner = Tree;

    fn queue_position(&self) -> Option<QueuePosition<Tree>> {
        self.pending.queue_position()
    }
}

impl Future for Acquire {
    type Output = Result<Permit, AcquireError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Self { request, pending } = &mut *this;
        let answer = if let Some(answer) = pending.poll_answer(request.node, cx.waker()) {
            answer
        } else {
            let mut state = pending.tree().lock_for(request.node);
            if let Some(permit) = state.submit_uncontended(request) {
                drop(state);
                return Poll::Ready(Ok(this.granted(permit)));
            }
            drop(state);
            pending.join(request.node, cx.waker(), |state, waker, wakes| {
                // Waiters may have left while the lock was free.
                match state.submit_uncontended(request) {
                    Some(permit) => Answer::Granted(permit),
                    None => state.submit(request, waker, wakes),
                }
            })
        };
        answer.map(|answer| answer.map(|permit| this.granted(permit)))
    }
}

impl Resume {
    pub(super) fn new(tree: Arc<Tree>, node: NodeId, permit: Key, alarm: Option<AlarmId>) -> Self {
        Self {
            node,
            permit,
            requester: None,
            alarm,
            pending: Pending::new(tree),
        }
    }

    /// Set the requester, if it is not the owner of the permit: the one whose permits must not be waited for. A permit without an owner
    /// has no requester.
    pub fn by(mut self, requester: OwnerId) -> Self {
        self.requester = Some(requester);
        self
    }
}

impl QueuedFuture for Resume {
    type Owner = Tree;

    fn queue_position(&self) -> Option<QueuePosition<Tree>> {
        self.pending.queue_position()
    }
}

impl Future for Resume {
    type Output = Result<(), AcquireError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self {
            node,
            permit,
            requester,
            alarm,
            pending,
        } = self.get_mut();
        let answer = match pending.poll_answer(*node, cx.waker()) {
            Some(answer) => answer,
            None => pending.join(*node, cx.waker(), |state, waker, wakes| {
                state.resubmit(*permit, *requester, *alarm, waker, wakes)
            }),
        };
        if answer.is_ready() {
            pending.tree = None;
        }
        answer.map(|answer| answer.map(drop))
    }
}
