//! A ready stream still yields to the loop.
//!
//! An `await` that never suspends never lets the loop run. So each task that only finds ready items
//! yields (a bare `None`, one turn of the loop) after [`TIME`] of them, or after [`ITEMS`] of them
//! if they are cheaper than the clock can tell. All streams of a task share its budget, and it
//! starts anew whenever the task suspends in one of our awaitables.
//!
//! The clock is read adaptively: at the first item, then after as many more as fit into a quarter
//! of what is left at their mean cost so far, at most [`STRIDE`]. A slow callable is measured at
//! each item, a fast one at every 64th, which costs it nothing that can be measured.
//!
//! There is one state a thread, as there is one loop, and it belongs to one task at a time. (One for
//! all threads would not do, though only one of them holds the GIL: any callable may let go of it.)
//! When the time is up, it asks which task runs: if it is not the one that spent it, the new one
//! starts with a full budget. It is known by its address and, since another task may be made at the
//! address of one that is gone, by a weak reference. Time that a task spends waiting for something of somebody
//! else's counts, which can cost it one turn too many, never one too few.
//!
//! A merge steps its sources inside its consumer's pull, each under a task of its own. What they
//! spend is the consumer's, who [`lend`]s it: it is the consumer that has to let the loop turn.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};

use super::asyncio;

/// How long a task may find ready items between two turns of the loop. A heartbeat is late by twice
/// this: once for its timer, once for its task. In nanoseconds.
static TIME: AtomicU64 = AtomicU64::new(500_000);

/// How many items it may find, whatever they cost.
static ITEMS: AtomicU32 = AtomicU32::new(4096);

/// The most items between two looks at the clock.
const STRIDE: u32 = 64;

/// Sets both, for all threads. For tests: with next to nothing to spend, a task rests at every place where it may, and nothing
/// must come of that but turns of the loop.
#[pyfunction]
pub(crate) fn set_turn_budget(nanoseconds: u64, items: u32) {
    TIME.store(nanoseconds, Relaxed);
    ITEMS.store(items, Relaxed);
}

#[derive(Debug)]
struct Budget {
    /// Items since it started.
    spent: Cell<u32>,
    /// At which item to look at the clock next.
    look: Cell<u32>,
    /// When it started, in nanoseconds since the first look at the clock.
    since: Cell<u64>,
    /// The task that spends it, by address; only ever compared. See [`SPENDER`].
    task: Cell<usize>,
    /// The task that lends it to what runs under another one just now; 0 if none does. By address: that task is alive as long as
    /// it lends. If it has lent what a task spent that is gone by now, the one that has its address may yield once too often.
    lender: Cell<usize>,
    /// Somebody rested who had borrowed it.
    rested: Cell<bool>,
}

thread_local! {
    static BUDGET: Budget = const {
        Budget {
            spent: Cell::new(0),
            look: Cell::new(1),
            since: Cell::new(0),
            task: Cell::new(0),
            lender: Cell::new(0),
            rested: Cell::new(false),
        }
    };
}

thread_local! {
    /// The task that last started, by address and by what tells whether it is still there. Apart from the budget, which is
    /// looked at for each item and has nothing to drop.
    static SPENDER: RefCell<Option<(usize, Py<PyWeakrefReference>)>> = const { RefCell::new(None) };
}

/// Spends one item. If it says `true`, yield to the loop now, and then go on.
#[inline]
pub(crate) fn spend(py: Python<'_>) -> bool {
    BUDGET.with(|budget| {
        let spent = budget.spent.get() + 1;
        budget.spent.set(spent);
        spent >= budget.look.get() && budget.look(py, spent)
    })
}

/// The task suspends: it starts anew. What was lent does not.
#[inline]
pub(crate) fn renew() {
    BUDGET.with(|budget| {
        if budget.lender.get() == 0 {
            budget.renew();
        }
    });
}

/// Starts a new budget in a forked child, where none of the tasks runs that are known here.
pub(crate) fn forget_after_fork() {
    BUDGET.with(|budget| {
        budget.renew();
        budget.task.set(0);
        budget.lender.set(0);
        budget.rested.set(false);
    });
    let old = SPENDER.take();
    drop(old);
}

