use super::items::Items;
use super::sorted::{Search, Seat};
use super::{Fault, Get, Join, Order, Overflow, Put, PutError, Rank, TryGetError};
use crate::sync::{Arc, Key, Mutex, MutexGuard, WaitList, WakeList};
use std::fmt;
use std::num::NonZeroUsize;

/// A queue with an end; the [module](super) tells how it works.
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
/// assert!(buffer.try_get().is_err(), "that was all");
/// # Ok::<(), PutError<&str>>(())
/// ```
pub struct Buffer<T> {
    /// Outside the lock, since it never changes.
    maxsize: Option<NonZeroUsize>,
    order: Order<T>,
    /// Leaf lock: nothing of the caller's runs under it, but for [`Rank::share`] and the closures of
    /// [`Buffer::visit`] and [`Buffer::peek_with`], which say so.
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
    /// How many of those accepted are not done with.
    pub(super) unfinished: usize,
    high_water: usize,
    dropped: u64,
}

/// What a buffer was doing at one moment; see [`Buffer::statistics`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// How many items are here, promised or not.
    pub len: usize,
    /// The most that ever were here.
    pub high_water: usize,
    /// How many an overflow has cost.
    pub dropped: u64,
    /// How many stand in the line for an item.
    pub waiting_getters: usize,
    /// How many stand in the line for room.
    pub waiting_putters: usize,
}

/// What is to become of an item.
enum Admission {
    /// There is a slot for it.
    Store,
    /// There is one as soon as the oldest item is gone.
    Displace,
    /// It is dropped.
    Discard,
    Full,
    Closed,
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
    /// An empty buffer for at most `maxsize` items, or for any number of them; first in, first out.
    pub fn new(maxsize: Option<NonZeroUsize>) -> Arc<Self> {
        Self::with(maxsize, Overflow::Block, Order::Fifo)
    }

    /// An empty buffer in another order, or that does not let its producers wait.
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

    /// Stores `item` if there is room that nobody who waits was promised, or if the [`Overflow`] makes room.
    ///
    /// # Errors
    ///
    /// [`PutError`], with the item.
    #[inline]
    pub fn try_put(&self, item: T) -> Result<(), PutError<T>> {
        let (mut state, seat) = match self.lock_with_seat(&item, None) {
            Ok(found) => found,
            Err(fault) => return Err(PutError::Unranked(item, fault)),
        };
        let displaced = state.store(None, seat, item)?;
        State::settle_and_unlock(state);
        drop(displaced);
        Ok(())
    }

    /// Stores `item` as soon as there is room; see [`Put`].
    #[inline]
    pub fn put(self: &Arc<Self>, item: T) -> Put<T> {
        Put::new(Arc::clone(self), item)
    }

    /// Takes the next item if there is one that nobody who waits was promised.
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

    /// Takes the next item as soon as there is one; see [`Get`].
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

    /// Ends the consumers' side, and with it the producers': what was left comes back, in order, and counts as done
    /// with. Whoever waits to put gets the item back, whoever waits for an item gets [`Ended`](super::Ended).
    /// Idempotent: nothing is left the second time. What has finished and is empty came to its end by itself, and stays
    /// so: those of its consumers who have not heard of the end yet must not take it for a closing.
    #[must_use = "what was left in the buffer is in here"]
    pub fn close(&self) -> Vec<T> {
        let mut state = self.state.lock();
        if state.has_ended() {
            return Vec::new();
        }
        state.end = End::Closed;
        let left = state.items.take_all();
        let home = state.finish_items(left.len());
        State::settle_and_unlock(state);
        home.wake_all();
        left.into_vec()
    }

    /// Says that one of the items that came out is done with. `false` if all that were ever accepted are.
    #[must_use = "false says that there was nothing to be done with"]
    pub fn task_done(&self) -> bool {
        let mut state = self.state.lock();
        if state.unfinished == 0 {
            return false;
        }
        let home = state.finish_items(1);
        drop(state);
        home.wake_all();
        true
    }

    /// Waits until as many items are done with as were accepted; see [`Join`].
    pub fn join(self: &Arc<Self>) -> Join<T> {
        Join::new(Arc::clone(self))
    }

    /// How many items were accepted and are not done with.
    pub fn unfinished(&self) -> usize {
        self.state.lock().unfinished
    }

