//! Cooldowns: what waits and what does not, which calls are one event, and how fast the ramp is.
#![cfg(not(loom))]

mod common;

use common::Task;
use common::clocked::{SLOTS, World, granted, units};
use headrace_core::capacity::{
    Acquire, AcquireRequest, Cooldown, Cost, Limit, NodeId, NodeOptions, Time,
};
use std::task::Poll;
use std::time::Duration;

fn at(seconds: f64) -> Time {
    Time::ZERO.after(Duration::from_secs_f64(seconds))
}

/// Return a request for one slot that is queued, or granted and not collected.
fn queue(world: &World, node: NodeId) -> Task<Acquire> {
    Task::new(world.tree.acquire(AcquireRequest::slots(node, 1)))
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn cooldown(world: &World, node: NodeId) -> Option<Cooldown> {
    world.tree.usage(node).unwrap().cooldown
}

/// A root with two children of 40 slots each.
fn siblings() -> (World, NodeId, NodeId) {
    let (world, root) = World::slots(80);
    let (one, other) = (world.add(root, 40), world.add(root, 40));
    (world, one, other)
}

fn in_flight(world: &World, node: NodeId) -> usize {
    world.tree.usage(node).unwrap().permits
}

#[test]
fn nothing_is_granted_below_a_cooled_node_and_siblings_continue() {
    let (world, one, other) = siblings();
    let leaf = world.add(one, 40);
    assert_eq!(
        world.tree.cool_down(one, None, Some(seconds(7.0))),
        Ok(Duration::from_secs(7))
    );
    let mut waiters = [world.waits(one, 1), world.waits(leaf, 1)];
    assert!(
        world
            .tree
            .try_acquire(AcquireRequest::slots(leaf, 1))
            .unwrap()
            .is_none()
    );
    for _ in 0..69 {
        world.pass(0.1);
        drop(world.take(other, 40));
    }
    assert!(waiters.iter_mut().all(|waiter| waiter.wakes() == 0));
    assert_eq!(world.tree.next_ready(), Some(at(7.0)));
    world.pass(0.1);
    let first = granted(&mut waiters[0]);
    assert!(waiters[1].poll().is_pending(), "one grant at the deadline");
    drop(first);
    drop(granted(&mut waiters[1]));
}

#[test]
fn cooled_resource_delays_only_the_requests_that_need_it() {
    let (world, root) = World::slots(4);
    let memory = world.tree.resource("memory");
    let limits = [
        (SLOTS, Limit::Slots(units(4))),
        (memory, Limit::Slots(units(4))),
    ];
    let both = world.tree.add(root, NodeOptions::new(limits)).unwrap();
    world
        .tree
        .cool_down(both, Some(memory), Some(seconds(1.0)))
        .unwrap();
    let cost = Cost::of(memory, units(1)).unwrap();
    let mut waiter = world.waits_ask(AcquireRequest::new(both, cost));
    drop(world.take(both, 4));
    world.pass(1.0);
    drop(granted(&mut waiter));
}

#[test]
fn calls_of_one_moment_are_one_event_and_the_latest_deadline_counts() {
    let (world, one, _) = siblings();
    let held: Vec<_> = (0..40).map(|_| world.take(one, 1)).collect();
    for permit in held {
        world.tree.cool_down(one, None, Some(seconds(1.0))).unwrap();
        world.release(permit);
    }
    assert_eq!(
        world.tree.cool_down(one, None, Some(seconds(2.0))),
        Ok(Duration::from_secs(2))
    );
    assert_eq!(
        world.tree.cool_down(one, None, Some(seconds(0.5))),
        Ok(Duration::from_secs(2))
    );
    assert_eq!(
        world.tree.cool_down(one, None, Some(Duration::ZERO)),
        Ok(Duration::from_secs(2))
    );
    let found = cooldown(&world, one).unwrap();
    assert_eq!((found.events, found.left), (1, Duration::from_secs(2)));
    // A late answer to a call from before is of this event, too.
    world.pass(2.0);
    world.pass(1.0);
    world.tree.cool_down(one, None, Some(seconds(1.0))).unwrap();
    assert_eq!(cooldown(&world, one).unwrap().events, 2);
}

#[test]
fn back_off_doubles_with_each_event_of_a_ramp() {
    let (world, one, _) = siblings();
    for expected in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 64.0] {
        let delay = world.tree.cool_down(one, None, None).unwrap();
        assert_eq!(delay, Duration::from_secs_f64(expected));
        // Longer than the cooldown and than the time in which late answers arrive, and shorter than the ramp.
        world.pass(expected.max(1.0) + 0.1);
    }
    world.pass(100.0);
    drop(world.take(one, 1));
    assert!(cooldown(&world, one).is_none());
    assert_eq!(
        world.tree.cool_down(one, None, None),
        Ok(Duration::from_millis(500))
    );
}

