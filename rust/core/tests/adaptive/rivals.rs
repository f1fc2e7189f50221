//! The algorithms that are compared, after their publications: each gets the same calls and returns a limit.

use headrace_core::capacity::adaptive::{AdaptiveRange, Controller, Outcome, Sample};
use std::time::Duration;

/// A call that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub now: f64,
    pub begun: u64,
    pub next: u64,
    pub latency: f64,
    pub outcome: Outcome,
    pub is_held_back: bool,
    /// The calls that ran, including this one.
    pub held: u64,
}

impl Call {
    fn is_drop(&self) -> bool {
        matches!(self.outcome, Outcome::Throttled | Outcome::TimedOut)
    }
}

pub trait Algorithm {
    fn limit(&self) -> u64;
    fn ended(&mut self, call: &Call);
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(limit: f64) -> u64 {
    limit.floor() as u64
}

/// A fixed limit.
pub struct Fixed(pub u64);

impl Algorithm for Fixed {
    fn limit(&self) -> u64 {
        self.0
    }
    fn ended(&mut self, _call: &Call) {}
}

/// headrace.
pub struct Ours(pub Controller);

impl Ours {
    pub fn new(start: f64, minimum: f64, maximum: f64) -> Self {
        Self(Controller::new(AdaptiveRange {
            start,
            minimum,
            maximum,
        }))
    }
}

impl Algorithm for Ours {
    fn limit(&self) -> u64 {
        whole(self.0.limit())
    }
    fn ended(&mut self, call: &Call) {
        self.0.sample(Sample {
            begun: call.begun,
            next: call.next,
            latency: Some(Duration::from_secs_f64(call.latency)),
            outcome: call.outcome,
            is_held_back: call.is_held_back,
        });
    }
}

/// TCP Reno, congestion avoidance alone: one more per round, half after a loss, once per round.
pub struct Reno {
    limit: f64,
    maximum: f64,
    first: u64,
}

impl Reno {
    pub fn new(start: f64, maximum: f64) -> Self {
        Self {
            limit: start,
            maximum,
            first: 0,
        }
    }
}

impl Algorithm for Reno {
    fn limit(&self) -> u64 {
        whole(self.limit)
    }
    fn ended(&mut self, call: &Call) {
        if call.is_drop() {
            if call.begun >= self.first {
                self.limit = (self.limit / 2.0).max(1.0);
                self.first = call.next;
            }
        } else if call.outcome == Outcome::Done && call.is_held_back {
            self.limit = (self.limit + 1.0 / self.limit).min(self.maximum);
        }
    }
}

/// TCP Vegas as in Netflix's concurrency-limits (`VegasLimit` on windows of ten calls): an estimate of the queue from the least latency,
/// which is measured anew after a number of windows.
pub struct Vegas {
    limit: f64,
    maximum: f64,
    least: f64,
    windows: f64,
    first: u64,
    window: Vec<f64>,
    is_held_back: bool,
}

impl Vegas {
    pub fn new(start: f64, maximum: f64) -> Self {
        Self {
            limit: start,
            maximum,
            least: f64::INFINITY,
            windows: 0.0,
            first: 0,
            window: Vec::new(),
            is_held_back: false,
        }
    }
}

impl Algorithm for Vegas {
    fn limit(&self) -> u64 {
        whole(self.limit)
    }

