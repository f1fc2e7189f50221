use super::buffer::State;
use super::{Buffer, Closed, TryPutError};
use crate::sync::{Arc, Key};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Stores an item in a [`Buffer`] as soon as there is room; made by [`Buffer::put`].
///
/// The place in the line is taken by the first poll, which completes at once if there is room.
///
/// # Cancel safety
///
/// The item is stored in the very poll that reports so. Until then it is in the future: dropping the future drops the
/// item, [`into_item`](Self::into_item) gives it back instead. Either way the place in the line is lost; if room had
/// been promised, the next in the line has it.
///
/// # Panics
///
/// If polled after completion.
#[must_use = "futures do nothing unless polled"]
pub struct Put<T> {
    buffer: Arc<Buffer<T>>,
    /// The place in `putters`, from the first poll that found no room until completion.
    key: Option<Key>,
    /// `None` once complete.
    item: Option<T>,
}

// The item is only ever moved, so a pin on the future promises nothing about it.
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

    /// The item as long as it was not accepted, for those who have to know what the future keeps alive.
    pub fn item(&self) -> Option<&T> {
        self.item.as_ref()
    }

    /// Gives up, and gives the item back; `None` if the put has completed, successfully or not.
    pub fn into_item(mut self) -> Option<T> {
        self.item.take()
    }
}

impl<T> Future for Put<T> {
    type Output = Result<(), Closed<T>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        // Before the lock, which this panic must not break.
        assert!(this.item.is_some(), "`Put` polled after completion");
        // Outlives the guard, so that a waker which ends up in here is dropped after unlocking.
        let mut spare = None;
        loop {
            let mut state = this.buffer.state.lock();
            // Only now: had the lock been broken, the item would still be here.
            let Some(item) = this.item.take() else {
                unreachable!("it was here before the loop")
            };
            let output = match state.store(this.key, item) {
                Ok(()) => Ok(()),
                Err(TryPutError::Closed(item)) => {
                    // Only a key that was notified before the end still names anybody: no waker is dropped here.
                    this.key.and_then(|key| state.putters.leave(key));
                    Err(Closed(item))
                }
                Err(TryPutError::Full(item)) => {
                    this.item = Some(item);
                    if state
                        .putters
                        .enrol(&mut this.key, cx.waker(), &mut spare, || ())
                    {
                        return Poll::Pending;
                    }
                    drop(state);
                    spare = Some(cx.waker().clone());
                    // Room may have come while the lock was away: look again before waiting for it.
                    continue;
                }
            };
            this.key = None;
            State::settle_and_unlock(state);
            return Poll::Ready(output);
        }
    }
}

impl<T> Drop for Put<T> {
    #[inline]
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        // In a broken buffer there is nothing to hand on, and nobody to hand it to.
        let Some(mut state) = self.buffer.state.lock_unless_poisoned() else {
            return;
        };
        let left = state.putters.leave(key);
        State::settle_and_unlock(state);
        drop(left);
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
