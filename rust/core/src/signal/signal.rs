use super::{Stopped, Wait};
use crate::sync::{Arc, Key, Left, Mutex, Slab, WaitList, WakeList};
use std::fmt;

/// One value to everybody who waits for it; the [module](super) tells how it works.
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
    /// Leaf lock: nothing of the caller's runs under it, but for the closure of [`Signal::visit`], which says so.
    pub(super) state: Mutex<State<T>>,
}

pub(super) struct State<T> {
    kept: Option<Kept<T>>,
    /// The values that were published to waiters who have not all come for them yet.
    batches: Slab<Batch<T>>,
    /// Each notified waiter knows its batch.
    pub(super) line: WaitList<Option<Key>>,
    /// Counts the publications.
    published: u64,
    /// A value published up to here is discarded if it comes back: a later one was kept, or a reset came.
    outdated: u64,
    stopped: bool,
}

pub(super) enum Kept<T> {
    /// For one wait. Shared only when that wait comes, so a publish that nobody hears allocates nothing.
    Once(T),
    /// The same, having been shared before with those who never came.
    OnceShared(Arc<T>),
    /// For every wait.
    Sticky(Arc<T>),
}

struct Batch<T> {
    value: Arc<T>,
    /// Which publication it was.
    number: u64,
    /// How many members are still to come; never 0.
    owed: usize,
    /// Whether the value got through to somebody, so that the last member's drop need not save it.
    delivered: bool,
}

impl<T> Signal<T> {
    /// A signal with no value and nobody waiting.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                kept: None,
                batches: Slab::new(),
                line: WaitList::new(),
                published: 0,
                outdated: 0,
                stopped: false,
            }),
        })
    }

    /// The value that is kept, or the next to be published; see [`Wait`].
    #[inline]
    pub fn wait(self: &Arc<Self>) -> Wait<T> {
        Wait::new(Arc::clone(self))
    }

    /// Gives `value` to everybody who waits. If nobody does, or if all of them are dropped before they took it, it is
    /// kept for the next wait, in place of an older one; if it is `sticky` it is kept anyway, for every wait, until
    /// [`reset`](Self::reset) or until another sticky one takes its place. A value that is not is dropped meanwhile,
    /// and so is every one after [`stop`](Self::stop).
    #[inline]
    pub fn publish(&self, value: T, sticky: bool) {
        let mut state = self.state.lock();
        if state.stopped || (!sticky && matches!(state.kept, Some(Kept::Sticky(_)))) {
            drop(state);
            drop(value);
            return;
        }
        state.published += 1;
        if state.line.waiting() == 0 {
            let value = if sticky {
                Kept::Sticky(Arc::new(value))
            } else {
                Kept::Once(value)
            };
            let outdated = state.keep(value);
            drop(state);
            drop(outdated);
        } else {
            let (wakes, outdated) = state.broadcast(Arc::new(value), sticky);
            drop(state);
            drop(outdated);
            wakes.wake_all();
        }
    }

    /// Forgets the value that is kept, also one that comes back later because nobody took it.
    ///
    /// Those who were notified still get theirs.
    pub fn reset(&self) {
        let mut state = self.state.lock();
        state.outdated = state.published;
        let kept = state.kept.take();
        drop(state);
        drop(kept);
    }

    /// Ends it for good: whoever waits, now or later, gets [`Stopped`].
    ///
    /// Those who were notified still get their value; the one that is kept is dropped. Idempotent.
    pub fn stop(&self) {
        let mut wakes = WakeList::new();
        let mut state = self.state.lock();
        state.stopped = true;
        let kept = state.kept.take();
        while let Some((waker, _)) = state.line.pop_first() {
            wakes.push(waker);
        }
        drop(state);
        drop(kept);
        wakes.wake_all();
    }

    /// Whether [`stop`](Self::stop) was called.
    #[inline]
    pub fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// How many stand in the line; those already notified do not.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.state.lock().line.waiting()
    }

    /// Whether a panic under the lock left the state in doubt. Every other method but [`visit`](Self::visit) panics
    /// from then on; dropping the futures does not.
    #[inline]
    pub fn is_broken(&self) -> bool {
        self.state.is_poisoned()
    }

    /// Shows each value to `f` once, or none at all if the lock is taken or broken.
    ///
    /// For garbage collectors, which run where they please and may see too little but must never wait. Hence also: a
    /// value of which somebody outside has an [`Arc`] is not shown, since this signal is not what keeps it alive. `f`
    /// runs under the lock: it must neither call back nor panic.
    pub fn visit(&self, f: &mut dyn FnMut(&T)) {
        let Some(state) = self.state.try_lock() else {
            return;
        };
        let kept = match &state.kept {
            None => None,
            Some(Kept::Once(value)) => {
                f(value);
                None
            }
            Some(Kept::OnceShared(value) | Kept::Sticky(value)) => Some(value),
        };
        // A sticky value is shared by its batch and by those who took it from there.
        let same = |batch: &&Batch<T>| kept.is_some_and(|kept| Arc::ptr_eq(kept, &batch.value));
        if let Some(kept) = kept
            && Arc::strong_count(kept) == 1 + state.batches.iter().filter(same).count()
        {
            f(kept);
        }
        for batch in state.batches.iter().filter(|batch| !same(batch)) {
            if Arc::strong_count(&batch.value) == 1 {
                f(&batch.value);
            }
        }
    }
}