    #[allow(clippy::cast_precision_loss)]
    fn ended(&mut self, call: &Call) {
        let log = self.limit.log10().max(1.0);
        if call.is_drop() {
            if call.begun >= self.first {
                self.limit = (self.limit - log).max(1.0);
                self.first = call.next;
            }
            return;
        }
        if call.outcome == Outcome::Failed {
            return;
        }
        self.window.push(call.latency);
        self.is_held_back |= call.is_held_back;
        if self.window.len() < 10 {
            return;
        }
        let mean = self.window.iter().sum::<f64>() / self.window.len() as f64;
        self.window.clear();
        self.windows += 1.0;
        if self.windows >= 30.0 * self.limit {
            (self.windows, self.least) = (0.0, mean);
        }
        self.least = self.least.min(mean);
        if !std::mem::take(&mut self.is_held_back) {
            return;
        }
        let queue = (self.limit * (1.0 - self.least / mean)).ceil();
        if queue <= log {
            self.limit += 6.0 * log;
        } else if queue < 3.0 * log {
            self.limit += log;
        } else if queue > 6.0 * log {
            self.limit -= log;
        }
        self.limit = self.limit.clamp(1.0, self.maximum);
    }
}

/// `Gradient2Limit` of Netflix's concurrency-limits: the ratio of a long and a short average of the latency.
pub struct Gradient {
    limit: f64,
    maximum: f64,
    long: f64,
    count: f64,
    first: u64,
    /// The window, in which the latencies are averaged.
    sum: f64,
    samples: f64,
    is_held_back: bool,
}

impl Gradient {
    pub fn new(start: f64, maximum: f64) -> Self {
        Self {
            limit: start,
            maximum,
            long: 0.0,
            count: 0.0,
            first: 0,
            sum: 0.0,
            samples: 0.0,
            is_held_back: false,
        }
    }
}

impl Algorithm for Gradient {
    fn limit(&self) -> u64 {
        whole(self.limit)
    }
    fn ended(&mut self, call: &Call) {
        if call.outcome == Outcome::Failed {
            return;
        }
        if call.is_drop() {
            if call.begun >= self.first {
                self.limit = (self.limit * 0.9).max(1.0);
                self.first = call.next;
            }
            return;
        }
        self.sum += call.latency;
        self.samples += 1.0;
        self.is_held_back |= call.is_held_back;
        if self.samples < 10.0 {
            return;
        }
        let short = self.sum / self.samples;
        let is_held_back = std::mem::take(&mut self.is_held_back);
        (self.sum, self.samples) = (0.0, 0.0);
        self.count += 1.0;
        let weight = 2.0 / (self.count.min(600.0) + 1.0);
        self.long = self.long * (1.0 - weight) + short * weight;
        if self.long / short > 2.0 {
            self.long *= 0.95;
        }
        if !is_held_back {
            return;
        }
        let gradient = (1.5 * self.long / short).clamp(0.5, 1.0);
        let target = self.limit * gradient + 4.0;
        self.limit = (self.limit * 0.8 + target * 0.2).clamp(1.0, self.maximum);
    }
}

/// The gradient of Envoy's adaptive concurrency: the least latency is measured at a limit of 3, every 60 s; the headroom is the square root
/// of the limit, and the latency is the 90th percentile there, here the median.
pub struct Envoy {
    limit: f64,
    maximum: f64,
    least: Option<f64>,
    measured: f64,
    window: Vec<f64>,
    window_began: f64,
    first: u64,
}

impl Envoy {
    pub fn new(start: f64, maximum: f64) -> Self {
        Self {
            limit: start,
            maximum,
            least: None,
            measured: 0.0,
            window: Vec::new(),
            window_began: 0.0,
            first: 0,
        }
    }
}

impl Algorithm for Envoy {
    fn limit(&self) -> u64 {
        if self.least.is_none() {
            3
        } else {
            whole(self.limit)
        }
    }
    fn ended(&mut self, call: &Call) {
        if call.outcome == Outcome::Failed || call.begun < self.first {
            return;
        }
        if call.is_drop() {
            self.limit = (self.limit * 0.9).max(3.0);
            self.first = call.next;
            return;
        }
        self.window.push(call.latency);
        let Some(least) = self.least else {
            if self.window.len() >= 15 {
                self.least = Some(median(&mut self.window));
                (self.measured, self.window_began, self.first) = (call.now, call.now, call.next);
            }
            return;
        };
        if call.now - self.measured >= 60.0 {
            self.least = None;
            self.window.clear();
            self.first = call.next;
            return;
        }
        if call.now - self.window_began < 1.0 || self.window.len() < 10 {
            return;
        }
        let gradient = (1.25 * least / median(&mut self.window)).clamp(0.5, 2.0);
        self.window_began = call.now;
        if call.is_held_back || gradient < 1.0 {
            let target = gradient * self.limit;
            self.limit = (target + target.sqrt()).clamp(3.0, self.maximum);
        }
    }
}

fn median(window: &mut Vec<f64>) -> f64 {
    window.sort_unstable_by(f64::total_cmp);
    let median = window[window.len() / 2];
    window.clear();
    median
}

/// The cubic function of AWS's adaptive retry mode, on a limit instead of a rate: 0.7 after throttling.
pub struct Cubic {
    limit: f64,
    maximum: f64,
    greatest: f64,
    since: f64,
    first: u64,
}

impl Cubic {
    pub fn new(start: f64, maximum: f64) -> Self {
        Self {
            limit: start,
            maximum,
            greatest: start,
            since: 0.0,
            first: 0,
        }
    }
}

impl Algorithm for Cubic {
    fn limit(&self) -> u64 {
        whole(self.limit)
    }
    fn ended(&mut self, call: &Call) {
        if call.is_drop() {
            if call.begun >= self.first {
                self.greatest = self.limit;
                self.limit = (self.limit * 0.7).max(1.0);
                (self.since, self.first) = (call.now, call.next);
            }
        } else if call.outcome == Outcome::Done && call.is_held_back {
            let turn = (self.greatest * 0.3 / 0.4).cbrt();
            let cubic = 0.4 * (call.now - self.since - turn).powi(3) + self.greatest;
            // As in AWS: at most twice what was measured.
            #[allow(clippy::cast_precision_loss)]
            let most = 2.0 * call.held as f64;
            self.limit = cubic
                .min(most)
                .clamp(self.limit.min(self.maximum), self.maximum);
        }
    }
}

/// After BBR: the limit is the greatest throughput of the last ten rounds times the least latency (here the least median of a round) of as
/// many, with gains of 1.25 and 0.75 in two rounds of eight.
pub struct Bbr {
    limit: f64,
    maximum: f64,
    /// The throughput and the median of each round.
    rounds: Vec<(f64, f64)>,
    round: Vec<f64>,
    began: f64,
    phase: usize,
    first: u64,
}

impl Bbr {
    pub fn new(start: f64, maximum: f64) -> Self {
        Self {
            limit: start,
            maximum,
            rounds: Vec::new(),
            round: Vec::new(),
            began: 0.0,
            phase: 0,
            first: 0,
        }
    }
}

impl Algorithm for Bbr {
    fn limit(&self) -> u64 {
        whole(self.limit)
    }

    #[allow(clippy::cast_precision_loss)]
    fn ended(&mut self, call: &Call) {
        if call.is_drop() {
            if call.begun >= self.first {
                self.limit = (self.limit * 0.85).max(1.0);
                self.first = call.next;
                self.rounds.clear();
            }
            return;
        }
        if call.outcome == Outcome::Failed {
            return;
        }
        self.round.push(call.latency);
        let done = self.round.len() as f64;
        if done < self.limit.max(10.0) || !call.is_held_back {
            return;
        }
        let rate = done / (call.now - self.began).max(1e-6);
        self.rounds.push((rate, median(&mut self.round)));
        self.began = call.now;
        if self.rounds.len() > 10 {
            self.rounds.remove(0);
        }
        let least = self
            .rounds
            .iter()
            .map(|round| round.1)
            .fold(f64::INFINITY, f64::min);
        let rate = self.rounds.iter().map(|round| round.0).fold(0.0, f64::max);
        self.phase = (self.phase + 1) % 8;
        let gain = match self.phase {
            0 => 1.25,
            1 => 0.75,
            _ => 1.0,
        };
        self.limit = (rate * least * gain).ceil().clamp(1.0, self.maximum);
    }
}
