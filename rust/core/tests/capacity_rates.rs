//! The order of waiters at rates and budgets: which may pass another, and by how much.
#![cfg(not(loom))]

mod common;

use common::Task;
use common::clocked::{SLOTS, World, failed, granted, units};
use headrace_core::capacity::{
    Acquire, AcquireError, AcquireRequest, Cost, Limit, NodeId, NodeOptions, Permit, ResourceId,
    Time, Weight,
};
use std::task::Poll;
use std::time::Duration;

/// The default of [`Settings::passes`](headrace_core::capacity::Settings::passes).
const PASSES: usize = 8;

fn rate(amount: u64, millis: u64, burst: Option<u64>) -> Limit {
    Limit::Rate {
        amount: units(amount),
        per: Duration::from_millis(millis),
        burst: burst.map(units),
    }
}

fn cost(parts: &[(ResourceId, u64)]) -> Cost {
    let parts = parts
        .iter()
        .map(|&(resource, amount)| (resource, units(amount)));
    Cost::new(parts).unwrap()
}

fn millis(world: &World) -> u64 {
    u64::try_from(world.tree.now().since(Time::ZERO).as_millis()).unwrap()
}

/// One token a second with a burst of three, of which two are left.
fn two_of_three() -> (World, NodeId, ResourceId) {
    let world = World::new();
    let tokens = world.tree.resource("tokens");
    let limits = [(tokens, rate(1, 1_000, Some(3)))];
    let root = world.tree.root(NodeOptions::new(limits)).unwrap();
    drop(world.take_ask(AcquireRequest::new(root, cost(&[(tokens, 1)]))));
    (world, root, tokens)
}

/// Return the time of each grant in milliseconds, in the order of `tasks`.
fn times(world: &World, tasks: &mut [Task<Acquire>]) -> Vec<u64> {
    let mut times = vec![None; tasks.len()];
    loop {
        for (time, task) in times.iter_mut().zip(tasks.iter_mut()) {
            if time.is_none() && task.wakes() > 0 {
                drop(granted(task));
                *time = Some(millis(world));
            }
        }
        if times.iter().all(Option::is_some) {
            return times.into_iter().flatten().collect();
        }
        world
            .clock
            .set(world.tree.next_ready().expect("an acquire waits"));
        world.tree.tick();
        world.tree.check();
    }
}

#[test]
fn smaller_cost_does_not_pass_at_a_rate() {
    let (world, root, tokens) = two_of_three();
    let ask = |amount| AcquireRequest::new(root, cost(&[(tokens, amount)]));
    let mut tasks = [3, 1, 2].map(|amount| world.waits_ask(ask(amount)));
    // It would fit, but queues behind the others.
    assert!(world.refused(ask(1)));
    assert_eq!(times(&world, &mut tasks), [1_000, 2_000, 4_000]);
    assert_eq!(world.tree.usage(root).unwrap().bypassed, 0);
}

#[test]
fn smaller_sibling_cost_does_not_pass_at_a_rate() {
    let (world, root, tokens) = two_of_three();
    let heavy = Weight::from_f64(1_000.0).unwrap();
    let leaves = [Weight::ONE, heavy].map(|weight| NodeOptions::new([]).weight(weight));
    let [light, heavy] = leaves.map(|options| world.tree.add(root, options).unwrap());
    let ask = |node, amount| AcquireRequest::new(node, cost(&[(tokens, amount)]));
    let mut tasks = [(light, 3), (heavy, 1), (root, 1)]
        .map(|(node, amount)| world.waits_ask(ask(node, amount)));
    assert!(world.refused(ask(heavy, 1)));
    assert_eq!(times(&world, &mut tasks)[0], 1_000);
}

/// Priority determines the queue order at a rate as for slots, also if another waiter is already waiting for its quota.
#[test]
fn higher_priority_precedes_a_waiter_for_quota() {
    let (world, root, tokens) = two_of_three();
    let ask = |amount| AcquireRequest::new(root, cost(&[(tokens, amount)]));
    let mut tasks = [world.waits_ask(ask(3)), world.waits_ask(ask(1))];
    let mut urgent = Task::new(world.tree.acquire(ask(1).priority(1)));
    drop(granted(&mut urgent));
    world.tree.check();
    drop(world.take_ask(ask(1).priority(1)));
    assert!(world.refused(ask(1).priority(1)));
    assert_eq!(times(&world, &mut tasks), [3_000, 4_000]);
}

