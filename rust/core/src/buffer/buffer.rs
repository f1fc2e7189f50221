//! `Buffer`, its state and its operations. The futures in `get.rs`, `put.rs` and `join.rs` call it, and the Python
//! classes `Buffer` and `Queue` are built on it.

use super::items::Items;
use super::priority_queue::{Position, Search};
use super::{Fault, Get, Join, Order, Overflow, Put, PutError, Rank, Statistics, TryGetError};
use crate::sync::{Arc, Key, Mutex, MutexGuard, WaitList, WakeList};
use std::fmt;
use std::num::NonZeroUsize;

/// A queue with an end; see the [module](super) for the algorithm.
///
/// ```
/// use headrace_core::{Buffer, buffer::PutError};
/// use std::num::NonZeroUsize;
///
/// let buffer = Buffer::new(NonZeroUsize::new(1));
/// buffer.try_put("first")?;
/// assert_eq!(buffer.try_put("second"), Err(PutError::Full("second")));
/// buffer.finish();
/// assert_eq!(buffer.try_get(), Ok("first"));
/// assert!(buffer.try_get().is_err(), "it was the last item");
/// # Ok::<(), PutError<&str>>(())
/// ```
pub struct Buffer<T> {
    /// Outside the lock: it never changes.
    maxsize: Option<NonZeroUsize>,
    order: Order<T>,
    /// Leaf lock: no code of the caller runs under it, except [`Rank::share`] and the closures of [`Buffer::visit`]
    /// and [`Buffer::peek_with`], which document it.
    pub(super) state: Mutex<State<T>>,
}

pub(super) struct State<T> {
    items: Items<T>,
    /// `usize::MAX` if there is no bound.
    capacity: usize,
    pub(super) overflow: Overflow,
    end: End,
    pub(super) getters: WaitList,
    pub(super) putters: WaitList,
    pub(super) joiners: WaitList,
    /// The number of accepted items that are not yet processed.
    pub(super) unfinished: usize,
    high_water: usize,
    dropped: u64,
}

/// The decision about an item that is put.
enum Admission {
    /// There is a free slot.
    Store,
    /// The oldest item is dropped to free a slot.
    Displace,
    /// The item is dropped.
    Discard,
    Full,
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// No item is accepted.
    Finished,
    /// No item is accepted or delivered.
    Closed,
}

impl<T> Buffer<T> {
    /// Return an empty FIFO buffer for at most `maxsize` items, or for any number of items.
    pub fn new(maxsize: Option<NonZeroUsize>) -> Arc<Self> {
        Self::with(maxsize, Overflow::Block, Order::Fifo)
    }

    /// Return an empty buffer with the given order and overflow mode.
    pub fn with(maxsize: Option<NonZeroUsize>, overflow: Overflow, order: Order<T>) -> Arc<Self> {
        Arc::new(Self {
            maxsize,
            state: Mutex::new(State {
                items: Items::new(&order),
                capacity: maxsize.map_or(usize::MAX, NonZeroUsize::get),
                overflow,
                end: End::Open,
                getters: WaitList::new(),
                putters: WaitList::new(),
                joiners: WaitList::new(),
                unfinished: 0,
                high_water: 0,
                dropped: 0,
            }),
            order,
        })
    }

    /// Store `item` if there is a slot that no waiting putter was promised, or if the [`Overflow`] frees one.
    ///
    /// # Errors
    ///
    /// [`PutError`], with the item.
    #[inline]
    pub fn try_put(&self, item: T) -> Result<(), PutError<T>> {
        let (mut state, position) = match self.lock_at_position(&item, None) {
            Ok(found) => found,
            Err(fault) => return Err(PutError::Unranked(item, fault)),
        };
        let displaced = state.store(None, position, item)?;
        State::settle_and_unlock(state);
        drop(displaced);
        Ok(())
    }

    /// Store `item` as soon as there is space; see [`Put`].
    #[inline]
    pub fn put(self: &Arc<Self>, item: T) -> Put<T> {
        Put::new(Arc::clone(self), item)
    }

    /// Take the next item if there is one that no waiting getter was promised.
    ///
    /// # Errors
    ///
    /// [`TryGetError::Empty`] if items may still be put, [`TryGetError::Ended`] otherwise.
    #[inline]
    pub fn try_get(&self) -> Result<T, TryGetError> {
        let mut state = self.state.lock();
        let item = state.take(None)?;
        State::settle_and_unlock(state);
        Ok(item)
    }

    /// Take the next item as soon as there is one; see [`Get`].
    #[inline]
    pub fn get(self: &Arc<Self>) -> Get<T> {
        Get::new(Arc::clone(self))
    }

    /// End the producers' side: the items in the buffer are still delivered, then getters get
    /// [`Ended`](super::Ended). Waiting putters get their items back. Idempotent.
    pub fn finish(&self) {
        let mut state = self.state.lock();
        if state.end != End::Open {
            return;
        }
        state.end = End::Finished;
        State::settle_and_unlock(state);
    }

