//! Breakers: which failures open one, what waits meanwhile, and how its probes close it.
#![cfg(not(loom))]

mod common;

use common::Task;
use common::clocked::{World, granted};
use common::dice::Dice;
use headrace_core::capacity::adaptive::Outcome;
use headrace_core::capacity::{
    Acquire, AcquireRequest, BreakerOptions, BreakerState, BreakerUsage, Cost, Limit, NodeId,
    NodeOptions, Permit, ResourceId, Time, Trip,
};
use std::task::Poll;
use std::time::Duration;

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn consecutive(failures: u32, probes: usize) -> BreakerOptions {
    BreakerOptions {
        trip: Trip::Consecutive(failures),
        open_for: seconds(30.0),
        probes,
    }
}

fn share(share: f64, minimum: u32) -> BreakerOptions {
    BreakerOptions {
        trip: Trip::Share {
            share,
            minimum,
            window: seconds(30.0),
        },
        open_for: seconds(30.0),
        probes: 1,
    }
}

/// A root with two children of 10 slots each; the first one has this breaker.
fn siblings(options: BreakerOptions) -> (World, NodeId, NodeId) {
    let (world, root) = World::slots(20);
    let (one, other) = (world.add(root, 10), world.add(root, 10));
    world.tree.set_breaker(one, Some(options)).unwrap();
    (world, one, other)
}

fn breaker(world: &World, node: NodeId) -> BreakerUsage {
    world.tree.usage(node).unwrap().breaker.unwrap()
}

fn state(world: &World, node: NodeId) -> BreakerState {
    breaker(world, node).state
}

/// Take a slot, report its outcome and release it.
fn call(world: &World, node: NodeId, outcome: Outcome) {
    let permit = world.take(node, 1);
    end(world, permit, outcome);
}

fn end(world: &World, permit: Permit, outcome: Outcome) {
    permit.report(outcome);
    world.tree.check();
    world.release(permit);
}

fn is_refused(world: &World, node: NodeId) -> bool {
    world.refused(AcquireRequest::slots(node, 1))
}

#[test]
fn consecutive_failures_open_it_and_a_success_starts_the_count_anew() {
    let (world, one, _) = siblings(consecutive(3, 1));
    for outcome in [Outcome::Failed, Outcome::TimedOut, Outcome::Done] {
        call(&world, one, outcome);
    }
    for _ in 0..2 {
        call(&world, one, Outcome::Failed);
        // Neither a failure nor a success.
        call(&world, one, Outcome::Throttled);
    }
    let found = breaker(&world, one);
    assert_eq!((found.state, found.failures), (BreakerState::Closed, 2));
    call(&world, one, Outcome::Rejected);
    assert_eq!(breaker(&world, one).failures, 0);
    for _ in 0..3 {
        assert_eq!(state(&world, one), BreakerState::Closed);
        call(&world, one, Outcome::Failed);
    }
    let found = breaker(&world, one);
    assert_eq!(found.state, BreakerState::Open);
    assert_eq!(
        (found.since, found.left),
        (Some(Duration::ZERO), seconds(30.0))
    );
    world.pass(10.0);
    let found = breaker(&world, one);
    assert_eq!(
        (found.since, found.left),
        (Some(seconds(10.0)), seconds(20.0))
    );
}

#[test]
fn share_of_failures_opens_it_from_the_minimum_on() {
    let (world, one, _) = siblings(share(0.5, 10));
    for _ in 0..9 {
        call(&world, one, Outcome::Failed);
    }
    call(&world, one, Outcome::Done);
    assert_eq!(
        state(&world, one),
        BreakerState::Closed,
        "a success opens nothing"
    );
    call(&world, one, Outcome::Failed);
    assert_eq!(state(&world, one), BreakerState::Open);

    let (world, one, _) = siblings(share(0.1, 30));
    for _ in 0..27 {
        call(&world, one, Outcome::Done);
    }
    for expected in [
        BreakerState::Closed,
        BreakerState::Closed,
        BreakerState::Open,
    ] {
        call(&world, one, Outcome::Failed);
        assert_eq!(state(&world, one), expected);
    }
}

#[test]
fn calls_from_before_the_window_do_not_count() {
    let (world, one, _) = siblings(share(0.5, 10));
    for _ in 0..9 {
        call(&world, one, Outcome::Failed);
    }
    world.pass(30.0);
    assert_eq!(breaker(&world, one).calls, 0);
    call(&world, one, Outcome::Failed);
    assert_eq!(
        (breaker(&world, one).calls, state(&world, one)),
        (1, BreakerState::Closed)
    );
}

