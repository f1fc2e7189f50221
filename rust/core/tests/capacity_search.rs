//! The cost of a grant while thousands wait at a rate and others need only slots.
#![cfg(not(loom))]

mod common;

use common::Task;
use common::clocked::{SLOTS, World, units};
use headrace_core::capacity::{Acquire, AcquireRequest, Cost, Limit, NodeOptions};
use std::time::{Duration, Instant};

/// The positions of the tenants that wait for the rate.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// All are children of the root, which has all limits.
    Flat,
    /// Groups of ten, each below its own node.
    Grouped,
    /// Like `Flat`; every third tenant needs a second rate as well.
    Mixed,
    /// Like `Flat`; every tenant is below its floor.
    Floors,
}

/// Return the time to acquire and release a slot beside `tenants` tenants, each waiting at one rate.
fn cost_of_a_slot(shape: Shape, tenants: usize) -> Duration {
    let world = World::new();
    let tree = &world.tree;
    let [calls, tokens] = ["calls", "tokens"].map(|name| tree.resource(name));
    let rate = Limit::Rate {
        amount: units(1),
        per: Duration::from_secs(3_600),
        burst: None,
    };
    let limits = [
        (SLOTS, Limit::Slots(units(64 + tenants as u64))),
        (calls, rate),
        (tokens, rate),
    ];
    let root = tree.root(NodeOptions::new(limits)).unwrap();
    let cost = |rates: &[_]| {
        let rates = rates.iter().map(|&rate| (rate, units(1)));
        Cost::new(rates.chain([(SLOTS, units(1))])).unwrap()
    };
    let first = tree.try_acquire(AcquireRequest::new(root, cost(&[calls, tokens])));
    drop(first.unwrap().expect("the rates are full"));
    let mut group = root;
    let waiting: Vec<Task<Acquire>> = (0..tenants)
        .map(|number| {
            if matches!(shape, Shape::Grouped) && number % 10 == 0 {
                group = tree.add(root, NodeOptions::default()).unwrap();
            }
            let floor = u64::from(matches!(shape, Shape::Floors));
            let options = NodeOptions::slots(2).floor(units(floor));
            let node = tree.add(group, options).unwrap();
            let two = matches!(shape, Shape::Mixed) && number % 3 == 0;
            let rates = if two {
                vec![calls, tokens]
            } else {
                vec![calls]
            };
            Task::waiting(tree.acquire(AcquireRequest::new(node, cost(&rates))))
        })
        .collect();
    let node = tree.add(root, NodeOptions::slots(2)).unwrap();
    // The best of five, since other processes use the machine.
    let times = (0..5).map(|_| {
        let began = Instant::now();
        for _ in 0..200 {
            let mut asking = Task::new(tree.acquire(AcquireRequest::slots(node, 1)));
            drop(asking.ready().unwrap());
        }
        began.elapsed() / 200
    });
    let time = times.min().unwrap();
    drop(waiting);
    tree.check();
    time
}

#[test]
fn slot_grant_cost_ignores_waiters_at_a_rate() {
    for shape in [Shape::Flat, Shape::Grouped, Shape::Mixed, Shape::Floors] {
        let few = cost_of_a_slot(shape, 10);
        let many = cost_of_a_slot(shape, 10_000);
        println!("{shape:?}: {few:?} beside ten, {many:?} beside ten thousand");
        // A search that visits all of them takes hundreds of times as long.
        assert!(many <= 20 * few, "{shape:?}: {few:?}, then {many:?}");
    }
}