#[test]
fn back_off_halves_while_calls_are_served() {
    let (world, one, _) = siblings();
    let rounds = [
        (true, 0.5),
        (false, 1.0),
        (false, 2.0),
        (false, 4.0),
        (true, 2.0),
        (false, 4.0),
        (true, 2.0),
        (true, 1.0),
        (true, 0.5),
        (true, 0.5),
    ];
    for (is_served, expected) in rounds {
        if is_served {
            drop(world.take(one, 1));
        }
        let rejected = world.take(one, 1);
        let delay = world.tree.cool_down(one, None, None).unwrap();
        assert_eq!(delay, Duration::from_secs_f64(expected));
        world.release(rejected);
        // Longer than the time in which late answers arrive, and shorter than the ramp.
        world.pass(expected.max(1.0) + 0.1);
    }
}

#[test]
fn back_off_doubles_at_a_node_of_one_slot() {
    let (world, root) = World::slots(1);
    let mut sum = 0.0;
    for expected in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0] {
        let permit = world.take(root, 1);
        let delay = world.tree.cool_down(root, None, None).unwrap();
        assert_eq!(delay, Duration::from_secs_f64(expected));
        world.release(permit);
        world.pass(expected + 0.05);
        sum += expected + 0.05;
    }
    assert!(world.tree.now() <= at(sum + 0.01));
}

/// Keep 80 waiters at a node whose permits are held for 0.1 s, and return the numbers in flight in steps of 50 ms.
fn ramp(world: &World, node: NodeId, steps: usize) -> Vec<usize> {
    let mut waiting: Vec<Task<Acquire>> = (0..80).map(|_| queue(world, node)).collect();
    let mut held = Vec::new();
    let mut seen = Vec::new();
    for step in 0..steps {
        let (ended, rest): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|(until, _)| *until <= step);
        held = rest;
        for (_, permit) in ended {
            world.release(permit);
            waiting.push(queue(world, node));
        }
        waiting.retain_mut(|waiter| match waiter.poll() {
            Poll::Ready(permit) => {
                held.push((step + 2, permit.unwrap()));
                false
            }
            Poll::Pending => true,
        });
        seen.push(in_flight(world, node));
        world.pass(0.05);
    }
    seen
}

#[test]
fn ramp_doubles_to_half_of_what_was_held_and_then_each_second() {
    let (world, one, _) = siblings();
    // The mean hold is 0.1 s.
    let before: Vec<_> = (0..40).map(|_| world.take(one, 1)).collect();
    world.pass(0.1);
    let (_held, before) = {
        let mut before = before;
        (before.remove(0), before)
    };
    for permit in before {
        world.tree.cool_down(one, None, Some(seconds(1.0))).unwrap();
        world.release(permit);
    }
    // One permit from before is held all the time, and does not count.
    world.pass(1.0);
    let seen = ramp(&world, one, 120);
    assert_eq!(seen[0], 2, "the first grant is at the deadline");
    assert!(
        seen.windows(2)
            .all(|pair| pair[1] <= 40 && pair[1] >= pair[0] || pair[0] == 40)
    );
    let half = seen.iter().position(|&held| held > 20).unwrap();
    assert!(
        (6..=14).contains(&half),
        "half after {half} steps: {seen:?}"
    );
    let full = seen.iter().position(|&held| held == 40).unwrap();
    assert!(
        (half + 10..half + 30).contains(&full),
        "full after {full} steps: {seen:?}"
    );
    assert!(cooldown(&world, one).is_none());
}