/// What runs until this is dropped spends from the budget of the task that lent it. It stays in its thread.
#[derive(Debug)]
pub(crate) struct Lent {
    outer: usize,
    _here: PhantomData<*const ()>,
}

/// Lends the budget of a task. What it was lent itself goes on to whom it lends it.
#[inline]
pub(crate) fn lend(task: &Bound<'_, PyAny>) -> Lent {
    Lent::by(|_| task.as_ptr().addr())
}

/// Lends the budget that is being spent, whosever it is.
pub(crate) fn lend_on(py: Python<'_>) -> Lent {
    Lent::by(|budget| match budget.task.get() {
        0 => running_task(py),
        known => known,
    })
}

/// Whether somebody rested, since this was asked last, who had borrowed the budget.
pub(crate) fn take_rested() -> bool {
    BUDGET.with(|budget| budget.rested.take())
}

impl Lent {
    #[inline]
    fn by(task: impl FnOnce(&Budget) -> usize) -> Self {
        BUDGET.with(|budget| {
            let outer = budget.lender.get();
            if outer == 0 {
                budget.lender.set(task(budget));
            }
            Self {
                outer,
                _here: PhantomData,
            }
        })
    }
}

impl Drop for Lent {
    #[inline]
    fn drop(&mut self) {
        BUDGET.with(|budget| budget.lender.set(self.outer));
    }
}

/// The clock, in nanoseconds from the first look at it.
fn now() -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    u64::try_from(EPOCH.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

impl Budget {
    fn renew(&self) {
        self.spent.set(0);
        self.look.set(1);
    }

    #[inline(never)]
    fn look(&self, py: Python<'_>, spent: u32) -> bool {
        let now = now();
        if spent <= 1 {
            self.start(py, now);
            return false;
        }
        let (time, items) = (TIME.load(Relaxed), ITEMS.load(Relaxed));
        let elapsed = now.saturating_sub(self.since.get());
        if elapsed >= time || spent >= items {
            let task = running_task(py);
            if task == self.task.get() && task != 0 && !is_gone(py, task) {
                if self.lender.get() == 0 {
                    self.renew();
                } else {
                    // Who borrows it rests, and so must the lender.
                    self.look.set(spent);
                    self.rested.set(true);
                }
                return true;
            }
            // Another task has taken over in the middle, or nobody runs a loop here who could be
            // starved.
            self.spent.set(1);
            self.start(py, now);
            return false;
        }
        let mean = (elapsed / u64::from(spent)).max(1);
        let stride = u32::try_from((time - elapsed) / mean / 4)
            .unwrap_or(STRIDE)
            .clamp(1, STRIDE);
        self.look.set((spent + stride).min(items));
        false
    }

    fn start(&self, py: Python<'_>, now: u64) {
        self.since.set(now);
        self.look.set(2);
        let lender = self.lender.get();
        if lender != 0 {
            self.task.set(lender);
            return;
        }
        let task = asyncio::current_task(py);
        self.task
            .set(task.as_ref().map_or(0, |task| task.as_ptr().addr()));
        if let Some(task) = task {
            remember(&task);
        }
    }
}

/// The address of the task that runs, or of the one that lends to it; 0 if there is none.
fn running_task(py: Python<'_>) -> usize {
    let lender = BUDGET.with(|budget| budget.lender.get());
    if lender != 0 {
        return lender;
    }
    asyncio::current_task(py).map_or(0, |task| task.as_ptr().addr())
}

/// Takes note of who spends. Mostly it is who did before.
fn remember(task: &Bound<'_, PyAny>) {
    let (py, address) = (task.py(), task.as_ptr().addr());
    SPENDER.with(|spender| {
        let known = spender.take().filter(|(other, reference)| {
            *other == address && reference.bind(py).upgrade().is_some()
        });
        // A task of a kind that cannot be referred to weakly is known by its address alone.
        let known = known.or_else(|| {
            let reference = PyWeakrefReference::new(task).ok()?;
            Some((address, reference.unbind()))
        });
        spender.replace(known);
    });
}

/// Whether the task that spent what is left of the budget is gone, and another one has its address.
fn is_gone(py: Python<'_>, task: usize) -> bool {
    SPENDER.with(|spender| {
        spender
            .borrow()
            .as_ref()
            .is_some_and(|(address, reference)| {
                *address == task && reference.bind(py).upgrade().is_none()
            })
    })
}
