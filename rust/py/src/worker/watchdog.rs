//! `run_watchdog`: the process next to a host that ends its work when the driver is not heard. For Linux.
//!
//! `headrace_core::worker` has the protocol of the lease, and [`groups`](super::groups) the way in which work is ended.
//!
//! # Life
//!
//! 1. It accepts connections until one has sent the token. That is the driver's; the listener is closed.
//! 2. It sends stamps and reads echoes. The work ends when the lease is over, when the driver closes its side or breaks the protocol, or when
//!    the host has ended.
//! 3. It kills the host and all groups until nothing of them can run. The host is dead before the last look at the cells, so no group is added
//!    after that. A worker that the host has started and not noted yet has no task, and its lifeline ends it.
//! 4. It sends the end, and returns.
//!
//! # When the watchdog itself does not run
//!
//! - It is killed: the lifelines of the workers and of the host wait for that (`end_with_driver`).
//! - It is stopped, or gets no processor: the end of the lease is also set in a timer of the kernel, for which the same lifelines wait
//!   (`open_lease_timer`). The watchdog moves the timer when the lease is prolonged. A stopped one does not, and so the workers end in time.
//! - The whole machine was suspended: when it resumes, the timer is due at once. Work may run until the watchdog or a lifeline does, some
//!   milliseconds, although the driver has reported its end meanwhile. No watchdog on the same machine can do better.
//!
//! All of it runs in one thread without the GIL, and nothing of it blocks but the wait.

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Duration;

use headrace_core::worker::lease::{ENDED, WatchdogLease};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::sockopt::set_tcp_nodelay;
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags, accept_with, recv, send, shutdown};
use rustix::process::{Signal, pidfd_send_signal};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::cells::Cells;
use super::clock;
use super::groups::Groups;
use super::words::Words;

/// The nanoseconds between two looks at the groups.
const LOOK: u64 = 250_000_000;

/// The most connections that have not sent the token; the oldest makes way.
const MAX_STRANGERS: usize = 16;

/// The longest wait for a driver that does not close its end, in nanoseconds.
const LINGER: u64 = 1_000_000_000;

/// Return a timer that becomes readable at the end of a lease, as a descriptor that is not inherited by default.
#[pyfunction]
pub(super) fn open_lease_timer() -> PyResult<RawFd> {
    Ok(new_timer()?.into_raw_fd())
}

fn new_timer() -> io::Result<OwnedFd> {
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    Ok(timerfd_create(TimerfdClockId::Boottime, flags)?)
}

/// Guard the work of a host until all of it has ended. The descriptors are taken over.
#[pyfunction]
#[pyo3(signature = (listener_fd, host_pid_fd, cells_fd, cells, ring, token, fence, start_up, lease_fd = None))]
#[allow(clippy::too_many_arguments)]
pub(super) fn run_watchdog(
    py: Python<'_>,
    listener_fd: RawFd,
    host_pid_fd: RawFd,
    cells_fd: RawFd,
    cells: usize,
    ring: usize,
    token: Vec<u8>,
    fence: f64,
    start_up: f64,
    lease_fd: Option<RawFd>,
) -> PyResult<()> {
    let fds = [listener_fd, host_pid_fd, cells_fd, lease_fd.unwrap_or(0)];
    if fds.iter().any(|fd| *fd < 0) {
        return Err(PyValueError::new_err("a descriptor must not be negative"));
    }
    // SAFETY: the caller hands over the ownership of the descriptors.
    let [listener, host, cells_file] =
        [listener_fd, host_pid_fd, cells_fd].map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    let timer = match lease_fd {
        // SAFETY: as above.
        Some(fd) => unsafe { OwnedFd::from_raw_fd(fd) },
        None => new_timer()?,
    };
    let (Some(fence), Some(start_up)) = (clock::nanoseconds(fence), clock::nanoseconds(start_up))
    else {
        return Err(PyValueError::new_err(
            "fence and start_up must be positive seconds",
        ));
    };
    if token.is_empty() {
        return Err(PyValueError::new_err("token must not be empty"));
    }
    let cells = Cells::new(cells_fd, cells, ring)?;
    drop(cells_file);
    rustix::io::ioctl_fionbio(&listener, true).map_err(io::Error::from)?;
    let watchdog = Watchdog {
        listener: Some(listener),
        strangers: vec![],
        driver: None,
        host,
        timer,
        groups: Groups::new(cells),
        token,
        lease: WatchdogLease::new(clock::now(), fence, start_up),
    };
    py.detach(|| watchdog.run());
    Ok(())
}

