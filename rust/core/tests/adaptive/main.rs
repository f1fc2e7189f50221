//! Algorithms for an adaptive limit, compared in virtual time, and the goals of headrace's.
//!
//! `cargo test -p headrace-core --test adaptive -- --ignored --nocapture` prints the table of the essay.
#![cfg(not(loom))]
// A single binary: public items here are for its other files.
#![allow(unreachable_pub, missing_docs)]

mod controller;
#[path = "../common/dice.rs"]
#[allow(dead_code)] // other tests use the rest
mod dice;
mod rivals;
mod server;

use rivals::{Algorithm, Bbr, Cubic, Envoy, Fixed, Gradient, Ours, Reno, Vegas};
use server::{Excess, Log, Server, run};

const SEEDS: std::ops::Range<u64> = 0..10;
const NAMES: [&str; 7] = [
    "headrace",
    "Reno",
    "Vegas",
    "Gradient2",
    "Envoy",
    "cubic",
    "BBR",
];
const MINUTE: f64 = 60.0;
const END: f64 = 600.0;

fn algorithm(name: &str) -> Box<dyn Algorithm> {
    let (start, maximum) = (10.0, 100.0);
    match name {
        "headrace" => Box::new(Ours::new(start, 1.0, maximum)),
        "Reno" => Box::new(Reno::new(start, maximum)),
        "Vegas" => Box::new(Vegas::new(start, maximum)),
        "Gradient2" => Box::new(Gradient::new(start, maximum)),
        "Envoy" => Box::new(Envoy::new(start, maximum)),
        "cubic" => Box::new(Cubic::new(start, maximum)),
        _ => Box::new(Bbr::new(start, maximum)),
    }
}

fn backlog(_now: f64) -> u64 {
    u64::MAX
}

fn simulate(server: &Server, name: &str, length: f64, seed: u64) -> Log {
    run(server, &mut *algorithm(name), &backlog, length, seed)
}

fn fixed(server: &Server, limit: u64, length: f64, seed: u64) -> Log {
    run(server, &mut Fixed(limit), &backlog, length, seed)
}

fn cap() -> Server {
    Server::new(Excess::Refused, 40)
}

fn queueing(sigma: f64) -> Server {
    Server {
        sigma,
        ..Server::new(Excess::Queued, 20)
    }
}

fn unlimited() -> Server {
    Server {
        sigma: 1.0,
        ..Server::new(Excess::Queued, 1000)
    }
}

fn steps(excess: Excess) -> Server {
    Server {
        capacity: vec![(0.0, 40), (120.0, 10), (240.0, 80)],
        ..Server::new(excess, 40)
    }
}

fn faulty() -> Server {
    Server {
        errors: 0.01,
        hangs: 0.003,
        ..cap()
    }
}

/// Return throughput after the first minute, relative to a fixed limit; the part of throttled calls; and the median latency relative to
/// that of single calls.
fn measure(server: &Server, name: &str, best: u64, seed: u64) -> [f64; 3] {
    let log = simulate(server, name, END, seed);
    [
        log.throughput(MINUTE, END) / fixed(server, best, END, seed).throughput(MINUTE, END),
        log.throttled(MINUTE, END),
        log.median(MINUTE, END) / fixed(server, 1, END, seed).median(MINUTE, END),
    ]
}

/// Return the throughput from 30 s after each step on, relative to the capacity.
fn measure_steps(excess: Excess, name: &str, seed: u64) -> [f64; 3] {
    let log = simulate(&steps(excess), name, 360.0, seed);
    [
        log.throughput(60.0, 120.0) / 40.0,
        log.throughput(150.0, 240.0) / 10.0,
        log.throughput(270.0, 360.0) / 80.0,
    ]
}

#[test]
fn hard_cap_is_used_with_few_throttled_calls() {
    for seed in SEEDS {
        let [throughput, throttled, _] = measure(&cap(), "headrace", 40, seed);
        assert!(throughput >= 0.9, "seed {seed}: {throughput}");
        assert!(throttled <= 0.01, "seed {seed}: {throttled}");
    }
}

#[test]
fn queue_of_a_silent_server_stays_short() {
    for seed in SEEDS {
        let [throughput, _, median] = measure(&queueing(0.25), "headrace", 20, seed);
        assert!(throughput >= 0.9, "seed {seed}: {throughput}");
        assert!(median <= 1.5, "seed {seed}: {median}");
    }
}

#[test]
fn varying_latency_is_not_taken_for_congestion() {
    for seed in SEEDS {
        let [throughput, ..] = measure(&unlimited(), "headrace", 100, seed);
        assert!(throughput >= 0.9, "seed {seed}: {throughput}");
    }
}

