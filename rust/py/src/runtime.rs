//! Threads for what blocks: a tokio runtime, started when the first is needed.
//!
//! Only its blocking threads are used. They come when there is work and go when there is none for
//! some seconds; the runtime is of the flavour that has no other threads. What runs there knows
//! nothing of Python. Its results go where the loop's thread fetches them, never straight into a
//! future, which could be cancelled with the result in it.
//!
//! A forked child has none of its parent's threads. It leaves the parent's runtime alone and gets
//! one of its own; what was made before the fork refuses by itself to be used ([`Home`]).
//!
//! At exit, while the interpreter is still whole, the work that is under way is awaited for
//! [`PATIENCE`] at most. After that nothing attaches to Python any more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};

use crate::fork::Home;
use crate::gil::GilCell;

/// How long the end of the process waits for work that is under way.
const PATIENCE: Duration = Duration::from_secs(1);

static RUNTIME: GilCell<Option<(Home, Runtime)>> = GilCell::new(None);

/// The interpreter is about to go: no new work, no more wake-ups.
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
        .is_some_and(|(home, _)| home.is_here());
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
    let old = RUNTIME.borrow(py).replace((Home::here(), runtime));
    // Only ever a parent's: its threads are not here, so it cannot be shut down.
    std::mem::forget(old);
    Ok(())
}

/// Called by `atexit`.
#[pyfunction]
fn shut_down_runtime(py: Python<'_>) {
    OVER.store(true, Ordering::Release);
    let old = RUNTIME.borrow(py).take();
    match old {
        Some((home, runtime)) if home.is_here() => {
            // Detached, since somebody may be waking a loop just now.
            py.detach(|| runtime.shutdown_timeout(PATIENCE));
        }
        old => std::mem::forget(old),
    }
}
