//! Rates: the number of grants, their spacing, the work for them, and independence of which timer fires.
#![cfg(not(loom))]

mod common;

use common::Task;
use common::timer::Timer;
use common::world::{SECOND, seconds};
use headrace_core::Tree;
use headrace_core::capacity::{
    Acquire, AcquireRequest, Amount, Cost, Limit, ManualClock, NodeId, NodeOptions, Permit,
    ResourceId, Settings, Time,
};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

struct Shop {
    tree: Arc<Tree>,
    clock: Arc<ManualClock>,
    calls: ResourceId,
    root: NodeId,
}

impl Shop {
    /// Return a shop with a rate of `calls` calls in `per` seconds, and a burst.
    fn new(calls: u64, per: u64, burst: Option<u64>) -> Self {
        let clock = Arc::new(ManualClock::new());
        let tree = Tree::new(Settings::with_clock(Arc::clone(&clock) as _));
        let resource = tree.resource("calls");
        let rate = Limit::Rate {
            amount: Amount::units(calls),
            per: Duration::from_secs(per),
            burst: burst.map(Amount::units),
        };
        let root = tree.root(NodeOptions::new([(resource, rate)])).unwrap();
        Self {
            tree,
            clock,
            calls: resource,
            root,
        }
    }

    fn ask(&self, calls: u64) -> AcquireRequest {
        AcquireRequest::new(
            self.root,
            Cost::of(self.calls, Amount::units(calls)).unwrap(),
        )
    }

    fn to(&self, time: Time) {
        self.clock.set(time);
        self.tree.tick();
    }

    fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        self.tree.tick();
    }

    fn take(&self, calls: u64) -> Option<Permit> {
        self.tree.try_acquire(self.ask(calls)).unwrap()
    }

    fn settle(&self, permit: &Permit, calls: u64) {
        permit
            .settle(&[(self.calls, Amount::units(calls))])
            .unwrap();
    }
}

/// Return the processor time of this thread so far, in seconds, where the system reports it.
fn busy() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(seconds(text.split(' ').next()?.parse().ok()?))
}

/// Three seconds at 200 a second with a constant number of waiters: each grant is replaced by a new waiter.
fn three_seconds(burst: Option<u64>, waiters: usize) {
    let shop = Shop::new(200, 1, burst);
    let mut timer = Timer::new(&shop.tree);
    let mut queue: VecDeque<Task<Acquire>> = VecDeque::new();
    let mut times = Vec::new();
    let mut alarms = 0;
    let began = busy();
    loop {
        // FIFO, so the granted waiter is at the front.
        while let Some(first) = queue.front_mut()
            && first.wakes() > 0
        {
            drop(first.ready().unwrap());
            times.push(shop.tree.now().as_nanos());
            queue.pop_front();
        }
        while queue.len() < waiters {
            let mut task = Task::new(shop.tree.acquire(shop.ask(1).alarm(timer.id())));
            match task.poll() {
                Poll::Ready(permit) => {
                    drop(permit.unwrap());
                    times.push(shop.tree.now().as_nanos());
                }
                Poll::Pending => queue.push_back(task),
            }
        }
        timer.on_wake();
        let next = timer.armed.expect("a waiter needs the timer");
        if next > Time::from_nanos(3 * SECOND) {
            break;
        }
        alarms += 1;
        shop.to(next);
        timer.arm();
    }
    let spent = busy().zip(began).map_or(0.0, |(now, began)| now - began);
    println!(
        "burst {burst:?}, {waiters} waiters: {} granted, {spent:.4} s",
        times.len()
    );
    assert!(
        (597..=603).contains(&times.len()),
        "{} granted",
        times.len()
    );
    assert!(
        alarms <= times.len(),
        "{alarms} alarms for {} grants: it polls",
        times.len()
    );
    assert!(spent <= 0.02, "{spent} s of processor time");
    let most = burst.unwrap_or(1);
    for (first, start) in times.iter().enumerate() {
        for (count, end) in (1..).zip(&times[first..]) {
            // In integers: count <= burst + rate x t.
            let allowed = most * SECOND + 200 * (end - start);
            assert!(
                count * SECOND <= allowed,
                "{count} between {start} and {end}"
            );
        }
    }
}