    /// How many items are here that were promised to nobody: what [`try_get`](Self::try_get) can have.
    #[inline]
    pub fn available(&self) -> usize {
        let state = self.state.lock();
        state.items.len().saturating_sub(state.getters.notified())
    }

    /// Whether no slot is free, but for those that were promised to somebody who waits.
    #[inline]
    pub fn is_full(&self) -> bool {
        !self.state.lock().has_room()
    }

    /// Several figures of one moment.
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

    /// Whether it came to its end by itself: it has finished, and all its items are out.
    pub fn has_ended(&self) -> bool {
        self.state.lock().has_ended()
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

    /// Shows each item to `f`, in no promised order, or none at all if the lock is taken or broken.
    ///
    /// For garbage collectors, which run where they please and may see too little but must never wait. `f` runs under
    /// the lock: it must neither call back nor panic.
    pub fn visit(&self, f: &mut dyn FnMut(&T)) {
        if let Some(state) = self.state.try_lock() {
            state.items.visit(f);
        }
    }

    /// Shows the next item to `f`, promised or not.
    ///
    /// `f` runs under the lock: it must neither call back nor panic.
    pub fn peek_with<R>(&self, f: impl FnOnce(Option<&T>) -> R) -> R {
        f(self.state.lock().items.first())
    }

    /// Locks; in a sorted buffer, once the seat is found where `item` belongs if it is accepted now. Comparing happens
    /// without the lock, and what others do meanwhile is taken into account.
    #[inline]
    pub(super) fn lock_with_seat(
        &self,
        item: &T,
        key: Option<Key>,
    ) -> Result<(MutexGuard<'_, State<T>>, Option<Seat>), Fault> {
        match &self.order {
            Order::Fifo | Order::Lifo => Ok((self.state.lock(), None)),
            Order::Sorted(rank) => self.find_seat(rank.as_ref(), item, key),
        }
    }

    #[inline(never)]
    fn find_seat(
        &self,
        rank: &dyn Rank<T>,
        item: &T,
        key: Option<Key>,
    ) -> Result<(MutexGuard<'_, State<T>>, Option<Seat>), Fault> {
        let mut search = Search::default();
        loop {
            let state = self.state.lock();
            if !matches!(state.admit(key), Admission::Store | Admission::Displace) {
                return Ok((state, None));
            }
            match state.items.seek(&mut search, rank) {
                Ok(seat) => return Ok((state, seat)),
                Err(other) => {
                    drop(state);
                    search.learn(rank.before(item, &other)?);
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
    /// Whether it has finished, and the last item is out.
    #[inline]
    fn has_ended(&self) -> bool {
        self.end == End::Finished && self.items.is_empty()
    }

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

    /// The next item, if the getter at `key` was promised one or if there are more than were promised.
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
            .pop()
            .expect("as many items as were promised, at least"))
    }

    /// What is to become of an item of the putter at `key`, or of a newcomer.
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

    /// Stores the item, if the putter at `key` was promised a slot, if there are more than were promised, or if the
    /// overflow has it so. What it gives is to be dropped after unlocking.
    ///
    /// A putter that stores leaves its place; settle afterwards.
    #[inline]
    pub(super) fn store(
        &mut self,
        key: Option<Key>,
        seat: Option<Seat>,
        item: T,
    ) -> Result<Option<T>, PutError<T>> {
        match self.admit(key) {
            Admission::Store => {
                if let Some(key) = key {
                    self.putters.leave(key);
                }
                self.items.push(seat, item);
                self.unfinished += 1;
                self.high_water = self.high_water.max(self.items.len());
                Ok(None)
            }
            Admission::Displace => {
                // In this order, since the seat is one among the items of now.
                self.items.push(seat, item);
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

    /// So many items are done with. At the last one, those who wait for it are to be woken after unlocking.
    fn finish_items(&mut self, count: usize) -> WakeList {
        let mut home = WakeList::new();
        // Some may have been reported as done before they came out.
        self.unfinished = self.unfinished.saturating_sub(count);
        if self.unfinished == 0 {
            send_home(&mut self.joiners, &mut home);
        }
        home
    }

    /// Restores the invariants of the [module](super): promises each item and each slot that is over to the first who
    /// waits for one, and sends home those who wait in vain. To be called after every change; O(1) plus the wake-ups.
    fn settle(&mut self) -> WakeList {
        let mut wakes = WakeList::new();
        if self.end == End::Closed || self.has_ended() {
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
