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
//! There is one state, since one thread at a time holds the GIL, and it belongs to one task at a
//! time. When the time is up, it asks which task runs: if it is not the one that spent it, the new
//! one starts with a full budget. Time that a task spends waiting for something of somebody else's
//! counts, which can cost it one turn too many, never one too few.
//!
//! A merge steps its sources inside its consumer's pull, each under a task of its own. What they
//! spend is the consumer's, who [`lend`]s it: it is the consumer that has to let the loop turn.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use pyo3::prelude::*;

use crate::asyncio;

/// How long a task may find ready items between two turns of the loop. A heartbeat is late by twice
/// this: once for its timer, once for its task. In nanoseconds.
const TIME: u64 = 500_000;

/// How many items it may find, whatever they cost.
const ITEMS: u32 = 4096;

/// The most items between two looks at the clock.
const STRIDE: u32 = 64;

/// Atomics for the compiler's sake: they are only touched with the GIL held, and cost what plain
/// fields cost.
struct Budget {
    /// Items since it started.
    spent: AtomicU32,
    /// At which item to look at the clock next.
    look: AtomicU32,
    /// When it started, in nanoseconds since the first look at the clock.
    since: AtomicU64,
    /// The task that spends it, by address; only ever compared.
    task: AtomicUsize,
    /// The task that lends it to what runs under another one just now; 0 if none does.
    lender: AtomicUsize,
    /// Somebody rested who had borrowed it.
    rested: AtomicBool,
}

static BUDGET: Budget = Budget {
    spent: AtomicU32::new(0),
    look: AtomicU32::new(1),
    since: AtomicU64::new(0),
    task: AtomicUsize::new(0),
    lender: AtomicUsize::new(0),
    rested: AtomicBool::new(false),
};

/// Spends one item. If it says `true`, yield to the loop now, and then go on.
#[inline]
pub(crate) fn spend(py: Python<'_>) -> bool {
    let spent = BUDGET.spent.load(Relaxed) + 1;
    BUDGET.spent.store(spent, Relaxed);
    spent >= BUDGET.look.load(Relaxed) && BUDGET.look(py, spent)
}

/// The task suspends: it starts anew. What was lent does not.
#[inline]
pub(crate) fn renew() {
    if BUDGET.lender.load(Relaxed) == 0 {
        BUDGET.renew();
    }
}

/// What runs until this is dropped spends from the budget of the task that lent it.
#[derive(Debug)]
pub(crate) struct Lent {
    outer: usize,
}

/// Lends the budget of a task. What it was lent itself goes on to whom it lends it.
#[inline]
pub(crate) fn lend(task: &Bound<'_, PyAny>) -> Lent {
    let outer = BUDGET.lender.load(Relaxed);
    if outer == 0 {
        BUDGET.lender.store(task.as_ptr().addr(), Relaxed);
    }
    Lent { outer }
}

/// Lends the budget that is being spent, whosever it is.
pub(crate) fn lend_on(py: Python<'_>) -> Lent {
    let outer = BUDGET.lender.load(Relaxed);
    if outer == 0 {
        let known = BUDGET.task.load(Relaxed);
        let task = if known == 0 { running_task(py) } else { known };
        BUDGET.lender.store(task, Relaxed);
    }
    Lent { outer }
}

/// Whether somebody rested, since this was asked last, who had borrowed the budget.
pub(crate) fn take_rested() -> bool {
    BUDGET.rested.swap(false, Relaxed)
}

impl Drop for Lent {
    #[inline]
    fn drop(&mut self) {
        BUDGET.lender.store(self.outer, Relaxed);
    }
}

/// The clock, in nanoseconds from the first look at it.
fn now() -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    u64::try_from(EPOCH.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

impl Budget {
    fn renew(&self) {
        self.spent.store(0, Relaxed);
        self.look.store(1, Relaxed);
    }

    #[inline(never)]
    fn look(&self, py: Python<'_>, spent: u32) -> bool {
        let now = now();
        if spent <= 1 {
            self.start(py, now);
            return false;
        }
        let elapsed = now.saturating_sub(self.since.load(Relaxed));
        if elapsed >= TIME || spent >= ITEMS {
            let task = running_task(py);
            if task == self.task.load(Relaxed) && task != 0 {
                if self.lender.load(Relaxed) == 0 {
                    self.renew();
                } else {
                    // Who borrows it rests, and so must the lender.
                    self.look.store(spent, Relaxed);
                    self.rested.store(true, Relaxed);
                }
                return true;
            }
            // Another task has taken over in the middle, or nobody runs a loop here who could be
            // starved.
            self.spent.store(1, Relaxed);
            self.start(py, now);
            return false;
        }
        let mean = (elapsed / u64::from(spent)).max(1);
        let stride = u32::try_from((TIME - elapsed) / mean / 4)
            .unwrap_or(STRIDE)
            .clamp(1, STRIDE);
        self.look.store((spent + stride).min(ITEMS), Relaxed);
        false
    }

    fn start(&self, py: Python<'_>, now: u64) {
        self.since.store(now, Relaxed);
        self.task.store(running_task(py), Relaxed);
        self.look.store(2, Relaxed);
    }
}

/// The address of the task that runs, or of the one that lends to it; 0 if there is none.
fn running_task(py: Python<'_>) -> usize {
    let lender = BUDGET.lender.load(Relaxed);
    if lender != 0 {
        return lender;
    }
    asyncio::current_task(py).map_or(0, |task| task.as_ptr().addr())
}
