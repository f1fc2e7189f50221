//! The clock of leases.
//!
//! It must count while the machine sleeps: `CLOCK_BOOTTIME` on Linux. On macOS `CLOCK_MONOTONIC` does so; on other systems it is the nearest.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// Return the time in nanoseconds.
pub(super) fn now() -> u64 {
    let time = clock_gettime(CLOCK);
    // These clocks begin with the machine, so they are positive, and do not overflow in 580 years.
    #[allow(clippy::cast_sign_loss)]
    let (seconds, nanoseconds) = (time.tv_sec as u64, time.tv_nsec as u64);
    seconds * 1_000_000_000 + nanoseconds
}

/// Return nanoseconds as the type of the system calls.
pub(super) fn timespec(nanoseconds: u64) -> Timespec {
    // It fits: there are at most 2^64 / 10^9 seconds.
    Duration::from_nanos(nanoseconds)
        .try_into()
        .unwrap_or_default()
}

/// Return seconds as nanoseconds, or `None` if they are not positive or too many.
pub(super) fn nanoseconds(seconds: f64) -> Option<u64> {
    let duration = Duration::try_from_secs_f64(seconds).ok()?;
    let is_valid = !duration.is_zero() && duration < Duration::from_secs(1 << 30);
    is_valid.then_some(u64::try_from(duration.as_nanos()).ok()?)
}
