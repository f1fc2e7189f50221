//! `Controller`: computes the limit of one node from the outcomes of calls. `adaptation.rs` feeds it and applies the limit.

use super::window::{Level, Window};
use std::time::Duration;

/// The range of an adaptive limit, in slots.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaptiveRange {
    /// The limit before the first sample.
    pub start: f64,
    /// The least limit.
    pub minimum: f64,
    /// The greatest limit.
    pub maximum: f64,
}

/// The outcome of a call, or of work in general.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It returned a result.
    Done,
    /// The server refused it for now.
    Throttled,
    /// It ran longer than its timeout.
    TimedOut,
    /// The server answered that this call is wrong, which says nothing about the load.
    Rejected,
    /// It failed for another reason, which says nothing about the load.
    Failed,
}

/// One call that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The number of the call. Calls are numbered in the order in which they began.
    pub begun: u64,
    /// The number that the next call will have.
    pub next: u64,
    /// The duration, if it was measured.
    pub latency: Option<Duration>,
    /// The outcome.
    pub outcome: Outcome,
    /// Whether a request waits that would be granted if the limit were higher.
    pub is_held_back: bool,
}

/// The factor of a decrease after a throttled call or timeouts.
const DECREASE: f64 = 0.9;
/// The factor of a trial with a lower limit.
const TRIAL: f64 = 0.75;
/// The greatest factor of an increase.
const GROWTH: f64 = 1.5;
/// The least number of calls in a round.
const ROUND: f64 = 10.0;
/// The most rounds to wait below a limit that was too high.
const PATIENCE: u32 = 4;
/// The fewest and the most rounds at one limit before a trial with a lower one.
const TRIALS: (u32, u32) = (16, 64);
/// Congestion: the part of the calls of a round that time out.
const TIMEOUTS: f64 = 0.1;
/// The most rounds of a trial.
const TRIAL_ROUNDS: u32 = 4;
/// The least rise of the median at one limit that starts a trial, as a logarithm: 25%.
const RISE: f64 = 0.223;

/// Computes an adaptive limit; the [module](super) explains how.
#[derive(Clone, Debug)]
pub struct Controller {
    range: AdaptiveRange,
    limit: f64,
    /// Throttled calls and timeouts count from this call on.
    first_counted: u64,
    /// The decreases after throttled calls since the last complete round of results.
    setbacks: u32,
    /// The number of calls to ignore after a change, while calls of the old limit still end.
    skipped: f64,
    /// The calls of the current round, those of them that timed out, and whether one of them held a request back.
    calls: f64,
    timeouts: f64,
    is_held_back: bool,
    window: Window,
    /// The level of the current limit, if it is that of the reference.
    current: Option<Level>,
    /// The level that the current one is compared with.
    reference: Option<Level>,
    /// Whether the limit is on trial below the reference.
    is_trial: bool,
    /// The rounds at one limit since the last trial, and the number after which the next one is due.
    settled: u32,
    trial_after: u32,
    /// The next increase.
    step: f64,
    /// The last limit that was too high.
    ceiling: Option<f64>,
    /// The rounds to wait just below the ceiling, and those waited.
    patience: u32,
    waited: u32,
}

impl Controller {
    /// Create a controller at the start of its range.
    #[must_use]
    pub fn new(range: AdaptiveRange) -> Self {
        Self {
            range,
            limit: range.start,
            first_counted: 0,
            setbacks: 0,
            skipped: range.start,
            calls: 0.0,
            timeouts: 0.0,
            is_held_back: false,
            window: Window::default(),
            current: None,
            reference: None,
            is_trial: false,
            settled: 0,
            trial_after: TRIALS.0,
            step: 1.0,
            ceiling: None,
            patience: 1,
            waited: 0,
        }
    }

    /// Return the limit, in slots.
    #[must_use]
    pub fn limit(&self) -> f64 {
        self.limit.max(self.range.minimum).min(self.range.maximum)
    }

