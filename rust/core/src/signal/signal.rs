//! `Signal`, its state and its operations. The future in `wait.rs` calls it, and the Python class `Signal` is built on
//! it.

use super::{Stopped, Wait};
use crate::sync::{Arc, Key, Left, Mutex, Slab, WaitList, WaitQueues, WakeList};
use std::fmt;

/// One value for all waiters; see the [module](super) for the algorithm.
///
/// ```
/// use headrace_core::Signal;
/// use std::pin::pin;
/// use std::task::{Context, Poll, Waker};
///
/// let mut cx = Context::from_waker(Waker::noop());
/// let signal = Signal::new();
/// let mut wait = pin!(signal.wait());
/// assert!(wait.as_mut().poll(&mut cx).is_pending());
/// signal.publish("go", false);
/// assert!(matches!(wait.poll(&mut cx), Poll::Ready(Ok(value)) if *value == "go"));
/// ```
pub struct Signal<T> {
    /// Leaf lock: no code of the caller runs under it, except the closure of [`Signal::visit`], which documents it.
    pub(super) state: Mutex<State<T>>,
}

pub(super) struct State<T> {
    retained: Option<Retained<T>>,
    /// The values that were published to waiters of which some have not collected yet.
    batches: Slab<Batch<T>>,
    /// Each notified waiter has the key of its batch.
    pub(super) waiters: WaitList<Option<Key>>,
    /// Counts the publications.
    published: u64,
    /// A value with at most this number is discarded if it comes back: a later one was retained, or `reset` was called.
    outdated: u64,
    stopped: bool,
}

pub(super) enum Retained<T> {
    /// For one wait, which makes the `Arc`: a publish without waiters allocates nothing.
    Once(T),
    /// The same, already shared with waiters that were dropped before they collected it.
    OnceShared(Arc<T>),
    /// For every wait.
    Sticky(Arc<T>),
}

struct Batch<T> {
    value: Arc<T>,
    /// The number of its publication.
    number: u64,
    /// The number of members that have still to collect; never 0.
    pending: usize,
    /// Whether a member took the value, or it is retained: then the drop of the last member need not save it.
    delivered: bool,
}

impl<T> Signal<T> {
    /// Return a signal with no value and no waiters.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                retained: None,
                batches: Slab::new(),
                waiters: WaitList::new(),
                published: 0,
                outdated: 0,
                stopped: false,
            }),
        })
    }

    /// Wait for the retained value, or the next to be published; see [`Wait`].
    #[inline]
    pub fn wait(self: &Arc<Self>) -> Wait<T> {
        Wait::new(Arc::clone(self))
    }

    /// Deliver `value` to all current waiters. If there are none, or if all are dropped before they take it, it is
    /// retained for the next wait, in place of an older one. A `sticky` value is always retained, for every wait, until
    /// [`reset`](Self::reset) or until another sticky value replaces it; until then, values that are not sticky are
    /// dropped. After [`stop`](Self::stop) every value is dropped.
    #[inline]
    pub fn publish(&self, value: T, sticky: bool) {
        let mut state = self.state.lock();
        if state.stopped || (!sticky && matches!(state.retained, Some(Retained::Sticky(_)))) {
            drop(state);
            drop(value);
            return;
        }
        state.published += 1;
        if state.waiters.waiting() == 0 {
            let value = if sticky {
                Retained::Sticky(Arc::new(value))
            } else {
                Retained::Once(value)
            };
            let outdated = state.retain(value);
            drop(state);
            drop(outdated);
        } else {
            let (wakes, outdated) = state.broadcast(Arc::new(value), sticky);
            drop(state);
            drop(outdated);
            wakes.wake_all();
        }
    }

    /// Drop the retained value, and any value published so far that comes back because no waiter took it.
    ///
    /// Waiters that were notified still get their value.
    pub fn reset(&self) {
        let mut state = self.state.lock();
        state.outdated = state.published;
        let retained = state.retained.take();
        drop(state);
        drop(retained);
    }

    /// End the signal: all current and later waits get [`Stopped`].
    ///
    /// Waiters that were notified still get their value; the retained value is dropped. Idempotent.
    pub fn stop(&self) {
        let mut wakes = WakeList::new();
        let mut state = self.state.lock();
        state.stopped = true;
        let retained = state.retained.take();
        while let Some((waker, _)) = state.waiters.pop_first() {
            wakes.push(waker);
        }
        drop(state);
        drop(retained);
        wakes.wake_all();
    }

    /// Return whether [`stop`](Self::stop) was called.
    #[inline]
    pub fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// Return the number of waiters in the queue, without those already notified.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.state.lock().waiters.waiting()
    }

    /// Return whether a panic under the lock may have left the state inconsistent. From then on every method
    /// that takes the lock panics, except [`visit`](Self::visit); dropping the futures does not.
    #[inline]
    pub fn is_broken(&self) -> bool {
        self.state.is_poisoned()
    }

    /// Call `f` once with each value; with none if the lock is taken or poisoned.
    ///
    /// For garbage collectors: they run at any moment, may miss values, and must never wait. A value with an [`Arc`]
    /// outside is left out, since this signal is not the only owner. `f` runs under the lock: it must neither call back
    /// nor panic.
    pub fn visit(&self, f: &mut dyn FnMut(&T)) {
        let Some(state) = self.state.try_lock() else {
            return;
        };
        let retained = match &state.retained {
            None => None,
            Some(Retained::Once(value)) => {
                f(value);
                None
            }
            Some(Retained::OnceShared(value) | Retained::Sticky(value)) => Some(value),
        };
        // A sticky value is shared with its batch, and with the waiters that took it from there.
        let same =
            |batch: &&Batch<T>| retained.is_some_and(|value| Arc::ptr_eq(value, &batch.value));
        if let Some(value) = retained
            && Arc::strong_count(value) == 1 + state.batches.iter().filter(same).count()
        {
            f(value);
        }
        for batch in state.batches.iter().filter(|batch| !same(batch)) {
            if Arc::strong_count(&batch.value) == 1 {
                f(&batch.value);
            }
        }
    }
}

