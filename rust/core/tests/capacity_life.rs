//! The life cycle of nodes, permits and futures of a tree of capacities.
#![cfg(not(loom))]

mod common;

use common::clocked::{SLOTS, World, failed, granted, units};
use common::{Named, Reentrant, Task, panics};
use headrace_core::Tree;
use headrace_core::capacity::{
    AcquireError, AcquireRequest, Amount, AmountError, Cost, CostError, Limit, MAX_DEPTH,
    NodeError, NodeOptions, PermitError, ResourceId, Settings, Weight,
};
use headrace_core::sync::QueuedFuture;
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

fn slots(slots: u64) -> [(ResourceId, Limit); 1] {
    [(SLOTS, Limit::Slots(units(slots)))]
}

#[test]
fn permit_id_is_held_until_released() {
    let (world, root) = World::slots(2);
    let id = world.take(root, 1).into_id();
    let other = world
        .tree
        .try_take(&AcquireRequest::slots(root, 1))
        .unwrap()
        .unwrap();
    assert_eq!(
        (world.held(root), world.tree.cost(id)),
        (2, Some(Cost::slots(1)))
    );
    world.tree.suspend(id).unwrap();
    assert!(world.tree.is_suspended(id) && !world.tree.is_suspended(other));
    for _ in 0..2 {
        world.tree.release(other);
        world.tree.release(id);
    }
    assert_eq!((world.held(root), world.tree.cost(id)), (0, None));
    assert_eq!(world.tree.suspend(id), Err(PermitError::Released));
    world.tree.check();
}

#[test]
fn close_fails_all_waits_below_and_keeps_permits() {
    let (world, root) = World::slots(2);
    let branch = world.add(root, 2);
    let leaf = world.add(branch, 2);
    let held = world.take(leaf, 2);
    let mut below: Vec<_> = (0..12).map(|_| world.waits(leaf, 1)).collect();
    let mut beside = world.waits(root, 1);
    world.tree.close(branch);
    world.tree.close(branch);
    world.tree.check();
    for task in &mut below {
        assert_eq!(task.wakes(), 1);
        assert_eq!(failed(task), AcquireError::Closed);
    }
    assert!(world.tree.is_closed(leaf) && !world.tree.is_closed(root));
    assert_eq!(
        world
            .tree
            .try_acquire(AcquireRequest::slots(leaf, 1))
            .unwrap_err(),
        AcquireError::Closed
    );
    assert_eq!(
        world.tree.add(branch, NodeOptions::slots(1)),
        Err(NodeError::Closed)
    );
    assert_eq!(world.tree.pause(leaf), Err(NodeError::Closed));
    assert_eq!((world.held(root), beside.wakes()), (2, 0));
    world.release(held);
    drop(granted(&mut beside));
}

#[test]
fn removed_node_is_freed_when_unused() {
    let (world, root) = World::slots(2);
    let branch = world.add(root, 2);
    let leaf = world.add(branch, 1);
    let held = world.take(leaf, 1);
    world.tree.remove(branch);
    world.tree.remove(leaf);
    world.tree.check();
    assert!(world.tree.usage(leaf).is_some(), "its permit is still held");
    assert_eq!(
        world
            .tree
            .try_acquire(AcquireRequest::slots(leaf, 1))
            .unwrap_err(),
        AcquireError::Closed
    );
    assert!(world.refused(AcquireRequest::slots(root, 2)));
    world.release(held);
    assert!(world.tree.usage(leaf).is_none() && world.tree.usage(branch).is_none());
    assert_eq!(world.held(leaf), 0);
    let snapshot = world.tree.snapshot(root).unwrap();
    assert!(snapshot.children.is_empty());
    let again = world.add(root, 1);
    assert!(world.tree.usage(branch).is_none(), "an id is never reused");
    drop(world.take(again, 1));
}

#[test]
fn removed_node_still_limits_its_children() {
    let (world, root) = World::slots(4);
    let branch = world.add(root, 1);
    let (leaf, other) = (world.add(branch, 4), world.add(branch, 4));
    world.tree.remove(branch);
    let held = world.take(leaf, 1);
    let mut task = world.waits(other, 1);
    world.release(held);
    drop(granted(&mut task));
    world.tree.remove(leaf);
    assert!(world.tree.usage(branch).is_some());
    world.tree.remove(other);
    world.tree.check();
    assert!(world.tree.usage(branch).is_none());
}

