use super::buffer::State;
use super::place::Line;
use super::{Buffer, Overflow, Place, PutError};
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

    /// Its place in the line, if it stands there.
    pub fn place(&self) -> Option<Place<T>> {
        Some(Place::new(&self.buffer, Line::Putters, self.key?))
    }

    /// Gives up, and gives the item back; `None` if the put has completed, successfully or not.
    pub fn into_item(mut self) -> Option<T> {
        self.item.take()
    }
}

impl<T> Future for Put<T> {
    type Output = Result<(), PutError<T>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        // Outlives the guard, so that a waker which ends up in here is dropped after unlocking.
        let mut spare = None;
        loop {
            // Before the lock, which this panic must not break.
            let item = this.item.as_ref().expect("`Put` polled after completion");
            let (mut state, seat) = match this.buffer.lock_with_seat(item, this.key) {
                Ok(found) => found,
                Err(fault) => {
                    // It cannot be compared, so it is over; a slot that it was promised goes to the next.
                    if let Some(key) = this.key.take() {
                        this.buffer.leave(Line::Putters, key);
                    }
                    let item = this.item.take().expect("it was compared just now");
                    return Poll::Ready(Err(PutError::Unranked(item, fault)));
                }
            };
            // Only now: had the lock been broken, the item would still be here.
            let Some(item) = this.item.take() else {
                unreachable!("it was here before the lock")
            };
            let output = match state.store(this.key, seat, item) {
                Ok(displaced) => Ok(displaced),
                Err(PutError::Full(item)) if state.overflow == Overflow::Block => {
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
                Err(error) => {
                    // Only a key that was notified before the end still names anybody: no waker is dropped here.
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
            self.buffer.leave(Line::Putters, key);
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
