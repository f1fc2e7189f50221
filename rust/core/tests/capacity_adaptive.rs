//! Adaptive limits of a tree under random requests and reports: every invariant of the scheduler holds after each operation, no grant is
//! made above a limit, and every waiter is granted in the end.
#![cfg(not(loom))]

mod common;

use common::Task;
use common::random_tree::RandomTree;
use headrace_core::Tree;
use headrace_core::capacity::adaptive::Outcome;
use headrace_core::capacity::{
    AcquireRequest, Amount, Limit, ManualClock, NodeId, NodeOptions, Permit, ResourceId, Settings,
};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

fn adaptive(start: u64, minimum: u64, maximum: u64) -> Limit {
    Limit::Adaptive {
        start: Amount::units(start),
        minimum: Amount::units(minimum),
        maximum: Amount::units(maximum),
    }
}

fn limit(tree: &Tree, node: NodeId) -> u64 {
    match tree.limits(node)[..] {
        [(_, Limit::Adaptive { start, .. } | Limit::Slots(start))] => start.as_micros() / 1_000_000,
        ref limits => panic!("{limits:?}"),
    }
}

fn held(tree: &Tree, node: NodeId) -> u64 {
    tree.held(node, ResourceId::SLOTS).as_micros() / 1_000_000
}

fn slots(limit: Limit) -> NodeOptions {
    NodeOptions::new([(ResourceId::SLOTS, limit)])
}

#[test]
fn invariants_hold_while_limits_adapt() {
    for seed in 0..40 {
        let mut random = RandomTree::new(seed);
        let tree = Arc::clone(&random.world.tree);
        let root = tree.root(slots(adaptive(8, 2, 24))).unwrap();
        // The limit of the root falls below the sum of the floors.
        let floored = slots(Limit::Slots(Amount::units(10))).floor(Amount::units(3));
        let nodes = [
            tree.add(root, slots(adaptive(5, 1, 20))).unwrap(),
            tree.add(root, floored).unwrap(),
            tree.add(root, NodeOptions::default().floor(Amount::units(1)))
                .unwrap(),
        ];
        tree.check();
        for _ in 0..1500 {
            random.pass_below(100);
            let before = [root, nodes[0]].map(|node| held(&tree, node));
            match random.dice.below(10) {
                0..4 => {
                    let cost = 1 + random.dice.bits() % 3;
                    let node = nodes[random.dice.below(3)];
                    random.acquire(AcquireRequest::slots(node, cost));
                }
                4..9 => {
                    if let Some(permit) = random.pick() {
                        // At the node or above, as in a pool.
                        let places = [root, permit.node()];
                        random.end(&permit, |dice| places[dice.below(2)]);
                    }
                }
                _ => {
                    let maximum = 4 + random.dice.bits() % 20;
                    let limits = [(ResourceId::SLOTS, Limit::Slots(Amount::units(maximum)))];
                    // Fails below the sum of the floors.
                    let done = tree.resize(root, &limits);
                    let floors = [1, 2].map(|at| tree.usage(nodes[at]).unwrap().floor);
                    let sum = floors[0].as_micros() + floors[1].as_micros();
                    assert_eq!(done.is_ok(), maximum * 1_000_000 >= sum);
                    // As does a floor that the maximum does not cover.
                    let floor = Amount::units(random.dice.bits() % 12);
                    let _ = tree.refloor(nodes[2], floor);
                }
            }
            random.tick();
            for (node, before) in [root, nodes[0]].into_iter().zip(before) {
                let (held, limit) = (held(&tree, node), limit(&tree, node));
                assert!(
                    held <= limit || held <= before,
                    "seed {seed}: {held} of {limit}"
                );
            }
            random.collect();
        }
        let limits = [(ResourceId::SLOTS, Limit::Slots(Amount::units(24)))];
        tree.resize(root, &limits).unwrap();
        random.drain();
    }
}