/// Ten seconds of waiting outweigh one step of priority.
#[test]
fn priority_does_not_starve_a_waiter_for_quota() {
    let (world, root, tokens) = two_of_three();
    let ask = |amount| AcquireRequest::new(root, cost(&[(tokens, amount)]));
    let mut large = world.waits_ask(ask(3));
    let mut urgent = Task::new(world.tree.acquire(ask(1).priority(1)));
    while large.poll().is_pending() {
        while urgent.poll().is_ready() {
            urgent = Task::new(world.tree.acquire(ask(1).priority(1)));
        }
        world.clock.set(world.tree.next_ready().unwrap());
        world.tree.tick();
        world.tree.check();
    }
    // The acquires of the first ten seconds were granted before it, the last one at 11 s.
    assert!(millis(&world) <= 14_000, "{}", millis(&world));
}

/// Waiters that are replaced as soon as they are granted.
struct Crowd {
    node: NodeId,
    cost: Cost,
    /// The hold time of the slots, in milliseconds.
    hold: u64,
    queue: Vec<Task<Acquire>>,
    held: Vec<(u64, Permit)>,
    granted: usize,
}

impl Crowd {
    fn new(node: NodeId, cost: Cost, hold: u64) -> Self {
        Self {
            node,
            cost,
            hold,
            queue: Vec::new(),
            held: Vec::new(),
            granted: 0,
        }
    }

    fn replace(&mut self, world: &World) {
        let now = millis(world);
        self.held.retain(|(ends, _)| *ends > now);
        loop {
            while self.queue.len() < 3 {
                let acquire = world
                    .tree
                    .acquire(AcquireRequest::new(self.node, self.cost.clone()));
                self.queue.push(Task::new(acquire));
            }
            let before = self.queue.len();
            let (held, ends) = (&mut self.held, now + self.hold);
            self.queue.retain_mut(|task| match task.poll() {
                Poll::Ready(permit) => {
                    if ends > now {
                        held.push((ends, permit.unwrap()));
                    }
                    false
                }
                Poll::Pending => true,
            });
            self.granted += before - self.queue.len();
            if before == self.queue.len() {
                return;
            }
        }
    }

    /// Advance to the time of the next event.
    fn step(crowds: &mut [Self], world: &World) {
        let ends = crowds
            .iter()
            .flat_map(|crowd| crowd.held.iter().map(|(ends, _)| *ends));
        let ends = ends.map(|ends| Time::ZERO.after(Duration::from_millis(ends)));
        let next = ends.chain(world.tree.next_ready()).min();
        world
            .clock
            .set(next.expect("a permit is held or an acquire waits"));
        world.tree.tick();
        for crowd in crowds {
            crowd.replace(world);
        }
        world.tree.check();
    }
}

/// The positions of the limits and of the waiters in the tree.
#[derive(Clone, Copy, Debug)]
enum Shape {
    OneLine,
    Siblings,
    Levels,
}

/// Whenever one rate queue is free, the head of the other is another waiter.
#[test]
fn two_rate_waiter_has_bounded_wait() {
    for shape in [Shape::OneLine, Shape::Siblings, Shape::Levels] {
        for burst in [None, Some(1), Some(2)] {
            for (calls_every, tokens_every, phase) in [
                (100, 100, 50),
                (100, 100, 0),
                (100, 30, 10),
                (30, 100, 10),
                (100, 70, 20),
            ] {
                let world = World::new();
                let [calls, tokens] = ["calls", "tokens"].map(|name| world.tree.resource(name));
                let limits = [
                    (calls, rate(1, calls_every, burst)),
                    (tokens, rate(1, tokens_every, burst)),
                ];
                let add = |parent, limits: &[_]| {
                    let options = NodeOptions::new(limits.iter().copied());
                    world.tree.add(parent, options).unwrap()
                };
                let (both, calling, saying) = match shape {
                    Shape::OneLine => {
                        let root = world.tree.root(NodeOptions::new(limits)).unwrap();
                        (root, root, root)
                    }
                    Shape::Siblings => {
                        let root = world.tree.root(NodeOptions::new(limits)).unwrap();
                        (add(root, &[]), add(root, &[]), add(root, &[]))
                    }
                    Shape::Levels => {
                        let root = world.tree.root(NodeOptions::new([limits[0]])).unwrap();
                        let inner = add(root, &[limits[1]]);
                        (add(inner, &[]), root, add(inner, &[]))
                    }
                };
                let mut crowds = [
                    Crowd::new(calling, cost(&[(calls, 1)]), 0),
                    Crowd::new(saying, cost(&[(tokens, 1)]), 0),
                ];
                crowds[0].replace(&world);
                world.pass(f64::from(phase) / 1_000.0);
                crowds[1].replace(&world);
                for _ in 0..20 {
                    Crowd::step(&mut crowds, &world);
                }
                let began = millis(&world);
                let ask = AcquireRequest::new(both, cost(&[(calls, 1), (tokens, 1)]));
                let mut task = Task::new(world.tree.acquire(ask));
                // One period at each of the two rates for each miss, and as many for the acquires that wait already.
                let bound = (PASSES as u64 + 4) * (calls_every + tokens_every);
                while task.poll().is_pending() {
                    Crowd::step(&mut crowds, &world);
                    let waited = millis(&world) - began;
                    assert!(
                        waited <= bound,
                        "{shape:?}, {burst:?}, {calls_every}, {tokens_every}, {phase}: {waited} ms"
                    );
                }
            }
        }
    }
}

