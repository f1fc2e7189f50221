//! Every interleaving of grants, dropped acquires, resizes, closes and ticks:
//! `RUSTFLAGS="--cfg loom" cargo test -p headrace-core --release --test 'loom_*'`
#![cfg(loom)]

use headrace_core::Tree;
use headrace_core::capacity::{
    Acquire, AcquireError, AcquireRequest, Amount, Cost, Limit, ManualClock, NodeId, NodeOptions,
    Permit, ResourceId, Settings, Time,
};
use loom::future::block_on;
use loom::thread;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Poll once and drop: join the queue and leave it, interleaved with the other threads.
fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Return an acquire that has joined the wait queue.
fn waiting(tree: &Arc<Tree>, ask: AcquireRequest) -> Acquire {
    let mut acquire = tree.acquire(ask);
    let polled = Pin::new(&mut acquire).poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
    acquire
}

/// Return a tree of one node, on a clock that does not advance.
fn tree(options: NodeOptions) -> (Arc<Tree>, NodeId, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new());
    let tree = Tree::new(Settings::with_clock(Arc::clone(&clock) as _));
    let root = tree.root(options).unwrap();
    (tree, root, clock)
}

fn take(tree: &Arc<Tree>, node: NodeId, slots: u64) -> Permit {
    tree.try_acquire(AcquireRequest::slots(node, slots))
        .unwrap()
        .unwrap()
}

#[track_caller]
fn assert_idle(tree: &Tree, root: NodeId) {
    assert_eq!(tree.held(root, ResourceId::SLOTS), Amount::ZERO);
    assert_eq!(tree.waiting(root), 0);
    tree.check();
}

#[test]
fn release_skips_a_dropped_waiter() {
    loom::model(|| {
        let (tree, root, _) = tree(NodeOptions::slots(1));
        let permit = take(&tree, root, 1);
        let [first, second] = [(); 2].map(|()| tree.acquire(AcquireRequest::slots(root, 1)));
        let dropped = thread::spawn(move || drop(poll_once(first)));
        let releaser = thread::spawn(move || drop(permit));
        drop(block_on(second).unwrap());
        dropped.join().unwrap();
        releaser.join().unwrap();
        assert_idle(&tree, root);
    });
}

#[test]
fn grant_racing_cancellation_is_handed_on() {
    loom::model(|| {
        let (tree, root, _) = tree(NodeOptions::slots(1));
        let permit = take(&tree, root, 1);
        let first = waiting(&tree, AcquireRequest::slots(root, 1));
        let second = tree.acquire(AcquireRequest::slots(root, 1));
        let dropped = thread::spawn(move || drop(first));
        let releaser = thread::spawn(move || permit.release());
        drop(block_on(second).unwrap());
        dropped.join().unwrap();
        releaser.join().unwrap();
        assert_idle(&tree, root);
    });
}

#[test]
fn grant_racing_cancellation_in_another_branch() {
    loom::model(|| {
        let (tree, root, _) = tree(NodeOptions::slots(2));
        let [left, right] = [2, 1].map(|slots| tree.add(root, NodeOptions::slots(slots)).unwrap());
        let permit = take(&tree, left, 2);
        let first = waiting(&tree, AcquireRequest::slots(left, 2));
        let second = tree.acquire(AcquireRequest::slots(right, 1));
        let dropped = thread::spawn(move || drop(first));
        let releaser = thread::spawn(move || drop(permit));
        drop(block_on(second).unwrap());
        dropped.join().unwrap();
        releaser.join().unwrap();
        assert_idle(&tree, root);
    });
}

#[test]
fn concurrent_releases_free_a_permit_once() {
    loom::model(|| {
        let (tree, root, _) = tree(NodeOptions::slots(2));
        let permit = Arc::new(take(&tree, root, 1));
        let other = take(&tree, root, 1);
        let second = thread::spawn({
            let permit = Arc::clone(&permit);
            move || permit.release()
        });
        permit.release();
        second.join().unwrap();
        assert_eq!(tree.held(root, ResourceId::SLOTS), Amount::ONE);
        drop(other);
        assert_idle(&tree, root);
    });
}

/// Neither of the two frees enough slots alone.
#[test]
fn release_racing_growth_grants_a_waiter_of_both() {
    loom::model(|| {
        let (tree, root, _) = tree(NodeOptions::slots(2));
        let permits = [(); 2].map(|()| take(&tree, root, 1));
        let [held, released] = permits;
        let waiter = tree.acquire(AcquireRequest::slots(root, 2));
        let releaser = thread::spawn(move || drop(released));
        let resizer = thread::spawn({
            let tree = Arc::clone(&tree);
            move || {
                let limit = Limit::Slots(Amount::units(3));
                tree.resize(root, &[(ResourceId::SLOTS, limit)]).unwrap();
            }
        });
        drop(block_on(waiter).unwrap());
        releaser.join().unwrap();
        resizer.join().unwrap();
        drop(held);
        assert_idle(&tree, root);
    });
}

