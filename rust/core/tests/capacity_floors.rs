//! Floors: the guaranteed minimum of a child, its refusals, and the shares above it.
//!
//! The simulated world itself asserts that no job that fits is left waiting (`World::check`), and the tree verifies its choices.
#![cfg(not(loom))]

mod common;

use common::clocked::{self, SLOTS, granted, units};
use common::rig::{Rig, Spot};
use common::world::{Hold, World, jain};
use headrace_core::capacity::adaptive::Outcome;
use headrace_core::capacity::{
    AcquireRequest, Amount, Cost, Limit, NodeError, NodeId, NodeOptions, Weight,
};
use std::time::Duration;

const SEEDS: [u64; 3] = [1, 2, 3];
/// A limit that is never reached.
const AMPLE: u64 = 1_000;
/// The resource of the rig.
const RIG_SLOTS: usize = common::rig::SLOTS;

fn floored(world: &clocked::World, parent: NodeId, floor: u64) -> NodeId {
    let options = NodeOptions::default().floor(units(floor));
    world.tree.add(parent, options).unwrap()
}

/// A root with one child for each weight and floor, which always has waiting jobs.
fn family(limit: u64, children: &[(f64, u64)], hold: Hold, seed: u64) -> World {
    let mut rig = Rig::new();
    let root = rig.root(&[(RIG_SLOTS, limit)]);
    let spots: Vec<Spot> = children
        .iter()
        .map(|&(weight, floor)| {
            let spot = rig.child(root, &[(RIG_SLOTS, AMPLE)], weight);
            rig.tree.refloor(rig.id(spot), units(floor)).unwrap();
            spot
        })
        .collect();
    let mut world = World::new(rig, seed);
    for spot in spots {
        let load = world.load(spot, &[(RIG_SLOTS, 1)], hold, 10);
        world.switch(load, true);
    }
    world
}

/// Return the amounts that the loads receive in `seconds`.
fn received(world: &mut World, seconds: f64) -> Vec<f64> {
    let before: Vec<_> = world.loads.iter().map(|load| load.received).collect();
    let end = world.now() + seconds;
    world.run_until(end, |_, _| {});
    let after = world.loads.iter().zip(before);
    after.map(|(load, before)| load.received - before).collect()
}

// The guarantee.

#[test]
fn next_release_goes_to_the_child_below_its_floor() {
    let (world, root) = clocked::World::slots(4);
    let first = floored(&world, root, 2);
    let second = floored(&world, root, 0);
    let mut held: Vec<_> = (0..4).map(|_| world.take(second, 1)).collect();
    let mut others: Vec<_> = (0..4).map(|_| world.waits(second, 1)).collect();
    let mut mine: Vec<_> = (0..3).map(|_| world.waits(first, 1)).collect();
    world.release(held.pop().unwrap());
    let one = granted(&mut mine[0]);
    world.release(held.pop().unwrap());
    let two = granted(&mut mine[1]);
    // It holds its floor, and its tag is still the least.
    assert_eq!((world.held(first), world.held(second)), (2, 2));
    world.release(one);
    let three = granted(&mut mine[2]);
    assert!(others.iter_mut().all(|task| task.wakes() == 0));
    world.release(two);
    let _other = granted(&mut others[0]);
    drop((three, held));
}

#[test]
fn wait_for_a_floor_is_at_most_the_longest_hold() {
    for seed in SEEDS {
        let mut rig = Rig::new();
        let root = rig.root(&[(RIG_SLOTS, 4)]);
        let first = rig.child(root, &[(RIG_SLOTS, AMPLE)], 1.0);
        let second = rig.child(root, &[(RIG_SLOTS, AMPLE)], 100.0);
        rig.tree.refloor(rig.id(first), units(2)).unwrap();
        let mut world = World::new(rig, seed);
        let hold = Hold::Exponential(1.0);
        let mine = world.load(first, &[(RIG_SLOTS, 1)], hold, 0);
        let other = world.load(second, &[(RIG_SLOTS, 1)], hold, 10);
        world.switch(other, true);
        for _ in 0..2_000 {
            let pause = world.dice.unit() * 3.0;
            let end = world.now() + pause;
            world.run_until(end, |_, _| {});
            // No more than the floor at once.
            if world.loads[mine].running + world.loads[mine].waiting.len() as u64 <= 1 {
                world.submit(mine);
            }
        }
        let waits = &world.loads[mine].waits;
        let longest = waits.iter().copied().fold(0.0, f64::max);
        assert!(
            waits.len() > 1_000 && longest <= hold.longest(),
            "seed {seed}: {longest}"
        );
        // An idle floor is lent: the world has asserted that no slot was idle.
        assert!(world.loads[other].received > world.loads[mine].received);
    }
}

