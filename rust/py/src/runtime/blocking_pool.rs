//! Threads for what blocks: a tokio runtime, started when the first is needed.
//!
//! Only its blocking threads are used. They come when there is work and go when there is none for
//! some seconds; the runtime is of the flavour that has no other threads. What runs there knows
//! nothing of Python. Its results go where the loop's thread fetches them, never straight into a
//! future, which could be cancelled with the result in it.
//!
//! A forked child has none of its parent's threads. It leaves the parent's runtime alone and gets
//! one of its own; what was made before the fork refuses by itself to be used ([`ProcessId`]).
//!
//! At exit, while the interpreter is still whole, the work that is under way is awaited for
//! [`PATIENCE`] at most. After that nothing attaches to Python any more.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::Duration;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};

use super::fork_guard::ProcessId;
use crate::object::gil_cell::GilCell;

/// How long the end of the process waits for work that is under way.
const PATIENCE: Duration = Duration::from_secs(1);

static RUNTIME: GilCell<Option<(ProcessId, Runtime)>> = GilCell::new(None);

/// The interpreter is about to go: no new work, no more wake-ups. A child that is forked then is about to go too.
static OVER: AtomicBool = AtomicBool::new(false);

/// Runs `work` on a thread where it may block.
///
/// # Errors
///
/// `RuntimeError` at exit, and if no runtime can be made. `work` is dropped then.
pub(crate) fn spawn(py: Python<'_>, work: impl FnOnce() + Send + 'static) -> PyResult<()> {
    if is_over() {
        return Err(PyRuntimeError::new_err(
            "the interpreter is exiting: no file can be read or written any more",
        ));
    }
    let here = RUNTIME
        .borrow(py)
        .as_ref()
        .is_some_and(|(home, _)| home.is_current());
    if !here {
        start(py)?;
    }
    if let Some((_, runtime)) = &*RUNTIME.borrow(py) {
        drop(runtime.spawn_blocking(work));
    }
    Ok(())
}

/// Whether the interpreter is about to go.
pub(crate) fn is_over() -> bool {
    OVER.load(Ordering::Acquire)
}

#[cold]
fn start(py: Python<'_>) -> PyResult<()> {
    let runtime = Builder::new_current_thread()
        .thread_name("headrace")
        .build()?;
    let stop = pyo3::wrap_pyfunction!(shut_down_runtime, py)?;
    py.import("atexit")?.call_method1("register", (stop,))?;
    let mut place = RUNTIME.borrow(py);
    if place.as_ref().is_some_and(|(home, _)| home.is_current()) {
        // Another thread was quicker.
        drop(place);
        runtime.shutdown_background();
        return Ok(());
    }
    // Only ever a parent's: its threads are not here, so it cannot be shut down.
    std::mem::forget(place.replace((ProcessId::current(), runtime)));
    Ok(())
}

/// Wakes, on a thread of the runtime.
///
/// A waker holds a loop's mailbox, and so a reference to Python: it is woken there but not dropped
/// there. `keep` takes those that are spent to where an attached thread will find them; what it gives
/// back, as nobody comes there any more, is dropped by attaching.
pub(crate) fn wake(wakers: Vec<Waker>, keep: impl FnOnce(Vec<Waker>) -> Option<Vec<Waker>>) {
    if wakers.is_empty() {
        return;
    }
    if is_over() {
        std::mem::forget(wakers);
        return;
    }
    wakers.iter().for_each(Waker::wake_by_ref);
    if let Some(left) = keep(wakers) {
        let mut left = Some(left);
        Python::try_attach(|_| drop(left.take()));
        std::mem::forget(left);
    }
}

/// The path of a file, unless no file can have it.
pub(crate) fn checked_path(path: PathBuf) -> PyResult<PathBuf> {
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(PyValueError::new_err(format!(
            "path must not contain a null character, got {}",
            path.display()
        )));
    }
    Ok(path)
}

/// Called by `atexit`.
#[pyfunction]
fn shut_down_runtime(py: Python<'_>) {
    OVER.store(true, Ordering::Release);
    let old = RUNTIME.borrow(py).take();
    match old {
        Some((home, runtime)) if home.is_current() => {
            // Detached, since somebody may be waking a loop just now.
            py.detach(|| runtime.shutdown_timeout(PATIENCE));
        }
        old => std::mem::forget(old),
    }
}
