//! How a loop is told when time has made something ready.
//!
//! Each loop that waits for a tree has one [`LoopAlarm`] there: the core's alarm, and at most one timer of the loop. The core
//! says when the timer is to fire, and wakes the alarm when that becomes earlier; so nothing is ever polled. Whichever timer
//! of a tree fires first serves the whole tree. If its loop is gone, another one's fires at that same time.
//!
//! The times of a tree are those of its own clock. A timer is set by how long it is until then, so that the clock of the loop
//! may be another. Only where the loop's is no real clock and the tree's is, a timer must not be the loop's: such a loop would find
//! that it comes at once, again and again. `headrace.testing` has such loops, and they have a method for it.

use std::future::Future;
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use headrace_core::capacity::{Alarm, AlarmId, Time};
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};

use super::tree::Shared;
use crate::object::gil_cell::GilCell;
use crate::runtime::blocking_wait::{Blocking, this_thread};
use crate::runtime::{asyncio, blocking_wait};

/// A timer that is set for less would find that no time has passed, where the clock's seconds have few digits left.
const LEAST: Duration = Duration::from_micros(1);

/// A clock that fails is asked again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// The alarm of a loop.
#[derive(Debug)]
pub(super) struct LoopAlarm {
    shared: Weak<Shared>,
    core: Alarm,
    /// The thread that runs the loop.
    thread: u64,
    event_loop: Py<PyWeakrefReference>,
    /// Its timers count whole milliseconds, and one that is set for less than half of one fires at once.
    is_coarse: bool,
    /// The tree goes by the real clock, and the loop does not, but can set a timer by it.
    is_by_real_clock: bool,
    timer: GilCell<Timer>,
    waker: Waker,
}

#[derive(Debug, Default)]
struct Timer {
    /// For when it is set, and what the loop gave for it.
    armed: Option<(Time, Py<PyAny>)>,
    /// Somebody is setting it; and was told meanwhile to look again.
    setting: bool,
    again: bool,
}

impl Shared {
    /// The alarm of a loop, which runs in this thread.
    pub(super) fn alarm(
        self: &Arc<Self>,
        event_loop: &Bound<'_, PyAny>,
    ) -> PyResult<Arc<LoopAlarm>> {
        let known = (self.alarms.borrow(event_loop.py()).iter())
            .find(|alarm| alarm.is_of(event_loop))
            .map(Arc::clone);
        match known {
            Some(alarm) => Ok(alarm),
            None => self.new_alarm(event_loop),
        }
    }

    #[cold]
    fn new_alarm(self: &Arc<Self>, event_loop: &Bound<'_, PyAny>) -> PyResult<Arc<LoopAlarm>> {
        let py = event_loop.py();
        self.forget_closed_loops(py)?;
        let module = event_loop.get_type().module()?;
        let is_coarse = module.to_cow()?.starts_with("uvloop");
        let is_by_real_clock =
            self.has_real_clock() && event_loop.hasattr(intern!(py, "call_later_real"))?;
        let weak = PyWeakrefReference::new(event_loop)?.unbind();
        let alarm = Arc::new_cyclic(|alarm| LoopAlarm {
            shared: Arc::downgrade(self),
            core: self.core_alarm(),
            thread: this_thread(),
            event_loop: weak,
            is_coarse,
            is_by_real_clock,
            timer: GilCell::default(),
            waker: Waker::from(Arc::new(Ring(Weak::clone(alarm)))),
        });
        self.alarms.borrow(py).push(Arc::clone(&alarm));
        alarm.set(py)?;
        Ok(alarm)
    }

    /// Lets go of the alarms of loops that are closed, and so of what their timers hold of them.
    fn forget_closed_loops(&self, py: Python<'_>) -> PyResult<()> {
        let alarms: Vec<_> = self.alarms.borrow(py).clone();
        let mut closed = Vec::new();
        for alarm in alarms {
            if alarm.is_closed(py)? {
                closed.push(alarm);
            }
        }
        // Dropped after the borrow, by `closed`.
        self.alarms
            .borrow(py)
            .retain(|alarm| !closed.iter().any(|closed| Arc::ptr_eq(closed, alarm)));
        Ok(())
    }
}

impl LoopAlarm {
    /// What an ask that waits on this loop has to say.
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

