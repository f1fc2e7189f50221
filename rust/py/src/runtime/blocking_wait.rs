//! Threads that wait: they let go of the GIL and sleep on a [`ThreadWaker`].

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
    static NAME: Cell<u64> = const { Cell::new(0) };
}

/// Numbers the current thread. Unlike the address of its `PyThreadState`, `threading.get_ident()` and the thread's id in the
/// system, the number is never given to another thread. It is cheaper to read than `std::thread::current()`.
#[inline]
pub(crate) fn this_thread() -> u64 {
    NAME.with(|name| {
        if name.get() == 0 {
            name.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        name.get()
    })
}

/// Gives the thread of a forked child a new number: it is not the thread of the parent that it is a copy of.
pub(crate) fn renew_after_fork() {
    NAME.set(0);
}

/// What wakes a thread.
#[derive(Debug, Default)]
struct ThreadWaker {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }
}

impl ThreadWaker {
    /// Sleeps until it is rung, or until the time is over.
    fn listen(&self, time: Option<Duration>) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rung = match time {
            None => (self.changed.wait_while(rung, |rung| !*rung))
                .unwrap_or_else(PoisonError::into_inner),
            Some(time) => {
                (self.changed.wait_timeout_while(rung, time, |rung| !*rung))
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
        *rung = false;
    }
}

/// How long the main thread sleeps at a time. Signals are handled there, and a handler has to run
/// while it waits.
const GLANCE: Duration = Duration::from_millis(50);

/// A call that blocks its thread, and what is to be awaited instead where a loop runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blocking {
    pub(crate) name: &'static str,
    pub(crate) instead: &'static str,
}

/// Blocks the thread until the future is ready; `None` if it is not by then.
pub(crate) fn wait<F: Future + Unpin>(
    py: Python<'_>,
    call: Blocking,
    future: F,
    until: Option<Instant>,
) -> PyResult<Option<F::Output>> {
    wait_and_look(py, call, future, until, |_| Ok(None))
}

/// The same; before each sleep `look` is called with what wakes the thread, and says how long that sleep
/// may take at most.
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
    let glance = is_main_thread(py)?.then_some(GLANCE);
    let bell = Arc::new(ThreadWaker::default());
    let waker = Waker::from(Arc::clone(&bell));
    loop {
        if let Poll::Ready(output) = Pin::new(&mut future).poll(&mut Context::from_waker(&waker)) {
            return Ok(Some(output));
        }
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(None);
        }
        let time = [left, glance, look(&waker)?].into_iter().flatten().min();
        py.detach(|| bell.listen(time));
        py.check_signals()?;
    }
}

/// The error of a thread that has waited enough.
pub(crate) fn late(what: &str, timeout: Option<&Bound<'_, PyAny>>) -> PyErr {
    let seconds = timeout.map_or_else(String::new, ToString::to_string);
    PyTimeoutError::new_err(format!("{what} within {seconds} seconds"))
}

/// When so many seconds will be over; `None` for never.
pub(crate) fn deadline(timeout: &Bound<'_, PyAny>) -> PyResult<Option<Instant>> {
    let time = Duration::try_from_secs_f64(seconds("timeout", timeout)?).ok();
    Ok(time.and_then(|time| Instant::now().checked_add(time)))
}

/// A number of seconds from 0 on, which may be infinite.
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
