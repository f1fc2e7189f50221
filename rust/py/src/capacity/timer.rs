//! Timers of event loops and threads that serve a tree when time makes capacity available.
//! Waiting requests in `acquire.rs`, `lease.rs` and `prefetch.rs` use them; `TreeHandle` stores them.
//!
//! Each event loop that waits for a tree has one [`LoopTimer`] there: the core's alarm, and at most one timer of the event
//! loop. The core computes the deadline, and wakes the alarm when it becomes earlier; nothing is polled. The timer that fires
//! first serves the whole tree. If its event loop is closed, that of another event loop fires at the same time.
//!
//! The times of a tree are those of its own clock. A timer is set by the remaining duration, so the event loop may use
//! another clock. There is one exception: the tree uses the real clock, and the event loop a virtual one. A timer of such an
//! event loop would fire at once, again and again. The virtual loops of `headrace.testing` have the method `call_later_real`
//! for this case.

use std::future::Future;
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use headrace_core::capacity::{Alarm, AlarmId, Time};
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};

use super::tree::TreeHandle;
use crate::object::gil_cell::GilCell;
use crate::runtime::blocking_wait::{Blocking, this_thread};
use crate::runtime::{asyncio, blocking_wait};

/// The shortest delay of a timer. A shorter one may be lost to rounding when the clock's seconds are large.
const MIN_DELAY: Duration = Duration::from_micros(1);

/// The delay before a failed clock is read again.
const CLOCK_RETRY: Duration = Duration::from_secs(1);

/// The timer of an event loop for one tree.
#[derive(Debug)]
pub(super) struct LoopTimer {
    handle: Weak<TreeHandle>,
    core: Alarm,
    /// The thread that runs the event loop.
    thread: u64,
    event_loop: Py<PyWeakrefReference>,
    /// The timers of the event loop have a resolution of a millisecond: less than half of one fires at once.
    is_coarse: bool,
    /// The tree uses the real clock and the event loop a virtual one, which offers timers by the real clock.
    is_by_real_clock: bool,
    state: GilCell<TimerState>,
    waker: Waker,
}

#[derive(Debug, Default)]
struct TimerState {
    /// The time for which it is set, and its `TimerHandle`.
    armed: Option<(Time, Py<PyAny>)>,
    /// A call is setting the timer; `set_again` requests that it checks the deadline once more.
    is_setting: bool,
    set_again: bool,
}

impl TreeHandle {
    /// Return the timer of an event loop that runs in this thread.
    pub(super) fn loop_timer(
        self: &Arc<Self>,
        event_loop: &Bound<'_, PyAny>,
    ) -> PyResult<Arc<LoopTimer>> {
        let known = (self.loop_timers.borrow(event_loop.py()).iter())
            .find(|timer| timer.is_of(event_loop))
            .map(Arc::clone);
        match known {
            Some(timer) => Ok(timer),
            None => self.new_loop_timer(event_loop),
        }
    }

    #[cold]
    fn new_loop_timer(self: &Arc<Self>, event_loop: &Bound<'_, PyAny>) -> PyResult<Arc<LoopTimer>> {
        let py = event_loop.py();
        self.forget_closed_loops(py)?;
        let module = event_loop.get_type().module()?;
        let is_coarse = module.to_cow()?.starts_with("uvloop");
        let is_by_real_clock =
            self.has_real_clock() && event_loop.hasattr(intern!(py, "call_later_real"))?;
        let weak = PyWeakrefReference::new(event_loop)?.unbind();
        let timer = Arc::new_cyclic(|timer| LoopTimer {
            handle: Arc::downgrade(self),
            core: self.core_alarm(),
            thread: this_thread(),
            event_loop: weak,
            is_coarse,
            is_by_real_clock,
            state: GilCell::default(),
            waker: Waker::from(Arc::new(TimerWaker(Weak::clone(timer)))),
        });
        self.loop_timers.borrow(py).push(Arc::clone(&timer));
        timer.set(py)?;
        Ok(timer)
    }

    /// Drop the timers of closed event loops.
    fn forget_closed_loops(&self, py: Python<'_>) -> PyResult<()> {
        let timers: Vec<_> = self.loop_timers.borrow(py).clone();
        let mut closed = Vec::new();
        for timer in timers {
            if timer.is_closed(py)? {
                closed.push(timer);
            }
        }
        // Dropped after the borrow, by `closed`.
        self.loop_timers
            .borrow(py)
            .retain(|timer| !closed.iter().any(|closed| Arc::ptr_eq(closed, timer)));
        Ok(())
    }
}

impl LoopTimer {
    /// Return the id that a request waiting on this event loop carries.
    pub(super) fn id(&self) -> AlarmId {
        self.core.id()
    }

    fn is_of(&self, event_loop: &Bound<'_, PyAny>) -> bool {
        let known = || self.event_loop.bind(event_loop.py()).upgrade();
        self.thread == this_thread() && known().is_some_and(|known| known.is(event_loop))
    }

