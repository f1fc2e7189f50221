use super::{Get, Put, TryGetError, TryPutError};
use crate::sync::{Arc, Key, Mutex, MutexGuard, WaitList, WakeList};
use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroUsize;

/// A first-in first-out queue with an end; the [module](super) tells how it works.
///
/// ```
/// use headrace_core::{Buffer, buffer::TryPutError};
/// use std::num::NonZeroUsize;
///
/// let buffer = Buffer::new(NonZeroUsize::new(1));
/// buffer.try_put("first")?;
/// assert_eq!(buffer.try_put("second"), Err(TryPutError::Full("second")));
/// buffer.finish();
/// assert_eq!(buffer.try_get(), Ok("first"));
/// assert!(buffer.try_get().is_err(), "that was all");
/// # Ok::<(), TryPutError<&str>>(())
/// ```
pub struct Buffer<T> {
    /// Outside the lock, since it never changes.
    maxsize: Option<NonZeroUsize>,
    /// Leaf lock: nothing of the caller's runs under it, but for the closures of [`Buffer::visit`] and
    /// [`Buffer::peek_with`], which say so.
    pub(super) state: Mutex<State<T>>,
}

pub(super) struct State<T> {
    items: VecDeque<T>,
    /// `usize::MAX` if there is no bound.
    capacity: usize,
    end: End,
    pub(super) getters: WaitList,
    pub(super) putters: WaitList,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// Nothing comes in any more.
    Finished,
    /// Nothing comes in or goes out any more.
    Closed,
}

impl<T> Buffer<T> {
    /// An empty buffer for at most `maxsize` items, or for any number of them.
    pub fn new(maxsize: Option<NonZeroUsize>) -> Arc<Self> {
        Arc::new(Self {
            maxsize,
            state: Mutex::new(State {
                items: VecDeque::new(),
                capacity: maxsize.map_or(usize::MAX, NonZeroUsize::get),
                end: End::Open,
                getters: WaitList::new(),
                putters: WaitList::new(),
            }),
        })
    }

    /// Stores `item` if there is room that nobody who waits was promised.
    ///
    /// # Errors
    ///
    /// [`TryPutError::Full`] or [`TryPutError::Closed`], with the item.
    #[inline]
    pub fn try_put(&self, item: T) -> Result<(), TryPutError<T>> {
        let mut state = self.state.lock();
        state.store(None, item)?;
        State::settle_and_unlock(state);
        Ok(())
    }

    /// Stores `item` as soon as there is room; see [`Put`].
    #[inline]
    pub fn put(self: &Arc<Self>, item: T) -> Put<T> {
        Put::new(Arc::clone(self), item)
    }

    /// Takes the oldest item if there is one that nobody who waits was promised.
    ///
    /// # Errors
    ///
    /// [`TryGetError::Empty`] if an item may yet come, [`TryGetError::Ended`] if none will.
    #[inline]
    pub fn try_get(&self) -> Result<T, TryGetError> {
        let mut state = self.state.lock();
        let item = state.take(None)?;
        State::settle_and_unlock(state);
        Ok(item)
    }

    /// Takes the oldest item as soon as there is one; see [`Get`].
    #[inline]
    pub fn get(self: &Arc<Self>) -> Get<T> {
        Get::new(Arc::clone(self))
    }

    /// Ends the producers' side: what is in the buffer is still delivered, then getters get
    /// [`Ended`](super::Ended). Whoever waits to put gets the item back. Idempotent.
    pub fn finish(&self) {
        let mut state = self.state.lock();
        if state.end != End::Open {
            return;
        }
        state.end = End::Finished;
        State::settle_and_unlock(state);
    }

    /// Ends the consumers' side, and with it the producers': what was left comes back, oldest first. Whoever waits
    /// to put gets the item back, whoever waits for an item gets [`Ended`](super::Ended). Idempotent: nothing is left
    /// the second time.
    #[must_use = "what was left in the buffer is in here"]
    pub fn close(&self) -> Vec<T> {
        let mut state = self.state.lock();
        state.end = End::Closed;
        let left = std::mem::take(&mut state.items);
        State::settle_and_unlock(state);
        left.into()
    }

    /// How many items are here, promised or not.
    #[inline]
    pub fn len(&self) -> usize {
        self.state.lock().items.len()
    }

    /// Whether no item is here.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bound, if there is one.
    #[inline]
    pub fn maxsize(&self) -> Option<NonZeroUsize> {
        self.maxsize
    }

    /// Whether nothing comes in any more, after [`finish`](Self::finish) or [`close`](Self::close).
    #[inline]
    pub fn is_finished(&self) -> bool {
        self.state.lock().end != End::Open
    }