    /// End the consumers' and the producers' side. Returns the remaining items in order; they count as processed.
    /// Waiting putters get their items back, and waiting getters get [`Ended`](super::Ended). Idempotent: the second
    /// call returns no items. A buffer that has finished and is empty has ended and stays so: consumers that have not
    /// seen its end yet must not mistake it for a close.
    #[must_use = "it contains the remaining items of the buffer"]
    pub fn close(&self) -> Vec<T> {
        let mut state = self.state.lock();
        if state.has_ended() {
            return Vec::new();
        }
        state.end = End::Closed;
        let left = state.items.take_all();
        let wakes = state.mark_processed(left.len());
        State::settle_and_unlock(state);
        wakes.wake_all();
        left.into_vec()
    }

    /// Mark one of the delivered items as processed. `false` if all accepted items are processed already.
    #[must_use = "false means that no item was unfinished"]
    pub fn task_done(&self) -> bool {
        let mut state = self.state.lock();
        if state.unfinished == 0 {
            return false;
        }
        let wakes = state.mark_processed(1);
        drop(state);
        wakes.wake_all();
        true
    }

    /// Wait until all accepted items are processed; see [`Join`].
    pub fn join(self: &Arc<Self>) -> Join<T> {
        Join::new(Arc::clone(self))
    }

    /// Return the number of items that were accepted and are not yet processed.
    pub fn unfinished(&self) -> usize {
        self.state.lock().unfinished
    }

    /// Return the number of items that are not promised, and thus available to [`try_get`](Self::try_get).
    #[inline]
    pub fn available(&self) -> usize {
        let state = self.state.lock();
        state.items.len().saturating_sub(state.getters.notified())
    }

    /// Return whether no slot is free, apart from slots promised to waiting putters.
    #[inline]
    pub fn is_full(&self) -> bool {
        !self.state.lock().has_room()
    }

    /// Return all counters at one moment.
    pub fn statistics(&self) -> Statistics {
        let state = self.state.lock();
        Statistics {
            len: state.items.len(),
            high_water: state.high_water,
            dropped: state.dropped,
            waiting_getters: state.getters.waiting(),
            waiting_putters: state.putters.waiting(),
        }
    }

    /// Return the number of items in the buffer, promised or not.
    #[inline]
    pub fn len(&self) -> usize {
        self.state.lock().items.len()
    }

    /// Return whether the buffer contains no item.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Return the bound, if there is one.
    #[inline]
    pub fn maxsize(&self) -> Option<NonZeroUsize> {
        self.maxsize
    }

    /// Return whether no more items are accepted, after [`finish`](Self::finish) or [`close`](Self::close).
    #[inline]
    pub fn is_finished(&self) -> bool {
        self.state.lock().end != End::Open
    }

    /// Return whether it has finished and all its items were delivered.
    pub fn has_ended(&self) -> bool {
        self.state.lock().has_ended()
    }

