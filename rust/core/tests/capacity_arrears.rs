//! A child that quota holds back lags behind its siblings; a new user of the rate does not wait for that lag.
#![cfg(not(loom))]

mod common;

use common::Task;
use common::clocked::{SLOTS, World, units};
use common::dice::Dice;
use headrace_core::capacity::{
    Acquire, AcquireRequest, Cost, Limit, NodeId, NodeOptions, Permit, ResourceId, Time, Weight,
};
use std::task::Poll;
use std::time::Duration;

/// In milliseconds.
const SECOND: u64 = 1_000;
/// The mean and the longest hold of a permit, and the period of a rate for one call.
const HOLD: u64 = 90;
const LONGEST: u64 = 3 * HOLD / 2;
const PERIOD: u64 = 110;
const SLOTS_IN_ALL: u64 = 4;
/// The seed of the hold times.
const SEED: u64 = 1;
/// The number of acquires that wait at a time.
const DEPTH: usize = 8;
/// The age of the tree when the new tenant arrives, in seconds.
const AGES: [u64; 4] = [1, 10, 100, 1_000];

fn time(millis: u64) -> Time {
    Time::ZERO.after(Duration::from_millis(millis))
}

/// One child of the root, and its backlog of waiting acquires.
struct Tenant {
    node: NodeId,
    weight: u32,
    /// The requested costs, `DEPTH` acquires of each at a time.
    costs: Vec<Cost>,
    waiting: Vec<(usize, Task<Acquire>)>,
    /// The number of grants for each cost.
    granted: Vec<u64>,
    /// The total hold time of slots, in milliseconds.
    held: u64,
}

/// The positions of the limits and of the tenants in the tree.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// All at the root.
    Flat,
    /// Both limits at the root, each tenant below a node of its own.
    Grouped,
    /// The slots are limited at an inner node, the calls at the root.
    InnerSlots,
    /// The calls are limited at an inner node above the tenants that call; the slots at the root.
    InnerCalls,
}

const SHAPES: [Shape; 4] = [
    Shape::Flat,
    Shape::Grouped,
    Shape::InnerSlots,
    Shape::InnerCalls,
];

/// A tree with slots and rates, and its tenants.
struct House {
    world: World,
    shape: Shape,
    calls: ResourceId,
    tokens: ResourceId,
    root: NodeId,
    inner: NodeId,
    tenants: Vec<Tenant>,
    /// The end, the start and the tenant of each held permit.
    held: Vec<(u64, u64, usize, Permit)>,
    dice: Dice,
}

impl House {
    fn new(shape: Shape) -> Self {
        let world = World::new();
        let [calls, tokens] = ["calls", "tokens"].map(|name| world.tree.resource(name));
        let rate = Limit::Rate {
            amount: units(1),
            per: Duration::from_millis(PERIOD),
            burst: None,
        };
        let slots = (SLOTS, Limit::Slots(units(SLOTS_IN_ALL)));
        let rates = [(calls, rate), (tokens, rate)];
        let (outer, inner) = match shape {
            Shape::Flat | Shape::Grouped => (vec![slots, rates[0], rates[1]], vec![]),
            Shape::InnerSlots => (rates.to_vec(), vec![slots]),
            Shape::InnerCalls => (vec![slots], rates.to_vec()),
        };
        let root = world.tree.root(NodeOptions::new(outer)).unwrap();
        let inner = world.tree.add(root, NodeOptions::new(inner)).unwrap();
        Self {
            world,
            shape,
            calls,
            tokens,
            root,
            inner,
            tenants: Vec::new(),
            held: Vec::new(),
            dice: Dice::new(SEED),
        }
    }

    /// Return a slot and one unit of each of these rates.
    fn cost(rates: &[ResourceId]) -> Cost {
        let rates = rates.iter().map(|&rate| (rate, units(1)));
        Cost::new(rates.chain([(SLOTS, units(1))])).unwrap()
    }

    fn fetch() -> Cost {
        Self::cost(&[])
    }

    fn call(&self) -> Cost {
        Self::cost(&[self.calls])
    }

    fn tenant(&mut self, weight: u32, costs: Vec<Cost>) -> usize {
        let weight_of_node = Weight::from_f64(f64::from(weight)).unwrap();
        let calls = costs.iter().any(|cost| cost.parts().len() > 1);
        let parent = match self.shape {
            Shape::InnerSlots => self.inner,
            Shape::InnerCalls if calls => self.inner,
            Shape::Flat | Shape::Grouped | Shape::InnerCalls => self.root,
        };
        let options = NodeOptions::new([]).weight(weight_of_node);
        let mut node = self.world.tree.add(parent, options).unwrap();
        if let Shape::Grouped = self.shape {
            node = self.world.tree.add(node, NodeOptions::new([])).unwrap();
        }
        self.tenants.push(Tenant {
            node,
            weight,
            granted: vec![0; costs.len()],
            costs,
            waiting: Vec::new(),
            held: 0,
        });
        self.tenants.len() - 1
    }

