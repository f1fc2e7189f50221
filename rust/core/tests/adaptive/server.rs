//! Servers and a client in virtual time: a client keeps as many calls running as an algorithm allows.

use crate::dice::Dice;
use crate::rivals::{Algorithm, Call};
use headrace_core::capacity::adaptive::Outcome;
use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

/// How a server treats more calls than it can serve at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Excess {
    /// It refuses them, after 20 ms.
    Refused,
    /// They wait in FIFO order.
    Queued,
}

/// A server.
#[derive(Clone, Debug)]
pub struct Server {
    pub excess: Excess,
    /// The calls that it serves at once, from each time on.
    pub capacity: Vec<(f64, usize)>,
    /// The mean of the service time, in seconds, and the standard deviation of its logarithm.
    pub mean: f64,
    pub sigma: f64,
    /// The parts of calls that fail after 50 ms, and that hang until the timeout.
    pub errors: f64,
    pub hangs: f64,
    pub timeout: f64,
}

impl Server {
    pub fn new(excess: Excess, capacity: usize) -> Self {
        Self {
            excess,
            capacity: vec![(0.0, capacity)],
            mean: 1.0,
            sigma: 0.25,
            errors: 0.0,
            hangs: 0.0,
            timeout: 30.0,
        }
    }

    pub fn at(&self, now: f64) -> usize {
        let past = self.capacity.iter().rev();
        past.clone()
            .find(|(from, _)| *from <= now)
            .map_or(0, |(_, capacity)| *capacity)
    }

    fn service(&self, dice: &mut Dice) -> f64 {
        let (u, v) = (dice.unit(), dice.unit());
        let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        self.mean * (self.sigma * normal - self.sigma * self.sigma / 2.0).exp()
    }
}

/// One call in the log of a run.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub started: f64,
    pub ended: f64,
    pub outcome: Outcome,
}

#[derive(Debug, Default)]
pub struct Log {
    pub calls: Vec<Entry>,
    /// The limit after each change.
    pub limits: Vec<(f64, u64)>,
}

impl Log {
    fn within(&self, from: f64, to: f64) -> impl Iterator<Item = &Entry> {
        self.calls
            .iter()
            .filter(move |call| call.ended >= from && call.ended < to)
    }

    /// Return the results a second.
    #[allow(clippy::cast_precision_loss)]
    pub fn throughput(&self, from: f64, to: f64) -> f64 {
        let done = self
            .within(from, to)
            .filter(|call| call.outcome == Outcome::Done);
        done.count() as f64 / (to - from)
    }

    /// Return the part of the calls that were throttled.
    #[allow(clippy::cast_precision_loss)]
    pub fn throttled(&self, from: f64, to: f64) -> f64 {
        let throttled = self
            .within(from, to)
            .filter(|call| call.outcome == Outcome::Throttled);
        throttled.count() as f64 / self.within(from, to).count().max(1) as f64
    }

    /// Return the median latency of the results.
    pub fn median(&self, from: f64, to: f64) -> f64 {
        let done = self
            .within(from, to)
            .filter(|call| call.outcome == Outcome::Done);
        let mut latencies: Vec<_> = done.map(|call| call.ended - call.started).collect();
        latencies.sort_unstable_by(f64::total_cmp);
        latencies
            .get(latencies.len() / 2)
            .copied()
            .unwrap_or(f64::NAN)
    }

    pub fn limit_at(&self, now: f64) -> u64 {
        let past = self.limits.iter().rev();
        past.clone()
            .find(|(from, _)| *from <= now)
            .map_or(0, |(_, limit)| *limit)
    }

    pub fn greatest_limit(&self, from: f64, to: f64) -> u64 {
        let within = self.limits.iter().filter(|(at, _)| *at >= from && *at < to);
        within
            .map(|(_, limit)| *limit)
            .max()
            .unwrap_or(0)
            .max(self.limit_at(from))
    }
}

#[derive(Debug)]
struct Event {
    at: f64,
    number: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    /// The demand may have changed.
    Wake,
    End {
        started: f64,
        begun: u64,
        outcome: Outcome,
        is_served: bool,
    },
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Event {}
impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Event {
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .at
            .total_cmp(&self.at)
            .then(other.number.cmp(&self.number))
    }
}

/// Run a client for `length` seconds. `demand` returns how many calls the client would run at once at a time.
pub fn run(
    server: &Server,
    algorithm: &mut dyn Algorithm,
    demand: &dyn Fn(f64) -> u64,
    length: f64,
    seed: u64,
) -> Log {
    let mut dice = Dice::new(seed);
    let mut events = BinaryHeap::new();
    let mut number = 0;
    let mut push = |events: &mut BinaryHeap<Event>, at, what| {
        number += 1;
        events.push(Event { at, number, what });
    };
    let mut second = 0.0;
    while second < length {
        push(&mut events, second, What::Wake);
        second += 0.5;
    }
    let mut log = Log::default();
    let (mut held, mut busy, mut next) = (0_u64, 0_usize, 0_u64);
    let mut waiting: VecDeque<(f64, u64)> = VecDeque::new();
    let mut last_limit = 0;
    while let Some(Event { at: now, what, .. }) = events.pop() {
        if now >= length {
            break;
        }
        if let What::End {
            started,
            begun,
            outcome,
            is_served,
        } = what
        {
            busy -= usize::from(is_served);
            log.calls.push(Entry {
                started,
                ended: now,
                outcome,
            });
            let is_held_back = held >= algorithm.limit() && demand(now) > held;
            algorithm.ended(&Call {
                now,
                begun,
                next,
                latency: now - started,
                outcome,
                is_held_back,
                held,
            });
            held -= 1;
        }
        while server.excess == Excess::Queued
            && busy < server.at(now)
            && let Some((started, begun)) = waiting.pop_front()
        {
            busy += 1;
            let outcome = Outcome::Done;
            let end = What::End {
                started,
                begun,
                outcome,
                is_served: true,
            };
            push(&mut events, now + server.service(&mut dice), end);
        }
        while held < algorithm.limit() && held < demand(now) {
            held += 1;
            next += 1;
            let (started, begun) = (now, next - 1);
            let mut end = |events: &mut BinaryHeap<Event>, delay, outcome, is_served| {
                let what = What::End {
                    started,
                    begun,
                    outcome,
                    is_served,
                };
                push(events, now + delay, what);
            };
            let chance = dice.unit();
            if chance < server.errors {
                end(&mut events, 0.05, Outcome::Failed, false);
            } else if chance < server.errors + server.hangs {
                end(&mut events, server.timeout, Outcome::TimedOut, false);
            } else if busy < server.at(now) {
                busy += 1;
                end(&mut events, server.service(&mut dice), Outcome::Done, true);
            } else if server.excess == Excess::Refused {
                end(&mut events, 0.02, Outcome::Throttled, false);
            } else {
                waiting.push_back((started, begun));
            }
        }
        if algorithm.limit() != last_limit {
            last_limit = algorithm.limit();
            log.limits.push((now, last_limit));
        }
    }
    log
}
