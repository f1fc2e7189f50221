//! The guarantees of a tree of capacities about slots and shares, tested poll by poll.
#![cfg(not(loom))]

mod common;

use common::Task;
use common::clocked::{SLOTS, World, failed, granted, units};
use headrace_core::capacity::{
    Acquire, AcquireError, AcquireRequest, Cost, Limit, NodeId, NodeOptions, Permit, Weight,
};
use std::task::Poll;

#[test]
fn cost_is_held_at_the_node_and_all_ancestors() {
    let (world, root) = World::slots(10);
    let left = world.add(root, 6);
    let right = world.add(root, 6);
    let leaf = world.add(left, 4);
    let permit = world.take(leaf, 3);
    let nodes = [root, left, right, leaf];
    assert_eq!(nodes.map(|node| world.held(node)), [3, 3, 0, 3]);
    let available = |node| world.tree.available(node, SLOTS).unwrap();
    assert_eq!(nodes.map(available), [7, 3, 6, 1].map(units));
    assert_eq!(permit.cost(), Some(Cost::slots(3)));
    assert_eq!(permit.node(), leaf);
    world.release(permit);
    assert_eq!(nodes.map(|node| world.held(node)), [0; 4]);
}

#[test]
fn cost_is_taken_all_or_nothing() {
    let (world, root) = World::slots(3);
    let leaf = world.add(root, 5);
    let permit = world.take(root, 2);
    assert!(world.refused(AcquireRequest::slots(leaf, 2)));
    assert_eq!((world.held(root), world.held(leaf)), (2, 0));
    world.release(permit);
    drop(world.take(leaf, 2));
}

#[test]
fn cost_above_a_limit_fails_with_the_nearest_node() {
    let (world, root) = World::slots(4);
    let middle = world.add(root, 2);
    let leaf = world.add(middle, 3);
    let above = |node, ceiling| AcquireError::AboveCeiling {
        node,
        resource: SLOTS,
        ceiling: units(ceiling),
    };
    let ask = |slots| {
        failed(&mut Task::new(
            world.tree.acquire(AcquireRequest::slots(leaf, slots)),
        ))
    };
    assert_eq!(ask(5), above(leaf, 3));
    assert_eq!(ask(3), above(middle, 2));
    assert_eq!(
        ask(5).to_string(),
        "the cost is above a limit of 3 on its path"
    );
    drop(world.take(leaf, 2));
}

#[test]
fn unknown_resource_error_lists_known_resources() {
    let (world, root) = World::slots(4);
    let tokens = world.tree.resource("tokens");
    let ask = AcquireRequest::new(root, Cost::of(tokens, units(1)).unwrap());
    let unknown = AcquireError::UnknownResource {
        resource: tokens,
        known: vec![SLOTS],
    };
    assert_eq!(world.tree.try_acquire(ask.clone()).unwrap_err(), unknown);
    assert_eq!(failed(&mut Task::new(world.tree.acquire(ask))), unknown);
    assert_eq!(&*world.tree.resource_name(tokens), "tokens");
    assert_eq!(world.tree.resource("tokens"), tokens);
}

#[test]
fn release_is_idempotent() {
    let (world, root) = World::slots(2);
    let one = world.take(root, 1);
    let other = world.take(root, 1);
    assert!(!one.is_released());
    one.release();
    one.release();
    assert!(one.is_released());
    world.release(one);
    assert_eq!(world.held(root), 1);
    world.release(other);
    assert_eq!(world.held(root), 0);
}

#[test]
fn release_grants_the_waiter_immediately() {
    let (world, root) = World::slots(1);
    let permit = world.take(root, 1);
    let mut task = world.waits(root, 1);
    assert_eq!(world.tree.waiting(root), 1);
    permit.release();
    assert_eq!((task.wakes(), world.tree.waiting(root)), (1, 0));
    assert_eq!(
        world.held(root),
        1,
        "handed off, so a new acquire finds no free slot"
    );
    assert!(world.refused(AcquireRequest::slots(root, 1)));
    let permit = granted(&mut task);
    world.release(permit);
    assert_eq!(world.held(root), 0);
}

#[test]
fn acquire_that_fits_completes_at_first_poll() {
    let (world, root) = World::slots(1);
    let mut task = Task::new(world.tree.acquire(AcquireRequest::slots(root, 1)));
    assert_eq!(
        world.held(root),
        0,
        "nothing is taken before the first poll"
    );
    drop(granted(&mut task));
}

#[test]
fn equal_waiters_are_granted_in_fifo_order() {
    let (world, root) = World::slots(1);
    let mut held = world.take(root, 1);
    let mut tasks: Vec<_> = (0..20).map(|_| world.waits(root, 1)).collect();
    for task in &mut tasks {
        world.release(held);
        held = granted(task);
    }
}

