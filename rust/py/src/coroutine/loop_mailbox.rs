//! Where a loop gets its wake-ups, from anywhere.
//!
//! Each event loop has one [`Mailbox`]. A suspended operation parks in it ([`super::park`]): it leaves a
//! [`Future`] and gets a number. Its waker knows the mailbox and the number, and nothing of Python, so
//! it may be cloned, kept and dropped on any thread.
//!
//! Waking from the thread in which the loop runs resolves the future at once, and its callbacks are
//! called in the next turn, with all others of this one ([`super::wake_batch`]). From any other thread:
//!
//! 1. the number goes into the mailbox;
//! 2. if no drain is pending, the flag is raised and the loop is rung with `call_soon_threadsafe`,
//!    once;
//! 3. the loop drains: it *first* lowers the flag, *then* takes the letters, then resolves their
//!    futures and calls their callbacks.
//!
//! A letter that arrives between the two halves of 3 is taken by this drain and rings once in vain;
//! the other order would lose it. So a burst of wake-ups costs one ring: 0.06 us each in batches of
//! 64, where one ring costs 5 us.
//!
//! A wake-up may come too late: the loop is closed, or was collected, or does not run, and nobody
//! knows whether it ever will. Then it must not be lost with the one that it was for, so what that
//! one was promised is handed on ([`super::Parked::forward`]). Its future is resolved all the same: should
//! its loop run again, it looks for itself, and waits anew. Whom such a wake-up finds dead is found
//! out
//!
//! - by the waker, which looks whether the loop runs;
//! - by the drain that is dropped without having been called, as a loop does when it is closed with
//!   letters in its mailbox;
//! - by the next loop that gets a mailbox, which looks whether those that have one are closed;
//! - by the collector, to which a loop that nobody has any more is one piece of garbage with all that wait in it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};

use super::future::Future;
use super::wake_batch::Wakes;
use crate::object::gc::{Traverse, VisitError, Visitor};
use crate::object::gil_cell::GilCell;
use crate::runtime::asyncio;
use crate::runtime::blocking_wait::this_thread;
use crate::runtime::fork_guard::ProcessId;

/// The futures of one loop that somebody waits on, by number.
#[derive(Default)]
pub(super) struct Futures {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Default)]
pub(super) struct Slot {
    /// Counts the tenants, so that a late wake-up of an earlier one is recognised.
    generation: u32,
    pub(super) future: Option<Py<Future>>,
    pub(super) forward: Option<Forward>,
}

/// Gives up a place in a line of the core, for one who cannot be woken.
pub(crate) type Forward = Box<dyn FnOnce() + Send>;

/// Which future: place and tenant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    place: u32,
    generation: u32,
}

impl Futures {
    /// A place without a future.
    pub(super) fn insert(&mut self) -> Key {
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 awaits at a time")
        });
        Key {
            place,
            generation: self.slots[place as usize].generation,
        }
    }

    pub(super) fn slot(&mut self, key: Key) -> Option<&mut Slot> {
        self.slots
            .get_mut(key.place as usize)
            .filter(|slot| slot.generation == key.generation)
    }

    pub(super) fn remove(&mut self, key: Key) -> (Option<Py<Future>>, Option<Forward>) {
        let Some(slot) = self.slot(key) else {
            return (None, None);
        };
        slot.generation = slot.generation.wrapping_add(1);
        let held = (slot.future.take(), slot.forward.take());
        self.free.push(key.place);
        held
    }

    fn get(&self, py: Python<'_>, key: Key) -> Option<Py<Future>> {
        let slot = self.slots.get(key.place as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        slot.future.as_ref().map(|future| future.clone_ref(py))
    }
}

/// Where a loop gets its wake-ups.
pub(super) struct Mailbox {
    /// The process that made it. In a forked child the loop does not run, and the descriptor that wakes it is the parent's.
    home: ProcessId,
    /// The thread that runs the loop. The number is another one in a forked child.
    pub(super) thread: u64,
    /// A weak reference to the loop, which may die before its waiters do.
    pub(super) event_loop: Py<PyWeakrefReference>,
    pub(super) futures: GilCell<Futures>,
    pub(super) wakes: GilCell<Wakes>,
    /// Whether the wake-ups of one turn are one call of the loop.
    pub(super) wakes_together: bool,
    /// Numbers from other threads. Held for a push or a swap only; nothing of Python runs under it.
    letters: Mutex<Vec<Key>>,
    /// Whether a drain is on its way.
    rung: AtomicBool,
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox")
            .field("thread", &self.thread)
            .field("rung", &self.rung)
            .finish_non_exhaustive()
    }
}

