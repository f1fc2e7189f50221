//! Shares under change: loads that start and stop, cancel, reach limits and need several resources.
//!
//! The simulated world itself asserts that no job that fits is left waiting (`World::check`).
#![cfg(not(loom))]

mod common;

use common::dice::Dice;
use common::rig::{MEMORY, Rig, SLOTS, Spot};
use common::world::{Hold, World, as_float, quantile};

const SEEDS: [u64; 3] = [1, 2, 3];
const WEIGHTS: [f64; 4] = [1.0, 2.0, 4.0, 1.0];
/// A limit that is never reached.
const AMPLE: u64 = 1_000;

/// A root with four children, each with its own load.
fn family(limit: u64, means: [f64; 4], seed: u64) -> World {
    let mut rig = Rig::new();
    let root = rig.root(&[(SLOTS, limit)]);
    let leaves = WEIGHTS.map(|weight| rig.child(root, &[(SLOTS, AMPLE)], weight));
    let mut world = World::new(rig, seed);
    for (leaf, mean) in leaves.into_iter().zip(means) {
        world.load(leaf, &[(SLOTS, 1)], Hold::Exponential(mean), 10);
    }
    world
}

/// The amount that a load received while only the parent limited it, and its fair share meanwhile: the part of its weight,
/// among all loads that waited or held anything, of the total that was held.
#[derive(Clone, Copy, Debug, Default)]
struct Due {
    received: f64,
    due: f64,
}

fn note(world: &World, stretch: f64, dues: &mut [Due; 4]) {
    let active =
        |load: usize| !world.loads[load].waiting.is_empty() || world.loads[load].running > 0;
    let weights: f64 = (0..4)
        .filter(|&load| active(load))
        .map(|load| WEIGHTS[load])
        .sum();
    let held: u64 = world.loads.iter().map(|load| load.running).sum();
    for (load, due) in dues.iter_mut().enumerate() {
        let capped = !world
            .rig
            .fits_at(world.loads[load].spot, &world.loads[load].cost);
        if !world.loads[load].waiting.is_empty() && !capped {
            due.received += as_float(world.loads[load].running) * stretch;
            due.due += as_float(held) * WEIGHTS[load] / weights * stretch;
        }
    }
}

#[track_caller]
fn assert_due(dues: &[Due; 4], seed: u64) {
    for due in dues {
        assert!(
            due.due > 0.0 && due.received >= 0.9 * due.due,
            "seed {seed}: {dues:?}"
        );
    }
}

/// Each child is on for about a minute and off for another. `act` disturbs them about every half second.
fn disturbed(seed: u64, mut act: impl FnMut(&mut World, &mut Dice)) {
    let mut world = family(10, [1.0, 0.5, 0.25, 2.0], seed);
    let mut dice = Dice::new(seed ^ 0x5eed);
    let mut dues = [Due::default(); 4];
    let mut switches = [0.0; 4];
    while world.now() < 20_000.0 {
        let next = world.now() + dice.unit();
        world.run_until(next, |world, stretch| note(world, stretch, &mut dues));
        for (load, switch) in switches.iter_mut().enumerate() {
            if world.now() >= *switch {
                *switch = world.now() - 60.0 * dice.unit().ln();
                let on = !world.loads[load].on;
                world.switch(load, on);
            }
        }
        act(&mut world, &mut dice);
    }
    assert_due(&dues, seed);
}

#[test]
fn intermittent_loads_receive_their_share() {
    for seed in SEEDS {
        disturbed(seed, |_, _| {});
    }
}

#[test]
fn cancelling_loads_receive_their_share() {
    for seed in SEEDS {
        disturbed(seed, |world, dice| {
            let load = dice.below(4);
            for _ in 0..dice.below(10) {
                let index = dice.below(10);
                world.cancel(load, index);
            }
        });
    }
}

#[test]
fn shares_hold_while_limits_change() {
    for seed in SEEDS {
        disturbed(seed, |world, dice| {
            if dice.below(10) == 0 {
                let limit = 2 + dice.below(20) as u64;
                world.resize(0, &[(SLOTS, limit)]);
            }
            if dice.below(10) == 0 {
                let child = world.loads[dice.below(4)].spot;
                let limit = [2, 5, 10, AMPLE][dice.below(4)];
                world.resize(child, &[(SLOTS, limit)]);
            }
        });
    }
}

