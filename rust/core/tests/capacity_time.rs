//! Rates, budgets and the other parts of a tree of capacities that depend on the clock.
#![cfg(not(loom))]

mod common;

use common::Task;
use common::clocked::{World, failed, granted, units};
use common::dice::Dice;
use headrace_core::Tree;
use headrace_core::capacity::{
    AcquireError, AcquireRequest, Amount, Cost, Limit, ManualClock, NodeError, NodeId, NodeOptions,
    PermitError, ResourceId, Settings, Time,
};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

fn rate(amount: u64, per: u64, burst: Option<u64>) -> Limit {
    Limit::Rate {
        amount: units(amount),
        per: Duration::from_secs(per),
        burst: burst.map(units),
    }
}

/// Return a tree whose root has one limit, on `"tokens"`.
fn tokens(limit: Limit) -> (World, NodeId, ResourceId) {
    let world = World::new();
    let tokens = world.tree.resource("tokens");
    let root = world
        .tree
        .root(NodeOptions::new([(tokens, limit)]))
        .unwrap();
    (world, root, tokens)
}

fn ask(node: NodeId, resource: ResourceId, amount: u64) -> AcquireRequest {
    AcquireRequest::new(node, Cost::of(resource, units(amount)).unwrap())
}

fn at(seconds: f64) -> Time {
    Time::ZERO.after(Duration::from_secs_f64(seconds))
}

/// Return the largest amount admitted in any window beyond the refill in that time.
fn most_at_once(admitted: &[(Time, u32)], amount: u32, per: u32) -> f64 {
    let mut most = 0.0_f64;
    for first in 0..admitted.len() {
        let mut sum = 0;
        for &(time, units) in &admitted[first..] {
            sum += units;
            let window = time.since(admitted[first].0).as_secs_f64();
            most = most.max(f64::from(sum) - window * f64::from(amount) / f64::from(per));
        }
    }
    most
}

#[test]
fn rate_is_smooth_and_exact() {
    for (burst, waiters) in [(None, 1), (None, 1000), (Some(1_u32), 1000), (Some(20), 50)] {
        let (world, root, tokens) = tokens(rate(200, 1, burst.map(u64::from)));
        let mut queue = VecDeque::new();
        let mut admitted = Vec::new();
        let mut step = |now| {
            // A granted waiter queues again, behind the others.
            while queue.front().is_some_and(|task: &Task<_>| task.wakes() > 0) {
                drop(granted(&mut queue.pop_front().unwrap()));
                admitted.push((now, 1));
            }
            while queue.len() < waiters {
                let mut task = Task::new(world.tree.acquire(ask(root, tokens, 1)));
                match task.poll() {
                    Poll::Pending => queue.push_back(task),
                    Poll::Ready(_) => admitted.push((now, 1)),
                }
            }
        };
        step(Time::ZERO);
        while let Some(next) = world.tree.next_ready().filter(|&next| next <= at(3.0)) {
            world.clock.set(next);
            world.tree.tick();
            step(next);
        }
        let burst = burst.unwrap_or(1);
        let most = most_at_once(&admitted, 200, 1);
        assert!(most <= f64::from(burst) + 1e-6, "{most} at once");
        assert_eq!(admitted.len(), 600 + burst as usize);
    }
}

#[test]
fn large_cost_waits_for_quota_without_being_passed() {
    let (world, root, tokens) = tokens(rate(60, 60, Some(10)));
    drop(world.take_ask(ask(root, tokens, 10)));
    let mut large = world.waits_ask(ask(root, tokens, 8));
    let mut small = world.waits_ask(ask(root, tokens, 1));
    assert_eq!(world.tree.next_ready(), Some(at(8.0)));
    world.pass(7.0);
    assert!(world.refused(ask(root, tokens, 1)));
    assert_eq!((large.wakes(), small.wakes()), (0, 0));
    world.pass(1.0);
    drop(granted(&mut large));
    assert_eq!(small.wakes(), 0);
    world.pass(1.0);
    drop(granted(&mut small));
    assert_eq!(world.tree.usage(root).unwrap().bypassed, 0);
}