#[test]
fn root_can_be_replaced() {
    let (world, root) = World::slots(1);
    let second = NodeOptions::slots(3);
    assert_eq!(world.tree.root(second.clone()), Err(NodeError::SecondRoot));
    world.tree.remove(root);
    let root = world.tree.root(second).unwrap();
    drop(world.take(root, 3));
}

#[test]
fn growing_grants_and_shrinking_keeps_permits() {
    let (world, root) = World::slots(1);
    let held = world.take(root, 1);
    let mut tasks: Vec<_> = (0..3).map(|_| world.waits(root, 1)).collect();
    world.tree.resize(root, &slots(3)).unwrap();
    world.tree.check();
    let two: Vec<_> = tasks
        .drain(..2)
        .map(|mut task| granted(&mut task))
        .collect();
    world.tree.resize(root, &slots(1)).unwrap();
    world.tree.check();
    assert_eq!(world.held(root), 3);
    assert_eq!(world.tree.available(root, SLOTS), Some(Amount::ZERO));
    drop(two);
    assert_eq!(tasks[0].wakes(), 0);
    world.release(held);
    drop(granted(&mut tasks[0]));
}

#[test]
fn zero_limit_pauses_without_failing_waiters() {
    let (world, root) = World::slots(2);
    world.tree.resize(root, &slots(0)).unwrap();
    let mut task = world.waits(root, 2);
    let above = failed(&mut Task::new(
        world.tree.acquire(AcquireRequest::slots(root, 3)),
    ));
    assert!(matches!(above, AcquireError::AboveCeiling { ceiling, .. } if ceiling == units(2)));
    world.tree.resize(root, &slots(2)).unwrap();
    drop(granted(&mut task));
    let later = world.add(root, 0);
    let mut task = world.waits(later, 2);
    world.tree.resize(later, &slots(2)).unwrap();
    drop(granted(&mut task));
}

#[test]
fn waiter_above_a_lowered_limit_is_skipped() {
    let (world, root) = World::slots(4);
    let leaf = world.add(root, 4);
    let held = world.take(root, 4);
    let mut large: Vec<_> = (0..10).map(|_| world.waits(leaf, 3)).collect();
    let mut small = world.waits(leaf, 2);
    world.tree.resize(root, &slots(2)).unwrap();
    world.tree.check();
    world.release(held);
    drop(granted(&mut small));
    assert!(large.iter().all(|task| task.wakes() == 0));
    world.tree.resize(root, &slots(4)).unwrap();
    world.tree.check();
    for task in &mut large {
        let permit = granted(task);
        world.release(permit);
    }
}

#[test]
fn limits_can_be_added_and_removed() {
    let (world, root) = World::slots(2);
    let tokens = world.tree.resource("tokens");
    let held = world.take(root, 2);
    let mut task = world.waits(root, 2);
    world
        .tree
        .resize(root, &[(tokens, Limit::Budget(units(1)))])
        .unwrap();
    world.tree.check();
    let more = granted(&mut task);
    assert_eq!(world.held(root), 4);
    let unknown = world
        .tree
        .try_acquire(AcquireRequest::slots(root, 1))
        .unwrap_err();
    assert!(matches!(unknown, AcquireError::UnknownResource { .. }));
    world.tree.resize(root, &slots(5)).unwrap();
    assert!(world.refused(AcquireRequest::slots(root, 2)));
    drop((held, more));
    world.tree.check();
}

#[test]
fn suspended_permit_frees_and_reacquires_slots() {
    let (world, root) = World::slots(2);
    let permit = world.take(root, 2);
    assert_eq!(permit.resume(None).err(), Some(PermitError::Held));
    let mut task = world.waits(root, 1);
    permit.suspend().unwrap();
    assert_eq!(permit.suspend(), Err(PermitError::Suspended));
    world.tree.check();
    assert!(permit.is_suspended());
    let other = granted(&mut task);
    let mut resume = Task::waiting(permit.resume(None).unwrap());
    world.tree.check();
    assert_eq!(permit.resume(None).err(), Some(PermitError::Suspended));
    world.release(other);
    assert_eq!(
        permit.suspend(),
        Err(PermitError::Suspended),
        "granted, and not collected"
    );
    assert_eq!(resume.ready(), Ok(()));
    assert!(!permit.is_suspended());
    assert_eq!(world.held(root), 2);
    world.release(permit);
    assert_eq!(world.held(root), 0);
}

