//! The slab and the line through it.
#![cfg(not(loom))]

mod common;

use common::Count;
use headrace_core::sync::{Left, Slab, WaitList};
use std::sync::Arc;
use std::task::Waker;

fn waker() -> Waker {
    Waker::noop().clone()
}

/// Notifies all, and tells in which order.
fn drain(line: &mut WaitList<u32>) -> Vec<u32> {
    std::iter::from_fn(|| line.notify_first().map(|(_, payload)| *payload)).collect()
}

#[test]
fn a_key_never_finds_another_entry() {
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
fn a_key_outlives_the_memory_that_it_points_into() {
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
fn the_line_is_first_come_first_served() {
    let mut line = WaitList::new();
    for payload in 0..5 {
        line.push(waker(), payload);
    }
    assert_eq!(line.first(), Some(&0));
    assert_eq!(drain(&mut line), [0, 1, 2, 3, 4]);
    assert_eq!((line.waiting(), line.notified()), (0, 5));
}

#[test]
fn anybody_can_leave_from_anywhere() {
    for gone in 0..4_u32 {
        for also_gone in 0..4_u32 {
            let mut line = WaitList::new();
            let keys: Vec<_> = (0..4).map(|payload| line.push(waker(), payload)).collect();
            for index in [gone, also_gone] {
                match line.leave(keys[index as usize]) {
                    Some(Left::Waiting(_, payload)) => assert_eq!(payload, index),
                    None => assert_eq!(gone, also_gone),
                    Some(Left::Notified(_)) => panic!("nobody was notified"),
                }
            }
            let last = line.push(waker(), 9);
            let mut rest: Vec<_> = (0..4)
                .filter(|index| ![gone, also_gone].contains(index))
                .collect();
            rest.push(9);
            assert_eq!(line.waiting(), rest.len());
            assert_eq!(drain(&mut line), rest);
            assert!(line.is_notified(last));
            assert!(matches!(line.leave(last), Some(Left::Notified(9))));
            assert!(line.leave(last).is_none());
        }
    }
}

#[test]
fn whoever_is_popped_is_forgotten() {
    let mut line = WaitList::new();
    let key = line.push(waker(), 1);
    assert!(matches!(line.pop_first(), Some((_, 1))));
    assert!(line.pop_first().is_none());
    assert!(!line.is_notified(key));
    assert!(line.leave(key).is_none());
    assert_eq!((line.waiting(), line.notified()), (0, 0));
}

#[test]
fn enrolling_asks_for_a_clone_when_it_needs_one() {
    // Not the waker that does nothing: in a debug build its clones need not compare equal.
    let waker = Waker::from(Arc::<Count>::default());
    let mut line = WaitList::new();
    let (mut key, mut spare) = (None, None);
    assert!(!line.enqueue(&mut key, &waker, &mut spare, || ()));
    assert!(key.is_none());
    spare = Some(waker.clone());
    assert!(line.enqueue(&mut key, &waker, &mut spare, || ()));
    assert!(key.is_some() && spare.is_none());
    assert!(
        line.enqueue(&mut key, &waker, &mut spare, || ()),
        "it is the same waker"
    );
    let other = Waker::from(Arc::<Count>::default());
    assert!(!line.enqueue(&mut key, &other, &mut spare, || ()));
    spare = Some(other.clone());
    assert!(line.enqueue(&mut key, &other, &mut spare, || ()));
    assert!(
        spare.is_some_and(|old| old.will_wake(&waker)),
        "the old one is for the caller to drop"
    );
    assert_eq!(line.waiting(), 1);
}