    /// Return the range.
    #[must_use]
    pub fn range(&self) -> AdaptiveRange {
        self.range
    }

    /// Return the number of decreases after throttled calls since the last complete round of results. 0 if the last throttled call
    /// could not lower the limit, which was at its minimum.
    #[must_use]
    pub fn setbacks(&self) -> u32 {
        self.setbacks
    }

    /// Change the range; the limit is kept as far as the range allows.
    pub fn set_range(&mut self, range: AdaptiveRange) {
        let before = self.limit();
        self.range = range;
        // The range bounds what `limit` returns. A limit that was learned returns with a greater maximum.
        #[expect(clippy::float_cmp, reason = "unchanged or not")]
        if self.limit() != before {
            self.restart();
        }
    }

    /// Raise the limit, and the minimum, to a cost, as far as the maximum allows.
    pub fn require(&mut self, cost: f64) {
        let minimum = self.range.minimum.max(cost.min(self.range.maximum));
        self.set_range(AdaptiveRange {
            minimum,
            ..self.range
        });
    }

    /// Learn from a call that has ended.
    pub fn sample(&mut self, sample: Sample) {
        match sample.outcome {
            Outcome::Failed | Outcome::Rejected => return,
            Outcome::Throttled => {
                self.throttled(sample);
                return;
            }
            Outcome::TimedOut if sample.begun < self.first_counted => return,
            Outcome::TimedOut | Outcome::Done => {}
        }
        if self.skipped >= 1.0 {
            self.skipped -= 1.0;
            return;
        }
        self.calls += 1.0;
        self.is_held_back |= sample.is_held_back;
        if let Some(latency) = sample.latency {
            self.window.push(latency.as_secs_f64());
        }
        let round = self.limit().max(ROUND);
        if sample.outcome == Outcome::TimedOut {
            self.timeouts += 1.0;
            if self.timeouts >= (TIMEOUTS * round).max(2.0) {
                self.congested(self.limit() * DECREASE, sample.next);
                return;
            }
        }
        if self.calls >= round {
            self.close_round();
        }
    }

    fn throttled(&mut self, sample: Sample) {
        if sample.begun < self.first_counted {
            // The decrease of its event was its answer.
            self.setbacks = self.setbacks.max(1);
            return;
        }
        let before = self.limit();
        self.congested(before * DECREASE, sample.next);
        let is_lower = self.limit() < before;
        self.setbacks = if is_lower { self.setbacks + 1 } else { 0 };
    }

    fn close_round(&mut self) {
        self.setbacks = 0;
        let is_held_back = self.is_held_back;
        (self.calls, self.timeouts, self.is_held_back) = (0.0, 0.0, false);
        if !is_held_back {
            // Fewer calls ran than the limit allows: their latency says nothing about it, and a higher limit is of no use.
            self.window.drop_round();
            return;
        }
        let limit = self.limit();
        if let Some(level) = self.window.close_round(limit) {
            let Some(reference) = self.reference else {
                self.reference = Some(level);
                return self.grow();
            };
            if self.is_trial {
                return self.judge_trial(reference, level);
            }
            if self.is_congested(reference, level) {
                return;
            }
            self.settled += 1;
            if self.settled >= self.trial_after {
                return self.begin_trial(level);
            }
        }
        self.grow();
    }

    /// Compare the limit with the reference, and change it if it is too high. Return whether it was changed.
    fn is_congested(&mut self, reference: Level, level: Level) -> bool {
        let rise = level.median - reference.median;
        let error = level.error.hypot(reference.error);
        let more = (level.limit / reference.limit).ln();
        if more > 0.1 {
            if rise > (more / 2.0).max(2.5 * error) {
                let lower = (level.limit * (-rise).exp()).max(level.limit / 2.0);
                self.trial_after = TRIALS.0;
                self.lower(lower.max(reference.limit * TRIAL));
                return true;
            }
            if rise + error < more / 2.0 {
                self.reference = Some(level);
            }
        } else if more < -0.2 {
            self.reference = Some(level);
        } else if rise > RISE.max(3.0 * error) {
            self.begin_trial(level);
            return true;
        } else if more <= 0.0 {
            self.current = Some(level);
        }
        false
    }