#[test]
fn dropped_resume_leaves_the_permit_suspended() {
    let (world, root) = World::slots(1);
    let permit = world.take(root, 1);
    permit.suspend().unwrap();
    let other = world.take(root, 1);
    let waiting = Task::waiting(permit.resume(None).unwrap());
    drop(waiting);
    world.tree.check();
    let collected = Task::waiting(permit.resume(None).unwrap());
    world.release(other);
    assert_eq!(world.held(root), 1);
    drop(collected);
    world.tree.check();
    assert_eq!(world.held(root), 0);
    assert_eq!(Task::new(permit.resume(None).unwrap()).ready(), Ok(()));
    assert_eq!(world.held(root), 1);
}

#[test]
fn release_ends_a_pending_resume() {
    let (world, root) = World::slots(1);
    let permit = world.take(root, 1);
    permit.suspend().unwrap();
    let other = world.take(root, 1);
    let mut resume = Task::waiting(permit.resume(None).unwrap());
    permit.release();
    world.tree.check();
    assert_eq!(resume.ready(), Err(AcquireError::Closed));
    let second = world.waits(root, 1);
    assert_eq!(permit.suspend(), Err(PermitError::Released));
    drop((other, second));
    world.tree.check();
}

#[test]
fn given_up_position_is_handed_on_and_queues_again() {
    let (world, root) = World::slots(1);
    let held = world.take(root, 1);
    let mut dead = world.waits(root, 1);
    let mut next = world.waits(root, 1);
    let position = dead
        .future
        .queue_position()
        .expect("it has joined the queue");
    world.release(held);
    assert_eq!((dead.wakes(), next.wakes()), (1, 0));
    position.give_up();
    position.give_up();
    world.tree.check();
    let permit = granted(&mut next);
    assert!(dead.poll().is_pending());
    world.release(permit);
    drop(granted(&mut dead));
    assert!(dead.future.queue_position().is_none());
}

#[test]
fn wakers_and_their_drops_may_call_back() {
    let (world, root) = World::slots(1);
    let act = {
        let tree = Arc::clone(&world.tree);
        move || drop(tree.try_acquire(AcquireRequest::slots(root, 1)))
    };
    let held = world.take(root, 1);
    let mut first = Task::new(world.tree.acquire(AcquireRequest::slots(root, 1)));
    assert!(first.poll_with(&Reentrant::waker(act.clone())).is_pending());
    assert!(first.poll_with(&Reentrant::waker(act.clone())).is_pending());
    let mut second = Task::new(world.tree.acquire(AcquireRequest::slots(root, 1)));
    assert!(second.poll_with(&Reentrant::waker(act)).is_pending());
    drop(second);
    drop(held);
    drop(first);
    world.tree.check();
    assert_eq!(world.held(root), 0);
}

#[test]
fn simultaneous_grants_wake_in_queue_order() {
    let (world, root) = World::slots(3);
    let held = world.take(root, 3);
    let log = Arc::new(Mutex::new(Vec::new()));
    let tasks: Vec<_> = (0..3)
        .map(|name| {
            let mut task = Task::new(world.tree.acquire(AcquireRequest::slots(root, 1)));
            let waker = Waker::from(Arc::new(Named {
                name,
                log: Arc::clone(&log),
            }));
            assert!(task.poll_with(&waker).is_pending());
            task
        })
        .collect();
    world.release(held);
    assert_eq!(*log.lock().unwrap(), [0, 1, 2]);
    drop(tasks);
}

#[test]
fn invalid_numbers_have_descriptive_errors() {
    assert_eq!(Amount::from_f64(-1.0), Err(AmountError::Negative));
    assert_eq!(Amount::from_f64(f64::NAN), Err(AmountError::NotANumber));
    assert_eq!(Amount::from_f64(f64::INFINITY), Err(AmountError::TooLarge));
    assert_eq!(Amount::from_f64(1e13), Err(AmountError::TooLarge));
    assert_eq!(Amount::from_f64(1e-9), Ok(Amount::micros(1)));
    assert_eq!(
        Amount::from_f64(0.1).map(|amount| amount.to_string()),
        Ok("0.1".into())
    );
    assert_eq!(Weight::from_f64(0.0), Err(AmountError::TooSmall));
    assert_eq!(Weight::from_f64(-1.0), Err(AmountError::Negative));
    assert_eq!(Weight::from_f64(f64::NAN), Err(AmountError::NotANumber));
    assert_eq!(Weight::from_f64(f64::INFINITY), Err(AmountError::TooLarge));
    assert_eq!(Cost::of(SLOTS, Amount::ZERO), Err(CostError::Zero));
    assert_eq!(Cost::new([]), Err(CostError::Zero));
    assert_eq!(
        Cost::new([(SLOTS, units(1)), (SLOTS, units(2))]),
        Err(CostError::Twice(SLOTS))
    );
}

