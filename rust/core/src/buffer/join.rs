//! `Join`, the future that `Buffer::join` returns. The Python class `Queue` awaits it.

use super::Buffer;
use crate::sync::{Arc, Key, QueuePosition, QueuedFuture};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Waits until every item is processed; made by [`Buffer::join`].
///
/// # Cancel safety
///
/// Dropping it loses nothing.
///
/// # Panics
///
/// If polled after completion.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Join<T> {
    /// `None` once complete.
    buffer: Option<Arc<Buffer<T>>>,
    key: Option<Key>,
}

impl<T> Join<T> {
    pub(super) fn new(buffer: Arc<Buffer<T>>) -> Self {
        Self {
            buffer: Some(buffer),
            key: None,
        }
    }
}

impl<T> QueuedFuture for Join<T> {
    type Owner = Buffer<T>;

    /// Return `None`: a joiner is promised nothing that another waiter could take over.
    fn queue_position(&self) -> Option<QueuePosition<Buffer<T>>> {
        None
    }
}

impl<T> Future for Join<T> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let buffer = this
            .buffer
            .as_ref()
            .expect("`Join` polled after completion");
        // Outlives the guard: a waker that ends up here is dropped after unlocking.
        let mut spare = None;
        loop {
            let mut state = buffer.state.lock();
            // A waiter that was removed has seen the count at zero, even if it has risen since.
            let was_released = this.key.is_some_and(|key| !state.joiners.contains(key));
            if was_released || state.unfinished == 0 {
                let left = this.key.take().and_then(|key| state.joiners.leave(key));
                drop(state);
                drop(left);
                this.buffer = None;
                return Poll::Ready(());
            }
            if (state.joiners).enqueue(&mut this.key, cx.waker(), &mut spare, || ()) {
                return Poll::Pending;
            }
            drop(state);
            spare = Some(cx.waker().clone());
            // The count may have reached zero while the lock was free: check again before waiting.
        }
    }
}

impl<T> Drop for Join<T> {
    fn drop(&mut self) {
        if let (Some(buffer), Some(key)) = (&self.buffer, self.key)
            && let Some(mut state) = buffer.state.lock_unless_poisoned()
        {
            let left = state.joiners.leave(key);
            drop(state);
            drop(left);
        }
    }
}