#[test]
fn outage_is_noticed_however_many_calls_succeeded_before() {
    let (world, one, _) = siblings(share(0.5, 20));
    for _ in 0..10_000 {
        call(&world, one, Outcome::Done);
    }
    assert!(breaker(&world, one).calls <= 100);
    let mut failures = 0;
    while state(&world, one) == BreakerState::Closed {
        call(&world, one, Outcome::Failed);
        failures += 1;
    }
    assert!((10..=50).contains(&failures), "{failures} failures");
}

#[test]
fn nothing_is_granted_below_while_it_is_open_and_siblings_continue() {
    let (world, one, other) = siblings(consecutive(1, 1));
    let leaf = world.add(one, 10);
    let (failing, late) = (world.take(leaf, 1), world.take(leaf, 1));
    let mut waiters = [world.waits(one, 9), world.waits(leaf, 9)];
    end(&world, failing, Outcome::Failed);
    // A call from before the opening is no probe, and its outcome is known already.
    end(&world, late, Outcome::Done);
    for _ in 0..299 {
        world.pass(0.1);
        drop(world.take(other, 10));
        assert_eq!(state(&world, one), BreakerState::Open);
        assert!(is_refused(&world, leaf));
    }
    assert!(waiters.iter_mut().all(|waiter| waiter.wakes() == 0));
    world.pass(0.1);
    assert_eq!(state(&world, one), BreakerState::HalfOpen);
    let probe = granted(&mut waiters[0]);
    assert!(waiters[1].poll().is_pending(), "one probe at a time");
    assert_eq!(breaker(&world, one).probes, 0);
    end(&world, probe, Outcome::Done);
    assert_eq!(state(&world, one), BreakerState::Closed);
    drop(granted(&mut waiters[1]));
}

#[test]
fn probes_that_succeed_close_it_and_one_that_fails_opens_it_again() {
    let (world, one, _) = siblings(consecutive(1, 3));
    call(&world, one, Outcome::Failed);
    world.pass(30.0);
    assert_eq!(breaker(&world, one).probes, 3);
    let mut probes: Vec<_> = (0..3).map(|_| world.take(one, 1)).collect();
    assert!(is_refused(&world, one));
    for left in (0..2).rev() {
        end(&world, probes.pop().unwrap(), Outcome::Done);
        assert_eq!(state(&world, one), BreakerState::HalfOpen);
        assert!(
            is_refused(&world, one),
            "a success takes its place with it, {left} left"
        );
    }
    let last = probes.pop().unwrap();
    last.report(Outcome::TimedOut);
    assert_eq!(state(&world, one), BreakerState::Open);
    assert_eq!(breaker(&world, one).left, seconds(30.0));
    // It was reported already.
    end(&world, last, Outcome::Failed);
    world.pass(29.0);
    assert!(is_refused(&world, one));
    world.pass(1.0);
    for _ in 0..3 {
        assert_eq!(state(&world, one), BreakerState::HalfOpen);
        call(&world, one, Outcome::Rejected);
    }
    assert_eq!(state(&world, one), BreakerState::Closed);
}

#[test]
fn probe_without_an_outcome_frees_its_place() {
    let (world, one, _) = siblings(consecutive(1, 1));
    call(&world, one, Outcome::Failed);
    world.pass(30.0);
    for _ in 0..5 {
        world.release(world.take(one, 1));
        call(&world, one, Outcome::Throttled);
        // A grant that is never collected.
        drop(Task::new(world.tree.acquire(AcquireRequest::slots(one, 1))));
        world.tree.check();
    }
    assert_eq!(state(&world, one), BreakerState::HalfOpen);
    let suspended = world.take(one, 1);
    suspended.suspend().unwrap();
    let probe = world.take(one, 1);
    assert!(is_refused(&world, one));
    end(&world, probe, Outcome::Done);
    assert_eq!(state(&world, one), BreakerState::Closed);
    world.release(suspended);
}

#[test]
fn late_outcomes_of_an_outage_do_not_count() {
    let (world, one, _) = siblings(consecutive(2, 1));
    let mut late: Vec<_> = (0..8).map(|_| world.take(one, 1)).collect();
    for _ in 0..2 {
        call(&world, one, Outcome::Failed);
    }
    end(&world, late.pop().unwrap(), Outcome::Failed);
    world.pass(30.0);
    end(&world, late.pop().unwrap(), Outcome::Failed);
    end(&world, late.pop().unwrap(), Outcome::Done);
    assert_eq!(state(&world, one), BreakerState::HalfOpen);
    call(&world, one, Outcome::Done);
    for permit in late {
        end(&world, permit, Outcome::Failed);
    }
    assert_eq!(
        (state(&world, one), breaker(&world, one).failures),
        (BreakerState::Closed, 0)
    );
}

