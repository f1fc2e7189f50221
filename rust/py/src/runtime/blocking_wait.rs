//! Blocking waits: a thread releases the GIL and sleeps on a [`ThreadWaker`].
//! The blocking methods of `PyQueue`, `PyBuffer`, `PySignal` and `PyCapacity` use it.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyRuntimeError, PyTimeoutError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt};

use super::asyncio;
use crate::errors;

/// The number of the next thread.
static NEXT: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// The number of this thread; 0 before it is needed.
    static NUMBER: Cell<u64> = const { Cell::new(0) };
}

/// Return the number of the current thread. Unlike the address of its `PyThreadState`, `threading.get_ident()` and the
/// thread's id in the system, the number is never given to another thread. It is cheaper to read than
/// `std::thread::current()`.
#[inline]
pub(crate) fn this_thread() -> u64 {
    NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}

/// Renumber the thread of a forked child, which is not the parent's thread.
pub(crate) fn renew_after_fork() {
    NUMBER.set(0);
}

/// Wakes a sleeping thread.
#[derive(Debug, Default)]
struct ThreadWaker {
    is_woken: Mutex<bool>,
    changed: Condvar,
}

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        *self.is_woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }
}

impl ThreadWaker {
    /// Sleep until it is woken, or for `time`.
    fn sleep(&self, time: Option<Duration>) {
        let is_woken = self.is_woken.lock().unwrap_or_else(PoisonError::into_inner);
        let time = time.unwrap_or(Duration::MAX);
        let slept = self
            .changed
            .wait_timeout_while(is_woken, time, |is_woken| !*is_woken);
        *slept.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}

/// The longest single sleep of the main thread, which must run signal handlers while it waits.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);

/// A call that blocks its thread, and the alternative in the thread of an event loop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blocking {
    pub(crate) name: &'static str,
    pub(crate) instead: &'static str,
}

/// Block the thread until the future is ready; `None` if it is not by then.
pub(crate) fn wait<F: Future + Unpin>(
    py: Python<'_>,
    call: Blocking,
    future: F,
    until: Option<Instant>,
) -> PyResult<Option<F::Output>> {
    wait_and_look(py, call, future, until, |_| Ok(None))
}

/// Wait like [`wait`]. Calls `look` before each sleep with the waker of the thread; it returns the longest duration of
/// that sleep.
pub(crate) fn wait_and_look<F: Future + Unpin>(
    py: Python<'_>,
    call: Blocking,
    mut future: F,
    until: Option<Instant>,
    mut look: impl FnMut(&Waker) -> PyResult<Option<Duration>>,
) -> PyResult<Option<F::Output>> {
    if asyncio::running(py).is_some() {
        return Err(PyRuntimeError::new_err(format!(
            "{} would block the event loop that runs in this thread; {} instead",
            call.name, call.instead,
        )));
    }
    let signal_interval = is_main_thread(py)?.then_some(SIGNAL_INTERVAL);
    let thread_waker = Arc::new(ThreadWaker::default());
    let waker = Waker::from(Arc::clone(&thread_waker));
    loop {
        if let Poll::Ready(output) = Pin::new(&mut future).poll(&mut Context::from_waker(&waker)) {
            return Ok(Some(output));
        }
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(None);
        }
        let time = [left, signal_interval, look(&waker)?]
            .into_iter()
            .flatten()
            .min();
        py.detach(|| thread_waker.sleep(time));
        py.check_signals()?;
    }
}

/// Return the `TimeoutError` of a wait.
pub(crate) fn late(problem: &str, timeout: Option<&Bound<'_, PyAny>>) -> PyErr {
    let seconds = timeout.map_or_else(String::new, ToString::to_string);
    PyTimeoutError::new_err(format!("{problem} within {seconds} seconds"))
}

/// Return the time at which the timeout expires; `None` for never.
pub(crate) fn deadline(timeout: &Bound<'_, PyAny>) -> PyResult<Option<Instant>> {
    let time = Duration::try_from_secs_f64(seconds("timeout", timeout)?).ok();
    Ok(time.and_then(|time| Instant::now().checked_add(time)))
}

/// Return a non-negative number of seconds, which may be infinite.
pub(crate) fn seconds(parameter: &str, value: &Bound<'_, PyAny>) -> PyResult<f64> {
    let wrong = || errors::wrong_type(parameter, "a number of seconds", value);
    if value.is_instance_of::<PyBool>() {
        return Err(wrong());
    }
    let refused = |must: &str| {
        PyValueError::new_err(format!(
            "{parameter} must {must}, got {}",
            errors::describe(value)
        ))
    };
    match value.extract::<f64>() {
        Ok(seconds) if seconds.is_nan() => Err(refused("be a number of seconds from 0")),
        Ok(seconds) if seconds < 0.0 => Err(refused("not be negative")),
        Ok(seconds) => Ok(seconds),
        Err(_) if !value.is_instance_of::<PyInt>() => Err(wrong()),
        // An integer that no float holds.
        Err(_) if value.lt(0)? => Err(refused("not be negative")),
        Err(_) => Err(refused("be at most 10**308")),
    }
}

fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    let threading = py.import(intern!(py, "threading"))?;
    let current = threading.call_method0(intern!(py, "get_ident"))?;
    let main = threading
        .call_method0(intern!(py, "main_thread"))?
        .getattr(intern!(py, "ident"))?;
    current.eq(main)
}