#[test]
fn calls_that_hang_do_not_raise_the_threshold() {
    let (world, one, _) = siblings();
    let hung: Vec<_> = (0..20).map(|_| world.take(one, 1)).collect();
    let calls: Vec<_> = (0..20).map(|_| world.take(one, 1)).collect();
    world.pass(0.1);
    for permit in calls {
        world.tree.cool_down(one, None, Some(seconds(1.0))).unwrap();
        world.release(permit);
    }
    world.pass(1.0);
    let seen = ramp(&world, one, 10);
    assert!(seen[9] >= 24, "{seen:?}");
    // The mean of the calls since the first event is 4, and half of what is held is 10.
    world.tree.cool_down(one, None, Some(seconds(1.0))).unwrap();
    world.pass(1.0);
    let seen = ramp(&world, one, 20);
    assert_eq!(seen[0], 21);
    assert!(seen[19] <= 26, "{seen:?}");
    drop(hung);
}

#[test]
fn ramp_ends_by_time_alone() {
    let (world, one, _) = siblings();
    world.tree.cool_down(one, None, Some(seconds(1.0))).unwrap();
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(cooldown(&world, one).unwrap().window, Some(1));
    world.clock.advance(Duration::from_secs(6));
    assert!(cooldown(&world, one).is_none(), "also without a tick");
    let all: Vec<_> = (0..40).map(|_| world.take(one, 1)).collect();
    assert!(cooldown(&world, one).is_none());
    drop(all);
}

#[test]
fn resize_and_close_during_a_cooldown() {
    let (world, one, other) = siblings();
    world.tree.cool_down(one, None, Some(seconds(1.0))).unwrap();
    world
        .tree
        .cool_down(other, None, Some(seconds(1.0)))
        .unwrap();
    let mut waiters: Vec<_> = (0..4).map(|_| world.waits(one, 1)).collect();
    let mut failing = world.waits(other, 1);
    world
        .tree
        .resize(one, &[(SLOTS, Limit::Slots(units(2)))])
        .unwrap();
    world.tree.close(other);
    assert!(matches!(failing.poll(), Poll::Ready(Err(_))));
    assert!(
        world
            .tree
            .cool_down(other, None, Some(seconds(1.0)))
            .is_err()
    );
    assert!(waiters.iter_mut().all(|waiter| waiter.wakes() == 0));
    world.pass(1.0);
    let first = granted(&mut waiters[0]);
    // The limit of 2 is reached by the first step of the ramp.
    world.pass(5.0);
    let second = granted(&mut waiters[1]);
    assert_eq!(in_flight(&world, one), 2);
    drop((first, second));
    drop(granted(&mut waiters[2]));
    drop(granted(&mut waiters[3]));
}

