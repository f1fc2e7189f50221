//! The controller by itself: properties of arbitrary samples, and the rules for single ones.

use headrace_core::capacity::adaptive::{AdaptiveRange, Controller, Outcome, Sample};
use proptest::prelude::*;
use std::time::Duration;

const RANGE: AdaptiveRange = AdaptiveRange {
    start: 10.0,
    minimum: 2.0,
    maximum: 100.0,
};

fn sample(begun: u64, outcome: Outcome, is_held_back: bool) -> Sample {
    Sample {
        begun,
        next: begun + 1,
        latency: Some(Duration::from_secs(1)),
        outcome,
        is_held_back,
    }
}

fn outcomes() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        8 => Just(Outcome::Done),
        1 => Just(Outcome::Throttled),
        1 => Just(Outcome::TimedOut),
        1 => Just(Outcome::Failed),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn limit_stays_in_its_range_and_rises_only_if_it_holds_work_back(
        samples in prop::collection::vec((outcomes(), any::<bool>(), 0_u64..5, 1_u64..5000, 0_u32..300), 0..2000),
    ) {
        let mut controller = Controller::new(RANGE);
        let mut next = 0;
        let mut was_held_back = false;
        for (outcome, is_held_back, age, millis, maximum) in samples {
            next += 1;
            let before = controller.limit();
            was_held_back |= is_held_back;
            controller.sample(Sample {
                begun: next - age.min(next),
                next,
                latency: Some(Duration::from_millis(millis)),
                outcome,
                is_held_back,
            });
            let limit = controller.limit();
            let range = controller.range();
            prop_assert!(limit <= range.maximum && limit >= range.minimum.min(range.maximum));
            prop_assert!(limit <= before || was_held_back);
            prop_assert!(limit <= (before * 1.5).max(before + 1.0));
            // Rarely, the user changes the maximum.
            if maximum < 3 {
                controller.set_range(AdaptiveRange { maximum: f64::from(maximum) * 40.0, ..range });
            }
        }
    }
}

#[test]
fn calls_from_before_a_decrease_do_not_decrease_again() {
    let mut controller = Controller::new(RANGE);
    // Ten calls began; all are throttled.
    for begun in 0..10 {
        controller.sample(Sample {
            next: 10,
            ..sample(begun, Outcome::Throttled, true)
        });
    }
    assert_eq!(controller.limit().to_string(), "9");
    controller.sample(Sample {
        next: 12,
        ..sample(10, Outcome::Throttled, true)
    });
    assert_eq!(controller.limit().to_string(), "8");
}

#[test]
fn single_timeouts_are_no_congestion() {
    let mut controller = Controller::new(RANGE);
    for call in 0..1000 {
        let outcome = if call % 50 == 0 {
            Outcome::TimedOut
        } else {
            Outcome::Done
        };
        controller.sample(sample(call, outcome, false));
    }
    assert_eq!(controller.limit().to_string(), "10");
    for call in 1000..1020 {
        controller.sample(sample(call, Outcome::TimedOut, false));
    }
    assert!(controller.limit() < 10.0);
}

#[test]
fn learned_limit_returns_with_the_maximum() {
    let mut controller = Controller::new(RANGE);
    controller.set_range(AdaptiveRange {
        maximum: 0.0,
        ..RANGE
    });
    assert_eq!(controller.limit().to_string(), "0");
    controller.set_range(RANGE);
    assert_eq!(controller.limit().to_string(), "10");
}

#[test]
fn large_cost_raises_the_minimum() {
    let mut controller = Controller::new(RANGE);
    controller.require(30.0);
    assert_eq!(controller.limit().to_string(), "30");
    for call in 0..100 {
        controller.sample(sample(call, Outcome::Throttled, true));
    }
    assert_eq!(controller.limit().to_string(), "30");
    controller.require(500.0);
    assert_eq!(controller.limit().to_string(), "100");
}
