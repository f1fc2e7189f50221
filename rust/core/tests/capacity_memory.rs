//! The memory of a waiter, counted at the allocator.
#![cfg(not(loom))]

mod common;

use common::counting::{Counting, live};
use headrace_core::Tree;
use headrace_core::capacity::{
    Acquire, AcquireRequest, Amount, Limit, ManualClock, NodeOptions, ResourceId, Settings,
};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn poll(acquire: &mut Acquire) -> Poll<()> {
    let polled = Pin::new(acquire).poll(&mut Context::from_waker(Waker::noop()));
    polled.map(|permit| drop(permit.unwrap()))
}

/// The memory in the tree plus the future itself, also right after a table has doubled. A single test in this binary: no
/// other test may allocate meanwhile.
#[test]
fn waiter_memory_is_bounded_and_freed() {
    let tree = Tree::new(Settings::with_clock(Arc::new(ManualClock::new())));
    let root = tree.root(NodeOptions::slots(1)).unwrap();
    let leaves = [(); 4].map(|()| tree.add(root, NodeOptions::slots(200_000)).unwrap());
    let slots = |count| [(ResourceId::SLOTS, Limit::Slots(Amount::units(count)))];
    let empty = live();
    for count in [1_000, 10_000, 65_537, 100_000] {
        for served in [true, false] {
            let permit = tree
                .try_acquire(AcquireRequest::slots(root, 1))
                .unwrap()
                .unwrap();
            let mut waiters = Vec::with_capacity(count);
            waiters.extend(
                (0..count).map(|name| tree.acquire(AcquireRequest::slots(leaves[name % 4], 1))),
            );
            for waiter in &mut waiters {
                assert!(poll(waiter).is_pending());
            }
            let each = (live() - empty) / count;
            println!(
                "{count} waiters: {each} bytes each, {} of them the future",
                size_of::<Acquire>()
            );
            assert!(each <= 300, "{count} waiters: {each} bytes each");
            if served {
                tree.resize(root, &slots(200_000)).unwrap();
                assert!(waiters.iter_mut().all(|waiter| poll(waiter).is_ready()));
            }
            drop((waiters, permit));
            tree.resize(root, &slots(1)).unwrap();
            assert_eq!(tree.waiting(root), 0);
            let left = live().saturating_sub(empty);
            println!("{left} bytes are left");
            // The tables keep spare space for a few entries.
            assert!(
                left <= 32 * 1024,
                "{left} bytes are left of {count} waiters"
            );
        }
    }
}
