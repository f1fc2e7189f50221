//! A tree of capacities under arbitrary operations, checked against a simple model.
//!
//! `PROPTEST_CASES=200000 cargo test -p headrace-core --test capacity_model` searches longer, with that many
//! cases of each theme. Do not use `--release`, which checks less.
#![cfg(not(loom))]
// A single binary: public items here are for its other files.
#![allow(unreachable_pub)]

#[path = "../common/mod.rs"]
mod common;
mod floors;
mod found;
mod look;
mod model;
mod nodes;
mod op;
mod quota;
mod run;
mod watch;

use op::Theme;
use proptest::prelude::*;
use run::Run;

/// The mean number of operations of a case. A failing case can shrink to a few.
const STEPS: usize = 200;

/// By default the seven themes have ten thousand cases together.
fn config(share: u32) -> ProptestConfig {
    ProptestConfig {
        cases: 10_000 / share,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

const fn theme(memory: u32, calls: u32, money: u32, floors: u32) -> Theme {
    Theme {
        memory,
        calls,
        money,
        floors,
    }
}

const SLOTS: Theme = theme(0, 0, 0, 0);
const TWO: Theme = theme(7, 0, 0, 0);
const QUOTAS: Theme = theme(0, 6, 0, 0);
const BUDGETS: Theme = theme(0, 0, 5, 0);
const FLOORS: Theme = theme(0, 0, 0, 12);
const FLOORS_AND_QUOTAS: Theme = theme(0, 6, 0, 12);
const ALL: Theme = theme(3, 4, 3, 4);

macro_rules! themes {
    ($($name:ident: $theme:expr),*) => {
        proptest! {
            #![proptest_config(config(7))]

            $(
                #[test]
                fn $name(
                    settings in Theme::settings(),
                    nodes in $theme.nodes(),
                    ops in prop::collection::vec($theme.op(), 1..2 * STEPS),
                ) {
                    Run::new(settings, nodes).play(&ops);
                }
            )*
        }
    };
}

themes! { slots: SLOTS, slots_and_memory: TWO, quotas: QUOTAS, budgets: BUDGETS, floors: FLOORS,
floors_and_quotas: FLOORS_AND_QUOTAS, everything: ALL }

proptest! {
    #![proptest_config(config(20))]

    #[test]
    fn same_operations_give_the_same_grants(
        settings in Theme::settings(),
        nodes in ALL.nodes(),
        ops in prop::collection::vec(ALL.op(), 1..2 * STEPS),
    ) {
        let once = Run::new(settings, nodes.clone()).play(&ops);
        prop_assert_eq!(once, Run::new(settings, nodes).play(&ops));
    }
}
