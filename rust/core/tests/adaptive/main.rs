//! Algorithms for an adaptive limit, compared in virtual time.
#![cfg(not(loom))]
// A single binary: public items here are for its other files.
#![allow(unreachable_pub)]

#[path = "../common/dice.rs"]
pub mod dice;
mod common {
    pub use super::dice;
}
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

#[test]
fn trace() {
    for (seed, excess) in [
        (7, Excess::Refused),
        (8, Excess::Refused),
        (5, Excess::Queued),
    ] {
        let steps = Server {
            capacity: vec![(0.0, 40), (120.0, 10), (240.0, 80)],
            ..Server::new(excess, 40)
        };
        let log = simulate(&steps, "headrace", 360.0, seed);
        println!(
            "{:?}",
            log.limits
                .iter()
                .map(|(t, l)| format!("{t:.0}:{l}"))
                .collect::<Vec<_>>()
                .join(" ")
        );
    }
}

#[test]
fn table() {
    for name in NAMES
        .into_iter()
        .filter(|name| std::env::var("ONLY").is_err() || *name == "headrace")
    {
        let mut row = String::new();
        for seed in SEEDS {
            let cap = Server::new(Excess::Refused, 40);
            let log = simulate(&cap, name, 600.0, seed);
            let part =
                log.throughput(60.0, 600.0) / fixed(&cap, 40, 600.0, seed).throughput(60.0, 600.0);
            row += &format!(
                " cap {:.2} {:.2}%",
                part,
                100.0 * log.throttled(60.0, 600.0)
            );

            let queue = Server::new(Excess::Queued, 20);
            let log = simulate(&queue, name, 600.0, seed);
            let best = fixed(&queue, 20, 600.0, seed);
            let one = fixed(&queue, 1, 600.0, seed);
            row += &format!(
                " queue {:.2} x{:.2}",
                log.throughput(60.0, 600.0) / best.throughput(60.0, 600.0),
                log.median(60.0, 600.0) / one.median(60.0, 600.0)
            );
            let queue = Server {
                sigma: 1.0,
                ..Server::new(Excess::Queued, 20)
            };
            let log = simulate(&queue, name, 600.0, seed);
            let best = fixed(&queue, 20, 600.0, seed);
            let one = fixed(&queue, 1, 600.0, seed);
            row += &format!(
                " queue1 {:.2} x{:.2}",
                log.throughput(60.0, 600.0) / best.throughput(60.0, 600.0),
                log.median(60.0, 600.0) / one.median(60.0, 600.0)
            );

            let free = Server {
                sigma: 1.0,
                ..Server::new(Excess::Queued, 1000)
            };
            let log = simulate(&free, name, 600.0, seed);
            let best = fixed(&free, 100, 600.0, seed);
            row += &format!(
                " free {:.2}",
                log.throughput(120.0, 600.0) / best.throughput(120.0, 600.0)
            );

            for excess in [Excess::Refused, Excess::Queued] {
                let steps = Server {
                    capacity: vec![(0.0, 40), (120.0, 10), (240.0, 80)],
                    ..Server::new(excess, 40)
                };
                let log = simulate(&steps, name, 360.0, seed);
                row += &format!(
                    " steps {:.2} {:.2} {:.2} x{:.2}",
                    log.throughput(60.0, 120.0) / 40.0,
                    log.throughput(150.0, 240.0) / 10.0,
                    log.throughput(270.0, 360.0) / 80.0,
                    log.median(150.0, 240.0)
                );
            }
            let hangs = Server {
                errors: 0.01,
                hangs: 0.003,
                ..Server::new(Excess::Refused, 40)
            };
            let log = simulate(&hangs, name, 600.0, seed);
            let best = fixed(&hangs, 40, 600.0, seed);
            row += &format!(
                " hangs {:.2}",
                log.throughput(60.0, 600.0) / best.throughput(60.0, 600.0)
            );
            row += "\n";
        }
        println!("{name}\n{row}");
    }
}
