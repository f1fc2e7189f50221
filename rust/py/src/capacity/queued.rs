//! A future of the core, as it stands in a line of a tree.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use headrace_core::capacity::{Acquire, Place, Resume};

use super::tree::Shared;

/// What may stand in a line.
pub(super) trait Stands: Future + Unpin {
    /// Where it stands; also if it was granted, and has not heard of it.
    fn place(&self) -> Option<Place>;
}

impl Stands for Acquire {
    fn place(&self) -> Option<Place> {
        Self::place(self)
    }
}

impl Stands for Resume {
    fn place(&self) -> Option<Place> {
        Self::place(self)
    }
}

/// Dropped a line makes room for others, who are granted at that moment: so it needs the time, which a bare future would not ask
/// for.
#[derive(Debug)]
pub(super) struct Standing<F: Stands> {
    shared: Arc<Shared>,
    /// `None` once it has left.
    future: Option<F>,
}

impl<F: Stands> Standing<F> {
    pub(super) fn new(shared: &Arc<Shared>, future: F) -> Self {
        Self {
            shared: Arc::clone(shared),
            future: Some(future),
        }
    }

    /// What gives up its place, if it has one, for whoever finds that it cannot be woken.
    pub(super) fn forward(&self) -> Option<Box<dyn FnOnce() + Send>> {
        let place = self.future.as_ref()?.place()?;
        // Weak: the waker in the line may own this.
        let shared = Arc::downgrade(&self.shared);
        Some(Box::new(move || {
            if let Some(shared) = shared.upgrade() {
                shared.at_last(|_| place.give_up());
            }
        }))
    }
}

/// As the future itself. The first poll takes the place in the line, and so wants the tree [entered](Shared::enter).
impl<F: Stands> Future for Standing<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.get_mut().future.as_mut();
        Pin::new(future.expect("it is there until it is dropped")).poll(context)
    }
}

impl<F: Stands> Drop for Standing<F> {
    fn drop(&mut self) {
        let future = self.future.take().filter(|future| future.place().is_some());
        let Some(future) = future else {
            return;
        };
        let mut future = Some(future);
        self.shared.at_last(|_| drop(future.take()));
        // In a forked child the lock of the tree may be somebody's who is not there.
        if let Some(future) = future
            && !self.shared.home.is_current()
        {
            std::mem::forget(future);
        }
    }
}
