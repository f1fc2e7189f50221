//! `Time`, the trait `Clock` and two clocks. `Settings` (`config.rs`) names the clock of a tree, and `model/state.rs`
//! reads it.

use std::fmt::Debug;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A time, in whole nanoseconds since its clock began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The start of the clock.
    pub const ZERO: Self = Self(0);

    /// The last time, 584 years after the first.
    pub const MAX: Self = Self(u64::MAX);

    /// Return the time `nanos` nanoseconds after the start of the clock.
    #[inline]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanosecond since the clock began.
    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Return the duration since `earlier`; zero if that is later.
    #[inline]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Return the time `later` after this one, or [`MAX`](Self::MAX).
    #[inline]
    #[must_use]
    pub fn after(self, later: Duration) -> Self {
        Self(self.0.saturating_add(nanos(later)))
    }
}

/// Return the duration in nanoseconds, or the largest number that fits.
#[inline]
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The clock of a tree.
///
/// It is read under the tree's lock, so it must neither block nor call back. Read a clock that is foreign code before the call
/// instead, and set a [`ManualClock`] to its time. If it steps back, time stands still for the tree.
pub trait Clock: Debug + Send + Sync {
    /// Return the current time.
    fn now(&self) -> Time;
}

/// The machine's monotonic clock, from its first reading in this process on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Monotonic;

impl Clock for Monotonic {
    #[inline]
    fn now(&self) -> Time {
        static BEGAN: OnceLock<Instant> = OnceLock::new();
        let began = BEGAN.get_or_init(Instant::now);
        Time(nanos(began.elapsed()))
    }
}

/// A clock that moves only when it is set: for simulations, tests, and clocks that are foreign code.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// Return a clock at [`Time::ZERO`].
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Set it to `time`, unless that is in its past.
    pub fn set(&self, time: Time) {
        self.0.fetch_max(time.0, Ordering::SeqCst);
    }

    /// Advance it by `duration`.
    pub fn advance(&self, duration: Duration) {
        self.set(self.now().after(duration));
    }
}

impl Clock for ManualClock {
    #[inline]
    fn now(&self) -> Time {
        Time(self.0.load(Ordering::SeqCst))
    }
}