#[test]
fn priority_counts_as_earlier_arrival() {
    let (world, root) = World::slots(1);
    let held = world.take(root, 1);
    let mut early = world.waits(root, 1);
    world.pass(15.0);
    let mut urgent = world.waits_ask(AcquireRequest::slots(root, 1).priority(1));
    let mut more_urgent = world.waits_ask(AcquireRequest::slots(root, 1).priority(2));
    let mut late = world.waits(root, 1);
    let mut held = Some(held);
    // 10 s a step: two steps outweigh the extra 15 s of the first waiter, one step does not.
    for task in [&mut more_urgent, &mut early, &mut urgent, &mut late] {
        world.release(held.take().unwrap());
        held = Some(granted(task));
    }
}

#[test]
fn dropped_waiter_and_dropped_grant_are_handed_on() {
    let (world, root) = World::slots(1);
    let permit = world.take(root, 1);
    let first = world.waits(root, 1);
    let second = world.waits(root, 1);
    let mut third = world.waits(root, 1);
    drop(first);
    world.release(permit);
    assert_eq!(second.wakes(), 1);
    drop(second);
    world.tree.check();
    assert_eq!(third.wakes(), 1);
    drop(granted(&mut third));
    assert_eq!(world.held(root), 0);
}

#[test]
fn large_cost_is_passed_eight_times_at_most() {
    let (world, root) = World::slots(4);
    let mut ones: Vec<_> = (0..4).map(|_| world.take(root, 1)).collect();
    let mut large = world.waits(root, 4);
    let mut passed = 0;
    loop {
        // One slot is freed; for a while, later small costs may take it.
        world.release(ones.remove(0));
        let mut task = Task::new(world.tree.acquire(AcquireRequest::slots(root, 1)));
        let Some(permit) = (match task.poll() {
            Poll::Ready(permit) => Some(permit.unwrap()),
            Poll::Pending => None,
        }) else {
            break;
        };
        world.tree.check();
        passed += 1;
        ones.push(permit);
    }
    assert_eq!(passed, 8);
    let usage = world.tree.usage(root).unwrap();
    assert_eq!((usage.bypassed, usage.resources[0].reserved), (8, units(1)));
    while let Some(one) = ones.pop() {
        assert_eq!(large.wakes(), 0);
        world.release(one);
    }
    drop(granted(&mut large));
}

#[test]
fn reservation_does_not_block_other_subtrees() {
    let (world, root) = World::slots(10);
    let (left, right) = (world.add(root, 2), world.add(root, 2));
    let mut one = world.take(left, 1);
    let other = world.take(left, 1);
    let large = world.waits(left, 2);
    for _ in 0..8 {
        world.release(one);
        one = world.take(left, 1);
    }
    world.release(one);
    assert!(
        world.refused(AcquireRequest::slots(left, 1)),
        "reserved for the large cost"
    );
    drop(world.take(right, 2));
    drop(large);
    world.tree.check();
    drop(world.take(left, 1));
    drop(other);
}

/// Two costs, each too large at a different level of one path: the older one may use the reservation of the other.
#[test]
fn large_costs_at_two_levels_are_both_granted() {
    for swapped in [false, true] {
        let world = World::new();
        let (one, two) = (world.tree.resource("r1"), world.tree.resource("r2"));
        let slots = |resource, limit| NodeOptions::new([(resource, Limit::Slots(units(limit)))]);
        let root = world.tree.root(slots(two, 8)).unwrap();
        let leaf = world.tree.add(root, slots(one, 5)).unwrap();
        let cost = |a, b| Cost::new([(one, units(a)), (two, units(b))]).unwrap();
        let mut small: Vec<_> = (0..4)
            .map(|_| world.take_ask(AcquireRequest::new(leaf, cost(1, 1))))
            .collect();
        let mut asks = vec![
            AcquireRequest::new(leaf, cost(5, 1)),
            AcquireRequest::new(leaf, cost(1, 8)),
        ];
        if swapped {
            asks.reverse();
        }
        let mut large: Vec<_> = asks.into_iter().map(|ask| world.waits_ask(ask)).collect();
        let mut passed = 0;
        while let Some(oldest) = (!small.is_empty()).then(|| small.remove(0)) {
            world.release(oldest);
            let ask = AcquireRequest::new(leaf, cost(1, 1));
            if let Some(permit) = world.tree.try_acquire(ask).unwrap() {
                passed += 1;
                assert!(passed < 50, "a large cost starves");
                small.push(permit);
            }
            world.tree.check();
        }
        let first = granted(&mut large[0]);
        world.release(first);
        drop(granted(&mut large[1]));
    }
}

