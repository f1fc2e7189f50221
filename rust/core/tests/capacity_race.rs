//! Cancellations at the moment of the grant, with real threads.
#![cfg(not(loom))]

use headrace_core::Tree;
use headrace_core::capacity::{
    AcquireRequest, Amount, Cost, Limit, ManualClock, NodeOptions, ResourceId, Settings,
};
use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

const ROUNDS: u64 = 100_000;

/// One thread releases the slots that a waiter needs while another thread drops the waiter. In either order, nothing is held in
/// the end, and nothing was spent without a collected grant.
#[test]
fn cancellation_during_a_grant_takes_nothing() {
    // The clock does not advance: only annulled quota is returned.
    let tree = Tree::new(Settings::with_clock(Arc::new(ManualClock::new())));
    let [calls, money] = ["calls", "money"].map(|name| tree.resource(name));
    let root = tree.root(NodeOptions::slots(1)).unwrap();
    let rate = Limit::Rate {
        amount: Amount::ONE,
        per: Duration::from_secs(1),
        burst: Some(Amount::units(2)),
    };
    let limits = [(calls, rate), (money, Limit::Budget(Amount::units(3)))];
    let leaf = tree.add(root, NodeOptions::new(limits)).unwrap();
    let one = |resource| (resource, Amount::ONE);
    let cost = Cost::new([ResourceId::SLOTS, calls, money].map(one)).unwrap();

    let start = Arc::new(Barrier::new(2));
    let (send, receive) = sync_channel(1);
    let canceller = thread::spawn({
        let start = Arc::clone(&start);
        move || {
            for waiter in receive {
                start.wait();
                drop(waiter);
                start.wait();
            }
        }
    });
    for round in 0..ROUNDS {
        let permit = tree
            .try_acquire(AcquireRequest::slots(root, 1))
            .unwrap()
            .unwrap();
        let mut waiter = tree.acquire(AcquireRequest::new(leaf, cost.clone()));
        let polled = Pin::new(&mut waiter).poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        send.send(waiter).unwrap();
        start.wait();
        // The two threads alternate in having a head start.
        for _ in 0..round % 64 {
            std::hint::spin_loop();
        }
        drop(permit);
        start.wait();
    }
    drop(send);
    canceller.join().unwrap();

    tree.check();
    for resource in [ResourceId::SLOTS, calls, money] {
        assert_eq!(tree.held(root, resource), Amount::ZERO);
    }
    assert_eq!(tree.available(leaf, calls), Some(Amount::units(2)));
    assert_eq!(tree.available(leaf, money), Some(Amount::units(3)));
    let mut last = tree.acquire(AcquireRequest::new(leaf, cost));
    let polled = Pin::new(&mut last).poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Ready(Ok(_))));
}
