//! `BreakerOptions`, the configuration of a breaker; `Breaker`, its record at a node; and `Tally`, the outcomes that it counts.
//! `policy/breaker.rs` opens and closes it.

use crate::capacity::Time;
use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::time::Duration;

/// The number of buckets of a [`Tally`].
const BUCKETS: u32 = 10;

/// The configuration of a breaker: see [`Tree::set_breaker`](crate::capacity::Tree::set_breaker).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerOptions {
    /// The failures that open it.
    pub trip: Trip,
    /// The time for which nothing is granted after that.
    pub open_for: Duration,
    /// The number of permits that are granted then, and the number of successes that close it. At least 1.
    pub probes: usize,
}

/// The failures that open a breaker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trip {
    /// This many failures without a success between them.
    Consecutive(u32),
    /// A share of the latest calls.
    Share {
        /// The share, above 0 and at most 1.
        share: f64,
        /// The least number of calls that the share is taken of. Of more than five times as many, only the latest count.
        minimum: u32,
        /// Earlier calls do not count.
        window: Duration,
    },
}

#[derive(Debug)]
pub(in crate::capacity) struct Breaker {
    pub(in crate::capacity) options: BreakerOptions,
    /// Permits with a lower ticket were granted before it opened, or before it was set; their outcomes do not count.
    pub(in crate::capacity) ticket: NonZeroU64,
    /// The last time at which it opened.
    pub(in crate::capacity) opened: Time,
    /// The outcomes of calls while it is closed.
    pub(in crate::capacity) tally: Tally,
}

impl Breaker {
    pub(in crate::capacity) fn new(options: BreakerOptions, ticket: NonZeroU64) -> Self {
        Self {
            options: BreakerOptions {
                probes: options.probes.max(1),
                ..options
            },
            ticket,
            opened: Time::ZERO,
            tally: Tally::default(),
        }
    }

    /// Count a call, and return whether the breaker must open.
    pub(in crate::capacity) fn count(&mut self, is_failure: bool, now: Time) -> bool {
        self.tally.add(self.options.trip, is_failure, now);
        // A success opens nothing: the service answers.
        is_failure && self.must_open(now)
    }

    fn must_open(&self, now: Time) -> bool {
        let (calls, failures) = self.counted(now);
        match self.options.trip {
            Trip::Consecutive(most) => failures >= most,
            Trip::Share { share, minimum, .. } => {
                calls >= minimum.max(1) && f64::from(failures) / f64::from(calls) >= share
            }
        }
    }

    /// Return the number of calls that count, and how many of them failed.
    pub(in crate::capacity) fn counted(&self, now: Time) -> (u32, u32) {
        match self.options.trip {
            Trip::Consecutive(_) => (self.tally.consecutive, self.tally.consecutive),
            Trip::Share { window, .. } => self.tally.sum(window, now),
        }
    }
}

/// Counts of the latest calls, in at most [`BUCKETS`] buckets. A bucket is closed after a tenth of the window, and when it has half of
/// the minimum. So the last buckets are bounded in time and in calls: an outage is noticed after as many calls, however many
/// succeeded before.
#[derive(Debug, Default)]
pub(in crate::capacity) struct Tally {
    /// The failures since the last success.
    consecutive: u32,
    /// Oldest first. Empty where only consecutive failures count.
    buckets: VecDeque<Bucket>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    from: Time,
    calls: u32,
    failures: u32,
}

impl Tally {
    fn add(&mut self, trip: Trip, is_failure: bool, now: Time) {
        let failures = u32::from(is_failure);
        self.consecutive = self.consecutive.saturating_add(1) * failures;
        let Trip::Share {
            minimum, window, ..
        } = trip
        else {
            return;
        };
        while (self.buckets.front()).is_some_and(|first| now.since(first.from) >= window) {
            self.buckets.pop_front();
        }
        let most = minimum.div_ceil(2).max(1);
        match self.buckets.back_mut() {
            Some(last) if last.calls < most && now.since(last.from) < window / BUCKETS => {
                last.calls += 1;
                last.failures += failures;
            }
            _ => {
                if self.buckets.len() >= BUCKETS as usize {
                    self.buckets.pop_front();
                }
                self.buckets.push_back(Bucket {
                    from: now,
                    calls: 1,
                    failures,
                });
            }
        }
    }

    fn sum(&self, window: Duration, now: Time) -> (u32, u32) {
        let counted = self.buckets.iter();
        counted
            .filter(|bucket| now.since(bucket.from) < window)
            .fold((0, 0), |(calls, failures), bucket| {
                (
                    u32::saturating_add(calls, bucket.calls),
                    u32::saturating_add(failures, bucket.failures),
                )
            })
    }

    pub(in crate::capacity) fn clear(&mut self) {
        self.consecutive = 0;
        self.buckets.clear();
    }
}
