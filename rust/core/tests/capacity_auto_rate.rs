//! Auto rates: properties of the controller for random samples, and every invariant of a tree whose rates adapt.
#![cfg(not(loom))]

mod common;

use common::dice::Dice;
use common::random_tree::{RandomTree, outcome};
use headrace_core::capacity::adaptive::Outcome;
use headrace_core::capacity::auto_rate::{RateController, RateRange, RateSample, StatedLimit};
use headrace_core::capacity::{AcquireRequest, Amount, Cost, Limit, NodeOptions, ResourceId, Time};
use std::sync::Arc;
use std::time::Duration;

const RANGE: RateRange = RateRange {
    start: 1.0,
    minimum: 0.1,
    maximum: 1000.0,
};

#[test]
fn rate_stays_in_its_range_and_rises_only_if_it_holds_work_back() {
    for seed in 0..200 {
        let mut dice = Dice::new(seed);
        let mut controller = RateController::new(RANGE);
        let (mut now, mut was_held_back) = (0, false);
        for next in 1..1000 {
            now += dice.bits() % 2_000_000_000;
            let before = controller.rate();
            if dice.below(4) == 0 {
                let limit = f64::from(u32::try_from(dice.below(100)).unwrap());
                let stated = StatedLimit {
                    limit,
                    remaining: (limit * dice.unit()).floor(),
                    reset: dice.unit() * 60.0,
                };
                controller.stated(next, Some(Duration::from_secs(1)), stated);
                let most = stated.remaining.max(1.0) / stated.reset;
                assert!(
                    controller.rate() <= most.max(RANGE.minimum) * 1.000_001,
                    "seed {seed}: {} after {stated:?}",
                    controller.rate()
                );
            } else {
                let outcome = outcome(&mut dice);
                let is_held_back = dice.below(2) == 0;
                was_held_back |= is_held_back;
                controller.sample(RateSample {
                    begun: next - (dice.bits() % 5).min(next),
                    next,
                    now: Time::from_nanos(now),
                    outcome,
                    is_held_back,
                });
                let rate = controller.rate();
                assert!(
                    rate <= before || is_held_back && was_held_back,
                    "seed {seed}"
                );
                assert!(
                    outcome != Outcome::Throttled || rate <= before,
                    "seed {seed}"
                );
            }
            let rate = controller.rate();
            assert!(
                (RANGE.minimum..=RANGE.maximum).contains(&rate),
                "seed {seed}: {rate}"
            );
        }
    }
}

#[test]
fn calls_from_before_a_decrease_do_not_decrease_again() {
    let mut controller = RateController::new(RateRange {
        start: 64.0,
        ..RANGE
    });
    let throttled = |begun, next| RateSample {
        begun,
        next,
        now: Time::ZERO,
        outcome: Outcome::Throttled,
        is_held_back: true,
    };
    for begun in 0..10 {
        controller.sample(throttled(begun, 10));
    }
    // Half, and a tenth below that target.
    assert!((controller.rate() - 28.8).abs() < 1e-9 && controller.setbacks() == 1);
    controller.sample(throttled(10, 12));
    assert!(controller.rate() < 28.8 && controller.setbacks() == 2);
}

#[test]
fn limits_that_a_refusal_contradicts_raise_nothing() {
    let mut controller = RateController::new(RANGE);
    let stated = StatedLimit {
        limit: 1000.0,
        remaining: 900.0,
        reset: 10.0,
    };
    controller.stated(1, None, stated);
    assert!((controller.rate() - 90.0).abs() < 1e-9);
    controller.sample(RateSample {
        begun: 2,
        next: 3,
        now: Time::ZERO,
        outcome: Outcome::Throttled,
        is_held_back: true,
    });
    let lower = controller.rate();
    controller.stated(3, None, stated);
    assert!(lower < 50.0 && (controller.rate() - lower).abs() < 1e-9);
}

fn auto(start: u64, burst: Option<u64>) -> Limit {
    Limit::AutoRate {
        start: Amount::units(start),
        per: Duration::from_secs(1),
        burst: burst.map(Amount::units),
        minimum: Amount::units(1),
        maximum: Amount::units(100),
    }
}

fn plain_rate(amount: u64) -> Limit {
    Limit::Rate {
        amount: Amount::units(amount),
        per: Duration::from_secs(1),
        burst: None,
    }
}

#[test]
fn invariants_hold_while_rates_adapt() {
    for seed in 0..40 {
        let mut random = RandomTree::new(seed);
        let tree = Arc::clone(&random.world.tree);
        let calls = tree.resource("calls");
        let slots = (ResourceId::SLOTS, Limit::Slots(Amount::units(12)));
        let root = tree
            .root(NodeOptions::new([slots, (calls, auto(5, None))]))
            .unwrap();
        let nodes = [
            tree.add(root, NodeOptions::new([(calls, auto(3, Some(2)))]))
                .unwrap(),
            tree.add(root, NodeOptions::default()).unwrap(),
        ];
        tree.check();
        for _ in 0..800 {
            random.pass_below(200);
            match random.dice.below(10) {
                0..4 => {
                    let parts = [
                        (ResourceId::SLOTS, Amount::units(1)),
                        (calls, Amount::units(1 + random.dice.bits() % 3)),
                    ];
                    let node = nodes[random.dice.below(2)];
                    random.acquire(AcquireRequest::new(node, Cost::new(parts).unwrap()));
                }
                4..9 => {
                    if let Some(permit) = random.pick() {
                        if random.dice.below(3) == 0 {
                            let stated = StatedLimit {
                                limit: 20.0,
                                remaining: 20.0 * random.dice.unit(),
                                reset: random.dice.unit(),
                            };
                            tree.report_stated(permit.id(), &[(calls, stated)]);
                            tree.check();
                        }
                        random.end(&permit, |_| root);
                    }
                }
                _ => {
                    let limit = plain_rate(random.dice.bits() % 20);
                    tree.resize(root, &[slots, (calls, limit)]).unwrap();
                }
            }
            random.tick();
            random.collect();
        }
        tree.resize(root, &[slots, (calls, plain_rate(100))])
            .unwrap();
        random.drain();
    }
}