#[test]
fn siblings_share_by_weight() {
    let (world, root) = World::slots(1);
    let nodes: Vec<_> = [1.0, 3.0]
        .into_iter()
        .map(|weight| {
            let options = NodeOptions::slots(1).weight(Weight::from_f64(weight).unwrap());
            world.tree.add(root, options).unwrap()
        })
        .collect();
    let mut held = Some(world.take(root, 1));
    let mut queues: Vec<Vec<_>> = nodes
        .iter()
        .map(|&node| (0..30).map(|_| world.waits(node, 1)).collect())
        .collect();
    let mut counts = [0, 0];
    for _ in 0..40 {
        world.pass(1.0);
        drop(held.take());
        for (queue, count) in queues.iter_mut().zip(&mut counts) {
            if queue.first().is_some_and(|task| task.wakes() > 0) {
                *count += 1;
                held = Some(granted(&mut queue.remove(0)));
            }
        }
        assert!(held.is_some());
    }
    assert_eq!(counts[0] + counts[1], 40);
    assert!((9..=11).contains(&counts[0]), "{counts:?}");
}

/// Bhattacharya et al. 2013: a child that holds all of an uncontended resource must not starve its sibling of a contended one.
#[test]
fn uncontended_resource_does_not_starve_siblings() {
    let world = World::new();
    let (cpu, gpu) = (world.tree.resource("cpu"), world.tree.resource("gpu"));
    let limits = [(cpu, Limit::Slots(units(4))), (gpu, Limit::Slots(units(4)))];
    let root = world.tree.root(NodeOptions::new(limits)).unwrap();
    let inner = |parent| world.tree.add(parent, NodeOptions::default()).unwrap();
    let (alone, pair) = (inner(root), inner(root));
    let (pair_cpu, pair_gpu) = (inner(pair), inner(pair));
    let asks = [(alone, cpu), (pair_cpu, cpu), (pair_gpu, gpu)];
    let mut received = [0; 3];
    let mut waiting: Vec<Vec<Task<Acquire>>> = vec![Vec::new(), Vec::new(), Vec::new()];
    let mut running: Vec<(usize, u64, Permit)> = Vec::new();
    for step in 0..400_u64 {
        // Holds of 4 steps.
        let (over, still): (Vec<_>, Vec<_>) =
            running.into_iter().partition(|(_, end, _)| *end <= step);
        running = still;
        for (index, _, permit) in over {
            received[index] += 4;
            world.release(permit);
        }
        for (index, queue) in waiting.iter_mut().enumerate() {
            while queue.len() < 5 {
                let (node, resource) = asks[index];
                queue.push(Task::new(world.tree.acquire(AcquireRequest::new(
                    node,
                    Cost::of(resource, units(1)).unwrap(),
                ))));
            }
            queue.retain_mut(|task| match task.poll() {
                Poll::Pending => true,
                Poll::Ready(permit) => {
                    running.push((index, step + 4, permit.unwrap()));
                    false
                }
            });
        }
        world.pass(1.0);
    }
    let [alone, pair_cpu, pair_gpu] = received;
    assert!(pair_gpu > 1500, "{received:?}");
    assert!(alone > 700 && pair_cpu > 700, "{received:?}");
}

#[test]
fn capped_child_accumulates_no_credit() {
    let (world, root) = World::slots(4);
    let capped = world.add(root, 1);
    let other = world.add(root, 4);
    let mut running: Vec<(NodeId, u64, Permit)> = Vec::new();
    let mut queues = [(capped, Vec::new()), (other, Vec::new())];
    let mut counts = [0_u64, 0];
    for step in 0..300_u64 {
        if step == 200 {
            world
                .tree
                .resize(capped, &[(SLOTS, Limit::Slots(units(4)))])
                .unwrap();
            counts = [0, 0];
        }
        running.retain(|(_, end, _)| *end > step);
        for (index, (node, queue)) in queues.iter_mut().enumerate() {
            while queue.len() < 6 {
                queue.push(Task::new(
                    world.tree.acquire(AcquireRequest::slots(*node, 1)),
                ));
            }
            queue.retain_mut(|task| match task.poll() {
                Poll::Pending => true,
                Poll::Ready(permit) => {
                    counts[index] += 1;
                    running.push((*node, step + 4, permit.unwrap()));
                    false
                }
            });
        }
        world.pass(1.0);
    }
    // 100 steps of 4 slots; each child gets about half.
    assert!(counts[0].abs_diff(counts[1]) <= 6, "{counts:?}");
}

#[test]
fn idle_branch_waits_for_one_release_at_most() {
    let (world, root) = World::slots(2);
    let (busy, idle) = (world.add(root, 2), world.add(root, 2));
    let mut running: Vec<_> = (0..2).map(|_| world.take(busy, 1)).collect();
    let mut queue: std::collections::VecDeque<_> = (0..50).map(|_| world.waits(busy, 1)).collect();
    for _ in 0..20 {
        world.pass(1.0);
        world.release(running.remove(0));
        running.push(granted(&mut queue.pop_front().unwrap()));
    }
    let mut late = world.waits(idle, 1);
    world.release(running.remove(0));
    drop(granted(&mut late));
}