    /// Whether nothing goes out any more, after [`close`](Self::close).
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.state.lock().end == End::Closed
    }

    /// How many stand in the line for an item; those already notified do not.
    pub fn waiting_getters(&self) -> usize {
        self.state.lock().getters.waiting()
    }

    /// How many stand in the line for room; those already notified do not.
    pub fn waiting_putters(&self) -> usize {
        self.state.lock().putters.waiting()
    }

    /// Whether a panic under the lock left the state in doubt. Every other method but [`visit`](Self::visit) panics
    /// from then on; dropping the futures does not.
    #[inline]
    pub fn is_broken(&self) -> bool {
        self.state.is_poisoned()
    }

    /// Shows each item to `f`, oldest first, or none at all if the lock is taken or broken.
    ///
    /// For garbage collectors, which run where they please and may see too little but must never wait. `f` runs under
    /// the lock: it must neither call back nor panic.
    pub fn visit(&self, f: &mut dyn FnMut(&T)) {
        if let Some(state) = self.state.try_lock() {
            state.items.iter().for_each(f);
        }
    }

    /// Shows the oldest item to `f`, promised or not.
    ///
    /// `f` runs under the lock: it must neither call back nor panic.
    pub fn peek_with<R>(&self, f: impl FnOnce(Option<&T>) -> R) -> R {
        f(self.state.lock().items.front())
    }
}

impl<T> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Buffer");
        out.field("maxsize", &self.maxsize);
        if let Some(state) = self.state.try_lock() {
            out.field("len", &state.items.len())
                .field("end", &state.end)
                .field("waiting_getters", &state.getters.waiting())
                .field("waiting_putters", &state.putters.waiting());
        }
        out.finish_non_exhaustive()
    }
}

impl<T> State<T> {
    /// Whether a slot is free that was promised to nobody.
    #[inline]
    fn has_room(&self) -> bool {
        // Two lengths of things in memory: the sum cannot overflow.
        self.items.len() + self.putters.notified() < self.capacity
    }

    /// What every operation ends with: the last three of the four steps in [`sync`](crate::sync).
    #[inline]
    pub(super) fn settle_and_unlock(mut state: MutexGuard<'_, Self>) {
        // Mostly there is nobody to think of, and that is all it costs to know.
        if state.getters.waiting() != 0 || state.putters.waiting() != 0 {
            let wakes = state.settle();
            drop(state);
            wakes.wake_all();
        }
    }

    /// The oldest item, if the getter at `key` was promised one or if there are more than were promised.
    ///
    /// A getter that takes leaves its place; settle afterwards.
    #[inline]
    pub(super) fn take(&mut self, key: Option<Key>) -> Result<T, TryGetError> {
        if self.end == End::Closed {
            return Err(TryGetError::Ended);
        }
        let promised = self.getters.notified();
        if self.items.len() <= promised && !key.is_some_and(|key| self.getters.is_notified(key)) {
            // Finished, yet not ended while a promised item is still here: its getter may be dropped.
            let ended = self.end == End::Finished && self.items.is_empty();
            return Err(if ended {
                TryGetError::Ended
            } else {
                TryGetError::Empty
            });
        }
        if let Some(key) = key {
            // It was notified, so there is no waker in what it leaves: nothing is dropped under the lock.
            self.getters.leave(key);
        }
        Ok(self
            .items
            .pop_front()
            .expect("as many items as were promised, at least"))
    }

    /// Stores the item, if the putter at `key` was promised a slot or if there are more than were promised.
    ///
    /// A putter that stores leaves its place; settle afterwards.
    #[inline]
    pub(super) fn store(&mut self, key: Option<Key>, item: T) -> Result<(), TryPutError<T>> {
        if self.end != End::Open {
            return Err(TryPutError::Closed(item));
        }
        if !self.has_room() && !key.is_some_and(|key| self.putters.is_notified(key)) {
            return Err(TryPutError::Full(item));
        }
        if let Some(key) = key {
            self.putters.leave(key);
        }
        self.items.push_back(item);
        Ok(())
    }

    /// Restores the invariants of the [module](super): promises each item and each slot that is over to the first who
    /// waits for one, and sends home those who wait in vain. To be called after every change; O(1) plus the wake-ups.
    fn settle(&mut self) -> WakeList {
        let mut wakes = WakeList::new();
        if self.end == End::Closed || (self.end == End::Finished && self.items.is_empty()) {
            send_home(&mut self.getters, &mut wakes);
        }
        if self.end != End::Open {
            send_home(&mut self.putters, &mut wakes);
        }
        while self.items.len() > self.getters.notified()
            && let Some((getter, ())) = self.getters.notify_first()
        {
            wakes.push(getter);
        }
        while self.has_room()
            && let Some((putter, ())) = self.putters.notify_first()
        {
            wakes.push(putter);
        }
        debug_assert!(
            self.end == End::Closed || self.getters.notified() <= self.items.len(),
            "each notified getter has its item",
        );
        debug_assert!(
            self.end != End::Open || self.items.len() + self.putters.notified() <= self.capacity,
            "each notified putter has its slot",
        );
        wakes
    }
}

/// Empties the line. Whom it wakes sees the end for itself, under a key that names nobody any more.
fn send_home(line: &mut WaitList, wakes: &mut WakeList) {
    while let Some((waker, ())) = line.pop_first() {
        wakes.push(waker);
    }
}
