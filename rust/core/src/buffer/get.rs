use super::buffer::State;
use super::place::Line;
use super::{Buffer, Ended, Place, TryGetError};
use crate::sync::{Arc, Key};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The next item of a [`Buffer`], as soon as there is one; made by [`Buffer::get`].
///
/// The place in the line is taken by the first poll.
///
/// # Cancel safety
///
/// Dropping it loses no item: the item leaves the buffer in the very poll that delivers it. What is lost is the place
/// in the line; if an item had been promised, the next in the line has it.
///
/// # Panics
///
/// If polled after completion.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Get<T> {
    /// `None` once complete.
    buffer: Option<Arc<Buffer<T>>>,
    /// The place in `getters`, from the first poll that found nothing until completion.
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

    /// Its place in the line, if it stands there.
    pub fn place(&self) -> Option<Place<T>> {
        Some(Place::new(self.buffer.as_ref()?, Line::Getters, self.key?))
    }
}

impl<T> Future for Get<T> {
    type Output = Result<T, Ended>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let buffer = this.buffer.as_ref().expect("`Get` polled after completion");
        // Outlives the guard, so that a waker which ends up in here is dropped after unlocking.
        let mut spare = None;
        loop {
            let mut state = buffer.state.lock();
            let output = match state.take(this.key) {
                Ok(item) => Ok(item),
                Err(TryGetError::Ended) => {
                    // Only a key that was notified before a `close` still names anybody: no waker is dropped here.
                    this.key.and_then(|key| state.getters.leave(key));
                    Err(Ended)
                }
                Err(TryGetError::Empty) => {
                    if state
                        .getters
                        .enrol(&mut this.key, cx.waker(), &mut spare, || ())
                    {
                        return Poll::Pending;
                    }
                    drop(state);
                    spare = Some(cx.waker().clone());
                    // An item may have come while the lock was away: look again before waiting for one.
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
            buffer.leave(Line::Getters, key);
        }
    }
}