#[test]
fn report_without_an_adaptive_limit_does_nothing() {
    let tree = Tree::new(Settings::default());
    let root = tree.root(NodeOptions::slots(2)).unwrap();
    let leaf = tree.add(root, slots(adaptive(2, 1, 4))).unwrap();
    assert!(!tree.is_adaptive(root) && tree.is_adaptive(leaf));
    let permit = tree
        .try_acquire(AcquireRequest::slots(root, 1))
        .unwrap()
        .unwrap();
    permit.report(Outcome::Throttled);
    permit.release();
    permit.report(Outcome::Throttled);
    assert_eq!((limit(&tree, root), limit(&tree, leaf)), (2, 2));
}

#[test]
fn lowered_limit_does_not_strand_a_large_cost() {
    let tree = Tree::new(Settings::default());
    let root = tree.root(slots(adaptive(4, 1, 8))).unwrap();
    let mut held: Vec<_> = (0..4)
        .map(|_| {
            tree.try_acquire(AcquireRequest::slots(root, 1))
                .unwrap()
                .unwrap()
        })
        .collect();
    let mut large = Task::waiting(tree.acquire(AcquireRequest::slots(root, 4)));
    held[0].report(Outcome::Throttled);
    assert_eq!(limit(&tree, root), 4, "the waiter needs 4");
    held.clear();
    let Poll::Ready(permit) = large.poll() else {
        panic!("all is free");
    };
    let permit = permit.unwrap();
    assert_eq!(
        permit.cost().unwrap().get(ResourceId::SLOTS),
        Amount::units(4)
    );
}

#[test]
fn throttled_call_that_lowers_the_limit_only_pauses_the_node() {
    let clock = Arc::new(ManualClock::new());
    let tree = Tree::new(Settings {
        estimate: Duration::from_millis(1),
        ..Settings::with_clock(Arc::clone(&clock) as _)
    });
    let root = tree.root(NodeOptions::slots(100)).unwrap();
    let leaf = tree.add(root, slots(adaptive(5, 3, 9))).unwrap();
    let plain = tree.add(root, NodeOptions::slots(9)).unwrap();
    let throttle = |leaf, permit: Permit| {
        permit.report(Outcome::Throttled);
        tree.check();
        let pause = tree.back_off(root, leaf).unwrap();
        permit.release();
        tree.check();
        pause.as_micros()
    };
    let take = |node| tree.try_acquire(AcquireRequest::slots(node, 1)).unwrap();
    // Both of them began before the limit fell. The pace is the least one.
    let (first, second) = (take(leaf).unwrap(), take(leaf).unwrap());
    assert_eq!(throttle(leaf, first), 6_250);
    assert_eq!(throttle(leaf, second), 6_250);
    assert_eq!(limit(&tree, leaf), 4);
    assert!(take(leaf).is_none(), "the root pauses");
    clock.advance(Duration::from_micros(6_250));
    // The next decrease in a row doubles the pause, and there is no ramp.
    assert!(tree.usage(root).unwrap().cooldown.is_none());
    let all: Vec<_> = (0..4).map(|_| take(leaf).unwrap()).collect();
    let mut all = all.into_iter();
    assert_eq!(throttle(leaf, all.next().unwrap()), 12_500);
    assert_eq!(limit(&tree, leaf), 3);
    all.for_each(drop);
    clock.advance(Duration::from_millis(13));
    // At the minimum the limit answers nothing, so the node is cooled down.
    assert_eq!(throttle(leaf, take(leaf).unwrap()), 500_000);
    assert_eq!(limit(&tree, leaf), 3);
    clock.advance(Duration::from_secs(60));
    // Nor does an adaptive limit that is not on the path.
    assert_eq!(throttle(plain, take(plain).unwrap()), 500_000);
    assert_eq!(
        tree.cool_down(leaf, None, None),
        Ok(Duration::from_millis(500))
    );
}
