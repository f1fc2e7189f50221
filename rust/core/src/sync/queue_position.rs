use super::{Arc, Key};
use std::fmt;
use std::future::Future;
use std::sync::Weak;

/// A structure with one or more queues of waiting futures, which a [`QueuePosition`] can leave.
pub trait WaitQueues {
    /// Selects one of the structure's queues; `()` if there is only one.
    type Queue: Copy + fmt::Debug + Send + Sync;

    /// Remove the future of `key` from its queue. A promise that it has not collected goes to the next waiter.
    /// Does nothing if the future has left already, or if the structure is broken.
    fn leave(&self, queue: Self::Queue, key: Key);
}

/// A future that waits in a queue of its owner.
pub trait QueuedFuture: Future + Unpin {
    /// The structure that it waits for.
    type Owner: WaitQueues;

    /// Return the position in the wait queue. `None` before the first poll that has to wait, after completion, and for a
    /// future that cannot be promised anything.
    fn queue_position(&self) -> Option<QueuePosition<Self::Owner>>;
}

/// The position of a future in a wait queue, for callers that can no longer reach the future itself.
///
/// A future whose executor is gone is never polled again, and perhaps never dropped. When waking it fails, give up its
/// position: the effect is the same as if the future had been dropped. If it is polled later, it queues again.
pub struct QueuePosition<P: WaitQueues> {
    /// Weak, since the waker in the queue may own this.
    owner: Weak<P>,
    queue: P::Queue,
    key: Key,
}

impl<P: WaitQueues> QueuePosition<P> {
    /// Return the position at `key` in one of the queues of `owner`.
    pub fn new(owner: &Arc<P>, queue: P::Queue, key: Key) -> Self {
        Self {
            owner: Arc::downgrade(owner),
            queue,
            key,
        }
    }

    /// Leave the queue and hand on a promise that was not collected. Does nothing if the future has left already.
    pub fn give_up(&self) {
        if let Some(owner) = self.owner.upgrade() {
            owner.leave(self.queue, self.key);
        }
    }
}

impl<P: WaitQueues> fmt::Debug for QueuePosition<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuePosition")
            .field("queue", &self.queue)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}
