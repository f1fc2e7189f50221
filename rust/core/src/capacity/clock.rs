use std::fmt::Debug;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A moment, in whole nanoseconds since its clock began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// When the clock began.
    pub const ZERO: Self = Self(0);

    /// The last moment there is, 584 years after the first.
    pub const MAX: Self = Self(u64::MAX);

    /// `nanos` nanoseconds after the clock began.
    #[inline]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock began.
    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not.
    #[inline]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The moment `later` after this one, or [`MAX`](Self::MAX).
    #[inline]
    #[must_use]
    pub fn after(self, later: Duration) -> Self {
        Self(self.0.saturating_add(nanos(later)))
    }
}

/// The duration in nanoseconds, or the most that fits.
#[inline]
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Tells a tree the time.
///
/// It is read under the tree's lock, so it must neither block nor call back. A clock that is foreign code is read before
/// the call instead, and a [`ManualClock`] set to what it said. Should it step back, the tree takes it as standing still.
pub trait Clock: Debug + Send + Sync {
    /// The moment now.
    fn now(&self) -> Time;
}

/// The machine's monotonic clock, since it was first read in this process.
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

/// A clock that moves when it is told to: for simulations, tests, and clocks that are foreign code.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that shows [`Time::ZERO`].
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Moves it on to `time`; it never goes back.
    pub fn set(&self, time: Time) {
        self.0.fetch_max(time.0, Ordering::SeqCst);
    }

    /// Moves it on by `duration`.
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