#[test]
fn idle_floor_is_lent() {
    let (world, root) = clocked::World::slots(4);
    floored(&world, root, 4);
    let second = floored(&world, root, 0);
    let held: Vec<_> = (0..4).map(|_| world.take(second, 1)).collect();
    assert_eq!(world.held(second), 4);
    drop(held);
}

#[test]
fn floors_hold_in_three_levels() {
    let (world, root) = clocked::World::slots(8);
    let (team, other) = (floored(&world, root, 4), floored(&world, root, 0));
    let (group, sibling) = (floored(&world, team, 3), floored(&world, team, 0));
    let (user, friend) = (floored(&world, group, 2), floored(&world, group, 0));
    // The whole limit is lent, in turn to a stranger at each level.
    for stranger in [other, sibling, friend] {
        let mut lent: Vec<_> = (0..8).map(|_| world.take(stranger, 1)).collect();
        let crowd = [other, sibling, friend].map(|node| [(); 20].map(|()| world.waits(node, 1)));
        let mut mine = [world.waits(user, 1), world.waits(user, 1)];
        let mut releases = 0;
        while mine.iter().any(|task| task.wakes() == 0) {
            // The longest hold ends with the last of these.
            world.release(
                lent.pop()
                    .expect("the floor is reached within the longest hold"),
            );
            releases += 1;
        }
        assert!(
            stranger != other || releases == 2,
            "the next releases go to the floor"
        );
        drop(mine.each_mut().map(granted));
        drop((crowd, lent));
        world.tree.check();
    }
}

#[test]
fn floor_takes_no_quota_from_the_siblings() {
    let world = clocked::World::new();
    let calls = world.tree.resource("calls");
    let rate = Limit::Rate {
        amount: units(1),
        per: Duration::from_secs(1),
        burst: Some(units(1)),
    };
    let limits = [(SLOTS, Limit::Slots(units(4))), (calls, rate)];
    let root = world.tree.root(NodeOptions::new(limits)).unwrap();
    let first = floored(&world, root, 4);
    let second = floored(&world, root, 0);
    let mut tasks = Vec::new();
    for _ in 0..20 {
        for node in [first, second] {
            let cost = Cost::new([(SLOTS, units(1)), (calls, units(1))]).unwrap();
            tasks.push((
                node,
                common::Task::new(world.tree.acquire(AcquireRequest::new(node, cost))),
            ));
        }
    }
    for (_, task) in &mut tasks {
        let _ = task.poll();
    }
    // The rate keeps the first child below its floor: it must not get the whole rate for that.
    let mut grants = [0_u32, 0];
    for _ in 0..20 {
        world.pass(1.0);
        for (node, task) in &mut tasks {
            if task.wakes() == 1 {
                world.release(granted(task));
                grants[usize::from(*node == second)] += 1;
                *task = common::Task::new(world.tree.acquire(AcquireRequest::slots(root, 1)));
            }
        }
    }
    assert!(grants[0].abs_diff(grants[1]) <= 2, "{grants:?}");
}

// The shares above the floors.

#[test]
fn shares_above_the_floors_are_fair() {
    for seed in SEEDS {
        for hold in [Hold::Exponential(1.0), Hold::Always(1.0)] {
            // The first child is due 1 of 6 slots by weight, and has a floor of 3.
            let mut world = family(
                6,
                &[(1.0, 3), (1.0, 0), (1.0, 0), (1.0, 0), (1.0, 0), (1.0, 0)],
                hold,
                seed,
            );
            received(&mut world, 100.0);
            let got = received(&mut world, 20_000.0);
            let (floor, others) = (got[0] / 20_000.0, &got[1..]);
            assert!((2.95..=3.1).contains(&floor), "seed {seed}: {got:?}");
            assert!(jain(others) >= 0.99, "seed {seed}: {got:?}");
        }
    }
}