/// A connection that has not sent the token.
struct Stranger {
    socket: OwnedFd,
    received: Vec<u8>,
}

/// The connection of the driver.
struct Connection {
    socket: OwnedFd,
    words: Words,
    /// The bytes of the last word that the socket did not take.
    unsent: Vec<u8>,
}

impl Connection {
    /// Send a word, as far as the socket takes it. Return false if the connection has ended.
    fn send(&mut self, word: u64) -> bool {
        self.unsent.extend(word.to_le_bytes());
        self.flush()
    }

    fn flush(&mut self) -> bool {
        while !self.unsent.is_empty() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(&self.socket, &self.unsent, flags) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        true
    }
}

struct Watchdog {
    /// `None` when the driver is connected.
    listener: Option<OwnedFd>,
    strangers: Vec<Stranger>,
    driver: Option<Connection>,
    host: OwnedFd,
    /// Readable at the end of the lease; its time is the one of `lease`.
    timer: OwnedFd,
    groups: Groups,
    token: Vec<u8>,
    lease: WatchdogLease,
}

impl Watchdog {
    fn run(mut self) {
        set_timer(&self.timer, &self.lease);
        self.guard();
        self.end();
        self.report();
    }

    /// Return when the work must end.
    fn guard(&mut self) {
        let mut next_look = 0;
        loop {
            let now = clock::now();
            if self.lease.is_over(now) || is_readable(&self.host) {
                return;
            }
            if now >= next_look {
                next_look = now + LOOK;
                self.groups.look();
            }
            if !self.serve_driver(now) {
                return;
            }
            self.greet();
            let stamp = match &self.driver {
                Some(_) => self.lease.next_stamp(),
                None => u64::MAX,
            };
            // The timer has the end of the lease.
            self.wait(next_look.min(stamp));
        }
    }

    /// Wait until there is something to do, at most until this time.
    fn wait(&self, until: u64) {
        let sockets = (self.listener.iter())
            .chain(self.strangers.iter().map(|stranger| &stranger.socket))
            .chain(self.driver.iter().map(|driver| &driver.socket));
        let mut polled: Vec<PollFd<'_>> = sockets
            .chain([&self.host, &self.timer])
            .map(|fd| PollFd::new(fd, PollFlags::IN))
            .collect();
        let left = until.saturating_sub(clock::now());
        // A signal ends it early, which does no harm.
        let _ = poll(&mut polled, Some(&clock::timespec(left)));
    }