    /// Return whether no more items are delivered, after [`close`](Self::close).
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.state.lock().end == End::Closed
    }

    /// Return the number of getters waiting for an item, without those already notified.
    pub fn waiting_getters(&self) -> usize {
        self.state.lock().getters.waiting()
    }

    /// Return the number of putters waiting for space, without those already notified.
    pub fn waiting_putters(&self) -> usize {
        self.state.lock().putters.waiting()
    }

    /// Return whether a panic under the lock may have left the state inconsistent. From then on every method
    /// that takes the lock panics, except [`visit`](Self::visit); dropping the futures does not.
    #[inline]
    pub fn is_broken(&self) -> bool {
        self.state.is_poisoned()
    }

    /// Call `f` with each item, in no guaranteed order; with none if the lock is taken or poisoned.
    ///
    /// For garbage collectors: they run at any moment, may miss items, and must never wait. `f` runs under the lock: it
    /// must neither call back nor panic.
    pub fn visit(&self, f: &mut dyn FnMut(&T)) {
        if let Some(state) = self.state.try_lock() {
            state.items.visit(f);
        }
    }

    /// Call `f` with the next item, promised or not.
    ///
    /// `f` runs under the lock: it must neither call back nor panic.
    pub fn peek_with<R>(&self, f: impl FnOnce(Option<&T>) -> R) -> R {
        f(self.state.lock().items.first())
    }

    /// Lock the state. In a sorted buffer, first find the position of `item` if it would be accepted now. Comparisons run
    /// without the lock; changes made by other threads meanwhile are taken into account.
    #[inline]
    pub(super) fn lock_at_position(
        &self,
        item: &T,
        key: Option<Key>,
    ) -> Result<(MutexGuard<'_, State<T>>, Option<Position>), Fault> {
        match &self.order {
            Order::Fifo | Order::Lifo => Ok((self.state.lock(), None)),
            Order::Sorted(rank) => self.find_position(rank.as_ref(), item, key),
        }
    }

    #[inline(never)]
    fn find_position(
        &self,
        rank: &dyn Rank<T>,
        item: &T,
        key: Option<Key>,
    ) -> Result<(MutexGuard<'_, State<T>>, Option<Position>), Fault> {
        let mut search = Search::default();
        loop {
            let state = self.state.lock();
            if !matches!(state.admit(key), Admission::Store | Admission::Displace) {
                return Ok((state, None));
            }
            match state.items.search(&mut search, rank) {
                Ok(position) => return Ok((state, position)),
                Err(other) => {
                    drop(state);
                    search.record(rank.before(item, &other)?);
                }
            }
        }
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
    /// Return whether it has finished and the last item was taken.
    #[inline]
    fn has_ended(&self) -> bool {
        self.end == End::Finished && self.items.is_empty()
    }

    /// Return whether a slot is free and not promised.
    #[inline]
    fn has_room(&self) -> bool {
        // Both count objects in memory, so the sum cannot overflow.
        self.items.len() + self.putters.notified() < self.capacity
    }

    /// End every operation: the last three of the four steps in [`sync`](crate::sync).
    #[inline]
    pub(super) fn settle_and_unlock(mut state: MutexGuard<'_, Self>) {
        // The fast path: usually nothing waits.
        if state.getters.waiting() != 0 || state.putters.waiting() != 0 {
            let wakes = state.settle();
            drop(state);
            wakes.wake_all();
        }
    }

    /// Take the next item, if the getter at `key` was promised one or if more items exist than are promised.
    ///
    /// A getter that takes an item leaves the queue. Settle afterwards.
    #[inline]
    pub(super) fn take(&mut self, key: Option<Key>) -> Result<T, TryGetError> {
        if self.end == End::Closed {
            return Err(TryGetError::Ended);
        }
        let promised = self.getters.notified();
        if self.items.len() <= promised && !key.is_some_and(|key| self.getters.is_notified(key)) {
            // Finished, but not ended while a promised item is in the buffer: its getter may be dropped.
            return Err(if self.has_ended() {
                TryGetError::Ended
            } else {
                TryGetError::Empty
            });
        }
        if let Some(key) = key {
            // It was notified, so its entry has no waker: nothing is dropped under the lock.
            self.getters.leave(key);
        }
        Ok(self
            .items
            .pop()
            .expect("at least as many items as promises"))
    }

    /// Decide about an item of the putter at `key`, or of a new put.
    #[inline]
    fn admit(&self, key: Option<Key>) -> Admission {
        if self.end != End::Open {
            Admission::Closed
        } else if self.has_room() || key.is_some_and(|key| self.putters.is_notified(key)) {
            Admission::Store
        } else {
            match self.overflow {
                Overflow::Block | Overflow::Error => Admission::Full,
                Overflow::DropOldest => Admission::Displace,
                Overflow::DropNewest => Admission::Discard,
            }
        }
    }

    /// Store the item, if the putter at `key` was promised a slot, if a slot is free and not promised, or if the
    /// overflow mode says so. Returns the displaced item, to be dropped after unlocking.
    ///
    /// A putter that stores its item leaves the queue. Settle afterwards.
    #[inline]
    pub(super) fn store(
        &mut self,
        key: Option<Key>,
        position: Option<Position>,
        item: T,
    ) -> Result<Option<T>, PutError<T>> {
        match self.admit(key) {
            Admission::Store => {
                if let Some(key) = key {
                    self.putters.leave(key);
                }
                self.items.push(position, item);
                self.unfinished += 1;
                self.high_water = self.high_water.max(self.items.len());
                Ok(None)
            }
            Admission::Displace => {
                // In this order: the position is valid for the current items.
                self.items.push(position, item);
                self.dropped += 1;
                Ok(self.items.pop_oldest())
            }
            Admission::Discard => {
                self.dropped += 1;
                Ok(Some(item))
            }
            Admission::Full => Err(PutError::Full(item)),
            Admission::Closed => Err(PutError::Closed(item)),
        }
    }

    /// Mark `count` items as processed. At the last one, returns the joiners to be woken after unlocking.
    fn mark_processed(&mut self, count: usize) -> WakeList {
        let mut wakes = WakeList::new();
        // Items may be reported as processed before they are delivered.
        self.unfinished = self.unfinished.saturating_sub(count);
        if self.unfinished == 0 {
            release_all(&mut self.joiners, &mut wakes);
        }
        wakes
    }

    /// Restore the invariants of the [module](super): promise each spare item and slot to the first waiter for one,
    /// and release waiters that wait in vain. Must be called after every change. O(1) plus the wake-ups.
    fn settle(&mut self) -> WakeList {
        let mut wakes = WakeList::new();
        if self.end == End::Closed || self.has_ended() {
            release_all(&mut self.getters, &mut wakes);
        }
        if self.end != End::Open {
            release_all(&mut self.putters, &mut wakes);
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

/// Remove all waiters. Their keys become invalid, and the next poll of each sees the state for itself.
fn release_all(queue: &mut WaitList, wakes: &mut WakeList) {
    while let Some((waker, ())) = queue.pop_first() {
        wakes.push(waker);
    }
}
