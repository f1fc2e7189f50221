use super::Signal;
use super::signal::Kept;
use crate::sync::{Arc, Key, Left};
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll};

/// The value of a [`Signal`], as soon as there is one; made by [`Signal::wait`].
///
/// The place in the line is taken by the first poll, so a publish before that does not wake it: it takes what was kept.
///
/// # Cancel safety
///
/// Dropping it loses no value: one that all who were to get it left behind goes to the next in the line, or is kept.
/// What is lost is the place in the line, and a value that others got meanwhile.
///
/// # Panics
///
/// If polled after completion.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Wait<T> {
    /// `None` once complete.
    signal: Option<Arc<Signal<T>>>,
    /// The place in the line, from the first poll that found nothing until completion.
    key: Option<Key>,
}

/// The signal was stopped: no value will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the signal was stopped")
    }
}

impl Error for Stopped {}

impl<T> Wait<T> {
    #[inline]
    pub(super) fn new(signal: Arc<Signal<T>>) -> Self {
        Self {
            signal: Some(signal),
            key: None,
        }
    }

    /// Its place in the line, if it stands there.
    pub fn place(&self) -> Option<Place<T>> {
        Some(Place {
            signal: Arc::downgrade(self.signal.as_ref()?),
            key: self.key?,
        })
    }
}

/// A place in the line, to be given up by somebody who cannot reach the future that stands there: because its executor
/// is gone, say, so that waking it has failed. Should it be polled after all, it begins to wait anew.
#[derive(Debug)]
pub struct Place<T> {
    /// Weak, since the waker in the line may own this.
    signal: Weak<Signal<T>>,
    key: Key,
}

impl<T> Place<T> {
    /// Leaves the line as if the future had been dropped: a value that nobody took is not lost with it. Does nothing
    /// if the future has left by itself.
    pub fn give_up(&self) {
        if let Some(signal) = self.signal.upgrade() {
            signal.leave(self.key);
        }
    }
}

impl<T> Future for Wait<T> {
    type Output = Result<Arc<T>, Stopped>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let signal = this
            .signal
            .as_ref()
            .expect("`Wait` polled after completion");
        // Outlives the guard, so that a waker which ends up in here is dropped after unlocking.
        let mut spare = None;
        loop {
            let mut state = signal.state.lock();
            if let Some(output) = state.take(this.key) {
                drop(state);
                this.key = None;
                this.signal = None;
                return Poll::Ready(output.map(Kept::into_shared));
            }
            if state
                .line
                .enrol(&mut this.key, cx.waker(), &mut spare, || None)
            {
                return Poll::Pending;
            }
            drop(state);
            spare = Some(cx.waker().clone());
            // A value may have come while the lock was away: look again before waiting for one.
        }
    }
}

impl<T> Drop for Wait<T> {
    #[inline]
    fn drop(&mut self) {
        if let (Some(signal), Some(key)) = (&self.signal, self.key) {
            signal.leave(key);
        }
    }
}

impl<T> Signal<T> {
    /// Takes a wait out of the line; a value that it was to have, and nobody else took, is saved.
    fn leave(&self, key: Key) {
        // In a broken signal there is nothing to hand on, and nobody to hand it to.
        let Some(mut state) = self.state.lock_unless_poisoned() else {
            return;
        };
        let left = state.line.leave(key);
        if let Some(Left::Notified(Some(batch))) = left {
            let (wakes, outdated) = state.forsake(batch);
            drop(state);
            drop(outdated);
            wakes.wake_all();
        } else {
            drop(state);
            drop(left);
        }
    }
}