/// Each child gets at least its part of a fixed division by weight.
#[test]
fn two_resources_give_at_least_a_fixed_division() {
    let costs = [(1, 1), (1, 8), (3, 2), (1, 4)];
    let (slots, memory) = (60, 240);
    for weights in [[1.0; 4], WEIGHTS] {
        for seed in SEEDS {
            let mut rig = Rig::new();
            let root = rig.root(&[(SLOTS, slots), (MEMORY, memory)]);
            let leaves = weights.map(|weight| rig.child(root, &[], weight));
            let mut world = World::new(rig, seed);
            world.reserves = true;
            for (leaf, (slot, space)) in leaves.into_iter().zip(costs) {
                world.load(
                    leaf,
                    &[(SLOTS, slot), (MEMORY, space)],
                    Hold::Exponential(1.0),
                    10,
                );
            }
            for load in 0..4 {
                world.switch(load, true);
            }
            world.run_until(3_000.0, |_, _| {});
            let whole: f64 = weights.iter().sum();
            for (load, (slot, space)) in costs.into_iter().enumerate() {
                let alone =
                    (as_float(slots) / as_float(slot)).min(as_float(memory) / as_float(space));
                let due = alone * weights[load] / whole;
                let received = world.loads[load].received / 3_000.0;
                assert!(
                    received >= 0.9 * due,
                    "seed {seed}, {weights:?}, {load}: {received} of {due}"
                );
            }
        }
    }
}

/// Four children need both resources in different amounts. They are on for about a minute and off for another, cancel, and
/// see changing limits. While a child waits, its share is compared with its part of a fixed division at that moment, by
/// weight among the active children.
fn disturbed_with_two_resources(seed: u64, mut act: impl FnMut(&mut World, &mut Dice)) {
    let costs = [(1, 1), (1, 8), (3, 2), (1, 4)];
    let mut rig = Rig::new();
    let root = rig.root(&[(SLOTS, 60), (MEMORY, 240)]);
    let leaves = WEIGHTS.map(|weight| rig.child(root, &[], weight));
    let mut world = World::new(rig, seed);
    world.reserves = true;
    let hold = Hold::Exponential(1.0);
    for (leaf, (slots, memory)) in leaves.into_iter().zip(costs) {
        world.load(leaf, &[(SLOTS, slots), (MEMORY, memory)], hold, 10);
    }
    let mut dice = Dice::new(seed ^ 0x5eed);
    let mut dues = [Due::default(); 4];
    let mut switches = [0.0; 4];
    while world.now() < 5_000.0 {
        let next = world.now() + dice.unit();
        world.run_until(next, |world, stretch| {
            let there = |load: &usize| {
                !world.loads[*load].waiting.is_empty() || world.loads[*load].running > 0
            };
            let whole: f64 = (0..4).filter(there).map(|load| WEIGHTS[load]).sum();
            for (load, due) in dues.iter_mut().enumerate() {
                let here = &world.loads[load];
                if here.waiting.is_empty() {
                    continue;
                }
                let alone = (here.cost.iter())
                    .map(|&(resource, units)| {
                        as_float(world.rig.limit(root, resource)) / as_float(units)
                    })
                    .fold(f64::INFINITY, f64::min);
                due.received += as_float(here.running) * stretch;
                due.due += alone * WEIGHTS[load] / whole * stretch;
            }
        });
        for (load, switch) in switches.iter_mut().enumerate() {
            if world.now() >= *switch {
                *switch = world.now() - 60.0 * dice.unit().ln();
                let on = !world.loads[load].on;
                world.switch(load, on);
            }
        }
        act(&mut world, &mut dice);
    }
    assert_due(&dues, seed);
}

#[test]
fn two_resources_with_intermittent_loads() {
    for seed in SEEDS {
        disturbed_with_two_resources(seed, |_, _| {});
    }
}

#[test]
fn two_resources_with_changing_limits_and_cancels() {
    for seed in SEEDS {
        disturbed_with_two_resources(seed, |world, dice| {
            let load = dice.below(4);
            for _ in 0..dice.below(10) {
                let index = dice.below(10);
                world.cancel(load, index);
            }
            if dice.below(20) == 0 {
                let (slots, memory) = (30 + dice.below(60) as u64, 120 + dice.below(240) as u64);
                world.resize(0, &[(SLOTS, slots), (MEMORY, memory)]);
            }
        });
    }
}