#[test]
fn rate_of_200_with_one_waiter() {
    three_seconds(Some(1), 1);
    three_seconds(None, 1);
}

#[test]
fn rate_of_200_with_a_thousand_waiters() {
    three_seconds(Some(1), 1_000);
    three_seconds(Some(3), 1_000);
    three_seconds(None, 1_000);
}

#[test]
fn late_settlement_to_zero_admits_no_more() {
    let shop = Shop::new(90, 60, Some(90));
    let permit = shop.take(90).unwrap();
    shop.wait(60);
    // Everything has been refilled by then.
    shop.settle(&permit, 0);
    drop(shop.take(90).unwrap());
    assert!(shop.take(1).is_none());
    shop.wait(59);
    assert!(shop.take(89).is_none());
    shop.wait(1);
    assert!(shop.take(90).is_some());
}

#[test]
fn immediate_settlement_returns_the_whole_estimate() {
    let shop = Shop::new(90, 60, Some(90));
    let permit = shop.take(90).unwrap();
    shop.settle(&permit, 20);
    assert!(shop.take(71).is_none());
    assert!(shop.take(70).is_some());
}

/// 20 of the 50 were refilled and taken by another call: only 30 may be returned.
#[test]
fn later_settlement_returns_less_the_refill() {
    let shop = Shop::new(60, 60, Some(90));
    let permit = shop.take(50).unwrap();
    shop.wait(20);
    drop(shop.take(60).unwrap());
    shop.settle(&permit, 0);
    assert!(shop.take(31).is_none());
    assert!(shop.take(30).is_some());
}

#[test]
fn settling_upward_creates_debt() {
    let shop = Shop::new(60, 60, Some(60));
    let permit = shop.take(30).unwrap();
    shop.settle(&permit, 90);
    drop(permit);
    shop.wait(30);
    assert!(shop.take(1).is_none());
    shop.wait(1);
    assert!(shop.take(1).is_some());
}

/// Two event loops and a thread wait. The loop of the first waiter dies: it neither polls nor ticks.
#[test]
fn dead_event_loop_does_not_delay_other_waiters() {
    let shop = Shop::new(1, 1, Some(1));
    drop(shop.take(1).unwrap());
    let mut timers = [(); 3].map(|()| Timer::new(&shop.tree));
    let mut tasks: Vec<_> = timers
        .iter()
        .map(|timer| Task::waiting(shop.tree.acquire(shop.ask(1).alarm(timer.id()))))
        .collect();
    let mut served = Vec::new();
    for timer in &mut timers {
        timer.on_wake();
    }
    // The first one never runs again.
    while served.len() < 2 {
        let next = timers[1..].iter().filter_map(|timer| timer.armed).min();
        shop.to(next.expect("a waiter remains"));
        for timer in &mut timers[1..] {
            timer.arm();
        }
        for (name, task) in tasks.iter_mut().enumerate().skip(1) {
            if task.wakes() > 0 && !served.iter().any(|&(other, _)| other == name) {
                drop(task.ready().unwrap());
                served.push((name, shop.tree.now().as_nanos()));
            }
        }
    }
    assert_eq!(served, [(1, 2 * SECOND), (2, 3 * SECOND)]);
}

/// A grant of the dead loop is annulled when its waiter is dropped, and goes to the next waiter immediately.
#[test]
fn grant_of_a_dead_event_loop_is_handed_on() {
    let shop = Shop::new(1, 1, Some(1));
    drop(shop.take(1).unwrap());
    let dead = Timer::new(&shop.tree);
    let first = Task::waiting(shop.tree.acquire(shop.ask(1).alarm(dead.id())));
    let mut second = Task::waiting(shop.tree.acquire(shop.ask(1)));
    shop.wait(1);
    assert_eq!((first.wakes(), second.wakes()), (1, 0));
    drop((dead, first));
    drop(second.ready().unwrap());
}