#[test]
fn waiter_lacking_only_quota_holds_no_slot() {
    let world = World::new();
    let tokens = world.tree.resource("tokens");
    let limits = [
        (ResourceId::SLOTS, Limit::Slots(units(1))),
        (tokens, rate(1, 1, Some(1))),
    ];
    let root = world.tree.root(NodeOptions::new(limits)).unwrap();
    let both = Cost::new([(ResourceId::SLOTS, units(1)), (tokens, units(1))]).unwrap();
    drop(world.take_ask(AcquireRequest::new(root, both.clone())));
    let mut first = world.waits_ask(AcquireRequest::new(root, both));
    // The slot is free for any acquire that needs no token.
    let slot = world.take(root, 1);
    world.pass(1.0);
    assert_eq!(first.wakes(), 0, "now it lacks the slot");
    world.release(slot);
    drop(granted(&mut first));
}

#[test]
fn late_settlement_admits_nothing_more() {
    let (world, root, tokens) = tokens(rate(90, 60, Some(90)));
    let first = world.take_ask(ask(root, tokens, 90));
    world.pass(60.0);
    let _second = world.take_ask(ask(root, tokens, 90));
    // Its 90 were refilled by time and used. Nothing is left to return.
    first.settle(&[(tokens, Amount::ZERO)]).unwrap();
    assert!(world.refused(ask(root, tokens, 1)));
    let _third = {
        world.pass(60.0);
        world.take_ask(ask(root, tokens, 90))
    };
    assert!(world.refused(ask(root, tokens, 1)));
}

#[test]
fn early_settlement_refunds_and_upward_creates_debt() {
    let (world, root, tokens) = tokens(rate(60, 60, Some(90)));
    let permit = world.take_ask(ask(root, tokens, 90));
    let mut waiter = world.waits_ask(ask(root, tokens, 40));
    world.pass(10.0);
    // 10 were refilled by time. Of the 90 at most 80 can be returned now.
    permit.settle(&[(tokens, Amount::ZERO)]).unwrap();
    world.tree.check();
    drop(granted(&mut waiter));
    assert_eq!(world.tree.available(root, tokens), Some(units(50)));
    let permit = world.take_ask(ask(root, tokens, 10));
    permit.settle(&[(tokens, units(70))]).unwrap();
    assert_eq!(world.tree.available(root, tokens), Some(Amount::ZERO));
    let mut waiter = world.waits_ask(ask(root, tokens, 1));
    world.pass(20.0);
    assert_eq!(waiter.wakes(), 0);
    world.pass(1.0);
    drop(granted(&mut waiter));
}

#[test]
fn annulled_grant_returns_quota_and_budget() {
    let world = World::new();
    let (tokens, dollars) = (
        world.tree.resource("tokens"),
        world.tree.resource("dollars"),
    );
    let limits = [
        (tokens, rate(1, 1, Some(5))),
        (dollars, Limit::Budget(units(10))),
    ];
    let root = world.tree.root(NodeOptions::new(limits)).unwrap();
    let cost = Cost::new([(tokens, units(5)), (dollars, units(5))]).unwrap();
    let permit = world.take_ask(AcquireRequest::new(root, cost.clone()));
    let waiter = world.waits_ask(AcquireRequest::new(root, cost.clone()));
    world.pass(5.0);
    assert_eq!(waiter.wakes(), 1);
    drop(waiter);
    world.tree.check();
    assert_eq!(world.tree.available(root, tokens), Some(units(5)));
    assert_eq!(world.tree.available(root, dollars), Some(units(5)));
    let usage = world.tree.usage(root).unwrap();
    assert_eq!(usage.granted, 1);
    drop(permit);
}