/// Return a tree of three slots and a call every 100 ms, and a child with its own rate of a call an hour, which is used
/// up.
fn slow_child(slots: u64) -> (World, [ResourceId; 2], NodeId, Task<Acquire>) {
    let world = World::new();
    let [calls, slow] = ["calls", "slow"].map(|name| world.tree.resource(name));
    let limits = [(SLOTS, Limit::Slots(units(3))), (calls, rate(1, 100, None))];
    let root = world.tree.root(NodeOptions::new(limits)).unwrap();
    let own = NodeOptions::new([(slow, rate(1, 3_600_000, None))]);
    let child = world.tree.add(root, own).unwrap();
    let all = cost(&[(SLOTS, slots), (calls, 1), (slow, 1)]);
    drop(world.take_ask(AcquireRequest::new(child, all.clone())));
    let task = world.waits_ask(AcquireRequest::new(child, all));
    (world, [calls, slow], root, task)
}

/// A waiter that always misses slots is no reason to reserve the shared rate for it.
#[test]
fn slow_private_rate_does_not_block_a_shared_rate() {
    for slots in [1, 3] {
        let (world, [calls, _], root, mut late) = slow_child(slots);
        let [fetching, calling] =
            [(); 2].map(|()| world.tree.add(root, NodeOptions::new([])).unwrap());
        let mut crowds = [
            Crowd::new(fetching, cost(&[(SLOTS, 1)]), 50),
            Crowd::new(calling, cost(&[(calls, 1)]), 0),
        ];
        for crowd in &mut crowds {
            crowd.replace(&world);
        }
        while millis(&world) < 30_000 {
            Crowd::step(&mut crowds, &world);
            assert!(late.poll().is_pending());
        }
        let [fetched, called] = crowds.each_ref().map(|crowd| crowd.granted);
        assert!(called >= 295, "{slots}: {called} calls of 300");
        assert!(fetched >= 1_700, "{slots}: {fetched} fetches of 1,800");
        // When its own rate is ready, it soon gets the rest.
        for crowd in &mut crowds {
            crowd.held.clear();
        }
        let nearly = Time::ZERO.after(Duration::from_secs(3_599));
        world.clock.set(nearly);
        world.tree.tick();
        for crowd in &mut crowds {
            crowd.replace(&world);
        }
        while late.poll().is_pending() {
            Crowd::step(&mut crowds, &world);
            assert!(millis(&world) <= 3_601_000, "{slots}");
        }
        assert!(millis(&world) >= 3_600_000);
    }
}

/// Return a budget of 20 of which a call holds ten, although it may need less; a request for eleven waits.
fn budget() -> (World, ResourceId, NodeId, Permit, Task<Acquire>) {
    let world = World::new();
    let dollars = world.tree.resource("dollars");
    let limits = [(dollars, Limit::Budget(units(20)))];
    let root = world.tree.root(NodeOptions::new(limits)).unwrap();
    let call = world.take_ask(AcquireRequest::new(root, cost(&[(dollars, 10)])));
    let large = world.waits_ask(AcquireRequest::new(root, cost(&[(dollars, 11)])));
    (world, dollars, root, call, large)
}