#[test]
fn cooled_node_neither_saves_up_a_share_nor_loses_one() {
    let (world, root) = World::slots(1);
    let (one, other) = (world.add(root, 1), world.add(root, 1));
    let mut counts = [0, 0];
    let mut waiters = [queue(&world, one), queue(&world, other)];
    let round = |waiters: &mut [Task<Acquire>; 2], counts: &mut [i32; 2]| {
        for (index, node) in [one, other].into_iter().enumerate() {
            if let Poll::Ready(permit) = waiters[index].poll() {
                counts[index] += 1;
                world.pass(0.01);
                waiters[index] = queue(&world, node);
                world.release(permit.unwrap());
            }
        }
    };
    (0..200).for_each(|_| round(&mut waiters, &mut counts));
    world.tree.cool_down(one, None, Some(seconds(5.0))).unwrap();
    counts = [0, 0];
    while world.tree.now() < at(15.0) {
        let before = world.tree.now();
        round(&mut waiters, &mut counts);
        if world.tree.now() == before {
            world.pass(0.01);
        }
    }
    // Alone for 5 s, then in equal shares.
    let together = (counts[0], counts[1] - 500);
    assert!(
        (together.0 - together.1).abs() < 20,
        "{together:?} of {counts:?}"
    );
}

#[test]
fn request_in_front_keeps_its_place() {
    let (world, root) = World::slots(1);
    let held = world.take(root, 1);
    let urgent = AcquireRequest::slots(root, 1).priority(1000);
    let mut later = [world.waits(root, 1), world.waits_ask(urgent)];
    let front = |order| AcquireRequest::slots(root, 1).in_front(order);
    let mut second = world.waits_ask(front(9));
    let mut first = world.waits_ask(front(3));
    world.release(held);
    for waiter in [&mut first, &mut second, &mut later[1]] {
        drop(granted(waiter));
    }
    drop(granted(&mut later[0]));
}

#[test]
fn time_of_cooldowns_is_counted_once_where_they_overlap() {
    let (world, one, _) = siblings();
    assert_eq!(world.tree.cooled(one), (Duration::ZERO, Duration::ZERO));
    world.tree.cool_down(one, None, Some(seconds(2.0))).unwrap();
    world.pass(1.0);
    world.tree.cool_down(one, None, Some(seconds(2.0))).unwrap();
    assert_eq!(
        world.tree.cooled(one),
        (Duration::from_secs(1), Duration::from_secs(2))
    );
    world.pass(10.0);
    assert_eq!(
        world.tree.cooled(one),
        (Duration::from_secs(3), Duration::ZERO)
    );
}

#[test]
fn release_helps_unless_a_cooldown_or_a_pause_or_only_a_rate_holds_a_request_off() {
    let (world, root) = World::slots(2);
    let calls = world.tree.resource("calls");
    let rate = Limit::Rate {
        amount: units(1),
        per: seconds(5.0),
        burst: None,
    };
    let limits = [(SLOTS, Limit::Slots(units(2))), (calls, rate)];
    let leaf = world.tree.add(root, NodeOptions::new(limits)).unwrap();
    let slot = Cost::slots(1);
    let both = Cost::new([(SLOTS, units(1)), (calls, units(1))]).unwrap();
    let helps = |cost: &Cost| world.tree.release_helps(leaf, cost);

    assert!(!helps(&slot), "it can be granted at once");
    let held = world.take(leaf, 2);
    assert!(helps(&slot) && helps(&both));

    world.tree.pause(leaf).unwrap();
    assert!(!helps(&slot));
    world.tree.resume(leaf).unwrap();
    world
        .tree
        .resize(root, &[(SLOTS, Limit::Slots(units(0)))])
        .unwrap();
    assert!(!helps(&slot));
    world
        .tree
        .resize(root, &[(SLOTS, Limit::Slots(units(2)))])
        .unwrap();
    assert!(helps(&slot));

    world
        .tree
        .cool_down(root, None, Some(seconds(3.0)))
        .unwrap();
    assert!(!helps(&slot));
    world.pass(3.0);
    assert!(helps(&slot));
    world
        .tree
        .cool_down(leaf, Some(calls), Some(seconds(3.0)))
        .unwrap();
    assert!(helps(&slot) && !helps(&both));
    world.pass(3.0);
    drop(held);

    drop(world.take_ask(AcquireRequest::new(leaf, both.clone())));
    assert!(!helps(&both), "only quota is missing");
    let held = world.take(leaf, 2);
    assert!(helps(&both));
    drop(held);
}
