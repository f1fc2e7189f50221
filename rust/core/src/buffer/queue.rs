//! `Queue`, the name of a wait queue. `get.rs` and `put.rs` pass it to `QueuePosition`, to leave that queue again.

use super::Buffer;
use super::buffer::State;
use crate::sync::{Key, WaitQueues};

/// The two wait queues of a buffer whose waiters are promised an item or a slot.
#[derive(Clone, Copy, Debug)]
pub enum Queue {
    /// The getters waiting for an item.
    Getters,
    /// The putters waiting for space.
    Putters,
}

impl<T> WaitQueues for Buffer<T> {
    type Queue = Queue;

    fn leave(&self, queue: Queue, key: Key) {
        // In a broken buffer there is no promise to hand on.
        let Some(mut state) = self.state.lock_unless_poisoned() else {
            return;
        };
        let left = match queue {
            Queue::Getters => state.getters.leave(key),
            Queue::Putters => state.putters.leave(key),
        };
        State::settle_and_unlock(state);
        drop(left);
    }
}