#[test]
fn exhausted_budget_fails_all_waiters() {
    let (world, root, dollars) = tokens(Limit::Budget(units(10)));
    let exhausted = |left| AcquireError::BudgetExhausted {
        node: root,
        resource: dollars,
        left: units(left),
    };
    let first = world.take_ask(ask(root, dollars, 6));
    // 4 are left, but the 6 may be settled to less.
    let mut waiter = world.waits_ask(ask(root, dollars, 5));
    let mut other = world.waits_ask(ask(root, dollars, 8));
    first.settle(&[(dollars, units(3))]).unwrap();
    world.tree.check();
    let second = granted(&mut waiter);
    world.release(first);
    assert_eq!(failed(&mut other), exhausted(7));
    let mut third = world.waits_ask(ask(root, dollars, 3));
    world.release(second);
    assert_eq!(failed(&mut third), exhausted(2));
    assert_eq!(
        world.tree.try_acquire(ask(root, dollars, 3)).unwrap_err(),
        exhausted(2)
    );
    drop(world.take_ask(ask(root, dollars, 2)));
    assert_eq!(world.tree.held(root, dollars), units(10));
}

#[test]
fn budget_can_be_settled_upward() {
    let (world, root, dollars) = tokens(Limit::Budget(units(10)));
    let permit = world.take_ask(ask(root, dollars, 2));
    let mut waiter = world.waits_ask(ask(root, dollars, 9));
    permit.settle(&[(dollars, units(12))]).unwrap();
    world.tree.check();
    world.release(permit);
    assert!(matches!(
        failed(&mut waiter),
        AcquireError::BudgetExhausted { .. }
    ));
    assert_eq!(world.tree.held(root, dollars), units(12));
    world
        .tree
        .resize(root, &[(dollars, Limit::Budget(units(20)))])
        .unwrap();
    drop(world.take_ask(ask(root, dollars, 8)));
}

#[test]
fn nothing_is_granted_before_a_cooldown_ends() {
    let (world, root, tokens) = tokens(rate(60, 60, Some(60)));
    let leaf = world.tree.add(root, NodeOptions::default()).unwrap();
    let mut before = Task::new(world.tree.acquire(ask(leaf, tokens, 1)));
    drop(granted(&mut before));
    world
        .tree
        .cool_down(root, Some(tokens), Some(Duration::from_secs(5)))
        .unwrap();
    world
        .tree
        .cool_down(root, Some(tokens), Some(Duration::from_secs(2)))
        .unwrap();
    let mut waiter = world.waits_ask(ask(leaf, tokens, 1));
    assert_eq!(world.tree.available(leaf, tokens), Some(Amount::ZERO));
    assert_eq!(world.tree.next_ready(), Some(at(5.0)));
    world.pass(4.9);
    assert_eq!(waiter.wakes(), 0);
    world.pass(0.1);
    drop(granted(&mut waiter));
    let unknown = world.tree.resource("unknown");
    let refused = world.tree.cool_down(root, Some(unknown), None);
    assert_eq!(refused, Err(NodeError::Unlimited(unknown)));
}

#[test]
fn cooled_node_does_not_block_siblings() {
    let (world, root) = World::slots(4);
    let (left, right) = (world.add(root, 4), world.add(root, 4));
    world
        .tree
        .cool_down(left, None, Some(Duration::from_secs(1)))
        .unwrap();
    let mut waiter = world.waits(left, 1);
    drop(world.take(right, 4));
    world.pass(1.0);
    drop(granted(&mut waiter));
}

#[test]
fn pause_blocks_the_subtree_until_resumed() {
    let (world, root) = World::slots(4);
    let (left, right) = (world.add(root, 4), world.add(root, 4));
    let held = world.take(left, 1);
    world.tree.pause(left).unwrap();
    world.tree.pause(left).unwrap();
    assert!(world.tree.usage(left).unwrap().paused);
    let mut waiter = world.waits(left, 1);
    world.release(held);
    assert_eq!(waiter.wakes(), 0);
    drop(world.take(right, 4));
    world.tree.resume(left).unwrap();
    world.tree.check();
    drop(granted(&mut waiter));
}