    /// Try a lower limit: if the latency falls with it, the throughput stays, and the limit was too high.
    fn begin_trial(&mut self, reference: Level) {
        let lower = (reference.limit * TRIAL).floor();
        self.settled = 0;
        if lower < self.range.minimum.max(1.0) {
            self.is_trial = false;
            return;
        }
        self.reference = Some(reference);
        self.is_trial = true;
        self.begin_level(lower);
    }

    fn judge_trial(&mut self, reference: Level, level: Level) {
        self.settled += 1;
        let fall = reference.median - level.median;
        let error = level.error.hypot(reference.error);
        let less = (reference.limit / level.limit).ln();
        if fall > (less / 2.0).max(2.0 * error) {
            self.ceiling = Some(reference.limit);
            self.trial_after = TRIALS.0;
            (self.patience, self.waited, self.step) = (1, 0, 1.0);
            self.begin_trial(level);
            if !self.is_trial {
                self.grow();
            }
        } else if fall < -RISE.max(3.0 * error) {
            // The latency rose meanwhile, so the comparison says nothing.
            self.begin_trial(level);
        } else if fall + error < less / 2.0 || self.settled >= TRIAL_ROUNDS {
            self.is_trial = false;
            self.settled = 0;
            self.trial_after = (self.trial_after * 2).min(TRIALS.1);
            self.begin_level(reference.limit);
        }
    }

    /// Begin the one decrease of a congestion event.
    fn congested(&mut self, lower: f64, next: u64) {
        self.first_counted = next;
        self.lower(lower);
    }

    fn lower(&mut self, lower: f64) {
        let limit = self.limit();
        let is_known =
            (self.ceiling).is_some_and(|ceiling| (limit - ceiling).abs() <= (limit * 0.1).max(1.0));
        self.patience = if is_known {
            (self.patience * 2).min(PATIENCE)
        } else {
            1
        };
        self.ceiling = Some(limit);
        (self.waited, self.step) = (0, 1.0);
        self.is_trial = false;
        self.begin_level(lower.min(limit - 1.0));
    }

    /// Increase the limit after a round in which it held work back.
    fn grow(&mut self) {
        let limit = self.limit();
        let most = (limit * (GROWTH - 1.0)).floor().max(1.0);
        let higher = match self.ceiling {
            Some(ceiling) if limit + 1.0 < ceiling => {
                let half = ((ceiling - limit) / 2.0).floor().max(1.0);
                (limit + half.min(most)).min(ceiling - 1.0)
            }
            Some(ceiling) if limit < ceiling => {
                self.waited += 1;
                if self.waited <= self.patience {
                    return;
                }
                limit + 1.0
            }
            _ => {
                self.ceiling = None;
                let step = self.step;
                self.step *= 2.0;
                limit + step.min(most)
            }
        };
        if limit >= self.range.maximum {
            self.step = 1.0;
            return;
        }
        self.begin_level(higher);
    }

    /// Set the limit, and ignore the calls that end while calls of the old limit run.
    fn begin_level(&mut self, limit: f64) {
        if let (Some(level), Some(reference)) = (self.current.take(), self.reference)
            && !self.is_trial
        {
            self.reference = Some(reference.pooled(level));
        }
        let limit = limit.floor().clamp(
            self.range.minimum.min(self.range.maximum),
            self.range.maximum,
        );
        self.limit = limit;
        self.restart();
    }

    /// Begin to measure anew.
    fn restart(&mut self) {
        self.skipped = self.limit();
        (self.calls, self.timeouts, self.is_held_back) = (0.0, 0.0, false);
        self.window.clear();
    }
}