    /// Read echoes and send the stamp that is due. Return false if the connection of the driver has ended.
    fn serve_driver(&mut self, now: u64) -> bool {
        let Some(driver) = &mut self.driver else {
            return true;
        };
        let mut bytes = [0; 1024];
        match recv(&driver.socket, &mut bytes, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return false,
            Ok((count, _)) => {
                for echo in driver.words.feed(&bytes[..count]) {
                    if !self.lease.on_echo(echo, now) {
                        return false;
                    }
                }
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => return false,
        }
        // No stamp is made while one waits: it would only be older when it arrives.
        let is_connected = driver.flush();
        let is_due = driver.unsent.is_empty() && now >= self.lease.next_stamp();
        let stamp = is_due.then(|| self.lease.make_stamp(now));
        // Before the stamp is sent: the driver counts from the first one, also if this process is stopped here.
        set_timer(&self.timer, &self.lease);
        is_connected && stamp.is_none_or(|stamp| driver.send(stamp))
    }

    /// Accept connections, and take the first that has sent the token.
    fn greet(&mut self) {
        let Some(listener) = &self.listener else {
            return;
        };
        while let Ok(socket) = accept_with(listener, SocketFlags::CLOEXEC) {
            if self.strangers.len() == MAX_STRANGERS {
                self.strangers.remove(0);
            }
            self.strangers.push(Stranger {
                socket,
                received: vec![],
            });
        }
        let mut index = 0;
        while index < self.strangers.len() {
            let stranger = &mut self.strangers[index];
            let mut space = vec![0; self.token.len() - stranger.received.len()];
            match recv(&stranger.socket, &mut space, RecvFlags::DONTWAIT) {
                Ok((count, _)) if count > 0 => stranger.received.extend(&space[..count]),
                Err(Errno::INTR | Errno::AGAIN) => {}
                _ => {
                    self.strangers.remove(index);
                    continue;
                }
            }
            if stranger.received.len() < self.token.len() {
                index += 1;
                continue;
            }
            let stranger = self.strangers.remove(index);
            if is_equal(&stranger.received, &self.token) {
                // It is no TCP socket in some tests.
                let _ = set_tcp_nodelay(&stranger.socket, true);
                self.driver = Some(Connection {
                    socket: stranger.socket,
                    words: Words::default(),
                    unsent: vec![],
                });
                self.listener = None;
                self.strangers.clear();
            }
        }
    }

    /// Kill the host and the groups until none of their processes can run.
    fn end(&mut self) {
        let mut delay = Duration::from_millis(1);
        loop {
            let _ = pidfd_send_signal(&self.host, Signal::KILL);
            let is_host_dead = is_readable(&self.host);
            // After the death of the host was seen: it adds no group any more.
            let is_any_running = self.groups.kill();
            if is_host_dead && !is_any_running {
                return;
            }
            std::thread::sleep(delay);
            delay = (2 * delay).min(Duration::from_millis(50));
        }
    }

    /// Send the end, and wait until the driver has it: a socket that is closed with unread bytes would take it back.
    fn report(mut self) {
        // The driver has connected before the host could serve it, but may not have been accepted when the host has ended.
        self.greet();
        let Some(mut driver) = self.driver.take() else {
            return;
        };
        if !driver.send(ENDED) {
            return;
        }
        let until = clock::now() + LINGER;
        let mut is_shut = false;
        while clock::now() < until && driver.flush() {
            let mut events = PollFlags::IN;
            if driver.unsent.is_empty() {
                if !is_shut {
                    is_shut = shutdown(&driver.socket, Shutdown::Write).is_ok();
                }
            } else {
                events |= PollFlags::OUT;
            }
            let left = until.saturating_sub(clock::now());
            let mut polled = [PollFd::new(&driver.socket, events)];
            let _ = poll(&mut polled, Some(&clock::timespec(left)));
            match recv(&driver.socket, &mut [0; 1024], RecvFlags::DONTWAIT) {
                Ok((1.., _)) | Err(Errno::INTR | Errno::AGAIN) => {}
                _ => return,
            }
        }
    }
}

fn set_timer(timer: &OwnedFd, lease: &WatchdogLease) {
    let none = Timespec::default();
    let end = Itimerspec {
        it_interval: none,
        it_value: clock::timespec(lease.end()),
    };
    // It is a timer, and the time is valid.
    let _ = timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &end);
}

/// Return whether a descriptor is readable: of a process, whether it has ended.
fn is_readable(fd: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(fd, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// Compare in a time that does not depend on the place of the first difference.
fn is_equal(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b));
    one.len() == other.len() && std::hint::black_box(differences) == 0
}