#[test]
fn dead_alarm_does_not_delay_other_waiters() {
    let (world, root, tokens) = tokens(rate(1, 1, Some(1)));
    let waker = Waker::noop();
    let (dead, alive) = (world.tree.alarm(), world.tree.alarm());
    drop(world.take_ask(ask(root, tokens, 1)));
    let _first = world.waits_ask(ask(root, tokens, 1).alarm(dead.id()));
    let mut second = world.waits_ask(ask(root, tokens, 1).alarm(alive.id()));
    assert_eq!(dead.deadline(waker), Some(at(1.0)));
    // The dead alarm never fires. The other one has the same deadline, although another waiter is first.
    assert_eq!(alive.deadline(waker), Some(at(1.0)));
    world.pass(1.0);
    assert_eq!(alive.deadline(waker), Some(at(2.0)));
    world.pass(1.0);
    drop(granted(&mut second));
    assert_eq!(alive.deadline(waker), None);
    assert_eq!(alive.waiting(), 0);
}

#[test]
fn alarm_is_woken_when_its_deadline_moves_earlier() {
    let (world, root, tokens) = tokens(rate(1, 1, Some(10)));
    let alarm = world.tree.alarm();
    let count = Arc::new(common::Count::default());
    let waker = Waker::from(Arc::clone(&count));
    assert_eq!(alarm.deadline(&waker), None);
    let permit = world.take_ask(ask(root, tokens, 10));
    let waiter = world.waits_ask(ask(root, tokens, 10).alarm(alarm.id()));
    assert_eq!(count.get(), 1, "a deadline where there was none");
    assert_eq!(alarm.deadline(&waker), Some(at(10.0)));
    permit.settle(&[(tokens, units(4))]).unwrap();
    assert_eq!(count.get(), 2);
    assert_eq!(alarm.deadline(&waker), Some(at(4.0)));
    permit.settle(&[(tokens, units(8))]).unwrap();
    assert_eq!(count.get(), 2, "a later one is found when the timer fires");
    drop(waiter);
    assert_eq!(alarm.deadline(&waker), None);
}

/// A timer that is late by up to a millisecond would turn 200 a second into 180 if each grant were charged at its tick.
#[test]
fn allowed_lateness_loses_no_quota() {
    let clock = Arc::new(ManualClock::new());
    let tree = Tree::new(Settings {
        lateness: Duration::from_millis(20),
        ..Settings::with_clock(Arc::clone(&clock) as _)
    });
    let tokens = tree.resource("tokens");
    let root = tree
        .root(NodeOptions::new([(tokens, rate(200, 1, None))]))
        .unwrap();
    let mut admitted = 0;
    let mut late = 0;
    let mut queue: Vec<_> = (0..700)
        .map(|_| Task::new(tree.acquire(ask(root, tokens, 1))))
        .collect();
    for task in &mut queue {
        admitted += u64::from(task.poll().is_ready());
    }
    while let Some(next) = tree.next_ready().filter(|&next| next <= at(3.0)) {
        late = (late + 617) % 1000;
        clock.set(next.after(Duration::from_micros(late)));
        tree.tick();
        tree.check();
        admitted = 1 + queue.iter().filter(|task| task.wakes() > 0).count() as u64;
    }
    assert!((599..=601).contains(&admitted), "{admitted}");
}

