//! The operations on a tree, drawn at random.

use proptest::prelude::*;

/// An amount of each of the four resources. Slots and memory are held, calls are admitted by a rate, and money is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    pub slots: u64,
    pub memory: u64,
    pub calls: u64,
    pub money: u64,
}

/// The limits of a node; `None` where it has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    pub slots: Option<u64>,
    pub memory: Option<u64>,
    pub calls: Option<Quota>,
    pub money: Option<u64>,
}

/// A rate of `calls` in `millis` milliseconds, possibly none, and a burst. Without a burst, each call is admitted when the
/// previous one is refilled.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    pub calls: u64,
    pub millis: u64,
    pub burst: Option<u64>,
}

/// One operation. A `usize` selects a node, a waiter or a permit, modulo their number.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Add(usize, Limits, u32),
    Remove(usize),
    Acquire(usize, Amounts, i32, Option<u64>),
    Try(usize, Amounts, i32),
    Poll(usize),
    Cancel(usize),
    Release(usize),
    Settle(usize, Amounts),
    Suspend(usize),
    Resume(usize),
    /// With `true`, the set of limited resources stays the same and only the amounts change.
    Resize(usize, Limits, bool),
    Reweigh(usize, u32),
    Floor(usize, u64),
    Pause(usize),
    Unpause(usize),
    /// Cools a node or a resource of it for this many milliseconds; 0 leaves the delay to the tree.
    CoolDown(usize, u64),
    Close(usize),
    /// Advances the time by this many milliseconds.
    Pass(u64),
    /// Advances the time to the next alarm, plus this many microseconds.
    FireAlarm(u64),
}

/// The mix of resources in a run.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    /// The tenths of the nodes and costs that include memory, calls and money.
    pub memory: u32,
    pub calls: u32,
    pub money: u32,
    /// The weight of changes of floors among the operations.
    pub floors: u32,
}

impl Theme {
    fn some<T: std::fmt::Debug>(
        tenths: u32,
        values: impl Strategy<Value = T>,
    ) -> impl Strategy<Value = Option<T>> {
        prop::option::weighted((f64::from(tenths) / 10.0).clamp(0.001, 0.999), values)
    }

    fn limits(self) -> impl Strategy<Value = Limits> {
        let slots = prop::option::weighted(0.8, prop_oneof![1 => Just(0_u64), 9 => 1..10_u64]);
        // Some of these have a whole number of nanoseconds per call, and some do not.
        let millis = prop::sample::select(vec![7_u64, 10, 1_000]);
        let burst = prop::option::weighted(0.8, 1..8_u64);
        let calls = prop_oneof![1 => Just(0_u64), 19 => 1..8_u64];
        let quota = (calls, millis, burst);
        let quota = quota.prop_map(|(calls, millis, burst)| Quota {
            calls,
            millis,
            burst,
        });
        let (memory, calls, money) = (
            Self::some(self.memory, prop_oneof![1 => Just(0_u64), 19 => 1..16_u64]),
            Self::some(self.calls, quota),
            Self::some(self.money, 0..40_u64),
        );
        (slots, memory, calls, money).prop_map(|(slots, memory, calls, money)| Limits {
            slots,
            memory,
            calls,
            money,
        })
    }

    fn amounts(self) -> impl Strategy<Value = Amounts> {
        let slots = prop_oneof![1 => Just(0_u64), 6 => Just(1_u64), 3 => 2..8_u64];
        let calls = Self::some(self.calls, prop_oneof![3 => Just(1_u64), 1 => 2..8_u64]);
        let money = Self::some(self.money, 1..8_u64);
        let memory = Self::some(self.memory, prop_oneof![1 => Just(1_u64), 2 => 2..12_u64]);
        (slots, memory, calls, money).prop_map(|(slots, memory, calls, money)| Amounts {
            slots,
            memory: memory.unwrap_or(0),
            calls: calls.unwrap_or(0),
            money: money.unwrap_or(0),
        })
    }

    pub fn op(self) -> impl Strategy<Value = Op> {
        let pick = 0..64_usize;
        let weight = 1..5_u32;
        let priority = prop_oneof![6 => Just(0), 1 => -2..3_i32];
        let ask = (pick.clone(), self.amounts(), priority).boxed();
        let owner = prop::option::weighted(0.2, 0..3_u64);
        let some = |weight: u32, op: fn(usize) -> Op| (weight, (0..64_usize).prop_map(op).boxed());
        let mut all = vec![
            (
                3,
                (pick.clone(), self.limits(), weight.clone())
                    .prop_map(|(node, limits, weight)| Op::Add(node, limits, weight))
                    .boxed(),
            ),
            some(1, Op::Remove),
            (
                40,
                (ask.clone(), owner)
                    .prop_map(|((node, cost, priority), owner)| {
                        Op::Acquire(node, cost, priority, owner)
                    })
                    .boxed(),
            ),
            (
                6,
                ask.prop_map(|(node, cost, priority)| Op::Try(node, cost, priority))
                    .boxed(),
            ),
            some(20, Op::Poll),
            some(10, Op::Cancel),
            some(20, Op::Release),
            (
                8,
                (pick.clone(), self.amounts())
                    .prop_map(|(lease, actual)| Op::Settle(lease, actual))
                    .boxed(),
            ),
            some(3, Op::Suspend),
            some(4, Op::Resume),
            (
                5,
                (pick.clone(), self.limits(), prop::bool::weighted(0.8))
                    .prop_map(|(node, limits, same)| Op::Resize(node, limits, same))
                    .boxed(),
            ),
            (
                2,
                (pick.clone(), weight)
                    .prop_map(|(node, weight)| Op::Reweigh(node, weight))
                    .boxed(),
            ),
            some(2, Op::Pause),
            some(3, Op::Unpause),
            (
                2,
                (pick, prop_oneof![4 => 1..50_u64, 1 => Just(0)])
                    .prop_map(|(node, millis)| Op::CoolDown(node, millis))
                    .boxed(),
            ),
            some(1, Op::Close),
            (
                8,
                prop_oneof![3 => 0..20_u64, 1 => 0..2_000_u64]
                    .prop_map(Op::Pass)
                    .boxed(),
            ),
            (
                6,
                prop_oneof![2 => Just(0_u64), 1 => 0..30_000_u64]
                    .prop_map(Op::FireAlarm)
                    .boxed(),
            ),
        ];
        if self.floors > 0 {
            all.push((
                self.floors,
                (0..64_usize, 0..5_u64)
                    .prop_map(|(node, floor)| Op::Floor(node, floor))
                    .boxed(),
            ));
        }
        prop::strategy::Union::new_weighted(all)
    }

    /// Return the allowed lateness of a timer in milliseconds, and the number of passes.
    pub fn settings() -> impl Strategy<Value = (u64, u32)> {
        let lateness = prop_oneof![3 => Just(0), 1 => 1..50_u64];
        // With few passes more cases reach a reservation.
        (lateness, prop_oneof![2 => Just(8), 1 => 1..4_u32])
    }

    /// Return the initial nodes, each below an earlier one.
    pub fn nodes(self) -> impl Strategy<Value = Vec<(usize, Limits, u32)>> {
        prop::collection::vec((0..64_usize, self.limits(), 1..5_u32), 1..8)
    }
}
