//! The mailbox of an event loop: wake-ups from any thread.
//! `park.rs` stores waiters in it, and `loop_registry.rs` keeps one for each event loop.
//!
//! Each event loop has one [`Mailbox`]. A suspended operation stores a [`PyFuture`] in a slot of it ([`super::park`]) and gets a key. Its
//! waker holds the mailbox and the key, and no Python object, so it may be cloned and kept on any thread.
//!
//! A wake-up on the thread of the event loop resolves the future immediately. Its callbacks are called in the next iteration, with all
//! others of this one ([`super::wake_batch`]). On any other thread:
//!
//! 1. The key is added to the mailbox.
//! 2. If no drain is pending, the flag is set and the event loop is notified with `call_soon_threadsafe`, once.
//! 3. The event loop drains: it *first* clears the flag, *then* takes the keys, then resolves their futures and calls the callbacks.
//!
//! A key that arrives between the two halves of step 3 is taken by this drain, and its notification is redundant; the other order would
//! lose it. So a burst of wake-ups costs one notification: 0.06 us per wake-up in batches of 64, where one notification costs 5 us.
//!
//! A wake-up may be too late: the event loop is closed, was collected, or does not run and may never run again. Then the promise of the
//! wake-up is passed on to another waiter ([`super::Parked::forward`]). The future is resolved nevertheless: if its loop runs again, the
//! operation polls and waits again. An unreachable waiter is detected
//!
//! - by the waker, which checks whether the event loop runs;
//! - by a drain that is dropped without a call, as when an event loop is closed with keys in its mailbox;
//! - when the next event loop gets a mailbox, which checks whether the others are closed;
//! - by the garbage collector, which frees an unreferenced event loop together with its waiters.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};

use super::future::PyFuture;
use super::wake_batch::Wakes;
use crate::object::gc::traverse;
use crate::object::gil_cell::GilCell;
use crate::runtime::asyncio;
use crate::runtime::blocking_wait::this_thread;
use crate::runtime::fork_guard::ProcessId;

/// The awaited futures of one event loop, by key.
#[derive(Default)]
pub(super) struct Futures {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Default)]
pub(super) struct Slot {
    /// Incremented at each reuse, to recognise a late wake-up of an earlier user.
    generation: u32,
    pub(super) future: Option<Py<PyFuture>>,
    pub(super) forward: Option<Forward>,
}

/// Gives up a position in a wait queue of the core, for a waiter that cannot be woken.
pub(crate) type Forward = Box<dyn FnOnce() + Send>;

/// The key of a future: the index of its slot, and the generation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    place: u32,
    generation: u32,
}

impl Futures {
    /// Make a slot without a future.
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

    pub(super) fn remove(&mut self, key: Key) -> (Option<Py<PyFuture>>, Option<Forward>) {
        let Some(slot) = self.slot(key) else {
            return (None, None);
        };
        slot.generation = slot.generation.wrapping_add(1);
        let held = (slot.future.take(), slot.forward.take());
        self.free.push(key.place);
        held
    }
}

/// The wake-ups of one event loop.
pub(super) struct Mailbox {
    /// The process that made it. In a forked child the loop does not run, and its wake-up descriptor is the parent's.
    home: ProcessId,
    /// The thread that runs the event loop. A forked child has another number.
    pub(super) thread: u64,
    /// A weak reference to the loop, which may die before its waiters do.
    pub(super) event_loop: Py<PyWeakrefReference>,
    pub(super) futures: GilCell<Futures>,
    pub(super) wakes: GilCell<Wakes>,
    /// Whether the wake-ups of one iteration are one callback.
    pub(super) wakes_together: bool,
    /// Keys from other threads. The lock is held for a push or a swap only; no Python code runs under it.
    posted: Mutex<Vec<Key>>,
    /// Whether a drain is scheduled.
    is_notified: AtomicBool,
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox")
            .field("thread", &self.thread)
            .field("is_notified", &self.is_notified)
            .finish_non_exhaustive()
    }
}

