//! The slab, and the wait queue that is stored in it.
#![cfg(not(loom))]

mod common;

use common::Count;
use headrace_core::sync::{Left, Slab, WaitList};
use std::sync::Arc;
use std::task::Waker;

fn waker() -> Waker {
    Waker::noop().clone()
}

/// Notify all waiters and return their payloads in order.
fn drain(queue: &mut WaitList<u32>) -> Vec<u32> {
    std::iter::from_fn(|| queue.notify_first().map(|(_, payload)| *payload)).collect()
}

#[test]
fn key_never_finds_another_entry() {
    let mut slab = Slab::new();
    let old = slab.insert("old");
    assert_eq!(slab.remove(old), Some("old"));
    let new = slab.insert("new");
    assert_ne!(old, new);
    assert_eq!(slab.get(old), None);
    assert_eq!(slab.get_mut(old), None);
    assert_eq!(slab.remove(old), None);
    assert_eq!(slab.get(new), Some(&"new"));
    assert_eq!(slab.iter().collect::<Vec<_>>(), [&"new"]);
}

#[test]
fn key_stays_invalid_after_memory_is_freed() {
    let mut slab = Slab::new();
    let keys: Vec<_> = (0..1000).map(|entry| slab.insert(entry)).collect();
    for (entry, &key) in keys.iter().enumerate() {
        assert_eq!(slab.remove(key), Some(entry));
    }
    assert!(slab.is_empty());
    let new = slab.insert(7);
    assert!(keys.iter().all(|&key| slab.get(key).is_none()));
    assert_eq!((slab.len(), slab.remove(new)), (1, Some(7)));
}

#[test]
fn wait_list_is_fifo() {
    let mut queue = WaitList::new();
    for payload in 0..5 {
        queue.push(waker(), payload);
    }
    assert_eq!(queue.first(), Some(&0));
    assert_eq!(drain(&mut queue), [0, 1, 2, 3, 4]);
    assert_eq!((queue.waiting(), queue.notified()), (0, 5));
}

#[test]
fn waiters_can_leave_from_any_position() {
    for removed in 0..4_u32 {
        for also_removed in 0..4_u32 {
            let mut queue = WaitList::new();
            let keys: Vec<_> = (0..4).map(|payload| queue.push(waker(), payload)).collect();
            for index in [removed, also_removed] {
                match queue.leave(keys[index as usize]) {
                    Some(Left::Waiting(_, payload)) => assert_eq!(payload, index),
                    None => assert_eq!(removed, also_removed),
                    Some(Left::Notified(_)) => panic!("no waiter was notified"),
                }
            }
            let last = queue.push(waker(), 9);
            let mut rest: Vec<_> = (0..4)
                .filter(|index| ![removed, also_removed].contains(index))
                .collect();
            rest.push(9);
            assert_eq!(queue.waiting(), rest.len());
            assert_eq!(drain(&mut queue), rest);
            assert!(queue.is_notified(last));
            assert!(matches!(queue.leave(last), Some(Left::Notified(9))));
            assert!(queue.leave(last).is_none());
        }
    }
}

#[test]
fn popped_waiter_is_removed() {
    let mut queue = WaitList::new();
    let key = queue.push(waker(), 1);
    assert!(matches!(queue.pop_first(), Some((_, 1))));
    assert!(queue.pop_first().is_none());
    assert!(!queue.is_notified(key));
    assert!(queue.leave(key).is_none());
    assert_eq!((queue.waiting(), queue.notified()), (0, 0));
}

#[test]
fn enqueue_requests_a_waker_clone_if_needed() {
    // Not `Waker::noop()`: in a debug build its clones need not compare equal.
    let waker = Waker::from(Arc::<Count>::default());
    let mut queue = WaitList::new();
    let (mut key, mut spare) = (None, None);
    assert!(!queue.enqueue(&mut key, &waker, &mut spare, || ()));
    assert!(key.is_none());
    spare = Some(waker.clone());
    assert!(queue.enqueue(&mut key, &waker, &mut spare, || ()));
    assert!(key.is_some() && spare.is_none());
    assert!(
        queue.enqueue(&mut key, &waker, &mut spare, || ()),
        "an equivalent waker"
    );
    let other = Waker::from(Arc::<Count>::default());
    assert!(!queue.enqueue(&mut key, &other, &mut spare, || ()));
    spare = Some(other.clone());
    assert!(queue.enqueue(&mut key, &other, &mut spare, || ()));
    assert!(
        spare.is_some_and(|old| old.will_wake(&waker)),
        "the old waker is returned to the caller"
    );
    assert_eq!(queue.waiting(), 1);
}