impl<T> fmt::Debug for Signal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Signal");
        if let Some(state) = self.state.try_lock() {
            out.field("kept", &state.kept.is_some())
                .field("waiting", &state.line.waiting())
                .field("stopped", &state.stopped);
        }
        out.finish_non_exhaustive()
    }
}

impl<T> Kept<T> {
    /// The value to hand out. May allocate, so call it after unlocking.
    #[inline]
    pub(super) fn into_shared(self) -> Arc<T> {
        match self {
            Self::Once(value) => Arc::new(value),
            Self::OnceShared(value) | Self::Sticky(value) => value,
        }
    }
}

impl<T> State<T> {
    /// Keeps the value of the newest publication. The one that it replaces is to be dropped after unlocking.
    #[inline]
    fn keep(&mut self, value: Kept<T>) -> Option<Kept<T>> {
        self.outdated = self.published;
        self.kept.replace(value)
    }

    /// Makes a batch of everybody in the line.
    fn broadcast(&mut self, value: Arc<T>, sticky: bool) -> (WakeList, Option<Kept<T>>) {
        let mut wakes = WakeList::new();
        let batch = self.batches.insert(Batch {
            value: Arc::clone(&value),
            number: self.published,
            owed: self.line.waiting(),
            // A sticky value need not be saved by its batch: it is kept from the start.
            delivered: sticky,
        });
        while let Some((waker, member)) = self.line.notify_first() {
            *member = Some(batch);
            wakes.push(waker);
        }
        let outdated = if sticky {
            self.keep(Kept::Sticky(value))
        } else {
            Some(Kept::OnceShared(value))
        };
        (wakes, outdated)
    }

    /// What the waiter at `key`, or a newcomer, gets now; `None` if it has to wait.
    ///
    /// A waiter that gets something leaves its place.
    #[inline]
    pub(super) fn take(&mut self, key: Option<Key>) -> Option<Result<Kept<T>, Stopped>> {
        // First of all what was promised: it stands even if the signal was stopped since.
        if let Some(key) = key
            && self.line.is_notified(key)
        {
            // Being notified it left no waker, so nothing is dropped under the lock.
            let Some(Left::Notified(Some(batch))) = self.line.leave(key) else {
                unreachable!("a notified waiter is a member of a batch");
            };
            return Some(Ok(Kept::OnceShared(self.collect(batch))));
        }
        if self.stopped {
            return Some(Err(Stopped));
        }
        match &self.kept {
            None => None,
            Some(Kept::Sticky(value)) => Some(Ok(Kept::Sticky(Arc::clone(value)))),
            Some(_) => self.kept.take().map(Ok),
        }
    }

    /// The value for one member of a batch; the last one takes the batch's own.
    fn collect(&mut self, key: Key) -> Arc<T> {
        let batch = self
            .batches
            .get_mut(key)
            .expect("a batch lives until its last member came");
        batch.owed -= 1;
        batch.delivered = true;
        if batch.owed > 0 {
            return Arc::clone(&batch.value);
        }
        self.batches
            .remove(key)
            .expect("it was here just now")
            .value
    }

    /// One member of a batch was dropped before it came. What this returns is to be woken and dropped after unlocking.
    pub(super) fn forsake(&mut self, key: Key) -> (WakeList, Option<Kept<T>>) {
        let mut wakes = WakeList::new();
        let batch = self
            .batches
            .get_mut(key)
            .expect("a batch lives until its last member came");
        batch.owed -= 1;
        if batch.owed > 0 {
            return (wakes, None);
        }
        let save = !batch.delivered && !self.stopped && batch.number > self.outdated;
        // As if the batch had never waited: the first in the line would have found the value kept, and consumed it.
        if save && let Some((waker, member)) = self.line.notify_first() {
            batch.owed = 1;
            *member = Some(key);
            wakes.push(waker);
            return (wakes, None);
        }
        let batch = self.batches.remove(key).expect("it was here just now");
        let value = Kept::OnceShared(batch.value);
        if !save {
            return (wakes, Some(value));
        }
        // What it replaces is older, or its number would have been outdated.
        self.outdated = batch.number;
        (wakes, self.kept.replace(value))
    }
}