impl<T> WaitQueues for Signal<T> {
    type Queue = ();

    fn leave(&self, (): (), key: Key) {
        // In a broken signal there is no promise to hand on.
        let Some(mut state) = self.state.lock_unless_poisoned() else {
            return;
        };
        let left = state.waiters.leave(key);
        if let Some(Left::Notified(Some(batch))) = left {
            let (wakes, outdated) = state.drop_member(batch);
            drop(state);
            drop(outdated);
            wakes.wake_all();
        } else {
            drop(state);
            drop(left);
        }
    }
}

impl<T> fmt::Debug for Signal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Signal");
        if let Some(state) = self.state.try_lock() {
            out.field("retained", &state.retained.is_some())
                .field("waiting", &state.waiters.waiting())
                .field("stopped", &state.stopped);
        }
        out.finish_non_exhaustive()
    }
}

impl<T> Retained<T> {
    /// Return the value as an `Arc`. May allocate: call it after unlocking.
    #[inline]
    pub(super) fn into_shared(self) -> Arc<T> {
        match self {
            Self::Once(value) => Arc::new(value),
            Self::OnceShared(value) | Self::Sticky(value) => value,
        }
    }
}

impl<T> State<T> {
    /// Retain the value of the newest publication. Returns the replaced one, to be dropped after unlocking.
    #[inline]
    fn retain(&mut self, value: Retained<T>) -> Option<Retained<T>> {
        self.outdated = self.published;
        self.retained.replace(value)
    }

    /// Notify all waiters and make a batch of them.
    fn broadcast(&mut self, value: Arc<T>, sticky: bool) -> (WakeList, Option<Retained<T>>) {
        let mut wakes = WakeList::new();
        let batch = self.batches.insert(Batch {
            value: Arc::clone(&value),
            number: self.published,
            pending: self.waiters.waiting(),
            // A sticky value need not be saved by its batch: it is retained from the start.
            delivered: sticky,
        });
        while let Some((waker, member)) = self.waiters.notify_first() {
            *member = Some(batch);
            wakes.push(waker);
        }
        let outdated = if sticky {
            self.retain(Retained::Sticky(value))
        } else {
            Some(Retained::OnceShared(value))
        };
        (wakes, outdated)
    }

    /// Take the value for the waiter at `key`, or for a new wait; `None` if it has to wait.
    ///
    /// A waiter that gets a result leaves the queue.
    #[inline]
    pub(super) fn take(&mut self, key: Option<Key>) -> Option<Result<Retained<T>, Stopped>> {
        // A promised value first: it is valid even if the signal was stopped since.
        if let Some(key) = key
            && self.waiters.is_notified(key)
        {
            // A notified waiter has no waker: nothing is dropped under the lock.
            let Some(Left::Notified(Some(batch))) = self.waiters.leave(key) else {
                unreachable!("a notified waiter is a member of a batch");
            };
            return Some(Ok(Retained::OnceShared(self.collect(batch))));
        }
        if self.stopped {
            return Some(Err(Stopped));
        }
        match &self.retained {
            None => None,
            Some(Retained::Sticky(value)) => Some(Ok(Retained::Sticky(Arc::clone(value)))),
            Some(_) => self.retained.take().map(Ok),
        }
    }

    /// Return the value to one member of a batch; the last member takes the batch's own reference.
    fn collect(&mut self, key: Key) -> Arc<T> {
        let batch = self
            .batches
            .get_mut(key)
            .expect("a batch exists until its last member has left it");
        batch.pending -= 1;
        batch.delivered = true;
        if batch.pending > 0 {
            return Arc::clone(&batch.value);
        }
        self.batches
            .remove(key)
            .expect("the batch was found above")
            .value
    }

    /// Remove a member of a batch that was dropped before it collected. Wake and drop the results after unlocking.
    pub(super) fn drop_member(&mut self, key: Key) -> (WakeList, Option<Retained<T>>) {
        let mut wakes = WakeList::new();
        let batch = self
            .batches
            .get_mut(key)
            .expect("a batch exists until its last member has left it");
        batch.pending -= 1;
        if batch.pending > 0 {
            return (wakes, None);
        }
        let save = !batch.delivered && !self.stopped && batch.number > self.outdated;
        // As if the batch had never waited: the first waiter would have found and consumed the retained value.
        if save && let Some((waker, member)) = self.waiters.notify_first() {
            batch.pending = 1;
            *member = Some(key);
            wakes.push(waker);
            return (wakes, None);
        }
        let batch = self.batches.remove(key).expect("the batch was found above");
        let value = Retained::OnceShared(batch.value);
        if !save {
            return (wakes, Some(value));
        }
        // The replaced value is older: otherwise this number would be outdated.
        self.outdated = batch.number;
        (wakes, self.retained.replace(value))
    }
}
