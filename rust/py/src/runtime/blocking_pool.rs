//! Threads for blocking work: a tokio runtime, started at the first use.
//! `source/lines` and `line_writer.rs` spawn their jobs there.
//!
//! Only its blocking threads are used. They start when there is work and end after some idle seconds; the runtime is of the flavour
//! without other threads. The work does not use Python. It stores its results where the event loop's thread fetches them, never
//! directly in a future, which could be cancelled together with the result.
//!
//! A forked child has none of its parent's threads. It leaves the parent's runtime alone and starts its own. Objects from before the
//! fork refuse to be used ([`ProcessId`]).
//!
//! At exit, before the interpreter is finalized, running work is awaited for at most [`EXIT_TIMEOUT`]. After that no thread attaches
//! to Python.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::Duration;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};

use super::fork_guard::ProcessId;
use crate::object::gil_cell::GilCell;

/// The longest wait for running work at exit.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);

static RUNTIME: GilCell<Option<(ProcessId, Runtime)>> = GilCell::new(None);

/// Whether the interpreter is exiting: no new work and no wake-ups. Also true in a child that is forked after that.
static OVER: AtomicBool = AtomicBool::new(false);

/// Run `work` on a thread where it may block.
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
    if !has_runtime(RUNTIME.borrow(py).as_ref()) {
        start(py)?;
    }
    if let Some((_, runtime)) = &*RUNTIME.borrow(py) {
        drop(runtime.spawn_blocking(work));
    }
    Ok(())
}

/// Return whether the interpreter is exiting.
pub(crate) fn is_over() -> bool {
    OVER.load(Ordering::Acquire)
}

/// Return whether this process has started its runtime.
fn has_runtime(current: Option<&(ProcessId, Runtime)>) -> bool {
    matches!(current, Some((process, _)) if process.is_current())
}

#[cold]
fn start(py: Python<'_>) -> PyResult<()> {
    let runtime = Builder::new_current_thread()
        .thread_name("headrace")
        .build()?;
    let stop = pyo3::wrap_pyfunction!(shut_down_runtime, py)?;
    py.import("atexit")?.call_method1("register", (stop,))?;
    let mut current = RUNTIME.borrow(py);
    if has_runtime(current.as_ref()) {
        // Another thread has started a runtime meanwhile.
        drop(current);
        runtime.shutdown_background();
        return Ok(());
    }
    // An old runtime is always a parent's: its threads do not exist here, so it cannot be shut down.
    std::mem::forget(current.replace((ProcessId::current(), runtime)));
    Ok(())
}

/// Wake wakers on a thread of the runtime.
///
/// A waker holds the mailbox of an event loop, and so a reference to Python: it is woken but not dropped here. `keep` stores the used
/// wakers for an attached thread. If it returns them instead, this thread attaches to drop them.
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

/// Return the path of a file, or a `ValueError` if no file can have it.
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
        Some((process, runtime)) if process.is_current() => {
            // Detached, because another thread may be waking an event loop.
            py.detach(|| runtime.shutdown_timeout(EXIT_TIMEOUT));
        }
        old => std::mem::forget(old),
    }
}
