//! `HostLease`: the driver's side of the lease of a host. `headrace_core::worker` has the protocol and its proof.
//!
//! A thread without the GIL echoes the stamps of the watchdog, so that no task and no callback of the driver can hold it up. It ends when the
//! state is final. Each change of the state makes a descriptor readable.
//!
//! A child that the driver has forked has no such thread, and its copy of the object does nothing. It keeps the connection open after the
//! death of the driver until it ends, so the host of such a driver ends with its lease.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::SeqCst};

use headrace_core::worker::lease::{DriverLease, ENDED, HostState};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::sockopt::set_tcp_nodelay;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use rustix::process::{Pid, getpid};

use super::clock;
use super::words::Words;

/// The names of the states, by their numbers.
const NAMES: [&str; 4] = ["answering", "silent", "ended", "fenced"];

fn number(state: HostState) -> u8 {
    match state {
        HostState::Answering => 0,
        HostState::Silent => 1,
        HostState::Ended => 2,
        HostState::Fenced => 3,
    }
}

/// The part that the object and its thread share.
#[derive(Debug)]
struct Shared {
    state: AtomicU8,
    is_closed: AtomicBool,
}

/// The lease of a host, for its driver.
#[pyclass(name = "HostLease", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(super) struct PyHostLease {
    shared: Arc<Shared>,
    /// Readable after a change of the state.
    changes: UnixStream,
    /// Wakes the thread.
    waker: UnixStream,
    process: Pid,
}

#[pymethods]
impl PyHostLease {
    /// Take over the descriptor of a connected socket through which the token was sent, and start the thread.
    #[new]
    #[pyo3(signature = (fd, fence, start_up = 60.0))]
    fn new(fd: RawFd, fence: f64, start_up: f64) -> PyResult<Self> {
        if fd < 0 {
            return Err(PyValueError::new_err(format!(
                "fd must be a socket, not {fd}"
            )));
        }
        // SAFETY: the caller hands over the ownership of the descriptor (`socket.detach()`).
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let (Some(fence), Some(start_up)) =
            (clock::nanoseconds(fence), clock::nanoseconds(start_up))
        else {
            return Err(PyValueError::new_err(
                "fence and start_up must be positive seconds",
            ));
        };
        // It is no TCP socket in some tests.
        let _ = set_tcp_nodelay(&socket, true);
        let (changes, notifier) = UnixStream::pair()?;
        let (waker, woken) = UnixStream::pair()?;
        for stream in [&changes, &notifier, &waker, &woken] {
            stream.set_nonblocking(true)?;
        }
        let lease = DriverLease::new(clock::now(), fence, start_up);
        let shared = Arc::new(Shared {
            state: AtomicU8::new(number(lease.state())),
            is_closed: AtomicBool::new(false),
        });
        let driver = Driver {
            socket: Some(socket),
            lease,
            words: Words::default(),
            shared: Arc::clone(&shared),
            notifier,
            woken,
            is_closing: false,
        };
        std::thread::Builder::new()
            .name("headrace host lease".to_owned())
            .spawn(move || driver.run())?;
        Ok(Self {
            shared,
            changes,
            waker,
            process: getpid(),
        })
    }

    /// Return a descriptor that is readable after a change of the state, until `state` is read.
    fn fileno(&self) -> RawFd {
        self.changes.as_raw_fd()
    }

    /// Return the state, and clear the descriptor.
    #[getter]
    fn state(&self) -> &'static str {
        // The descriptor first: a change after that makes it readable again.
        while matches!((&self.changes).read(&mut [0; 16]), Ok(16)) {}
        NAMES[usize::from(self.shared.state.load(SeqCst))]
    }

    /// Ask the watchdog to end all work. Idempotent.
    fn close(&self) {
        if getpid() == self.process && !self.shared.is_closed.swap(true, SeqCst) {
            // If it cannot be written, it is readable already, or the thread has ended.
            let _ = (&self.waker).write(&[0]);
        }
    }
}

impl Drop for PyHostLease {
    fn drop(&mut self) {
        self.close();
    }
}

/// The thread.
struct Driver {
    /// `None` after the end of the connection.
    socket: Option<OwnedFd>,
    lease: DriverLease,
    words: Words,
    shared: Arc<Shared>,
    notifier: UnixStream,
    woken: UnixStream,
    /// Whether the end of all work was requested.
    is_closing: bool,
}

impl Driver {
    fn run(mut self) {
        loop {
            self.lease.advance(clock::now());
            self.publish();
            if self.lease.is_final() {
                return;
            }
            self.wait();
            if !self.is_closing && self.shared.is_closed.load(SeqCst) {
                self.is_closing = true;
                self.lease.stop();
                if let Some(socket) = &self.socket {
                    let _ = shutdown(socket, Shutdown::Write);
                }
            }
            self.receive();
        }
    }

    fn publish(&self) {
        let state = number(self.lease.state());
        if self.shared.state.swap(state, SeqCst) != state {
            // If it cannot be written, it is readable already, or the object was dropped.
            let _ = (&self.notifier).write(&[0]);
        }
    }

    /// Wait until there is something to do.
    fn wait(&self) {
        let mut polled = vec![];
        if !self.is_closing {
            polled.push(PollFd::new(&self.woken, PollFlags::IN));
        }
        if let Some(socket) = &self.socket {
            polled.push(PollFd::new(socket, PollFlags::IN));
        }
        // A signal ends it early, which does no harm.
        let left = self.lease.deadline().saturating_sub(clock::now());
        let _ = poll(&mut polled, Some(&clock::timespec(left)));
    }

    /// Read what has arrived, and echo the stamps.
    fn receive(&mut self) {
        let Some(socket) = &self.socket else {
            return;
        };
        let mut bytes = [0; 1024];
        let count = match recv(socket, &mut bytes, RecvFlags::DONTWAIT) {
            Ok((count, _)) => count,
            Err(Errno::INTR | Errno::AGAIN) => return,
            Err(_) => 0,
        };
        // After the arrival.
        let now = clock::now();
        for word in self.words.feed(&bytes[..count]) {
            if word == ENDED {
                self.lease.on_ended();
            } else if self.lease.on_stamp(now) {
                let echo = word.to_le_bytes();
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                if send(socket, &echo, flags) != Ok(echo.len()) {
                    // The socket has space for thousands of echoes, so it will not be of use again. It is still read: the watchdog
                    // may have sent that all has ended.
                    self.lease.stop();
                }
            }
        }
        if count == 0 {
            self.lease.on_disconnect();
            self.socket = None;
        }
    }
}
