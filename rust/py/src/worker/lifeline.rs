//! `end_with_driver`: the end of a worker when a process that it depends on has died. A worker calls it before anything else.
//!
//! A thread without the GIL waits for the first of some descriptors: a worker of a driver on this machine depends on the driver alone, and
//! one of a host on the host, its watchdog and the timer of its lease. No task can hold the thread up. It ends the whole process group of
//! the worker, with the processes that its tasks have started.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Signal, getpgrp, getpid, kill_process, kill_process_group};

/// End the process group of this process as soon as one of the descriptors is readable or its other end is closed.
///
/// Each is of a process (`os.pidfd_open`), of a pipe whose other end only the driver has, or the timer of a lease (`open_lease_timer`).
/// They are taken over. With `group=False` it ends only this process, which need not lead a group.
///
/// # Errors
///
/// `RuntimeError` if this process does not lead its process group: others would be ended with it.
#[pyfunction]
#[pyo3(signature = (*fds, group = true))]
// The arguments of a Python function are owned.
#[allow(clippy::needless_pass_by_value)]
pub(super) fn end_with_driver(fds: Vec<RawFd>, group: bool) -> PyResult<()> {
    if fds.is_empty() || fds.iter().any(|fd| *fd < 0) {
        return Err(PyValueError::new_err(format!(
            "fds must be descriptors of processes, not {fds:?}"
        )));
    }
    if group && getpgrp() != getpid() {
        return Err(PyRuntimeError::new_err(
            "a worker must lead its own process group",
        ));
    }
    // SAFETY: the caller hands over the ownership of the descriptors.
    let owned = |fd: &RawFd| unsafe { OwnedFd::from_raw_fd(*fd) };
    let fds: Vec<OwnedFd> = fds.iter().map(owned).collect();
    std::thread::Builder::new()
        .name("headrace lifeline".to_owned())
        .spawn(move || {
            let polled = |fd| PollFd::new(fd, PollFlags::IN);
            let mut polled: Vec<PollFd<'_>> = fds.iter().map(polled).collect();
            while let Err(Errno::INTR) = poll(&mut polled, None) {}
            let _ = if group {
                kill_process_group(getpgrp(), Signal::KILL)
            } else {
                kill_process(getpid(), Signal::KILL)
            };
        })?;
    Ok(())
}
