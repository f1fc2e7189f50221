//! Every interleaving of releases and dropped acquires:
//! `RUSTFLAGS="--cfg loom" cargo test -p headrace-core --release --test 'loom_*'`
#![cfg(loom)]

use headrace_core::Tree;
use loom::future::block_on;
use loom::thread;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

/// Polls once and drops: takes a place in the line and gives it up, at any moment of the other threads.
fn poll_once(future: impl Future) {
    drop(pin!(future).poll(&mut Context::from_waker(Waker::noop())));
}

#[test]
fn a_release_reaches_the_second_although_the_first_is_dropped() {
    loom::model(|| {
        let (tree, root) = Tree::new(1);
        let permit = tree.try_acquire(root, 1).unwrap().unwrap();
        let [first, second] = [(); 2].map(|()| tree.acquire(root, 1).unwrap());
        let dropped = thread::spawn(move || poll_once(first));
        let releaser = thread::spawn(move || drop(permit));
        drop(block_on(second));
        dropped.join().unwrap();
        releaser.join().unwrap();
        assert_eq!((tree.held(root), tree.waiting(root)), (0, 0));
    });
}

#[test]
fn across_nodes_too() {
    loom::model(|| {
        let (tree, root) = Tree::new(2);
        let (left, right) = (tree.add(root, 2), tree.add(root, 1));
        let permit = tree.try_acquire(left, 2).unwrap().unwrap();
        let first = tree.acquire(left, 2).unwrap();
        let second = tree.acquire(right, 1).unwrap();
        let dropped = thread::spawn(move || poll_once(first));
        let releaser = thread::spawn(move || drop(permit));
        drop(block_on(second));
        dropped.join().unwrap();
        releaser.join().unwrap();
        assert_eq!((tree.held(root), tree.waiting(root)), (0, 0));
    });
}

#[test]
fn two_releases_of_one_permit_give_back_once() {
    loom::model(|| {
        let (tree, root) = Tree::new(2);
        let permit = Arc::new(tree.try_acquire(root, 1).unwrap().unwrap());
        let other = tree.try_acquire(root, 1).unwrap().unwrap();
        let second = thread::spawn({
            let permit = Arc::clone(&permit);
            move || permit.release()
        });
        permit.release();
        second.join().unwrap();
        assert_eq!(tree.held(root), 1);
        drop(other);
    });
}