#[test]
fn ramp_follows_the_last_probe() {
    let (world, one, _) = siblings(consecutive(1, 1));
    let mut held: Vec<_> = (0..10).map(|_| world.take(one, 1)).collect();
    end(&world, held.pop().unwrap(), Outcome::Failed);
    drop(held);
    for _ in 0..3 {
        world.pass(30.0);
        call(&world, one, Outcome::Failed);
    }
    world.pass(30.0);
    call(&world, one, Outcome::Done);
    let first = world.take(one, 1);
    assert!(is_refused(&world, one), "a window of one");
    world.release(first);
    let mut waiting: Vec<Task<Acquire>> = (0..10)
        .map(|_| Task::new(world.tree.acquire(AcquireRequest::slots(one, 1))))
        .collect();
    let mut passed = 0.0;
    let mut held = Vec::new();
    while !waiting.is_empty() {
        waiting.retain_mut(|waiter| match waiter.poll() {
            Poll::Ready(permit) => {
                held.push(permit.unwrap());
                false
            }
            Poll::Pending => true,
        });
        world.pass(0.05);
        passed += 0.05;
    }
    // The failed probes have not made it slower.
    assert!((0.5..3.0).contains(&passed), "{passed} s");
    assert_eq!(state(&world, one), BreakerState::Closed);
}

#[test]
fn cooldown_during_the_probes_moves_the_deadline_alone() {
    let (world, one, _) = siblings(consecutive(1, 2));
    let memory = world.tree.resource("memory");
    call(&world, one, Outcome::Failed);
    assert_eq!(world.tree.cooled(one), (Duration::ZERO, Duration::ZERO));
    // Shorter than the rest: the result is its own delay, and the deadline stays.
    assert_eq!(
        world.tree.cool_down(one, None, Some(seconds(5.0))),
        Ok(seconds(5.0))
    );
    world.pass(30.0);
    let (one_probe, other_probe) = (world.take(one, 1), world.take(one, 1));
    end(&world, one_probe, Outcome::Throttled);
    world.tree.cool_down(one, None, Some(seconds(7.0))).unwrap();
    world.tree.check();
    assert_eq!(
        (state(&world, one), breaker(&world, one).left),
        (BreakerState::Open, seconds(7.0))
    );
    end(&world, other_probe, Outcome::Done);
    world.pass(6.0);
    assert!(is_refused(&world, one));
    world.pass(1.0);
    assert_eq!(breaker(&world, one).probes, 1);
    call(&world, one, Outcome::Done);
    assert_eq!(state(&world, one), BreakerState::Closed);
    assert!(world.tree.cool_down(one, Some(memory), None).is_err());
}

#[test]
fn cooldown_of_a_resource_does_not_widen_the_window_of_the_probes() {
    let (world, root) = World::slots(4);
    let memory = world.tree.resource("memory");
    let limits =
        [ResourceId::SLOTS, memory].map(|id| (id, Limit::Slots(common::clocked::units(4))));
    let one = world.tree.add(root, NodeOptions::new(limits)).unwrap();
    world
        .tree
        .cool_down(one, Some(memory), Some(seconds(1.0)))
        .unwrap();
    world
        .tree
        .set_breaker(one, Some(consecutive(1, 1)))
        .unwrap();
    call(&world, one, Outcome::Failed);
    world.pass(30.0);
    world
        .tree
        .cool_down(one, Some(memory), Some(seconds(1.0)))
        .unwrap();
    world.tree.check();
    let cost = Cost::of(memory, common::clocked::units(1)).unwrap();
    assert!(world.refused(AcquireRequest::new(one, cost)));
    let probe = world.take(one, 1);
    assert!(is_refused(&world, one));
    end(&world, probe, Outcome::Done);
    world.pass(20.0);
    drop(world.take(one, 4));
}