/// Tick that are later than that lose their whole delay, except the part that the burst absorbs.
#[test]
fn tick_beyond_lateness_loses_quota_above_the_burst() {
    for (late, burst, expected) in [(19, None, 600), (30, None, 86), (30, Some(10), 610)] {
        let clock = Arc::new(ManualClock::new());
        let tree = Tree::new(Settings {
            lateness: Duration::from_millis(20),
            ..Settings::with_clock(Arc::clone(&clock) as _)
        });
        let tokens = tree.resource("tokens");
        let root = tree
            .root(NodeOptions::new([(tokens, rate(200, 1, burst))]))
            .unwrap();
        let mut queue: Vec<_> = (0..700)
            .map(|_| Task::new(tree.acquire(ask(root, tokens, 1))))
            .collect();
        let at_once = (queue.iter_mut())
            .filter_map(|task| task.poll().is_ready().then_some(()))
            .count();
        while let Some(next) = tree.next_ready().filter(|&next| next <= at(3.0)) {
            clock.set(next.after(Duration::from_millis(late)));
            tree.tick();
            tree.check();
        }
        let admitted = at_once + queue.iter().filter(|task| task.wakes() > 0).count();
        assert!(
            admitted.abs_diff(expected) <= 7,
            "{late} {burst:?}: {admitted}"
        );
    }
}

/// An acquire that arrives when the rate is ready was not late, whatever the timers do: no window exceeds its bound.
#[test]
fn lateness_applies_only_to_waiters() {
    const SEED: u64 = 4_711;
    for burst in [None, Some(5)] {
        let clock = Arc::new(ManualClock::new());
        let tree = Tree::new(Settings {
            lateness: Duration::from_millis(50),
            ..Settings::with_clock(Arc::clone(&clock) as _)
        });
        let tokens = tree.resource("tokens");
        let limits = [(tokens, rate(20, 1, burst))];
        let root = tree.root(NodeOptions::new(limits)).unwrap();
        let mut dice = Dice::new(SEED);
        let mut admitted = Vec::new();
        for _ in 0..2_000 {
            clock.advance(Duration::from_millis(dice.below(60) as u64));
            if tree.try_acquire(ask(root, tokens, 1)).unwrap().is_some() {
                admitted.push((tree.now(), 1));
            }
        }
        let most = most_at_once(&admitted, 20, 1);
        let allowed = f64::from(u32::try_from(burst.unwrap_or(1)).unwrap());
        assert!(most <= allowed + 1e-6, "seed {SEED}, {burst:?}: {most}");
    }
}

#[test]
fn settling_errors_change_nothing() {
    let world = World::new();
    let tokens = world.tree.resource("tokens");
    let limits = [
        (ResourceId::SLOTS, Limit::Slots(units(4))),
        (tokens, rate(60, 60, Some(60))),
    ];
    let root = world.tree.root(NodeOptions::new(limits)).unwrap();
    let cost = Cost::new([(ResourceId::SLOTS, units(2)), (tokens, units(9))]).unwrap();
    let permit = world.take_ask(AcquireRequest::new(root, cost.clone()));
    let other = world.tree.resource("other");
    let grows = permit.settle(&[(tokens, units(1)), (ResourceId::SLOTS, units(3))]);
    assert_eq!(grows, Err(PermitError::Grows(ResourceId::SLOTS)));
    assert_eq!(
        permit.settle(&[(other, units(1))]),
        Err(PermitError::Unasked(other))
    );
    let twice = permit.settle(&[(tokens, units(1)), (tokens, units(2))]);
    assert_eq!(twice, Err(PermitError::Twice(tokens)));
    assert_eq!(permit.cost(), Some(cost));
    permit
        .settle(&[(ResourceId::SLOTS, units(1)), (tokens, units(3))])
        .unwrap();
    assert_eq!(
        world.tree.peek(root),
        [(ResourceId::SLOTS, units(3)), (tokens, units(57))]
    );
    permit.release();
    assert_eq!(
        permit.settle(&[(tokens, units(1))]),
        Err(PermitError::Released)
    );
    assert_eq!(
        world.tree.peek(root),
        [(ResourceId::SLOTS, units(4)), (tokens, units(57))]
    );
}