/// The example of Bhattacharya et al. (2013): one child of a group fills a resource that no other child needs. The group's
/// use of it must not count against its other child, which shares the contended resource with the group's sibling.
#[test]
fn child_is_not_starved_by_a_full_sibling_resource() {
    for seed in SEEDS {
        let mut rig = Rig::new();
        let root = rig.root(&[(SLOTS, 10), (MEMORY, 10)]);
        let single = rig.child(root, &[], 1.0);
        let group = rig.child(root, &[], 1.0);
        let [wants_slots, wants_memory] = [(); 2].map(|()| rig.child(group, &[], 1.0));
        let mut world = World::new(rig, seed);
        let hold = Hold::Exponential(1.0);
        let loads = [
            world.load(single, &[(SLOTS, 1)], hold, 10),
            world.load(wants_slots, &[(SLOTS, 1)], hold, 10),
            world.load(wants_memory, &[(MEMORY, 1)], hold, 10),
        ];
        for load in loads {
            world.switch(load, true);
        }
        world.run_until(2_000.0, |_, _| {});
        let received = loads.map(|load| world.loads[load].received / 2_000.0);
        assert!(received[0] >= 0.9 * 5.0, "seed {seed}: {received:?}");
        assert!(received[1] >= 0.9 * 5.0, "seed {seed}: {received:?}");
        assert!(received[2] >= 0.99 * 10.0, "seed {seed}: {received:?}");
    }
}

/// Two siblings, of which `before` blocks the first for a long time and `after` unblocks it.
fn held_back(before: impl Fn(&mut World, Spot), after: impl Fn(&mut World, Spot)) {
    for seed in SEEDS {
        let mut rig = Rig::new();
        let root = rig.root(&[(SLOTS, 4)]);
        let leaves = [(); 2].map(|()| rig.child(root, &[(SLOTS, 4)], 1.0));
        let mut world = World::new(rig, seed);
        let [first, second] =
            leaves.map(|leaf| world.load(leaf, &[(SLOTS, 1)], Hold::Exponential(1.0), 10));
        before(&mut world, leaves[0]);
        world.switch(first, true);
        world.switch(second, true);
        world.run_until(1_000.0, |_, _| {});
        after(&mut world, leaves[0]);
        let received = [first, second].map(|load| world.loads[load].received);
        world.run_until(1_100.0, |_, _| {});
        for (load, before) in [first, second].into_iter().zip(received) {
            let share = world.loads[load].received - before;
            assert!(share >= 0.9 * 200.0, "seed {seed}: {share} of 200");
        }
    }
}

#[test]
fn limited_child_accumulates_no_credit() {
    held_back(
        |world, leaf| world.resize(leaf, &[(SLOTS, 1)]),
        |world, leaf| world.resize(leaf, &[(SLOTS, 4)]),
    );
}

#[test]
fn paused_child_accumulates_no_credit() {
    held_back(World::pause, World::resume);
}

#[test]
fn new_weight_takes_effect_immediately() {
    let mut world = family(8, [1.0; 4], 1);
    for load in 0..4 {
        world.switch(load, true);
    }
    world.run_until(1_000.0, |_, _| {});
    for load in 0..4 {
        world.rig.reweigh(world.loads[load].spot, 1.0);
    }
    let received: Vec<f64> = world.loads.iter().map(|load| load.received).collect();
    world.run_until(2_000.0, |_, _| {});
    for (load, before) in world.loads.iter().zip(received) {
        let share = load.received - before;
        assert!((share / 2_000.0 - 1.0).abs() < 0.05, "{share} of 2000");
    }
}