impl Mailbox {
    /// One for a loop that runs in this thread.
    pub(super) fn of(event_loop: &Bound<'_, PyAny>) -> PyResult<Arc<Self>> {
        let one_by_one = asyncio::is_one_by_one(event_loop)?;
        Ok(Arc::new(Self {
            home: ProcessId::current(),
            thread: this_thread(),
            event_loop: PyWeakrefReference::new(event_loop)?.unbind(),
            futures: GilCell::default(),
            wakes: GilCell::default(),
            wakes_together: !one_by_one,
            letters: Mutex::default(),
            rung: AtomicBool::new(false),
        }))
    }

    pub(super) fn post(self: &Arc<Self>, key: Key) {
        Python::attach(|py| {
            let event_loop = self.event_loop.bind(py).upgrade();
            let event_loop = event_loop.as_ref();
            if self.thread == this_thread() {
                if event_loop.is_some_and(asyncio::is_known_to_run_here) {
                    self.wake(py, key);
                    return;
                }
                self.post_here(py, event_loop, key);
            } else {
                self.post_away(py, event_loop, key);
            }
        });
    }

    /// The same in the thread that ran the loop when it got this mailbox. It may have stopped since, and run
    /// elsewhere by now.
    fn post_here(
        self: &Arc<Self>,
        py: Python<'_>,
        event_loop: Option<&Bound<'_, PyAny>>,
        key: Key,
    ) {
        // What it was asked to call in its next turn it will call wherever that is.
        if !self.has_wakes(py)
            && let Some(event_loop) = event_loop
        {
            if asyncio::running_here(py).is_some_and(|here| here.is(event_loop)) {
                self.wake(py, key);
                return;
            }
            if runs(event_loop) {
                self.post_away(py, Some(event_loop), key);
                return;
            }
        }
        self.wake(py, key);
        if !event_loop.is_some_and(runs) {
            self.give_up(py, &[key]);
        }
    }

    /// The same in another thread.
    fn post_away(
        self: &Arc<Self>,
        py: Python<'_>,
        event_loop: Option<&Bound<'_, PyAny>>,
        key: Key,
    ) {
        if !self.home.is_current() {
            return;
        }
        self.letters().push(key);
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.ring(py, event_loop);
        }
        if !event_loop.is_some_and(runs) {
            self.give_up(py, &[key]);
        }
    }

    /// Whether it is the mailbox of this loop, in this thread.
    pub(super) fn is_of(&self, event_loop: &Bound<'_, PyAny>) -> bool {
        let known = || self.event_loop.bind(event_loop.py()).upgrade();
        self.thread == this_thread() && known().is_some_and(|known| known.is(event_loop))
    }

    fn letters(&self) -> std::sync::MutexGuard<'_, Vec<Key>> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the loop to drain.
    fn ring(self: &Arc<Self>, py: Python<'_>, event_loop: Option<&Bound<'_, PyAny>>) {
        let drain = Drain {
            mailbox: Arc::clone(self),
            called: AtomicBool::new(false),
        };
        // If the loop is closed or gone, the drain is dropped right here, and does what is left to do.
        if let (Ok(drain), Some(event_loop)) = (Py::new(py, drain), event_loop) {
            let _ = event_loop.call_method1(intern!(py, "call_soon_threadsafe"), (drain,));
        }
    }

    /// Those whose letters have come.
    fn drain(&self) -> Vec<Key> {
        self.rung.store(false, Ordering::Release);
        std::mem::take(&mut *self.letters())
    }

    /// Hands on what was promised to these, who cannot be woken.
    #[cold]
    pub(super) fn give_up(&self, py: Python<'_>, keys: &[Key]) {
        let mut futures = self.futures.borrow(py);
        let forwards: Vec<Forward> = keys
            .iter()
            .filter_map(|&key| futures.slot(key)?.forward.take())
            .collect();
        drop(futures);
        self.pass_on(forwards);
    }

    /// The loop is closed or garbage, and nobody who waits on it will ever be woken.
    pub(super) fn abandon(&self, py: Python<'_>) {
        let mut futures = self.futures.borrow(py);
        let slots = futures.slots.iter_mut();
        let (futures_held, forwards): (Vec<_>, Vec<_>) = slots
            .map(|slot| (slot.future.take(), slot.forward.take()))
            .unzip();
        drop(futures);
        drop(futures_held);
        self.pass_on(forwards.into_iter().flatten().collect());
    }

    /// Passes on what these waiters were promised. In a forked child the parent does that.
    fn pass_on(&self, forwards: Vec<Forward>) {
        if self.home.is_current() {
            give_up_each(forwards);
        }
    }

    /// Resolves a future, if it is still there and nobody else has.
    fn resolve(&self, py: Python<'_>, key: Key) -> Option<Py<Future>> {
        let future = self.futures.borrow(py).get(py, key)?;
        future.get().resolve(py).then_some(future)
    }

    /// The same, and has its callbacks called in the next turn.
    fn wake(self: &Arc<Self>, py: Python<'_>, key: Key) {
        let Some(future) = self.resolve(py, key) else {
            return;
        };
        if let Err(error) = self.call_back(future.bind(py)) {
            // The loop is closed, so nobody runs who could wait. Anything else should be seen.
            if !error.is_instance_of::<pyo3::exceptions::PyRuntimeError>(py) {
                error.write_unraisable(py, Some(future.bind(py)));
            }
        }
    }
}

