//! The lease of a host: when its work has ended for certain, although the network may be cut. The module's essay has the proof.
//!
//! All times are nanoseconds on the clock of the machine that the type belongs to.

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// The time that a watchdog has to end the work of its host after the end of the lease.
pub const ENDING: u64 = SECOND;

/// The word that a watchdog sends when all work has ended. It is no stamp: a clock never shows it.
pub const ENDED: u64 = u64::MAX;

/// The state of a host, for its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostState {
    /// Stamps arrive.
    Answering,
    /// No stamp has arrived for a third of the fence, or the connection has ended. The work of the host may run.
    Silent,
    /// The watchdog has reported that all work has ended. Final.
    Ended,
    /// No stamp was echoed for so long that the lease is over, and the work has ended. Final.
    Fenced,
}

/// The driver's side of the lease of a host.
#[derive(Debug)]
pub struct DriverLease {
    fence: u64,
    /// The time at which the last stamp arrived; `None` before the first, and after the end of the connection.
    arrived: Option<u64>,
    /// The work has ended for certain at this time.
    over: u64,
    is_echoing: bool,
    state: HostState,
}

impl DriverLease {
    /// Create the lease of a host to which the driver has just connected. It is silent until the first stamp.
    pub fn new(now: u64, fence: u64, start_up: u64) -> Self {
        Self {
            fence,
            arrived: None,
            over: certain(now, start_up),
            is_echoing: true,
            state: HostState::Silent,
        }
    }

    /// Return the current state.
    pub fn state(&self) -> HostState {
        self.state
    }

    /// Return whether the state is final.
    pub fn is_final(&self) -> bool {
        matches!(self.state, HostState::Ended | HostState::Fenced)
    }

    /// Note a stamp. Return whether it must be echoed at once; `now` was read after it had arrived.
    pub fn on_stamp(&mut self, now: u64) -> bool {
        self.advance(now);
        if self.is_final() {
            return false;
        }
        self.arrived = Some(now);
        self.state = HostState::Answering;
        if self.is_echoing {
            // Before the echo is sent, and whether or not it can be.
            self.over = certain(now, self.fence);
        }
        self.is_echoing
    }

    /// Note that the watchdog has reported the end of all work.
    pub fn on_ended(&mut self) {
        if !self.is_final() {
            self.state = HostState::Ended;
        }
    }

    /// Note that the connection has ended without such a report.
    pub fn on_disconnect(&mut self) {
        self.is_echoing = false;
        self.arrived = None;
        if !self.is_final() {
            self.state = HostState::Silent;
        }
    }

    /// Echo no stamp any more, so that the lease ends.
    pub fn stop(&mut self) {
        self.is_echoing = false;
    }

    /// Note the time.
    pub fn advance(&mut self, now: u64) {
        if self.is_final() {
            return;
        }
        if now >= self.over {
            self.state = HostState::Fenced;
        } else if self
            .arrived
            .is_some_and(|arrived| now >= arrived + self.fence / 3)
        {
            self.state = HostState::Silent;
        }
    }

    /// Return the time at which `advance` changes the state if nothing arrives.
    pub fn deadline(&self) -> u64 {
        match (self.state, self.arrived) {
            (HostState::Answering, Some(arrived)) => self.over.min(arrived + self.fence / 3),
            _ => self.over,
        }
    }
}

/// Return the time at which the work has ended for certain, if its lease of this length has begun before `now`.
fn certain(now: u64, length: u64) -> u64 {
    // The rates of two clocks differ by far less than a twentieth.
    now + length + length / 20 + ENDING
}

/// The watchdog's side of the lease of a host.
#[derive(Debug)]
pub struct WatchdogLease {
    fence: u64,
    end: u64,
    /// The last stamp that was made, and the last one that was echoed; 0 before the first.
    stamp: u64,
    echoed: u64,
}

impl WatchdogLease {
    /// Create the lease of a host that has just started. A driver must connect within the start-up time.
    pub fn new(now: u64, fence: u64, start_up: u64) -> Self {
        Self {
            fence,
            end: now + start_up,
            stamp: 0,
            echoed: 0,
        }
    }

    /// Return the time at which the lease ends.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Return whether the lease is over. It is not prolonged then.
    pub fn is_over(&self, now: u64) -> bool {
        now >= self.end
    }

    /// Return the time of the next stamp; 0 for the first.
    pub fn next_stamp(&self) -> u64 {
        match self.stamp {
            0 => 0,
            stamp => stamp + self.fence / 12,
        }
    }

    /// Make a stamp, which the caller sends at once.
    pub fn make_stamp(&mut self, now: u64) -> u64 {
        if self.stamp == 0 {
            // The driver may echo this one, and the echo may be lost: from then on it counts with the fence.
            self.end = self.end.min(now + self.fence);
        }
        self.stamp = now.max(self.stamp + 1);
        self.stamp
    }

    /// Note an echo. Return false if it is no later one of the stamps that were made; the connection is of no use then.
    pub fn on_echo(&mut self, stamp: u64, now: u64) -> bool {
        if stamp <= self.echoed || stamp > self.stamp {
            return false;
        }
        self.echoed = stamp;
        if !self.is_over(now) {
            self.end = stamp + self.fence;
        }
        true
    }
}