#[test]
fn setting_it_closes_it() {
    for options in [None, Some(consecutive(2, 1))] {
        let (world, one, _) = siblings(consecutive(1, 1));
        let late = world.take(one, 1);
        call(&world, one, Outcome::Failed);
        let mut waiter = world.waits(one, 1);
        world.tree.set_breaker(one, options).unwrap();
        world.tree.check();
        drop(granted(&mut waiter));
        end(&world, late, Outcome::Failed);
        assert_eq!(
            world
                .tree
                .usage(one)
                .unwrap()
                .breaker
                .map(|one| one.failures),
            options.map(|_| 0)
        );
        // A cooldown stays.
        world.tree.cool_down(one, None, Some(seconds(5.0))).unwrap();
        world
            .tree
            .set_breaker(one, Some(consecutive(1, 1)))
            .unwrap();
        assert!(is_refused(&world, one));
        world.pass(5.0);
        drop(world.take(one, 1));
        world.tree.close(one);
        assert!(world.tree.set_breaker(one, None).is_err());
    }
}

#[test]
fn failure_counts_at_each_breaker_of_the_path() {
    let (world, one, other) = siblings(consecutive(2, 1));
    let leaf = world.add(one, 10);
    world
        .tree
        .set_breaker(leaf, Some(consecutive(1, 1)))
        .unwrap();
    call(&world, leaf, Outcome::Failed);
    assert_eq!(
        (state(&world, leaf), state(&world, one)),
        (BreakerState::Open, BreakerState::Closed)
    );
    call(&world, one, Outcome::Failed);
    assert_eq!(state(&world, one), BreakerState::Open);
    assert!(world.tree.usage(other).unwrap().breaker.is_none());
    // The leaf is removed while its ramp is on.
    world.tree.remove(leaf);
    world.tree.check();
    world.pass(30.0);
    drop(world.take(one, 1));
}

/// Make calls at random, and compare each grant with the rules.
#[test]
fn random_calls_find_no_grant_while_open_and_no_more_probes_than_allowed() {
    const OUTCOMES: [Outcome; 4] = [
        Outcome::Failed,
        Outcome::Done,
        Outcome::Done,
        Outcome::Throttled,
    ];
    for seed in 0..60 {
        let mut dice = Dice::new(seed);
        let probes = 1 + dice.below(3);
        let failures = 1 + u32::try_from(dice.below(3)).unwrap();
        let (world, one, other) = siblings(consecutive(failures, probes));
        let leaf = world.add(one, 10);
        let mut waiting: Vec<Task<Acquire>> = Vec::new();
        let mut held: Vec<Permit> = Vec::new();
        // The time of the last opening, and the number of grants until then, while it is open.
        let mut last = None;
        for _ in 0..600 {
            match dice.below(8) {
                0 | 1 => {
                    let request = AcquireRequest::slots([one, leaf, other][dice.below(3)], 1);
                    waiting.push(Task::new(world.tree.acquire(request)));
                }
                2 if !waiting.is_empty() => drop(waiting.swap_remove(dice.below(waiting.len()))),
                3 => world.pass([0.05, 1.0, 9.0, 30.0][dice.below(4)]),
                4 if dice.below(4) == 0 => {
                    (world.tree.cool_down(one, None, Some(seconds(2.0)))).unwrap();
                }
                _ if !held.is_empty() => {
                    let permit = held.swap_remove(dice.below(held.len()));
                    if dice.below(5) > 0 {
                        permit.report(OUTCOMES[dice.below(4)]);
                        world.tree.check();
                    }
                    drop(permit);
                }
                _ => {}
            }
            waiting.retain_mut(|waiter| match waiter.poll() {
                Poll::Ready(permit) => {
                    held.push(permit.unwrap());
                    false
                }
                Poll::Pending => true,
            });
            world.tree.check();
            let usage = world.tree.usage(one).unwrap();
            let found = usage.breaker.unwrap();
            let opened = found
                .since
                .map(|since| world.tree.now().since(Time::ZERO).abs_diff(since));
            let here = (found.state == BreakerState::Open).then_some((opened, usage.granted));
            if let (Some((before, granted)), Some((opened, now))) = (last, here)
                && before == opened
            {
                assert!(now <= granted, "seed {seed}: granted while open");
            }
            last = here;
            if found.state == BreakerState::HalfOpen {
                let since = usage.permits - usage.cooldown.unwrap().before;
                assert!(since <= probes, "seed {seed}: {since} of {probes} probes");
            }
        }
        drop((waiting, held));
        world.pass(100.0);
        while state(&world, one) != BreakerState::Closed {
            world.pass(30.0);
            call(&world, one, Outcome::Done);
        }
        world.pass(100.0);
        drop(world.take(one, 10));
    }
}
