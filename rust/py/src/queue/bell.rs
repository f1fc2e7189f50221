//! `Bell`: how a thread without a loop waits.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;

use crate::asyncio;
use crate::errors;

/// What wakes a thread.
#[derive(Debug, Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }
}

impl Bell {
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

/// Blocks the thread until the future is ready; `None` if it is not by then.
pub(super) fn wait<F: Future + Unpin>(
    py: Python<'_>,
    what: &str,
    mut future: F,
    deadline: Option<Instant>,
) -> PyResult<Option<F::Output>> {
    if asyncio::running(py).is_some() {
        return Err(PyRuntimeError::new_err(format!(
            "{what}_sync() would block the event loop that runs in this thread; await {what}() instead",
        )));
    }
    let glance = is_main_thread(py)?.then_some(GLANCE);
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    loop {
        if let Poll::Ready(output) = Pin::new(&mut future).poll(&mut Context::from_waker(&waker)) {
            return Ok(Some(output));
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(None);
        }
        let time = match (left, glance) {
            (Some(left), Some(glance)) => Some(left.min(glance)),
            (left, glance) => left.or(glance),
        };
        py.detach(|| bell.listen(time));
        py.check_signals()?;
    }
}

/// When so many seconds will be over; `None` for never.
pub(super) fn seconds(timeout: &Bound<'_, PyAny>) -> PyResult<Option<Instant>> {
    let seconds: f64 = timeout
        .extract()
        .map_err(|_| errors::wrong_type("timeout", "a number of seconds or None", timeout))?;
    if seconds.is_nan() || seconds < 0.0 {
        return Err(PyValueError::new_err(format!(
            "timeout must not be negative, got {}",
            errors::describe(timeout)
        )));
    }
    Ok(Duration::try_from_secs_f64(seconds)
        .ok()
        .and_then(|time| Instant::now().checked_add(time)))
}

fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    let threading = py.import(intern!(py, "threading"))?;
    let current = threading.call_method0(intern!(py, "get_ident"))?;
    let main = threading
        .call_method0(intern!(py, "main_thread"))?
        .getattr(intern!(py, "ident"))?;
    current.eq(main)
}