    fn is_closed(&self, py: Python<'_>) -> PyResult<bool> {
        match self.event_loop.bind(py).upgrade() {
            None => Ok(true),
            Some(event_loop) => asyncio::is_closed(&event_loop),
        }
    }

    /// Set the timer, on the event loop's thread. If the clock fails, set a timer to retry and return the error.
    fn set(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let mut state = self.state.borrow(py);
        if std::mem::replace(&mut state.is_setting, true) {
            state.set_again = true;
            return Ok(());
        }
        drop(state);
        loop {
            let outcome = self.set_once(py);
            let mut state = self.state.borrow(py);
            if outcome.is_err() || !std::mem::take(&mut state.set_again) {
                state.is_setting = false;
                return outcome;
            }
        }
    }

    fn set_once(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let event_loop = self.event_loop.bind(py).upgrade();
        let (Some(handle), Some(event_loop)) = (self.handle.upgrade(), event_loop) else {
            return Ok(());
        };
        let Some(deadline) = self.core.deadline(&self.waker) else {
            return Ok(());
        };
        let armed = self.state.borrow(py).armed.as_ref().map(|(at, _)| *at);
        if armed.is_some_and(|at| at <= deadline) {
            return Ok(());
        }
        let now = handle.enter(py).map(|tree| tree.now());
        let mut left = match &now {
            Ok(now) => deadline.since(*now).max(MIN_DELAY),
            Err(_) => CLOCK_RETRY,
        };
        if self.is_coarse {
            let millis = left.as_nanos().div_ceil(1_000_000);
            left = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
        }
        let callback = PyTimerCallback::new(self, true);
        let call_later = if self.is_by_real_clock {
            intern!(py, "call_later_real")
        } else {
            intern!(py, "call_later")
        };
        let handle = event_loop.call_method1(call_later, (left.as_secs_f64(), callback))?;
        let old = (self.state.borrow(py).armed).replace((deadline, handle.unbind()));
        if let Some((_, old)) = old {
            old.bind(py).call_method0(intern!(py, "cancel"))?;
        }
        now.map(drop)
    }

    /// Request that the event loop sets its timer. A closed loop has no waiters to serve.
    fn notify_loop(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let Some(event_loop) = self.event_loop.bind(py).upgrade() else {
            return Ok(());
        };
        let callback = PyTimerCallback::new(self, false);
        match event_loop.call_method1(intern!(py, "call_soon_threadsafe"), (callback,)) {
            Err(error) if !error.is_instance_of::<PyRuntimeError>(py) => Err(error),
            _ => Ok(()),
        }
    }
}

/// The callback of the event loop: when the timer fires, or on request of another thread.
#[pyclass(name = "TimerCallback", frozen, module = "headrace._core")]
#[derive(Debug)]
struct PyTimerCallback {
    timer: Weak<LoopTimer>,
    /// Whether the timer fired.
    is_fired: bool,
}

impl PyTimerCallback {
    fn new(timer: &Arc<LoopTimer>, is_fired: bool) -> Self {
        let timer = Arc::downgrade(timer);
        Self { timer, is_fired }
    }
}

#[pymethods]
impl PyTimerCallback {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let Some(timer) = self.timer.upgrade() else {
            return Ok(());
        };
        let mut ticked = Ok(());
        if self.is_fired {
            let spent = timer.state.borrow(py).armed.take();
            drop(spent);
            if let Some(handle) = timer.handle.upgrade() {
                ticked = handle.enter(py).map(|tree| tree.tick());
            }
        }
        // If the clock failed, waiters are served next time, so the timer is always set.
        let set = timer.set(py);
        ticked.and(set)
    }
}

/// Wakes a loop timer from any thread.
#[derive(Debug)]
struct TimerWaker(Weak<LoopTimer>);

impl Wake for TimerWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        Python::attach(|py| {
            let Some(timer) = self.0.upgrade() else {
                return;
            };
            let result = if timer.thread == this_thread() {
                timer.set(py)
            } else {
                timer.notify_loop(py)
            };
            if let Err(error) = result {
                error.write_unraisable(py, None);
            }
        });
    }
}

/// Block a thread without an event loop until the future is ready. The thread serves the tree's deadlines meanwhile.
pub(super) fn wait<F: Future + Unpin>(
    py: Python<'_>,
    call: Blocking,
    handle: &TreeHandle,
    alarm: &Alarm,
    future: F,
    until: Option<Instant>,
) -> PyResult<Option<F::Output>> {
    blocking_wait::wait_and_look(py, call, future, until, |waker| {
        let Some(mut deadline) = alarm.deadline(waker) else {
            return Ok(None);
        };
        let tree = handle.enter(py)?;
        let now = tree.now();
        if deadline <= now {
            tree.tick();
            match alarm.deadline(waker) {
                Some(next) => deadline = next,
                None => return Ok(None),
            }
        }
        Ok(Some(deadline.since(now)))
    })
}