#[test]
fn changed_capacity_is_followed_in_30_s() {
    for seed in SEEDS {
        for excess in [Excess::Refused, Excess::Queued] {
            let parts = measure_steps(excess, "headrace", seed);
            assert!(
                parts.iter().all(|part| *part >= 0.8),
                "seed {seed}, {excess:?}: {parts:?}"
            );
        }
    }
}

#[test]
fn limit_that_starts_too_high_falls() {
    for seed in SEEDS {
        let server = queueing(0.25);
        let log = run(
            &server,
            &mut Ours::new(80.0, 1.0, 100.0),
            &backlog,
            END,
            seed,
        );
        let median =
            log.median(2.0 * MINUTE, END) / fixed(&server, 1, END, seed).median(MINUTE, END);
        assert!(median <= 1.5, "seed {seed}: {median}");
    }
}

#[test]
fn small_and_large_capacities_are_found() {
    for seed in SEEDS {
        for capacity in [1, 3, 400] {
            let server = Server::new(Excess::Refused, capacity);
            let log = run(
                &server,
                &mut Ours::new(10.0, 1.0, 1000.0),
                &backlog,
                END,
                seed,
            );
            let best = fixed(&server, capacity as u64, END, seed);
            let throughput = log.throughput(MINUTE, END) / best.throughput(MINUTE, END);
            assert!(throughput >= 0.8, "seed {seed}, {capacity}: {throughput}");
            let throttled = log.throttled(MINUTE, END);
            assert!(throttled <= 0.03, "seed {seed}, {capacity}: {throttled}");
        }
    }
}

#[test]
fn errors_and_hangs_do_not_lower_the_limit() {
    for seed in SEEDS {
        let [throughput, ..] = measure(&faulty(), "headrace", 40, seed);
        assert!(throughput >= 0.9, "seed {seed}: {throughput}");
    }
}

#[test]
fn limit_does_not_rise_without_demand() {
    // Three calls at once, then none, then three again.
    let demand = |now: f64| if (100.0..500.0).contains(&now) { 0 } else { 3 };
    for seed in SEEDS {
        let log = run(&cap(), &mut *algorithm("headrace"), &demand, END, seed);
        assert_eq!(log.greatest_limit(0.0, END), 10, "seed {seed}");
    }
    // A backlog, then three calls at once.
    let demand = |now: f64| if now < 100.0 { u64::MAX } else { 3 };
    for seed in SEEDS {
        let log = run(&cap(), &mut *algorithm("headrace"), &demand, END, seed);
        let limit = log.limit_at(103.0);
        assert!(log.greatest_limit(103.0, END) <= limit, "seed {seed}");
    }
}

#[test]
fn no_call_starts_above_the_limit() {
    for seed in SEEDS {
        for excess in [Excess::Refused, Excess::Queued] {
            let log = simulate(&steps(excess), "headrace", 360.0, seed);
            let mut held = 0_i64;
            let mut changes: Vec<_> = (log.calls.iter())
                .flat_map(|call| [(call.ended, -1), (call.started, 1)])
                .collect();
            changes.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            for (at, change) in changes {
                held += change;
                let limit = i64::try_from(log.limit_at(at)).expect("at most 100");
                assert!(
                    change < 0 || held <= limit,
                    "seed {seed}: {held} of {limit} at {at}"
                );
            }
        }
    }
}

#[test]
#[ignore = "prints a table"]
fn table() {
    #[allow(clippy::cast_precision_loss)]
    fn mean<const N: usize>(measure: impl Fn(u64) -> [f64; N]) -> [f64; N] {
        let mut sum = [0.0; N];
        for seed in SEEDS {
            for (sum, one) in sum.iter_mut().zip(measure(seed)) {
                *sum += one / SEEDS.count() as f64;
            }
        }
        sum
    }
    for name in NAMES {
        let [cap_rate, throttled, _] = mean(|seed| measure(&cap(), name, 40, seed));
        let [queue_rate, _, queue] = mean(|seed| measure(&queueing(0.25), name, 20, seed));
        let [noisy_rate, _, noisy] = mean(|seed| measure(&queueing(1.0), name, 20, seed));
        let [free_rate, ..] = mean(|seed| measure(&unlimited(), name, 100, seed));
        let refused = mean(|seed| measure_steps(Excess::Refused, name, seed));
        let queued = mean(|seed| measure_steps(Excess::Queued, name, seed));
        let [faulty_rate, ..] = mean(|seed| measure(&faulty(), name, 40, seed));
        println!(
            "//! | {name} | {cap_rate:.2}, {:.2}% | {queue_rate:.2}, {queue:.2} | {noisy_rate:.2}, {noisy:.2} | {free_rate:.2} | \
             {:.2} {:.2} {:.2} | {:.2} {:.2} {:.2} | {faulty_rate:.2} |",
            throttled * 100.0,
            refused[0],
            refused[1],
            refused[2],
            queued[0],
            queued[1],
            queued[2],
        );
    }
}
