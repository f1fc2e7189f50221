//! `Put`, the future that `Buffer::put` returns. The Python classes `Buffer` and `Queue` await it.

use super::buffer::State;
use super::{Buffer, Overflow, PutError, Queue};
use crate::sync::{Arc, Key, QueuePosition, QueuedFuture, WaitQueues};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Stores an item in a [`Buffer`] as soon as there is space; made by [`Buffer::put`].
///
/// The first poll completes if there is space, and otherwise joins the wait queue.
///
/// # Cancel safety
///
/// The item is stored in the poll that reports success. Until then it is in the future: dropping the future drops the
/// item, and [`into_item`](Self::into_item) returns it. Either way the position in the queue is lost; if a slot had
/// been promised, the promise goes to the next putter.
///
/// # Panics
///
/// If polled after completion.
#[must_use = "futures do nothing unless polled"]
pub struct Put<T> {
    buffer: Arc<Buffer<T>>,
    /// The position in `putters`, from the first poll that found no space until completion.
    key: Option<Key>,
    /// `None` once complete.
    item: Option<T>,
}

// The item is only ever moved: a pin on the future guarantees nothing about it.
impl<T> Unpin for Put<T> {}

impl<T> Put<T> {
    #[inline]
    pub(super) fn new(buffer: Arc<Buffer<T>>, item: T) -> Self {
        Self {
            buffer,
            key: None,
            item: Some(item),
        }
    }

    /// Return the item, until it is accepted: for callers that track the objects which the future keeps alive.
    pub fn item(&self) -> Option<&T> {
        self.item.as_ref()
    }

    /// Cancel the put and return the item; `None` if the put has completed, successfully or not.
    pub fn into_item(mut self) -> Option<T> {
        self.item.take()
    }
}

impl<T> QueuedFuture for Put<T> {
    type Owner = Buffer<T>;

    fn queue_position(&self) -> Option<QueuePosition<Buffer<T>>> {
        Some(QueuePosition::new(&self.buffer, Queue::Putters, self.key?))
    }
}

impl<T> Future for Put<T> {
    type Output = Result<(), PutError<T>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        // Outlives the guard: a waker that ends up here is dropped after unlocking.
        let mut spare = None;
        loop {
            // Before the lock, which this panic must not poison.
            let item = this.item.as_ref().expect("`Put` polled after completion");
            let (mut state, position) = match this.buffer.lock_at_position(item, this.key) {
                Ok(found) => found,
                Err(fault) => {
                    // The item cannot be compared: the put fails, and a slot promised to it goes to the next putter.
                    if let Some(key) = this.key.take() {
                        this.buffer.leave(Queue::Putters, key);
                    }
                    let item = this.item.take().expect("the comparison took no item");
                    return Poll::Ready(Err(PutError::Unranked(item, fault)));
                }
            };
            // Only now: if `lock` had panicked, the item would still be in the future.
            let Some(item) = this.item.take() else {
                unreachable!("the item was present before the lock")
            };
            let output = match state.store(this.key, position, item) {
                Ok(displaced) => Ok(displaced),
                Err(PutError::Full(item)) if state.overflow == Overflow::Block => {
                    this.item = Some(item);
                    if state
                        .putters
                        .enqueue(&mut this.key, cx.waker(), &mut spare, || ())
                    {
                        return Poll::Pending;
                    }
                    drop(state);
                    spare = Some(cx.waker().clone());
                    // A slot may have become free while the lock was free: check again before waiting.
                    continue;
                }
                Err(error) => {
                    // Only a key that was notified before the end is still valid: no waker is dropped here.
                    this.key.and_then(|key| state.putters.leave(key));
                    Err(error)
                }
            };
            this.key = None;
            State::settle_and_unlock(state);
            return Poll::Ready(output.map(drop));
        }
    }
}

impl<T> Drop for Put<T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.buffer.leave(Queue::Putters, key);
        }
    }
}

impl<T> fmt::Debug for Put<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Put")
            .field("buffer", &self.buffer)
            .field("complete", &self.item.is_none())
            .finish_non_exhaustive()
    }
}