    /// Set the costs that a tenant requests, and drop its waiting acquires.
    fn set_costs(&mut self, tenant: usize, costs: Vec<Cost>) {
        let tenant = &mut self.tenants[tenant];
        tenant.waiting.clear();
        tenant.granted = vec![0; costs.len()];
        tenant.costs = costs;
    }

    fn now(&self) -> u64 {
        u64::try_from(self.world.tree.now().since(Time::ZERO).as_millis()).unwrap()
    }

    /// Collect all grants and replace their acquires by new ones.
    fn replace(&mut self) {
        let now = self.now();
        loop {
            let mut is_settled = true;
            for (name, tenant) in self.tenants.iter_mut().enumerate() {
                for (which, cost) in tenant.costs.iter().enumerate() {
                    let waiting = tenant.waiting.iter();
                    let waiting = waiting.filter(|(other, _)| *other == which).count();
                    for _ in waiting..DEPTH {
                        let ask = AcquireRequest::new(tenant.node, cost.clone());
                        let task = Task::new(self.world.tree.acquire(ask));
                        tenant.waiting.push((which, task));
                    }
                }
                let (granted, held) = (&mut tenant.granted, &mut self.held);
                let dice = &mut self.dice;
                tenant.waiting.retain_mut(|(which, task)| {
                    let Poll::Ready(permit) = task.poll() else {
                        return true;
                    };
                    granted[*which] += 1;
                    let hold = LONGEST - dice.bits() % (HOLD + 1);
                    held.push((now + hold, now, name, permit.unwrap()));
                    is_settled = false;
                    false
                });
            }
            if is_settled {
                return;
            }
        }
    }

    /// Advance to the time of the next event, if that is before `until`.
    fn step(&mut self, until: u64) -> bool {
        self.replace();
        let ends = self.held.iter().map(|(end, ..)| time(*end));
        let next = ends.chain(self.world.tree.next_ready()).min();
        let next = next.expect("a permit is held or an acquire waits");
        if next >= time(until) {
            return false;
        }
        self.world.clock.set(next);
        while let Some(index) = self.held.iter().position(|(end, ..)| time(*end) <= next) {
            let (end, start, tenant, permit) = self.held.swap_remove(index);
            self.tenants[tenant].held += end - start;
            drop(permit);
            self.replace();
        }
        self.world.tree.tick();
        self.replace();
        true
    }

    fn run_until(&mut self, until: u64) {
        while self.step(until) {}
        self.world.tree.check();
    }

    fn run_for(&mut self, span: u64) {
        self.run_until(self.now() + span);
    }

    /// Return the time in milliseconds until this cost of a tenant is granted once more, at most `most`.
    fn wait(&mut self, tenant: usize, which: usize, most: u64) -> u64 {
        let (began, before) = (self.now(), self.tenants[tenant].granted[which]);
        self.replace();
        while self.tenants[tenant].granted[which] == before {
            if self.now() - began > most || !self.step(began + 2 * most) {
                return most;
            }
        }
        self.now() - began
    }
}

/// One tenant fetches, one calls, and a new one calls too: it is next after the current head of the rate queue.
#[test]
fn new_rate_user_does_not_wait_for_lag() {
    for shape in SHAPES {
        for (calling, busy) in [(1, 1), (4, 1), (1, 4)] {
            for age in AGES {
                let mut house = House::new(shape);
                house.tenant(busy, vec![House::fetch()]);
                let call = house.call();
                house.tenant(calling, vec![call.clone()]);
                house.run_until(age * SECOND);
                let new_tenant = house.tenant(1, vec![call]);
                // The head's wait and its own, each with a wait for a slot.
                let bound = 2 * (PERIOD + LONGEST);
                let waited = house.wait(new_tenant, 0, 2 * bound);
                let figures = format!("{shape:?}, {calling}:{busy}, {age} s: {waited} ms");
                println!("{figures}");
                assert!(waited <= bound, "{figures}");
            }
        }
    }
}

/// A tenant that fetches and calls is level with the tenants that fetch. The tenants that call lag by at most two holds for each of
/// two tenants.
#[test]
fn mixed_user_does_not_wait_for_lag() {
    for shape in [Shape::Flat, Shape::Grouped, Shape::InnerSlots] {
        for age in AGES {
            let mut house = House::new(shape);
            let call = house.call();
            house.tenant(1, vec![House::fetch()]);
            house.tenant(1, vec![call.clone()]);
            house.run_until(age * SECOND);
            let new_tenant = house.tenant(1, vec![House::fetch(), call]);
            let calls = 2 * 2 * HOLD / PERIOD + 2;
            let bound = calls * (PERIOD + LONGEST);
            let waited = house.wait(new_tenant, 1, 2 * bound);
            println!("{shape:?}, {age} s: {waited} ms");
            assert!(waited <= bound, "{shape:?}, {age} s: {waited} ms");
        }
    }
}