impl Traverse for Mailbox {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        if let Some(futures) = self.futures.peek_for_gc() {
            let mut held = futures.slots.iter().filter_map(|slot| slot.future.as_ref());
            held.try_for_each(|future| visit(future.as_any()))?;
        }
        match self.wakes.peek_for_gc() {
            Some(wakes) => wakes.traverse(visit),
            None => Ok(()),
        }
    }
}

/// Whether a loop runs now. What cannot say so is taken to.
pub(super) fn runs(event_loop: &Bound<'_, PyAny>) -> bool {
    if asyncio::is_known_to_run_here(event_loop) {
        return true;
    }
    event_loop
        .call_method0(intern!(event_loop.py(), "is_running"))
        .and_then(|running| running.is_truthy())
        .unwrap_or(true)
}

thread_local! {
    /// The promises that are left, while a frame further up the stack passes them on.
    static LEFT: RefCell<Option<VecDeque<Forward>>> = const { RefCell::new(None) };
}

/// Forgets the promises that are being passed on, in a forked child: they are about waiters of the parent, and those of the
/// child would be queued behind them.
pub(crate) fn forget_after_fork() {
    let left = LEFT.take();
    drop(left);
}

/// Runs them one after another, also if one of them wakes somebody else who cannot be woken: ten
/// thousand dead waiters in a line must not be as many calls on the stack.
fn give_up_each(forwards: Vec<Forward>) {
    struct Idle;
    impl Drop for Idle {
        fn drop(&mut self) {
            let left = LEFT.take();
            drop(left);
        }
    }
    let is_first = LEFT.with_borrow_mut(|left| {
        let is_first = left.is_none();
        left.get_or_insert_default().extend(forwards);
        is_first
    });
    if is_first {
        let _idle = Idle;
        while let Some(forward) = LEFT.with_borrow_mut(|left| left.as_mut()?.pop_front()) {
            forward();
        }
    }
}

/// Runs Python code in a destructor: it must not see an exception that is on its way through
/// whoever dropped us.
pub(crate) fn with_saved_exception(act: impl FnOnce(Python<'_>)) {
    Python::attach(|py| {
        let pending = PyErr::take(py);
        act(py);
        if let Some(pending) = pending {
            pending.restore(py);
        }
    });
}

/// What the loop calls when it was rung.
#[pyclass(frozen, module = "headrace._core")]
struct Drain {
    mailbox: Arc<Mailbox>,
    called: AtomicBool,
}

#[pymethods]
impl Drain {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        self.called.store(true, Ordering::Relaxed);
        let keys = self.mailbox.drain().into_iter();
        let futures = keys.filter_map(|key| self.mailbox.resolve(py, key));
        self.mailbox.call_all(py, futures.collect())
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        if !*self.called.get_mut() {
            with_saved_exception(|py| {
                let letters = self.mailbox.drain();
                for &key in &letters {
                    let resolved = self.mailbox.resolve(py, key);
                    drop(resolved);
                }
                self.mailbox.give_up(py, &letters);
            });
        }
    }
}
