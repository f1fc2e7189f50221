use super::model::state::State;
use super::policy::admission::Answer;
use super::{AcquireError, AlarmId, Ask, NodeId, OwnerId, Permit, Place, Tree};
use crate::sync::{Arc, Key, WakeList};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// What was asked of a [`Tree`], as soon as it is granted; made by [`Tree::acquire`].
///
/// All checks are made, and the place in the line is taken, by the first poll.
///
/// # Cancel safety
///
/// Dropping it leaks nothing: a grant that was not collected is annulled, slots, quota and budget, and in the same step
/// goes to those whom it fits. What is lost is the place in the line.
///
/// # Panics
///
/// If polled after completion.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Acquire {
    ask: Ask,
    seat: Seat,
}

/// The slots of a suspended permit, as soon as they are granted again; made by [`Permit::resume`].
///
/// # Cancel safety
///
/// Dropping it leaves the permit suspended, also if it had been granted already.
///
/// # Panics
///
/// If polled after completion.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Resume {
    node: NodeId,
    lease: Key,
    asker: Option<OwnerId>,
    alarm: Option<AlarmId>,
    seat: Seat,
}

/// Where a future stands in the tree.
#[derive(Debug)]
struct Seat {
    /// `None` once complete.
    tree: Option<Arc<Tree>>,
    /// From the first poll that was not answered until completion.
    key: Option<Key>,
}

impl Seat {
    fn new(tree: Arc<Tree>) -> Self {
        Self {
            tree: Some(tree),
            key: None,
        }
    }

    fn tree(&self) -> &Arc<Tree> {
        self.tree.as_ref().expect("polled after completion")
    }

    fn place(&self) -> Option<Place> {
        Some(Place::new(self.tree.as_ref()?, self.key?))
    }

    /// Joins the line of `node` by `join`, which may be answered at once.
    fn join(
        &mut self,
        node: NodeId,
        waker: &Waker,
        join: impl FnOnce(&mut State, &mut Option<Waker>, &mut WakeList) -> Answer,
    ) -> Poll<Result<Key, AcquireError>> {
        // Cloned outside the lock, and dropped there if it was not needed.
        let mut spare = Some(waker.clone());
        let answer = self
            .tree()
            .act_at(node, |state, wakes| join(state, &mut spare, wakes));
        self.settle(answer)
    }

    /// Asks what became of the seat, and leaves the waker there if nothing has yet.
    /// If the place was [given up](Place::give_up), `None`: it has to join anew.
    fn ask(&mut self, node: NodeId, waker: &Waker) -> Option<Poll<Result<Key, AcquireError>>> {
        let key = self.key?;
        // Outlives the guards: a waker that ends up in here is dropped after unlocking.
        let mut spare = None;
        loop {
            let mut state = self.tree().lock_for(node);
            match state.answer(key) {
                Some(Answer::Waits(_)) => {}
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
            let record = record.expect("whoever waits has a record");
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
            Answer::Waits(key) => {
                self.key = Some(key);
                Poll::Pending
            }
            Answer::Granted(lease) => {
                self.key = None;
                Poll::Ready(Ok(lease))
            }
            Answer::Never(error) => {
                self.key = None;
                self.tree = None;
                Poll::Ready(Err(error))
            }
        }
    }
}

impl Drop for Seat {
    #[inline]
    fn drop(&mut self) {
        if let (Some(tree), Some(key)) = (&self.tree, self.key) {
            tree.withdraw(key);
        }
    }
}

impl Acquire {
    #[inline]
    pub(super) fn new(tree: Arc<Tree>, ask: Ask) -> Self {
        let seat = Seat::new(tree);
        Self { ask, seat }
    }

    /// What it asks for.
    #[inline]
    pub fn ask(&self) -> &Ask {
        &self.ask
    }

    /// Its place in the line, if it stands there.
    pub fn place(&self) -> Option<Place> {
        self.seat.place()
    }

    fn granted(&mut self, lease: Key) -> Permit {
        let tree = self.seat.tree.take().expect("it was here until now");
        Permit::new(tree, self.ask.node, lease)
    }
}

impl Future for Acquire {
    type Output = Result<Permit, AcquireError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Self { ask, seat } = &mut *this;
        let answer = if let Some(answer) = seat.ask(ask.node, cx.waker()) {
            answer
        } else {
            let mut state = seat.tree().lock_for(ask.node);
            if let Some(lease) = state.ask_alone(ask) {
                drop(state);
                return Poll::Ready(Ok(this.granted(lease)));
            }
            drop(state);
            seat.join(ask.node, cx.waker(), |state, waker, wakes| {
                // Whoever stood in the way may have gone while the lock was away.
                match state.ask_alone(ask) {
                    Some(lease) => Answer::Granted(lease),
                    None => state.ask(ask, waker, wakes),
                }
            })
        };
        answer.map(|answer| answer.map(|lease| this.granted(lease)))
    }
}

impl Resume {
    pub(super) fn new(tree: Arc<Tree>, node: NodeId, lease: Key, alarm: Option<AlarmId>) -> Self {
        Self {
            node,
            lease,
            asker: None,
            alarm,
            seat: Seat::new(tree),
        }
    }
}

impl Resume {
    /// Who asks, if it is not the owner of the permit: so that it is this one's permits that it must not wait for. Of a permit
    /// without an owner nobody asks.
    pub fn by(mut self, asker: OwnerId) -> Self {
        self.asker = Some(asker);
        self
    }

    /// Its place in the line, if it stands there.
    pub fn place(&self) -> Option<Place> {
        self.seat.place()
    }
}

impl Future for Resume {
    type Output = Result<(), AcquireError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self {
            node,
            lease,
            asker,
            alarm,
            seat,
        } = self.get_mut();
        let answer = match seat.ask(*node, cx.waker()) {
            Some(answer) => answer,
            None => seat.join(*node, cx.waker(), |state, waker, wakes| {
                state.ask_again(*lease, *asker, *alarm, waker, wakes)
            }),
        };
        if answer.is_ready() {
            seat.tree = None;
        }
        answer.map(|answer| answer.map(drop))
    }
}