/// However far they lag behind the tenants that fetch, they share the rate by weight.
#[test]
fn lagging_children_share_a_rate_by_weight() {
    for shape in SHAPES {
        for weights in [[1, 3], [3, 1]] {
            let mut house = House::new(shape);
            let call = house.call();
            house.tenant(1, vec![House::fetch()]);
            let tenants = weights.map(|weight| house.tenant(weight, vec![call.clone()]));
            house.run_until(300 * SECOND);
            let shares = tenants.map(|tenant| {
                let Tenant {
                    granted, weight, ..
                } = &house.tenants[tenant];
                granted[0] / u64::from(*weight)
            });
            let figures = format!("{shape:?}, {weights:?}: {shares:?}");
            println!("{figures}");
            let [first, second] = shares;
            assert!(first.abs_diff(second) * 50 <= first, "{figures}");
            // Each call also waits for a slot.
            let all = 300 * SECOND / (PERIOD + HOLD) / 4;
            assert!(first >= all, "{figures}");
        }
    }
}

/// One tenant waits at both rates, and one other at each. Its tag advances with either rate, but not twice.
#[test]
fn waiter_at_two_rates_gets_its_share_of_both() {
    for shape in SHAPES {
        let mut house = House::new(shape);
        let (calls, tokens) = (house.calls, house.tokens);
        house.tenant(1, vec![House::fetch()]);
        let rates: [&[ResourceId]; 3] = [&[calls, tokens], &[calls], &[tokens]];
        let tenants = rates.map(|rates| house.tenant(1, vec![House::cost(rates)]));
        let mut before = [0; 3];
        for until in [10, 100, 200, 500] {
            house.run_until(until * SECOND);
            let granted = tenants.map(|tenant| house.tenants[tenant].granted[0]);
            let received = [0, 1, 2].map(|tenant| granted[tenant] - before[tenant]);
            let figures = format!("{shape:?}, {until} s: {received:?}");
            println!("{figures}");
            let [both, others @ ..] = received;
            assert!(
                others.iter().all(|other| both * 10 >= other * 9),
                "{figures}"
            );
            before = granted;
        }
    }
}

/// A tenant that lacked quota does not take slots from its siblings later.
#[test]
fn rate_lag_is_not_compensated_in_slots() {
    for shape in [Shape::Flat, Shape::Grouped, Shape::InnerSlots] {
        for age in AGES {
            let mut house = House::new(shape);
            let call = house.call();
            let busy = house.tenant(1, vec![House::fetch()]);
            let caller = house.tenant(1, vec![call]);
            house.run_until(age * SECOND);
            house.set_costs(caller, vec![House::fetch()]);
            let before = house.tenants[busy].held;
            let span = 3_000;
            house.run_for(span);
            let received = house.tenants[busy].held - before;
            let lost = (SLOTS_IN_ALL * span / 2).saturating_sub(received);
            println!("{shape:?}, {age} s: {lost} ms of slots");
            // Half of its lag, two holds for each of two tenants, and the permits in flight.
            let bound = (2 * 2 * HOLD / 2 + HOLD) * SLOTS_IN_ALL;
            assert!(lost <= bound, "{shape:?}, {age} s: {lost} ms of slots");
        }
    }
}

/// One tenant leaves and returns repeatedly, beside one of the same weight that stays.
#[test]
fn leaving_and_returning_gains_no_rate_share() {
    for shape in SHAPES {
        for (here, away) in [
            (150, 150),
            (250, 50),
            (1_000, 50),
            (1_000, 1_000),
            (5_000, 300),
        ] {
            let mut house = House::new(shape);
            let call = house.call();
            house.tenant(1, vec![House::fetch()]);
            let stays = house.tenant(1, vec![call.clone()]);
            let goes = house.tenant(1, vec![call.clone()]);
            let mut received = 0;
            for _ in 0..40 {
                house.run_for(here);
                received += house.tenants[goes].granted[0];
                house.set_costs(goes, Vec::new());
                house.run_for(away);
                house.set_costs(goes, vec![call.clone()]);
            }
            let stayed = house.tenants[stays].granted[0];
            let figures = format!("{shape:?}, {here}, {away}: {received} beside {stayed}");
            println!("{figures}");
            assert!(received * 100 <= stayed * 102, "{figures}");
        }
    }
}