#[test]
fn shares_above_the_floors_follow_the_weights() {
    for seed in SEEDS {
        // All are due more than their floors by weight.
        let mut world = family(
            12,
            &[(1.0, 1), (2.0, 2), (3.0, 3)],
            Hold::Exponential(1.0),
            seed,
        );
        received(&mut world, 100.0);
        let got = received(&mut world, 20_000.0);
        for (weight, got) in [1.0, 2.0, 3.0].into_iter().zip(&got) {
            let part = got / 20_000.0 / (2.0 * weight);
            assert!(
                (part - 1.0).abs() <= 0.03,
                "seed {seed}: {part} of weight {weight}"
            );
        }
        // A floor takes more than its share from the others, which divide the rest by weight.
        let mut world = family(
            16,
            &[(0.5, 4), (1.0, 0), (2.0, 0), (3.0, 0)],
            Hold::Exponential(1.0),
            seed,
        );
        received(&mut world, 100.0);
        let got = received(&mut world, 20_000.0);
        for (weight, got) in [1.0, 2.0, 3.0].into_iter().zip(&got[1..]) {
            let part = got / 20_000.0 / (2.0 * weight);
            assert!(
                (part - 1.0).abs() <= 0.03,
                "seed {seed}: {part} of weight {weight}"
            );
        }
    }
}

/// A child that is briefly ineligible is not lifted to the tag of a child that is ahead by its floor.
#[test]
fn floor_of_one_child_costs_a_briefly_idle_sibling_nothing() {
    let mut world = family(5, &[(1.0, 3), (1.0, 0), (1.0, 0)], Hold::Always(1.0), 1);
    received(&mut world, 500.0);
    let before = [1, 2].map(|load| world.loads[load].received);
    for _ in 0..1_000 {
        world.switch(1, false);
        while !world.loads[1].waiting.is_empty() {
            world.cancel(1, 0);
        }
        received(&mut world, 0.01);
        world.switch(1, true);
        received(&mut world, 3.0);
    }
    let got = [1, 2].map(|load| world.loads[load].received - before[load - 1]);
    assert!(jain(&got) >= 0.99, "{got:?}");
}

/// The lead of a floor is bounded: it does not cost its child as long a time of later shares.
#[test]
fn long_use_of_a_floor_is_not_paid_back_for_as_long() {
    let mut world = family(
        4,
        &[(1.0, 2), (1.0, 0), (1.0, 0), (1.0, 0)],
        Hold::Always(1.0),
        1,
    );
    received(&mut world, 10_000.0);
    for load in [2, 3] {
        world.switch(load, false);
        while !world.loads[load].waiting.is_empty() {
            world.cancel(load, 0);
        }
    }
    let id = world.rig.id(world.loads[0].spot);
    world.rig.tree.refloor(id, Amount::ZERO).unwrap();
    received(&mut world, 20.0);
    let got = received(&mut world, 100.0);
    assert!(jain(&got[..2]) >= 0.99, "{got:?}");
}

// Configuration.

#[test]
fn floors_above_a_limit_are_refused_with_values() {
    let (world, root) = clocked::World::slots(4);
    let own = NodeOptions::slots(2).floor(units(3));
    let refused = world.tree.add(root, own).unwrap_err();
    assert_eq!(
        refused,
        NodeError::Floor {
            floor: units(3),
            limit: units(2)
        }
    );
    let first = floored(&world, root, 3);
    let sum = |parent, sum, limit| NodeError::Floors {
        parent,
        sum: units(sum),
        at: root,
        limit: units(limit),
    };
    let options = NodeOptions::default().floor(units(2));
    assert_eq!(
        world.tree.add(root, options.clone()).unwrap_err(),
        sum(root, 5, 4)
    );
    assert_eq!(
        world.tree.refloor(first, units(5)).unwrap_err(),
        sum(root, 5, 4)
    );
    let shrink = |slots| {
        world
            .tree
            .resize(root, &[(SLOTS, Limit::Slots(units(slots)))])
    };
    assert_eq!(shrink(2).unwrap_err(), sum(root, 3, 2));
    // Below a node without a limit, the limit above counts.
    let grandchild = NodeOptions::default().floor(units(5));
    assert_eq!(
        world.tree.add(first, grandchild).unwrap_err(),
        sum(first, 5, 4)
    );
    floored(&world, first, 3);
    assert_eq!(shrink(2).unwrap_err(), sum(root, 3, 2));
    // 0 pauses.
    shrink(0).unwrap();
    assert_eq!(shrink(2).unwrap_err(), sum(root, 3, 2));
    shrink(3).unwrap();
    assert_eq!(
        world.tree.refloor(root, units(1)).unwrap_err(),
        NodeError::RootFloor
    );
    world.tree.check();
    // A closed node returns its floor.
    world.tree.close(first);
    floored(&world, root, 3);
    world.tree.check();
}

