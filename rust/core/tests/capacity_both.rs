//! An acquire that needs slots and quota is granted in bounded time, although others always wait for each of them.
#![cfg(not(loom))]

mod common;

use common::Task;
use common::clocked::{SLOTS, World, granted, units};
use headrace_core::Tree;
use headrace_core::capacity::{
    Acquire, AcquireRequest, Cost, Limit, ManualClock, NodeId, NodeOptions, Permit, ResourceId,
    Settings, Time,
};
use std::sync::Arc;
use std::time::Duration;

/// The default of [`Settings::passes`](headrace_core::capacity::Settings::passes).
const PASSES: u64 = 8;

/// One market: slots with a hold time, calls with a period, both in milliseconds, and a backlog that always waits for each.
struct Market {
    world: World,
    calls: ResourceId,
    hold: u64,
    /// The acquires that wait for a slot only, and for a call only.
    queues: [(NodeId, Cost, Vec<Task<Acquire>>); 2],
    held: Vec<(Time, Permit)>,
}

/// The positions of the limits and of the waiters in the tree.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// Both limits at the root, each kind of waiter at its own child.
    Flat,
    /// All waiters in one wait queue.
    OneQueue,
    /// The calls are limited at an inner node, below which every waiter needs a call.
    InnerCalls,
    /// The same, with these waiters in the queue of the inner node itself.
    InnerQueue,
    /// The slots are limited at an inner node, below which every waiter needs a slot.
    InnerSlots,
}

impl Market {
    fn new(shape: Shape, slots: u64, hold: u64, period: u64) -> (Self, NodeId) {
        let world = World::new();
        let calls = world.tree.resource("calls");
        let rate = Limit::Rate {
            amount: units(1),
            per: Duration::from_millis(period),
            burst: None,
        };
        let slots = (SLOTS, Limit::Slots(units(slots)));
        let calls_here = (calls, rate);
        let root = |limits: &[_]| {
            let options = NodeOptions::new(limits.iter().copied());
            world.tree.root(options).unwrap()
        };
        let add = |parent, limits: &[_]| {
            let options = NodeOptions::new(limits.iter().copied());
            world.tree.add(parent, options).unwrap()
        };
        let (both, busy, calling) = match shape {
            Shape::Flat => {
                let root = root(&[slots, calls_here]);
                (add(root, &[]), add(root, &[]), add(root, &[]))
            }
            Shape::OneQueue => {
                let root = root(&[slots, calls_here]);
                (root, root, root)
            }
            Shape::InnerCalls => {
                let root = root(&[slots]);
                let inner = add(root, &[calls_here]);
                (add(inner, &[]), add(root, &[]), add(inner, &[]))
            }
            Shape::InnerQueue => {
                let root = root(&[slots]);
                let inner = add(root, &[calls_here]);
                (inner, add(root, &[]), inner)
            }
            Shape::InnerSlots => {
                let root = root(&[calls_here]);
                let inner = add(root, &[slots]);
                (add(inner, &[]), add(inner, &[]), add(root, &[]))
            }
        };
        let queues = [
            (busy, Cost::slots(1), Vec::new()),
            (calling, Cost::of(calls, units(1)).unwrap(), Vec::new()),
        ];
        let market = Self {
            world,
            calls,
            hold,
            queues,
            held: Vec::new(),
        };
        (market, both)
    }

    /// Collect all grants and replace their acquires by new ones.
    fn replace(&mut self) {
        let now = self.world.tree.now();
        loop {
            let before = self.held.len();
            for (node, cost, queue) in &mut self.queues {
                while queue.len() < 3 {
                    let acquire = self
                        .world
                        .tree
                        .acquire(AcquireRequest::new(*node, cost.clone()));
                    queue.push(Task::new(acquire));
                }
                queue.retain_mut(|task| match task.poll() {
                    std::task::Poll::Pending => true,
                    std::task::Poll::Ready(permit) => {
                        let ends = now.after(Duration::from_millis(self.hold));
                        if cost.get(SLOTS) > units(0) {
                            self.held.push((ends, permit.unwrap()));
                        }
                        false
                    }
                });
            }
            self.world.tree.check();
            if self.held.len() == before && self.queues.iter().all(|queue| queue.2.len() == 3) {
                return;
            }
        }
    }

