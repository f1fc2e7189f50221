//! `end_with_driver`: the end of a worker when its driver has died. A worker calls it before anything else.
//!
//! A thread without the GIL waits for the driver, so that no task can hold it up. It ends the whole process group of the worker, with
//! the processes that its tasks have started.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Signal, getpgrp, getpid, kill_process_group};

/// End the process group of this process as soon as a descriptor is readable or its other end is closed.
///
/// The descriptor is one of the driver's process (`os.pidfd_open`), or of a pipe whose other end only the driver has. It is taken over.
///
/// # Errors
///
/// `RuntimeError` if this process does not lead its process group: others would be ended with it.
#[pyfunction]
pub(super) fn end_with_driver(fd: RawFd) -> PyResult<()> {
    if fd < 0 {
        return Err(PyValueError::new_err(format!(
            "fd must be a descriptor of the driver, not {fd}"
        )));
    }
    if getpgrp() != getpid() {
        return Err(PyRuntimeError::new_err(
            "a worker must lead its own process group",
        ));
    }
    // SAFETY: the caller hands over the ownership of the descriptor.
    let driver = unsafe { OwnedFd::from_raw_fd(fd) };
    std::thread::Builder::new()
        .name("headrace lifeline".to_owned())
        .spawn(move || {
            while let Err(Errno::INTR) = poll(&mut [PollFd::new(&driver, PollFlags::IN)], None) {}
            let _ = kill_process_group(getpgrp(), Signal::KILL);
        })?;
    Ok(())
}