#[test]
fn release_racing_shrink_respects_the_new_limit() {
    loom::model(|| {
        let (tree, root, _) = tree(NodeOptions::slots(2));
        let [held, released] = [(); 2].map(|()| take(&tree, root, 1));
        let releaser = thread::spawn(move || drop(released));
        let dropped = thread::spawn({
            let tree = Arc::clone(&tree);
            move || drop(poll_once(tree.acquire(AcquireRequest::slots(root, 1))))
        });
        let limit = Limit::Slots(Amount::ONE);
        tree.resize(root, &[(ResourceId::SLOTS, limit)]).unwrap();
        // From here at most one is granted, and that one is held already.
        releaser.join().unwrap();
        dropped.join().unwrap();
        assert_eq!(tree.held(root, ResourceId::SLOTS), Amount::ONE);
        assert!(
            tree.try_acquire(AcquireRequest::slots(root, 1))
                .unwrap()
                .is_none()
        );
        drop(held);
        assert_idle(&tree, root);
    });
}

#[test]
fn close_racing_release_ends_every_wait() {
    loom::model(|| {
        let (tree, root, _) = tree(NodeOptions::slots(1));
        let permit = take(&tree, root, 1);
        let waiter = tree.acquire(AcquireRequest::slots(root, 1));
        let releaser = thread::spawn(move || drop(permit));
        let closer = thread::spawn({
            let tree = Arc::clone(&tree);
            move || tree.close(root)
        });
        match block_on(waiter) {
            Ok(permit) => drop(permit),
            Err(error) => assert_eq!(error, AcquireError::Closed),
        }
        releaser.join().unwrap();
        closer.join().unwrap();
        assert_idle(&tree, root);
    });
}

#[test]
fn close_racing_a_dropped_acquire() {
    loom::model(|| {
        let (tree, root, _) = tree(NodeOptions::slots(1));
        let permit = take(&tree, root, 1);
        let dropped = thread::spawn({
            let tree = Arc::clone(&tree);
            move || drop(poll_once(tree.acquire(AcquireRequest::slots(root, 1))))
        });
        let resizer = thread::spawn({
            let tree = Arc::clone(&tree);
            move || {
                let limit = Limit::Slots(Amount::units(2));
                // It may have run before or after the close.
                let _ = tree.resize(root, &[(ResourceId::SLOTS, limit)]);
            }
        });
        tree.close(root);
        let late = poll_once(tree.acquire(AcquireRequest::slots(root, 1)));
        assert!(matches!(late, Poll::Ready(Err(AcquireError::Closed))));
        dropped.join().unwrap();
        resizer.join().unwrap();
        drop(permit);
        assert_idle(&tree, root);
    });
}

/// The resize grants the waiter, the close fails it. In either order it gets one result and nothing is lost.
#[test]
fn close_racing_growth_completes_once() {
    loom::model(|| {
        let (tree, root, _) = tree(NodeOptions::slots(1));
        let leaf = tree.add(root, NodeOptions::slots(2)).unwrap();
        let permit = take(&tree, leaf, 1);
        let waiter = waiting(&tree, AcquireRequest::slots(leaf, 1));
        let resizer = thread::spawn({
            let tree = Arc::clone(&tree);
            move || {
                let limit = Limit::Slots(Amount::units(2));
                tree.resize(root, &[(ResourceId::SLOTS, limit)]).unwrap();
            }
        });
        let closer = thread::spawn({
            let tree = Arc::clone(&tree);
            move || tree.close(leaf)
        });
        match block_on(waiter) {
            Ok(permit) => drop(permit),
            Err(error) => assert_eq!(error, AcquireError::Closed),
        }
        resizer.join().unwrap();
        closer.join().unwrap();
        assert_eq!(tree.held(root, ResourceId::SLOTS), Amount::ONE);
        drop(permit);
        assert_idle(&tree, root);
    });
}

/// A waiting acquire and a granted, uncollected one are dropped while their node is closed.
#[test]
fn close_racing_cancellation_holds_nothing() {
    for is_granted in [false, true] {
        loom::model(move || {
            let (tree, root, _) = tree(NodeOptions::slots(1));
            let leaf = tree.add(root, NodeOptions::slots(1)).unwrap();
            let mut permit = Some(take(&tree, leaf, 1));
            let first = waiting(&tree, AcquireRequest::slots(leaf, 1));
            let second = waiting(&tree, AcquireRequest::slots(root, 1));
            if is_granted {
                permit = None;
            }
            let dropped = thread::spawn(move || drop(first));
            let closer = thread::spawn({
                let tree = Arc::clone(&tree);
                move || tree.close(leaf)
            });
            dropped.join().unwrap();
            closer.join().unwrap();
            drop(permit);
            // The second one gets the slots that the first one gave up or never got.
            drop(block_on(second).unwrap());
            assert_idle(&tree, root);
        });
    }
}

