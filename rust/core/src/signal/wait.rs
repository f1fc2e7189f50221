//! `Wait`, the future that `Signal::wait` returns. The Python class `Signal` awaits it.

use super::Signal;
use super::signal::Retained;
use crate::sync::{Arc, Key, QueuePosition, QueuedFuture, WaitQueues};
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The value of a [`Signal`], as soon as there is one; made by [`Signal::wait`].
///
/// The first poll joins the wait queue. A publish before that does not wake it; it takes the retained value.
///
/// # Cancel safety
///
/// Dropping it loses no value: if all members of a batch are dropped, their value goes to the next waiter, or is
/// retained. The position in the queue is lost, and so is a value that another member has taken.
///
/// # Panics
///
/// If polled after completion.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Wait<T> {
    /// `None` once complete.
    signal: Option<Arc<Signal<T>>>,
    /// The position in the queue, from the first poll that found no value until completion.
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
}

impl<T> QueuedFuture for Wait<T> {
    type Owner = Signal<T>;

    fn queue_position(&self) -> Option<QueuePosition<Signal<T>>> {
        Some(QueuePosition::new(self.signal.as_ref()?, (), self.key?))
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
        // Outlives the guard: a waker that ends up here is dropped after unlocking.
        let mut spare = None;
        loop {
            let mut state = signal.state.lock();
            if let Some(output) = state.take(this.key) {
                drop(state);
                this.key = None;
                this.signal = None;
                return Poll::Ready(output.map(Retained::into_shared));
            }
            if state
                .waiters
                .enqueue(&mut this.key, cx.waker(), &mut spare, || None)
            {
                return Poll::Pending;
            }
            drop(state);
            spare = Some(cx.waker().clone());
            // A value may have arrived while the lock was free: check again before waiting.
        }
    }
}

impl<T> Drop for Wait<T> {
    #[inline]
    fn drop(&mut self) {
        if let (Some(signal), Some(key)) = (&self.signal, self.key) {
            signal.leave((), key);
        }
    }
}