/// Two jobs that lack different resources at different levels of one path must not wait for each other's reservation.
#[test]
fn big_costs_at_two_levels_are_both_granted() {
    for seed in 0..100 {
        let mut rig = Rig::new();
        let root = rig.root(&[(SLOTS, AMPLE), (MEMORY, 8)]);
        let leaf = rig.child(root, &[(SLOTS, 5)], 1.0);
        let other = rig.child(root, &[], 1.0);
        let mut world = World::new(rig, seed);
        world.reserves = true;
        let hold = Hold::Exponential(1.0);
        let small = [
            world.load(leaf, &[(SLOTS, 1)], hold, 4),
            world.load(leaf, &[(SLOTS, 1), (MEMORY, 1)], hold, 2),
            world.load(other, &[(MEMORY, 1)], hold, 4),
        ];
        let big = [
            world.load(leaf, &[(SLOTS, 5), (MEMORY, 1)], hold, 1),
            world.load(leaf, &[(SLOTS, 1), (MEMORY, 8)], hold, 1),
        ];
        for load in small {
            world.switch(load, true);
        }
        world.run_until(20.0, |_, _| {});
        for round in 0..10 {
            for turn in 0..2 {
                world.submit(big[(turn + round) % 2]);
                let pause = world.dice.unit();
                world.run_until(world.now() + pause, |_, _| {});
            }
            world.run_until(world.now() + 30.0, |_, _| {});
            for load in big {
                assert_eq!(world.loads[load].granted, round as u64 + 1, "seed {seed}");
            }
        }
    }
}

/// Return a cost of 8 of 10 now and then, beside an endless stream of ones, at the same leaf or another.
fn big_beside_ones(hold: impl Fn(f64) -> Hold, same_leaf: bool) {
    for seed in SEEDS {
        let mut rig = Rig::new();
        let root = rig.root(&[(SLOTS, 10)]);
        let [ones, other] = [(); 2].map(|()| rig.child(root, &[(SLOTS, 10)], 1.0));
        let node = if same_leaf { ones } else { other };
        let mut world = World::new(rig, seed);
        world.reserves = true;
        let ones = world.load(ones, &[(SLOTS, 1)], hold(1.0), 5);
        let big = world.load(node, &[(SLOTS, 8)], hold(1.0), 1);
        // One after the other, to spread their ends.
        for _ in 0..10 {
            let pause = world.dice.unit();
            world.run_until(world.now() + pause, |_, _| {});
            world.submit(ones);
        }
        world.switch(ones, true);
        let start = world.now();
        let mut used = 0.0;
        let mut observe = |world: &World, stretch: f64| {
            let [ones, bigs] = [ones, big].map(|load| as_float(world.loads[load].running));
            used += (ones + 8.0 * bigs) * stretch;
        };
        for _ in 0..500 {
            let pause = 10.0 - 40.0 * world.dice.unit().ln();
            world.run_until(world.now() + pause, &mut observe);
            world.submit(big);
        }
        world.run_until(world.now() + 20.0, &mut observe);
        let utilisation = used / (10.0 * (world.now() - start));
        let big = &world.loads[big];
        assert_eq!(big.granted, 500, "seed {seed}: every big cost is granted");
        let wait = quantile(&big.waits, 0.99);
        let figures = format!("seed {seed}: p99 wait {wait:.2}, utilisation {utilisation:.4}");
        println!("{figures}");
        assert!(wait <= 5.0 && utilisation >= 0.98, "{figures}");
    }
}

#[test]
fn big_cost_is_granted_beside_ones_of_another_leaf() {
    big_beside_ones(Hold::Exponential, false);
}

#[test]
fn big_cost_is_granted_beside_ones_of_its_own_leaf() {
    big_beside_ones(Hold::Exponential, true);
}

#[test]
fn big_cost_is_granted_beside_constant_ones() {
    big_beside_ones(Hold::Always, false);
    big_beside_ones(Hold::Always, true);
}

#[test]
fn idle_branch_waits_for_one_release_at_most() {
    for seed in SEEDS {
        let mut rig = Rig::new();
        let root = rig.root(&[(SLOTS, 5)]);
        let [busy, idle] = [(); 2].map(|()| rig.child(root, &[(SLOTS, 5)], 1.0));
        let mut world = World::new(rig, seed);
        let busy = world.load(busy, &[(SLOTS, 1)], Hold::Exponential(1.0), 1_000);
        let idle = world.load(idle, &[(SLOTS, 1)], Hold::Exponential(4.0), 1);
        world.switch(busy, true);
        for round in 1..=200 {
            let pause = 50.0 + 10.0 * world.dice.unit();
            world.run_until(world.now() + pause, |_, _| {});
            world.submit(idle);
            let release = world.next_end().expect("the busy load has running jobs");
            world.run_until(release, |_, _| {});
            assert_eq!(world.loads[idle].granted, round, "seed {seed}");
        }
    }
}