#[test]
fn floor_of_a_rate_is_refused() {
    let world = clocked::World::new();
    let rate = Limit::Rate {
        amount: units(1),
        per: Duration::from_secs(1),
        burst: None,
    };
    let root = world.tree.root(NodeOptions::new([(SLOTS, rate)])).unwrap();
    let child = NodeOptions::default().floor(units(1));
    assert_eq!(
        world.tree.add(root, child).unwrap_err(),
        NodeError::FloorKind
    );
}

#[test]
fn adaptation_scales_floors_instead_of_refusing() {
    let (world, root) = clocked::World::slots(8);
    let nodes = [
        floored(&world, root, 4),
        floored(&world, root, 2),
        floored(&world, root, 0),
    ];
    let adapt = |slots| {
        let limit = Limit::Adaptive {
            start: units(slots),
            minimum: units(slots),
            maximum: units(8),
        };
        world.tree.resize(root, &[(SLOTS, limit)]).unwrap();
        world.tree.check();
    };
    adapt(3);
    let mut held: Vec<_> = (0..3).map(|_| world.take(nodes[2], 1)).collect();
    let mut tasks = nodes.map(|node| [0, 1, 2].map(|_| world.waits(node, 1)));
    // In force are 2 and 1.
    for _ in 0..3 {
        world.release(held.remove(0));
        for task in tasks.iter_mut().flatten().filter(|task| task.wakes() == 1) {
            if let std::task::Poll::Ready(permit) = task.poll() {
                held.push(permit.unwrap());
                *task =
                    common::Task::waiting(world.tree.acquire(AcquireRequest::slots(nodes[2], 3)));
            }
        }
    }
    assert_eq!(nodes.map(|node| world.held(node)), [2, 1, 0]);
    // Floors are compared with the greatest limit meanwhile, and in force again when it is reached.
    assert!(world.tree.refloor(nodes[2], units(3)).is_err());
    world.tree.refloor(nodes[2], units(2)).unwrap();
    adapt(8);
    // A resize sets the maximum, with which floors are compared.
    let resized = world.tree.resize(root, &[(SLOTS, Limit::Slots(units(7)))]);
    assert!(matches!(resized, Err(NodeError::Floors { .. })));
    drop((tasks, held));
    world.tree.check();
}

#[test]
fn adaptive_limit_scales_floors() {
    let (world, root) = clocked::World::slots(8);
    let limit = Limit::Adaptive {
        start: units(8),
        minimum: units(1),
        maximum: units(8),
    };
    world.tree.resize(root, &[(SLOTS, limit)]).unwrap();
    let nodes = [floored(&world, root, 4), floored(&world, root, 4)];
    for _ in 0..20 {
        let call = world.take(nodes[0], 1);
        call.report(Outcome::Throttled);
        world.tree.check();
        world.release(call);
    }
    // All calls were throttled, so the limit is at its minimum, far below the sum of the floors.
    let lowered = world.tree.snapshot(root).unwrap().usage.resources[0].limit;
    assert!(matches!(lowered, Limit::Adaptive { start, .. } if start < units(2)));
    world.tree.check();
}

#[test]
fn floor_is_live_and_in_the_snapshot() {
    let (world, root) = clocked::World::slots(2);
    let [first, second] = [0, 0].map(|floor| floored(&world, root, floor));
    let options = NodeOptions::default().weight(Weight::from_f64(100.0).unwrap());
    let heavy = world.tree.add(root, options).unwrap();
    let held = world.take(heavy, 2);
    let mut tasks = [heavy, second, first].map(|node| world.waits(node, 1));
    world.tree.refloor(first, units(1)).unwrap();
    world.tree.check();
    let snapshot = world.tree.snapshot(root).unwrap();
    let floors: Vec<_> = snapshot
        .children
        .iter()
        .map(|child| child.usage.floor)
        .collect();
    assert_eq!(floors, [units(1), units(0), units(0)]);
    drop(held);
    assert_eq!(tasks[2].wakes(), 1);
    drop(granted(&mut tasks[2]));
    world.tree.check();
}
