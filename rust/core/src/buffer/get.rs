//! `Get`, the future that `Buffer::get` returns. The Python bindings await it, also in the sources that read a buffer.

use super::buffer::State;
use super::{Buffer, Ended, Queue, TryGetError};
use crate::sync::{Arc, Key, QueuePosition, QueuedFuture, WaitQueues};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The next item of a [`Buffer`], as soon as there is one; made by [`Buffer::get`].
///
/// The first poll joins the wait queue.
///
/// # Cancel safety
///
/// Dropping it loses no item: the item leaves the buffer in the poll that delivers it. The position in the queue is
/// lost; if an item had been promised, the promise goes to the next getter.
///
/// # Panics
///
/// If polled after completion.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Get<T> {
    /// `None` once complete.
    buffer: Option<Arc<Buffer<T>>>,
    /// The position in `getters`, from the first poll that found no item until completion.
    key: Option<Key>,
}

impl<T> Get<T> {
    #[inline]
    pub(super) fn new(buffer: Arc<Buffer<T>>) -> Self {
        Self {
            buffer: Some(buffer),
            key: None,
        }
    }
}

impl<T> QueuedFuture for Get<T> {
    type Owner = Buffer<T>;

    fn queue_position(&self) -> Option<QueuePosition<Buffer<T>>> {
        let buffer = self.buffer.as_ref()?;
        Some(QueuePosition::new(buffer, Queue::Getters, self.key?))
    }
}

impl<T> Future for Get<T> {
    type Output = Result<T, Ended>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let buffer = this.buffer.as_ref().expect("`Get` polled after completion");
        // Outlives the guard: a waker that ends up here is dropped after unlocking.
        let mut spare = None;
        loop {
            let mut state = buffer.state.lock();
            let output = match state.take(this.key) {
                Ok(item) => Ok(item),
                Err(TryGetError::Ended) => {
                    // Only a key that was notified before a `close` is still valid: no waker is dropped here.
                    this.key.and_then(|key| state.getters.leave(key));
                    Err(Ended)
                }
                Err(TryGetError::Empty) => {
                    if state
                        .getters
                        .enqueue(&mut this.key, cx.waker(), &mut spare, || ())
                    {
                        return Poll::Pending;
                    }
                    drop(state);
                    spare = Some(cx.waker().clone());
                    // An item may have arrived while the lock was free: check again before waiting.
                    continue;
                }
            };
            this.key = None;
            State::settle_and_unlock(state);
            this.buffer = None;
            return Poll::Ready(output);
        }
    }
}

impl<T> Drop for Get<T> {
    #[inline]
    fn drop(&mut self) {
        if let (Some(buffer), Some(key)) = (&self.buffer, self.key) {
            buffer.leave(Queue::Getters, key);
        }
    }
}