impl Mailbox {
    /// Make the mailbox of an event loop that runs in this thread.
    pub(super) fn of(event_loop: &Bound<'_, PyAny>) -> PyResult<Arc<Self>> {
        let one_by_one = asyncio::is_one_by_one(event_loop)?;
        Ok(Arc::new(Self {
            home: ProcessId::current(),
            thread: this_thread(),
            event_loop: PyWeakrefReference::new(event_loop)?.unbind(),
            futures: GilCell::default(),
            wakes: GilCell::default(),
            wakes_together: !one_by_one,
            posted: Mutex::default(),
            is_notified: AtomicBool::new(false),
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

    /// Post on the thread that ran the event loop when this mailbox was made. The loop may have stopped since, or moved
    /// to another thread.
    fn post_here(
        self: &Arc<Self>,
        py: Python<'_>,
        event_loop: Option<&Bound<'_, PyAny>>,
        key: Key,
    ) {
        // A scheduled batch will be called wherever the event loop runs next.
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

    /// Post on another thread.
    fn post_away(
        self: &Arc<Self>,
        py: Python<'_>,
        event_loop: Option<&Bound<'_, PyAny>>,
        key: Key,
    ) {
        if !self.home.is_current() {
            return;
        }
        self.posted().push(key);
        if !self.is_notified.swap(true, Ordering::AcqRel) {
            self.notify(py, event_loop);
        }
        if !event_loop.is_some_and(runs) {
            self.give_up(py, &[key]);
        }
    }

    /// Return whether this is the mailbox of this event loop, in this thread.
    pub(super) fn is_of(&self, event_loop: &Bound<'_, PyAny>) -> bool {
        let known = || self.event_loop.bind(event_loop.py()).upgrade();
        self.thread == this_thread() && known().is_some_and(|known| known.is(event_loop))
    }

    fn posted(&self) -> std::sync::MutexGuard<'_, Vec<Key>> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notify the event loop to drain.
    fn notify(self: &Arc<Self>, py: Python<'_>, event_loop: Option<&Bound<'_, PyAny>>) {
        let drain = PyDrain {
            mailbox: Arc::clone(self),
            called: AtomicBool::new(false),
        };
        // If the event loop is closed or gone, the drain is dropped here, and its drop does the rest.
        if let (Ok(drain), Some(event_loop)) = (Py::new(py, drain), event_loop) {
            let _ = event_loop.call_method1(intern!(py, "call_soon_threadsafe"), (drain,));
        }
    }

    /// Take the posted keys.
    fn drain(&self) -> Vec<Key> {
        self.is_notified.store(false, Ordering::Release);
        std::mem::take(&mut *self.posted())
    }

    /// Pass on the promises of waiters that cannot be woken.
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

    /// Release all waiters of an event loop that is closed or garbage.
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

    /// Pass on promises. In a forked child that is the task of the parent.
    fn pass_on(&self, forwards: Vec<Forward>) {
        if self.home.is_current() {
            give_up_each(forwards);
        }
    }

    /// Resolve a future, if it exists and is not done.
    fn resolve(&self, py: Python<'_>, key: Key) -> Option<Py<PyFuture>> {
        let mut futures = self.futures.borrow(py);
        let future = futures.slot(key)?.future.as_ref()?.clone_ref(py);
        drop(futures);
        future.get().resolve(py).then_some(future)
    }

    /// Resolve a future and schedule its callbacks for the next iteration.
    fn wake(self: &Arc<Self>, py: Python<'_>, key: Key) {
        let Some(future) = self.resolve(py, key) else {
            return;
        };
        if let Err(error) = self.call_back(future.bind(py)) {
            // The event loop is closed, so no waiter can run. Other errors are reported.
            if !error.is_instance_of::<pyo3::exceptions::PyRuntimeError>(py) {
                error.write_unraisable(py, Some(future.bind(py)));
            }
        }
    }
}

traverse!(Slot { future });
traverse!(Futures { slots });
traverse!(Mailbox { futures, wakes });

/// Return whether an event loop is running. One without `is_running()` counts as running.
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
    /// The remaining promises, while an outer stack frame passes them on.
    static LEFT: RefCell<Option<VecDeque<Forward>>> = const { RefCell::new(None) };
}

/// Drop the promises that are being passed on, in a forked child: they concern waiters of the parent, and would block
/// those of the child.
pub(crate) fn forget_after_fork() {
    let left = LEFT.take();
    drop(left);
}

/// Run the functions one after another, without recursion: one of them may wake another unreachable waiter, and ten
/// thousand dead waiters in a queue must not nest as many calls.
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

/// Run Python code in a destructor, with a currently set exception saved and restored.
pub(crate) fn with_saved_exception(act: impl FnOnce(Python<'_>)) {
    Python::attach(|py| {
        let pending = PyErr::take(py);
        act(py);
        if let Some(pending) = pending {
            pending.restore(py);
        }
    });
}

/// The callback that an event loop calls after a notification.
#[pyclass(name = "Drain", frozen, module = "headrace._core")]
struct PyDrain {
    mailbox: Arc<Mailbox>,
    called: AtomicBool,
}

#[pymethods]
impl PyDrain {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        self.called.store(true, Ordering::Relaxed);
        let keys = self.mailbox.drain().into_iter();
        let futures = keys.filter_map(|key| self.mailbox.resolve(py, key));
        self.mailbox.call_all(py, futures.collect())
    }
}

impl Drop for PyDrain {
    fn drop(&mut self) {
        if !*self.called.get_mut() {
            with_saved_exception(|py| {
                let posted = self.mailbox.drain();
                for &key in &posted {
                    let resolved = self.mailbox.resolve(py, key);
                    drop(resolved);
                }
                self.mailbox.give_up(py, &posted);
            });
        }
    }
}