    /// Sets the timer, on the loop's thread; also if the clock fails, whose error it then gives.
    fn set(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let mut timer = self.timer.borrow(py);
        if std::mem::replace(&mut timer.setting, true) {
            timer.again = true;
            return Ok(());
        }
        drop(timer);
        loop {
            let outcome = self.set_once(py);
            let mut timer = self.timer.borrow(py);
            if outcome.is_err() || !std::mem::take(&mut timer.again) {
                timer.setting = false;
                return outcome;
            }
        }
    }

    fn set_once(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let event_loop = self.event_loop.bind(py).upgrade();
        let (Some(shared), Some(event_loop)) = (self.shared.upgrade(), event_loop) else {
            return Ok(());
        };
        let Some(deadline) = self.core.deadline(&self.waker) else {
            return Ok(());
        };
        let armed = self.timer.borrow(py).armed.as_ref().map(|(at, _)| *at);
        if armed.is_some_and(|at| at <= deadline) {
            return Ok(());
        }
        let now = shared.enter(py).map(|tree| tree.now());
        let mut left = match &now {
            Ok(now) => deadline.since(*now).max(LEAST),
            Err(_) => AGAIN,
        };
        if self.is_coarse {
            let millis = left.as_nanos().div_ceil(1_000_000);
            left = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
        }
        let fire = Py::new(
            py,
            Fire {
                alarm: Arc::downgrade(self),
                is_timer: true,
            },
        )?;
        let call_later = if self.is_by_real_clock {
            intern!(py, "call_later_real")
        } else {
            intern!(py, "call_later")
        };
        let handle = event_loop.call_method1(call_later, (left.as_secs_f64(), fire))?;
        let old = (self.timer.borrow(py).armed).replace((deadline, handle.unbind()));
        if let Some((_, old)) = old {
            old.bind(py).call_method0(intern!(py, "cancel"))?;
        }
        now.map(drop)
    }
}

/// What the loop calls: when the timer is up, or because another thread has rung.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug)]
struct Fire {
    alarm: Weak<LoopAlarm>,
    is_timer: bool,
}

#[pymethods]
impl Fire {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let Some(alarm) = self.alarm.upgrade() else {
            return Ok(());
        };
        let mut ticked = Ok(());
        if self.is_timer {
            let spent = alarm.timer.borrow(py).armed.take();
            drop(spent);
            if let Some(shared) = alarm.shared.upgrade() {
                ticked = shared.enter(py).map(|tree| tree.tick());
            }
        }
        // Those who wait are served the next time if the clock failed this time, so the timer is set in any case.
        let set = alarm.set(py);
        ticked.and(set)
    }
}

/// Wakes an alarm, from any thread.
#[derive(Debug)]
struct Ring(Weak<LoopAlarm>);

impl Wake for Ring {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        Python::attach(|py| {
            let Some(alarm) = self.0.upgrade() else {
                return;
            };
            let rung = if alarm.thread == this_thread() {
                alarm.set(py)
            } else {
                alarm.ring(py)
            };
            if let Err(error) = rung {
                error.write_unraisable(py, None);
            }
        });
    }
}

impl LoopAlarm {
    /// Has the loop set its timer. One that is closed, or gone, has nobody to serve.
    fn ring(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let Some(event_loop) = self.event_loop.bind(py).upgrade() else {
            return Ok(());
        };
        let fire = Py::new(
            py,
            Fire {
                alarm: Arc::downgrade(self),
                is_timer: false,
            },
        )?;
        match event_loop.call_method1(intern!(py, "call_soon_threadsafe"), (fire,)) {
            Err(error) if !error.is_instance_of::<PyRuntimeError>(py) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Waits in a thread without a loop, which serves the tree in time meanwhile.
pub(super) fn wait<F: Future + Unpin>(
    py: Python<'_>,
    call: Blocking,
    shared: &Shared,
    alarm: &Alarm,
    future: F,
    until: Option<Instant>,
) -> PyResult<Option<F::Output>> {
    blocking_wait::wait_and_look(py, call, future, until, |waker| {
        let Some(mut deadline) = alarm.deadline(waker) else {
            return Ok(None);
        };
        let tree = shared.enter(py)?;
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