#[test]
fn invalid_limits_change_nothing() {
    let (world, root) = World::slots(1);
    let rate = |amount, per, burst| Limit::Rate {
        amount: units(amount),
        per,
        burst: Some(units(burst)),
    };
    let calls = world.tree.resource("calls");
    let second = Duration::from_secs(1);
    let resize = |limits: &[(ResourceId, Limit)]| world.tree.resize(root, limits);
    assert_eq!(
        resize(&[(calls, rate(1, Duration::ZERO, 1))]),
        Err(NodeError::Per(calls))
    );
    assert_eq!(
        resize(&[(calls, rate(1, Duration::MAX, 1))]),
        Err(NodeError::Per(calls))
    );
    assert_eq!(
        resize(&[(calls, rate(1, second, 0))]),
        Err(NodeError::Burst(calls))
    );
    assert_eq!(
        resize(&[(SLOTS, rate(1, second, 1))]),
        Err(NodeError::Kind(SLOTS))
    );
    let twice = [slots(1)[0], slots(2)[0]];
    assert_eq!(resize(&twice), Err(NodeError::Twice(SLOTS)));
    assert_eq!(world.tree.limits(root), slots(1));
    let other = Tree::new(Settings::default());
    for name in 0..4 {
        other.resource(&name.to_string());
    }
    let foreign = other.resource("foreign");
    assert_eq!(
        resize(&[(foreign, rate(1, second, 1))]),
        Err(NodeError::Foreign(foreign))
    );
    let theirs = other.root(NodeOptions::slots(1)).unwrap();
    let message = panics(|| world.tree.waiting(theirs));
    assert_eq!(message, "the node belongs to another tree");
}

#[test]
fn path_length_is_limited() {
    let (world, root) = World::slots(1);
    let leaf = (1..MAX_DEPTH).fold(root, |parent, _| world.add(parent, 1));
    assert_eq!(
        world.tree.add(leaf, NodeOptions::slots(1)),
        Err(NodeError::TooDeep)
    );
    let held = world.take(leaf, 1);
    let mut task = world.waits(leaf, 1);
    world.pass(1.0);
    world.release(held);
    drop(granted(&mut task));
}

#[test]
fn snapshot_reports_received_shares() {
    let (world, root) = World::slots(1);
    let heavy = NodeOptions::slots(1).weight(Weight::from_f64(3.0).unwrap());
    let heavy = world.tree.add(root, heavy.name("heavy")).unwrap();
    let light = world.add(root, 1);
    let mut held = world.take(heavy, 1);
    let mut queues: Vec<_> = [heavy, light]
        .map(|node| {
            (0..40)
                .map(|_| world.waits(node, 1))
                .collect::<std::collections::VecDeque<_>>()
        })
        .into();
    for _ in 0..40 {
        world.pass(2.0);
        world.release(held);
        let queue = queues
            .iter_mut()
            .find(|queue| queue[0].wakes() > 0)
            .unwrap();
        held = granted(&mut queue.pop_front().unwrap());
    }
    let snapshot = world.tree.snapshot(root).unwrap();
    let [heavy, light] = &snapshot.children[..] else {
        panic!("two children");
    };
    assert_eq!(heavy.usage.name.as_deref(), Some("heavy"));
    assert_eq!(heavy.usage.due, Some(0.75));
    assert!((heavy.usage.received.unwrap() - 0.75).abs() < 0.03);
    assert!((light.usage.received.unwrap() - 0.25).abs() < 0.03);
    assert_eq!(snapshot.usage.mean_hold, Some(Duration::from_secs(2)));
    assert_eq!((snapshot.usage.waiting, snapshot.usage.granted), (40, 41));
    assert_eq!((snapshot.usage.received, snapshot.usage.due), (None, None));
    assert_eq!(snapshot.usage.permits, 1);
}
