//! `RateController`: computes the rate of one resource. `adaptation.rs` feeds it and applies the rate.

use crate::capacity::Time;
use crate::capacity::adaptive::Outcome;
use std::time::Duration;

/// The range of a rate, in units a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateRange {
    /// The rate before the first sample.
    pub start: f64,
    /// The least rate.
    pub minimum: f64,
    /// The greatest rate.
    pub maximum: f64,
}

/// One call that has ended.
#[derive(Clone, Copy, Debug)]
pub struct RateSample {
    /// The number of the call. Calls are numbered in the order in which they began.
    pub begun: u64,
    /// The number that the next call will have.
    pub next: u64,
    /// The current time.
    pub now: Time,
    /// The outcome.
    pub outcome: Outcome,
    /// Whether a request waits that would be granted if the rate were higher.
    pub is_held_back: bool,
}

/// The limit that an answer of the server states.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StatedLimit {
    /// The limit; infinite if it is not stated.
    pub limit: f64,
    /// The rest of it.
    pub remaining: f64,
    /// The seconds until all of it is restored; zero if it is, or will be within the unit of time.
    pub reset: f64,
}

/// The factor of a decrease, the start below the target, and the time to the target in seconds.
const DECREASE: f64 = 0.8;
const BELOW_TARGET: f64 = 0.9;
const TO_TARGET: f64 = 12.0;
/// The part of `TO_TARGET` that one call counts at most.
const CALLS_TO_TARGET: f64 = 100.0;
/// The calls between two decreases after which the second one is half of that after few.
const CALLS: f64 = 10.0;
/// The seconds and the calls in which the rate doubles before the first decrease, and the factor of that decrease.
const DOUBLING: f64 = 1.5;
const DOUBLING_CALLS: f64 = 4.0;
const FIRST_DECREASE: f64 = 0.5;
/// The least time between two decreases, in seconds, whose mean rate is a target; and the least part of it in which work was held back.
const SPAN: f64 = 5.0;
const HELD_BACK: f64 = 0.8;
/// The accepted calls after which decreases are no longer in a row.
const ACCEPTED: u32 = 4;
/// The decreases in a row that are the answer to an outage, and not to a rate.
const OUTAGE: u32 = 5;
/// A refused call contradicts the stated limits if this part of them was left.
const LEFT: f64 = 0.2;
/// The rest of a stated limit is spent in no less than this many seconds, and than this many delays of answers.
const LEAST_SPENDING: f64 = 1.0;
const DELAYS: f64 = 3.0;
/// The factor of the longest delay with each shorter one.
const DELAY_DECAY: f64 = 0.95;

/// The curve of the rate after the first decrease.
#[derive(Clone, Copy, Debug)]
struct Curve {
    target: f64,
    /// The progress since the decrease, in seconds.
    progress: f64,
}

/// The rate since the last decrease.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    since: Option<Time>,
    /// The sum of rate x time while work was held back, and that time.
    amount: f64,
    held_back: f64,
    calls: u32,
}

/// Computes an auto rate; the [module](super) explains how.
#[derive(Clone, Debug)]
pub struct RateController {
    range: RateRange,
    rate: f64,
    /// `None` before the first decrease.
    curve: Option<Curve>,
    /// The target before decreases in a row.
    known: f64,
    span: Span,
    /// Refused calls count from this one on.
    first_counted: u64,
    setbacks: u32,
    accepted: u32,
    /// The time of the last sample, and whether work was held back.
    last: Option<(Time, bool)>,
    /// The last stated limit, and the call whose answer stated it.
    stated: Option<(u64, StatedLimit)>,
    /// The greatest rate that it allows.
    most: f64,
    /// Whether stated limits may raise the rate.
    is_trusted: bool,
    /// The recent longest time from a grant to its answer, in seconds.
    delay: f64,
}

impl RateController {
    /// Create a controller at the start of its range.
    #[must_use]
    pub fn new(range: RateRange) -> Self {
        Self {
            range,
            rate: range.start,
            curve: None,
            known: 0.0,
            span: Span::default(),
            first_counted: 0,
            setbacks: 0,
            accepted: 0,
            last: None,
            stated: None,
            most: f64::INFINITY,
            is_trusted: true,
            delay: 0.0,
        }
    }

