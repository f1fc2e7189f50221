use super::Buffer;
use crate::sync::{Arc, Key};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The moment when every item is done with; made by [`Buffer::join`].
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

impl<T> Future for Join<T> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let buffer = this
            .buffer
            .as_ref()
            .expect("`Join` polled after completion");
        // Outlives the guard, so that a waker which ends up in here is dropped after unlocking.
        let mut spare = None;
        loop {
            let mut state = buffer.state.lock();
            // Whoever was sent home saw the moment, even if there is more to do by now.
            let sent_home = this.key.is_some_and(|key| !state.joiners.contains(key));
            if sent_home || state.unfinished == 0 {
                let left = this.key.take().and_then(|key| state.joiners.leave(key));
                drop(state);
                drop(left);
                this.buffer = None;
                return Poll::Ready(());
            }
            if (state.joiners).enrol(&mut this.key, cx.waker(), &mut spare, || ()) {
                return Poll::Pending;
            }
            drop(state);
            spare = Some(cx.waker().clone());
            // The moment may have come while the lock was away: look again before waiting for it.
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
