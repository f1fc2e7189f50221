//! `Queued`: a future of the core in a wait queue of a tree.
//! The awaitables of `acquire.rs` and `lease.rs`, and a blocking acquire in `node.rs`, hold one while they wait.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use headrace_core::capacity::Tree;
use headrace_core::sync::QueuedFuture;

use super::tree::TreeHandle;

/// A future that reads the clock before it leaves the wait queue. Leaving may grant other requests at that moment, so the tree
/// needs the current time; the core's future does not read a user's clock.
#[derive(Debug)]
pub(super) struct Queued<F: QueuedFuture<Owner = Tree>> {
    handle: Arc<TreeHandle>,
    /// `None` during the drop.
    future: Option<F>,
}

impl<F: QueuedFuture<Owner = Tree>> Queued<F> {
    pub(super) fn new(handle: &Arc<TreeHandle>, future: F) -> Self {
        Self {
            handle: Arc::clone(handle),
            future: Some(future),
        }
    }

    /// Return the function that gives up the queue position, if there is one. It is called if the waiter cannot be woken.
    pub(super) fn forward(&self) -> Option<Box<dyn FnOnce() + Send>> {
        let position = self.future.as_ref()?.queue_position()?;
        // Weak, since the waker in the wait queue may own this.
        let handle = Arc::downgrade(&self.handle);
        Some(Box::new(move || {
            if let Some(handle) = handle.upgrade() {
                handle.in_destructor(|_| position.give_up());
            }
        }))
    }
}

/// The first poll queues the request, so the tree must be [entered](TreeHandle::enter).
impl<F: QueuedFuture<Owner = Tree>> Future for Queued<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.get_mut().future.as_mut();
        Pin::new(future.expect("the future is present until the drop")).poll(context)
    }
}

impl<F: QueuedFuture<Owner = Tree>> Drop for Queued<F> {
    fn drop(&mut self) {
        let future = self
            .future
            .take()
            .filter(|future| future.queue_position().is_some());
        let Some(future) = future else {
            return;
        };
        let mut future = Some(future);
        self.handle.in_destructor(|_| drop(future.take()));
        // In a forked child a thread that does not exist there may hold the lock of the tree.
        if let Some(future) = future
            && !self.handle.process.is_current()
        {
            std::mem::forget(future);
        }
    }
}