/// The permit releases a part that another acquire waits for, while the node is closed.
#[test]
fn close_racing_settlement_completes_once() {
    loom::model(|| {
        let (tree, root, _) = tree(NodeOptions::slots(2));
        let leaf = tree.add(root, NodeOptions::slots(2)).unwrap();
        let permit = Arc::new(take(&tree, leaf, 2));
        let waiter = waiting(&tree, AcquireRequest::slots(leaf, 1));
        let settler = thread::spawn({
            let permit = Arc::clone(&permit);
            move || permit.settle(&[(ResourceId::SLOTS, Amount::ONE)]).unwrap()
        });
        let closer = thread::spawn({
            let tree = Arc::clone(&tree);
            move || tree.close(leaf)
        });
        match block_on(waiter) {
            Ok(permit) => drop(permit),
            Err(error) => assert_eq!(error, AcquireError::Closed),
        }
        settler.join().unwrap();
        closer.join().unwrap();
        assert_eq!(tree.held(root, ResourceId::SLOTS), Amount::ONE);
        drop(permit);
        assert_idle(&tree, root);
    });
}

/// A suspended permit is resumed, or its resume fails, while its node is closed.
#[test]
fn close_racing_suspend_and_resume() {
    loom::model(|| {
        let (tree, root, _) = tree(NodeOptions::slots(1));
        let leaf = tree.add(root, NodeOptions::slots(1)).unwrap();
        let permit = take(&tree, leaf, 1);
        let waiter = waiting(&tree, AcquireRequest::slots(leaf, 1));
        let away = thread::spawn(move || {
            permit.suspend().unwrap();
            let taken = block_on(permit.resume(None).unwrap());
            assert!(matches!(taken, Ok(()) | Err(AcquireError::Closed)));
            assert_eq!(permit.is_suspended(), taken.is_err());
            permit
        });
        let closer = thread::spawn({
            let tree = Arc::clone(&tree);
            move || tree.close(leaf)
        });
        // Granted or not, it frees its slots.
        drop(waiter);
        drop(away.join().unwrap());
        closer.join().unwrap();
        assert_idle(&tree, root);
    });
}

/// Return a rate of one call a second with a burst of one; one call was made. A second later there is quota for one.
fn rated() -> (
    Arc<Tree>,
    NodeId,
    Arc<ManualClock>,
    impl Fn() -> AcquireRequest,
) {
    let (tree, root, clock) = tree(NodeOptions::slots(9));
    let calls = tree.resource("calls");
    let rate = Limit::Rate {
        amount: Amount::ONE,
        per: Duration::from_secs(1),
        burst: Some(Amount::ONE),
    };
    let node = tree.add(root, NodeOptions::new([(calls, rate)])).unwrap();
    let ask = move || {
        let cost = [(calls, Amount::ONE), (ResourceId::SLOTS, Amount::ONE)];
        AcquireRequest::new(node, Cost::new(cost).unwrap())
    };
    drop(tree.try_acquire(ask()).unwrap().unwrap());
    (tree, root, clock, ask)
}

#[test]
fn tick_racing_cancellation_grants_the_next() {
    loom::model(|| {
        let (tree, root, clock, ask) = rated();
        let first = waiting(&tree, ask());
        let mut second = waiting(&tree, ask());
        clock.set(Time::from_nanos(1_000_000_000));
        let ticker = thread::spawn({
            let tree = Arc::clone(&tree);
            move || tree.tick()
        });
        let dropped = thread::spawn(move || drop(first));
        drop(block_on(&mut second).unwrap());
        ticker.join().unwrap();
        dropped.join().unwrap();
        assert_idle(&tree, root);
    });
}

#[test]
fn tick_racing_a_dropped_acquire() {
    loom::model(|| {
        let (tree, root, clock, ask) = rated();
        let waiter = tree.acquire(ask());
        let late = ask();
        clock.set(Time::from_nanos(1_000_000_000));
        let ticker = thread::spawn({
            let tree = Arc::clone(&tree);
            move || tree.tick()
        });
        let dropped = thread::spawn({
            let tree = Arc::clone(&tree);
            // If it is granted, the call was made and the other acquire waits for the next.
            move || match poll_once(tree.acquire(late)) {
                Poll::Ready(permit) => {
                    drop(permit.unwrap());
                    true
                }
                Poll::Pending => false,
            }
        });
        if dropped.join().unwrap() {
            clock.set(Time::from_nanos(2_000_000_000));
        }
        tree.tick();
        drop(block_on(waiter).unwrap());
        ticker.join().unwrap();
        assert_idle(&tree, root);
    });
}

/// A waiter becomes ready by time while its node is closed.
#[test]
fn close_racing_tick_completes_once() {
    loom::model(|| {
        let (tree, root, clock, ask) = rated();
        let waiter = waiting(&tree, ask());
        let node = waiter.request().node;
        clock.set(Time::from_nanos(1_000_000_000));
        let ticker = thread::spawn({
            let tree = Arc::clone(&tree);
            move || tree.tick()
        });
        let closer = thread::spawn({
            let tree = Arc::clone(&tree);
            move || tree.close(node)
        });
        match block_on(waiter) {
            Ok(permit) => drop(permit),
            Err(error) => assert_eq!(error, AcquireError::Closed),
        }
        ticker.join().unwrap();
        closer.join().unwrap();
        assert_eq!(tree.next_ready(), None);
        assert_idle(&tree, root);
    });
}