#[test]
fn large_cost_is_passed_eight_times_at_a_budget() {
    let (world, dollars, root, call, mut large) = budget();
    let ask = || AcquireRequest::new(root, cost(&[(dollars, 1)]));
    let mut small: Vec<_> = (0..PASSES).map(|_| world.take_ask(ask())).collect();
    // From here the rest is reserved for it.
    assert!(world.refused(ask()));
    assert_eq!(
        world.tree.usage(root).unwrap().bypassed,
        u64::try_from(PASSES).unwrap()
    );
    let mut later = world.waits_ask(ask());
    call.settle(&[(dollars, units(1))]).unwrap();
    drop(call);
    // 11 are left after the small costs.
    let large = granted(&mut large);
    assert!(later.poll().is_pending());
    small.clear();
    large.settle(&[(dollars, units(10))]).unwrap();
    drop(large);
    drop(granted(&mut later));
}

#[test]
fn passed_cost_may_find_the_budget_exhausted() {
    let (world, dollars, root, call, mut large) = budget();
    drop(world.take_ask(AcquireRequest::new(root, cost(&[(dollars, 5)]))));
    call.settle(&[(dollars, units(5))]).unwrap();
    drop(call);
    assert!(matches!(
        failed(&mut large),
        AcquireError::BudgetExhausted { left, .. } if left == units(10)
    ));
}

/// Return how many of 1,200 grants each node gets that requests once more after each grant.
fn grants_of_single_requests(world: &World, nodes: &[NodeId], cost: &Cost) -> Vec<u32> {
    let request = |node| Task::new(world.tree.acquire(AcquireRequest::new(node, cost.clone())));
    let mut tasks: Vec<_> = nodes.iter().map(|&node| request(node)).collect();
    let mut grants = vec![0; nodes.len()];
    while grants.iter().sum::<u32>() < 1_200 {
        let mut is_idle = true;
        for (at, &node) in nodes.iter().enumerate() {
            if let Poll::Ready(permit) = tasks[at].poll() {
                drop(permit.unwrap());
                grants[at] += 1;
                tasks[at] = request(node);
                is_idle = false;
            }
            world.tree.check();
        }
        if is_idle {
            world.clock.set(world.tree.next_ready().unwrap());
            world.tree.tick();
        }
    }
    grants
}

/// The node that was just granted has no waiter when the next head is chosen.
#[test]
fn single_requests_share_a_rate_by_weight() {
    let auto = Limit::AutoRate {
        start: units(1),
        per: Duration::from_millis(100),
        burst: None,
        minimum: units(1),
        maximum: units(1),
    };
    for limit in [rate(1, 100, None), rate(10, 1_000, Some(1)), auto] {
        for weights in [&[1, 3][..], &[3, 1], &[1, 2, 3], &[1, 9], &[1, 1, 10]] {
            for depth in 0..3 {
                let world = World::new();
                let calls = world.tree.resource("calls");
                let limits = [(SLOTS, Limit::Slots(units(40))), (calls, limit)];
                let root = world.tree.root(NodeOptions::new(limits)).unwrap();
                let leaf = |&weight: &u32| {
                    let weight = Weight::from_f64(f64::from(weight)).unwrap();
                    let options = NodeOptions::new([]).weight(weight);
                    let child = world.tree.add(root, options).unwrap();
                    (0..depth).fold(child, |node, _| {
                        world.tree.add(node, NodeOptions::new([])).unwrap()
                    })
                };
                let nodes: Vec<_> = weights.iter().map(leaf).collect();
                let cost = cost(&[(SLOTS, 1), (calls, 1)]);
                let grants = grants_of_single_requests(&world, &nodes, &cost);
                let sum: u32 = weights.iter().sum();
                for (&grants, weight) in grants.iter().zip(weights) {
                    let due = 1_200 * weight / sum;
                    assert!(
                        grants.abs_diff(due) * 100 <= due * 3,
                        "{limit:?}, {weights:?}, {depth}: {grants} of {due}"
                    );
                }
            }
        }
    }
}

/// A client that arrives for the first time replaces no head, however heavy: any number of them could.
#[test]
fn newcomers_do_not_replace_the_head_of_a_rate() {
    let (world, root, tokens) = two_of_three();
    let light = world.tree.add(root, NodeOptions::new([])).unwrap();
    let ask = |node, amount| AcquireRequest::new(node, cost(&[(tokens, amount)]));
    let mut large = world.waits_ask(ask(light, 3));
    let heavy = Weight::from_f64(1_000.0).unwrap();
    let newcomers: Vec<_> = (0..10)
        .map(|_| {
            let options = NodeOptions::new([]).weight(heavy);
            let node = world.tree.add(root, options).unwrap();
            world.waits_ask(ask(node, 1))
        })
        .collect();
    world.pass(1.0);
    drop(granted(&mut large));
    assert!(newcomers.iter().all(|task| task.wakes() == 0));
}
