//! The shares of siblings that always request more: hours of simulation, over mixes of weights, hold times and limits.
#![cfg(not(loom))]

mod common;

use common::rig::{Rig, SLOTS};
use common::world::{Hold, World, as_float, jain, quantile};

/// Listed, to make a failure reproducible.
const SEEDS: [u64; 3] = [1, 2, 3];
const LIMITS: [u64; 4] = [3, 7, 13, 61];
const WINDOW: f64 = 100.0;
/// More than any limit ever grants to one sibling.
const AMPLE: u64 = 1_000;

/// Four siblings. The last has two children of its own, with weights 1 and 3.
struct Mix {
    weights: [f64; 4],
    limit: u64,
    exponential: bool,
    /// The number of waiting jobs of each.
    backlog: usize,
    seed: u64,
}

/// The measurements of one mix.
#[derive(Debug)]
struct Outcome {
    /// Jain's index over the whole run.
    jain: f64,
    /// The median of Jain's index over the windows.
    median: f64,
    /// The received share of the heavier child, as a multiple of that of the lighter one.
    ratio: f64,
    /// The largest lag between two siblings, as a fraction of the allowed lag.
    lag: f64,
}

impl Mix {
    fn run(&self) -> Outcome {
        let mut rig = Rig::new();
        let root = rig.root(&[(SLOTS, self.limit)]);
        let four = self
            .weights
            .map(|weight| rig.child(root, &[(SLOTS, AMPLE)], weight));
        let inner = [1.0, 3.0].map(|weight| rig.child(four[3], &[(SLOTS, AMPLE)], weight));
        let mut world = World::new(rig, self.seed);
        let hold = |mean| {
            if self.exponential {
                Hold::Exponential(mean)
            } else {
                Hold::Always(mean)
            }
        };
        let means = [
            (four[0], 1.0),
            (four[1], 4.0),
            (four[2], 0.25),
            (inner[0], 1.0),
            (inner[1], 8.0),
        ];
        let loads =
            means.map(|(spot, mean)| world.load(spot, &[(SLOTS, 1)], hold(mean), self.backlog));
        // They start one after the other, not at the same time.
        let mut order = loads;
        for last in (1..order.len()).rev() {
            order.swap(last, world.dice.below(last + 1));
        }
        for load in order {
            let pause = world.dice.unit();
            world.run_until(world.now() + pause, |_, _| {});
            world.switch(load, true);
        }

        let start = self.shares(&world);
        let longest = [1.0, 4.0, 0.25, 8.0].map(|mean| hold(mean).longest());
        let mut lags = Lags::new(start);
        let mut windows = Vec::new();
        let begin = world.now();
        let length = (60_000.0 / as_float(self.limit)).max(2_000.0);
        let mut before = start;
        let mut end = begin;
        while end < begin + length {
            end += WINDOW;
            world.run_until(end, |world, _| lags.note(self.shares(world)));
            let after = self.shares(&world);
            windows.push(jain(&minus(after, before)));
            before = after;
        }
        Outcome {
            jain: jain(&minus(before, start)),
            median: quantile(&windows, 0.5),
            ratio: world.loads[loads[4]].received / world.loads[loads[3]].received,
            lag: lags.worst(|f, g| {
                let [f, g] = [f, g].map(|n| longest[n] / self.weights[n]);
                (as_float(self.limit) + 1.0) * (f + g)
            }),
        }
    }

    /// Return the amount that each of the four has received so far, divided by its weight.
    fn shares(&self, world: &World) -> [f64; 4] {
        let got = |load: usize| world.loads[load].received;
        let received = [got(0), got(1), got(2), got(3) + got(4)];
        std::array::from_fn(|n| received[n] / self.weights[n])
    }
}

/// The largest drift of each pair of siblings over any interval: the span of the difference between them.
struct Lags {
    start: [f64; 4],
    least: [[f64; 4]; 4],
    most: [[f64; 4]; 4],
}

impl Lags {
    fn new(start: [f64; 4]) -> Self {
        Self {
            start,
            least: [[0.0; 4]; 4],
            most: [[0.0; 4]; 4],
        }
    }

    fn note(&mut self, shares: [f64; 4]) {
        let shares = minus(shares, self.start);
        for f in 0..4 {
            for g in 0..f {
                let lag = shares[f] - shares[g];
                self.least[f][g] = self.least[f][g].min(lag);
                self.most[f][g] = self.most[f][g].max(lag);
            }
        }
    }

    fn worst(&self, allowed: impl Fn(usize, usize) -> f64) -> f64 {
        let pairs = (0..4).flat_map(|f| (0..f).map(move |g| (f, g)));
        let parts = pairs.map(|(f, g)| (self.most[f][g] - self.least[f][g]) / allowed(f, g));
        parts.fold(0.0, f64::max)
    }
}

fn minus(after: [f64; 4], before: [f64; 4]) -> [f64; 4] {
    std::array::from_fn(|n| after[n] - before[n])
}

fn run_all(weights: [f64; 4], exponential: bool) {
    run_with(weights, exponential, 10);
}

fn run_with(weights: [f64; 4], exponential: bool, backlog: usize) {
    for limit in LIMITS {
        for seed in SEEDS {
            let outcome = Mix {
                weights,
                limit,
                exponential,
                backlog,
                seed,
            }
            .run();
            let name = format!(
                "weights {weights:?}, exponential {exponential}, backlog {backlog}, limit {limit}, seed {seed}: {outcome:.4?}"
            );
            println!("{name}");
            assert!(outcome.jain >= 0.999, "in the long run: {name}");
            assert!(outcome.median >= 0.99, "in the median window: {name}");
            assert!(
                (outcome.ratio / 3.0 - 1.0).abs() <= 0.02,
                "in the group: {name}"
            );
            assert!(outcome.lag <= 1.0, "lag: {name}");
        }
    }
}

#[test]
fn power_of_two_weights_exponential() {
    run_all([1.0, 2.0, 4.0, 1.0], true);
}

#[test]
fn power_of_two_weights_constant() {
    run_all([1.0, 2.0, 4.0, 1.0], false);
}

#[test]
fn odd_weights_exponential() {
    run_all([1.0, 1.37, 2.6, 0.7], true);
}

#[test]
fn odd_weights_constant() {
    run_all([1.0, 1.37, 2.6, 0.7], false);
}

#[test]
fn nearly_equal_weights_exponential() {
    run_all([1.0, 1.5, 1.0, 1.0], true);
}

#[test]
fn nearly_equal_weights_constant() {
    run_all([1.0, 1.5, 1.0, 1.0], false);
}

/// A child that requests the next permit only after the last grant is briefly ineligible at each grant. It must not lose the
/// credit for holds that were shorter than estimated.
#[test]
fn backlog_of_one_exponential() {
    run_with([1.0, 2.0, 4.0, 1.0], true, 1);
}

#[test]
fn backlog_of_one_constant() {
    run_with([1.0, 2.0, 4.0, 1.0], false, 1);
}
