//! The yield budget: a stream of ready items still yields to the event loop.
//! The drivers in `pull` and `push`, and merges, spend it.
//!
//! An `await` that never suspends never returns to the event loop. So a task that only finds ready items yields (a bare `None`, for one
//! event-loop iteration) after [`TIME`], or after [`ITEMS`] if the items are too cheap for the clock. All streams of a task share its
//! budget, which restarts whenever the task suspends in an awaitable of headrace.
//!
//! The clock is read adaptively: at the first item, then after as many items as fit into a quarter of the remaining time at their mean
//! cost so far, at most [`STRIDE`]. A slow callable is measured at each item, a fast one at every 64th, where the cost is not
//! measurable.
//!
//! Each thread has one budget, as it has one event loop, and it belongs to one task at a time. (One budget for all threads would be
//! wrong, although only one thread holds the GIL: any callable may release it.) When the time is used up, the current task is looked up.
//! If it is not the task that spent the budget, it starts with a full one. A task is identified by its address and a weak reference,
//! because a new task may have the address of a dead one. Time that a task waits in foreign awaitables counts, which can cost it one
//! yield too many, never one too few.
//!
//! A merge steps its sources inside its consumer's pull, each under a task of its own. They spend the budget of the consumer, which
//! [`lend`]s it, because the consumer has to yield.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};

use super::asyncio;

/// The longest time that a task may take ready items without a yield, in nanoseconds. A heartbeat is late by up to twice this: once for
/// its timer, once for its task.
static TIME: AtomicU64 = AtomicU64::new(500_000);

/// The most items that a task may take without a yield, whatever their cost.
static ITEMS: AtomicU32 = AtomicU32::new(4096);

/// The most items between two readings of the clock.
const STRIDE: u32 = 64;

/// Set both limits, for all threads. For tests: with a tiny budget, a task yields wherever it may, which must change
/// nothing but the number of event-loop iterations.
#[pyfunction]
pub(crate) fn set_yield_budget(nanoseconds: u64, items: u32) {
    TIME.store(nanoseconds, Relaxed);
    ITEMS.store(items, Relaxed);
}

#[derive(Debug)]
struct Budget {
    /// The number of items since the start.
    spent: Cell<u32>,
    /// The item at which to read the clock next.
    look: Cell<u32>,
    /// The start, in nanoseconds since the first reading of the clock.
    since: Cell<u64>,
    /// The address of the task that spends the budget, for comparison only. See [`SPENDER`].
    task: Cell<usize>,
    /// The address of the task that lends the budget to code under another task; 0 if none does. The task is alive while it lends. If
    /// the budget was spent by a task that has died since, a new task at its address may yield once too often.
    lender: Cell<usize>,
    /// Whether a borrower has yielded.
    borrower_yielded: Cell<bool>,
}

thread_local! {
    static BUDGET: Budget = const {
        Budget {
            spent: Cell::new(0),
            look: Cell::new(1),
            since: Cell::new(0),
            task: Cell::new(0),
            lender: Cell::new(0),
            borrower_yielded: Cell::new(false),
        }
    };
}

thread_local! {
    /// The task that last started a budget: its address and a weak reference. Separate from the budget, which is read for each item and
    /// has nothing to drop.
    static SPENDER: RefCell<Option<(usize, Py<PyWeakrefReference>)>> = const { RefCell::new(None) };
}

/// Spend one item. If this returns `true`, the caller must yield to the event loop and then continue.
#[inline]
pub(crate) fn spend(py: Python<'_>) -> bool {
    BUDGET.with(|budget| {
        let spent = budget.spent.get() + 1;
        budget.spent.set(spent);
        spent >= budget.look.get() && budget.look(py, spent)
    })
}

/// Restart the budget, because the task suspends. A lent budget is not restarted.
#[inline]
pub(crate) fn renew() {
    BUDGET.with(|budget| {
        if budget.lender.get() == 0 {
            budget.renew();
        }
    });
}

/// Start a new budget in a forked child, where none of the known tasks runs.
pub(crate) fn forget_after_fork() {
    BUDGET.with(|budget| {
        budget.renew();
        budget.task.set(0);
        budget.lender.set(0);
        budget.borrower_yielded.set(false);
    });
    let old = SPENDER.take();
    drop(old);
}

/// Until this is dropped, running code spends the budget of the lending task. Must stay in its thread.
#[derive(Debug)]
pub(crate) struct Lent {
    outer: usize,
    _here: PhantomData<*const ()>,
}

/// Lend the budget of a task. If that task itself borrows a budget, lends that one on.
#[inline]
pub(crate) fn lend(task: &Bound<'_, PyAny>) -> Lent {
    Lent::by(|_| task.as_ptr().addr())
}

/// Lend the budget that is currently spent, of whichever task.
pub(crate) fn lend_on(py: Python<'_>) -> Lent {
    Lent::by(|budget| match budget.task.get() {
        0 => running_task(py),
        known => known,
    })
}

/// Return whether a borrower of the budget has yielded since the last call.
pub(crate) fn take_rested() -> bool {
    BUDGET.with(|budget| budget.borrower_yielded.take())
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

/// Return the clock, in nanoseconds since its first reading.
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
                    // The borrower yields, and so must the lender.
                    self.look.set(spent);
                    self.borrower_yielded.set(true);
                }
                return true;
            }
            // Another task has taken over, or this thread runs no event loop that could starve.
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

/// Return the address of the current task, or of the task that lends to it; 0 without a task.
fn running_task(py: Python<'_>) -> usize {
    let lender = BUDGET.with(|budget| budget.lender.get());
    if lender != 0 {
        return lender;
    }
    asyncio::current_task(py).map_or(0, |task| task.as_ptr().addr())
}

/// Remember the spending task, which is usually the previous one.
fn remember(task: &Bound<'_, PyAny>) {
    let (py, address) = (task.py(), task.as_ptr().addr());
    SPENDER.with(|spender| {
        let known = spender.take().filter(|(other, reference)| {
            *other == address && reference.bind(py).upgrade().is_some()
        });
        // A task whose type has no weak references is identified by its address alone.
        let known = known.or_else(|| {
            let reference = PyWeakrefReference::new(task).ok()?;
            Some((address, reference.unbind()))
        });
        spender.replace(known);
    });
}

/// Return whether the task that spent the budget is dead, and another one has its address.
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