    /// Return the rate, in units a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.rate.max(self.range.minimum).min(self.range.maximum)
    }

    /// Return the range.
    #[must_use]
    pub fn range(&self) -> RateRange {
        self.range
    }

    /// Change the range; the rate is kept as far as the range allows.
    pub fn set_range(&mut self, range: RateRange) {
        self.range = range;
    }

    /// Return the number of decreases in a row, between which hardly a call was accepted. 0 if a lower rate does not help: the last one was
    /// made at the minimum, or there were too many.
    #[must_use]
    pub fn setbacks(&self) -> u32 {
        if self.setbacks < OUTAGE {
            self.setbacks
        } else {
            0
        }
    }

    /// Learn from a limit that the answer to a call states.
    ///
    /// `delay` is the time since the grant. An answer to a call that began before that of the last one is ignored.
    pub fn stated(&mut self, begun: u64, delay: Option<Duration>, stated: StatedLimit) {
        if self.is_paused() || self.stated.is_some_and(|(last, _)| begun < last) {
            return;
        }
        self.stated = Some((begun, stated));
        if let Some(delay) = delay {
            self.delay = delay.as_secs_f64().max(self.delay * DELAY_DECAY);
        }
        let StatedLimit {
            limit,
            remaining,
            reset,
        } = stated;
        let rest = remaining.max(1.0);
        let spending = LEAST_SPENDING.max(DELAYS * self.delay);
        let refill = if reset > 0.0 {
            rest.min(limit - remaining).max(0.0) / reset
        } else {
            0.0
        };
        let least = (rest / reset.max(spending)).max(refill);
        self.most = if reset > 0.0 {
            rest / reset
        } else {
            f64::INFINITY
        };
        let raised = if self.is_trusted {
            self.rate().max(least)
        } else {
            self.rate()
        };
        self.set_stated(raised.min(self.most));
    }

    /// Learn from a call that has ended.
    pub fn sample(&mut self, sample: RateSample) {
        match sample.outcome {
            _ if self.is_paused() => {}
            Outcome::Failed | Outcome::TimedOut => {}
            Outcome::Throttled if sample.begun < self.first_counted => {
                self.setbacks = self.setbacks.max(1);
            }
            Outcome::Throttled => self.decrease(sample),
            Outcome::Done | Outcome::Rejected => self.accepted(sample),
        }
    }

    /// Return whether the maximum is 0, as it is while the user pauses the rate. The learned state is kept.
    fn is_paused(&self) -> bool {
        self.range.maximum <= 0.0
    }

    fn accepted(&mut self, sample: RateSample) {
        let held = sample.is_held_back;
        let elapsed = match self.last {
            Some((last, true)) if held => sample.now.since(last).as_secs_f64(),
            _ => 0.0,
        };
        self.last = Some((sample.now, held));
        if sample.begun >= self.first_counted {
            self.span.calls = self.span.calls.saturating_add(1);
            self.accepted += 1;
            if self.accepted >= ACCEPTED {
                self.setbacks = 0;
            }
        }
        self.span.amount += self.rate() * elapsed;
        self.span.held_back += elapsed;
        if held {
            self.grow(elapsed);
        }
    }

    fn grow(&mut self, elapsed: f64) {
        let rate = self.rate();
        let doubled = rate * (elapsed / DOUBLING).min(1.0 / DOUBLING_CALLS).exp2();
        let higher = match &mut self.curve {
            None => doubled,
            Some(curve) if rate < self.known / 2.0 => {
                (curve.target, curve.progress) = (doubled, TO_TARGET);
                doubled
            }
            Some(curve) => {
                curve.progress += elapsed.min(TO_TARGET / CALLS_TO_TARGET);
                curve.rate()
            }
        };
        if higher > rate {
            self.rate = higher.min(self.most.max(rate)).min(self.range.maximum);
        }
    }

    /// Begin the one decrease of a congestion event.
    fn decrease(&mut self, sample: RateSample) {
        let before = self.rate();
        if let Some((_, stated)) = self.stated {
            self.is_trusted &= stated.remaining <= stated.limit * LEFT;
        }
        let target = if self.curve.is_none() {
            before * FIRST_DECREASE
        } else {
            let less = (CALLS / f64::from(self.span.calls.max(1))).min(1.0 - DECREASE);
            (before * (1.0 - less)).max(self.span.mean(sample.now).min(before))
        };
        if self.setbacks == 0 {
            self.known = target;
        }
        self.curve = Some(Curve {
            target,
            progress: 0.0,
        });
        self.rate = (target * BELOW_TARGET).max(self.range.minimum);
        self.first_counted = sample.next;
        self.setbacks = if self.rate() < before {
            self.setbacks + 1
        } else {
            0
        };
        self.accepted = 0;
        self.last = None;
        self.span = Span {
            since: Some(sample.now),
            ..Span::default()
        };
    }

    /// Set a rate that stated limits require, and continue the curve from there.
    fn set_stated(&mut self, rate: f64) {
        self.rate = rate.max(self.range.minimum).min(self.range.maximum);
        if let Some(curve) = &mut self.curve {
            curve.move_to(self.rate);
        }
    }
}

impl Curve {
    /// The factor of the cube.
    const STEEPNESS: f64 = (1.0 - BELOW_TARGET) / (TO_TARGET * TO_TARGET * TO_TARGET);

    fn rate(&self) -> f64 {
        let from_target = self.progress - TO_TARGET;
        self.target * (1.0 + Self::STEEPNESS * from_target.powi(3))
    }

    /// Continue at a rate. One above the target becomes the target.
    fn move_to(&mut self, rate: f64) {
        if rate > self.target {
            (self.target, self.progress) = (rate, TO_TARGET);
        } else {
            let below = (1.0 - rate / self.target) / Self::STEEPNESS;
            self.progress = (TO_TARGET - below.cbrt()).max(0.0);
        }
    }
}

impl Span {
    /// Return the mean rate since the last decrease; 0 if it is unknown.
    fn mean(&self, now: Time) -> f64 {
        let Some(since) = self.since else {
            return 0.0;
        };
        let time = now.since(since).as_secs_f64();
        if time >= SPAN && self.held_back >= HELD_BACK * time {
            self.amount / time
        } else {
            0.0
        }
    }
}