    /// Advance to the time of the next event.
    fn step(&mut self) {
        self.replace();
        let ends = self.held.iter().map(|(ends, _)| *ends);
        let next = ends.chain(self.world.tree.next_ready()).min();
        self.world
            .clock
            .set(next.expect("a permit is held or an acquire waits"));
        let now = self.world.tree.now();
        // One after the other: each release may grant a waiter.
        while let Some(index) = self.held.iter().position(|(ends, _)| *ends <= now) {
            self.world.release(self.held.swap_remove(index).1);
            self.replace();
        }
        self.world.tree.tick();
        self.world.tree.check();
        self.replace();
    }
}

/// Return the wait in milliseconds of an acquire of `slots` slots and one call. Stops when it far exceeds the bound.
fn wait(market: &mut Market, both: NodeId, slots: u64, bound: u64) -> u64 {
    let cost = Cost::new([(SLOTS, units(slots)), (market.calls, units(1))]).unwrap();
    let began = market.world.tree.now();
    let mut task = Task::new(market.world.tree.acquire(AcquireRequest::new(both, cost)));
    loop {
        let waited = market.world.tree.now().since(began).as_millis();
        let waited = u64::try_from(waited).unwrap();
        if task.poll().is_ready() || waited > 4 * bound {
            return waited;
        }
        market.step();
    }
}

/// At worst it misses slots eight times, once in each round of both, and is passed eight times if it is large. After that,
/// quota and slots are reserved for it.
#[test]
fn slots_and_quota_waiter_has_bounded_wait() {
    let mut failed = Vec::new();
    let mut worst = 0.0_f64;
    let shapes = [
        Shape::Flat,
        Shape::OneQueue,
        Shape::InnerCalls,
        Shape::InnerQueue,
        Shape::InnerSlots,
    ];
    for shape in shapes {
        for (slots, wanted) in [(1, 1), (3, 1), (3, 2), (3, 3)] {
            for (hold, period) in [(3, 10), (10, 3), (7, 7), (1, 10), (10, 1), (5, 7)] {
                let (mut market, both) = Market::new(shape, slots, hold, period);
                for _ in 0..50 {
                    market.step();
                }
                let round = hold + period;
                let bound = 2 * (PASSES + 1) * round;
                for _ in 0..5 {
                    let waited = wait(&mut market, both, wanted, bound);
                    #[allow(clippy::cast_precision_loss)]
                    let rounds = waited as f64 / round as f64;
                    worst = worst.max(rounds);
                    if waited > bound {
                        failed.push((shape, slots, wanted, hold, period, waited));
                    }
                }
            }
        }
    }
    println!("the longest wait was {worst:.1} rounds");
    assert!(failed.is_empty(), "waited too long: {failed:?}");
}

/// A waiter that stays at the head of a ready rate queue waits for slots only. If the rate is deferred then, it waits for
/// time again, and the next deadline is updated.
#[test]
fn deferred_rate_updates_the_next_deadline() {
    let clock = Arc::new(ManualClock::new());
    let tree = Tree::new(Settings {
        passes: 1,
        ..Settings::with_clock(Arc::clone(&clock) as _)
    });
    let world = World { tree, clock };
    let calls = world.tree.resource("calls");
    let rate = Limit::Rate {
        amount: units(1),
        per: Duration::from_millis(7),
        burst: None,
    };
    let limits = [(SLOTS, Limit::Slots(units(2))), (calls, rate)];
    let root = world.tree.root(NodeOptions::new(limits)).unwrap();
    let both = Cost::new([(SLOTS, units(1)), (calls, units(1))]).unwrap();
    let call = AcquireRequest::new(root, Cost::of(calls, units(1)).unwrap());
    drop(world.take_ask(call));
    let held = world.take(root, 1);
    let mut late = world.waits_ask(AcquireRequest::new(root, both));
    let mut missed = Task::new(world.tree.acquire(AcquireRequest::slots(root, 1)));
    let missed = granted(&mut missed);
    world.pass(0.007);
    world
        .tree
        .cool_down(root, Some(calls), Some(Duration::from_millis(30)))
        .unwrap();
    world.release(held);
    assert!(late.poll().is_pending());
    let due = world.tree.now().after(Duration::from_millis(30));
    assert_eq!(world.tree.next_ready(), Some(due));
    world.pass(0.030);
    drop(granted(&mut late));
    drop(missed);
}
