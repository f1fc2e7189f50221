//! The guarantees of a signal, tested poll by poll.
#![cfg(not(loom))]

mod common;

use common::{Acting, Named, Reentrant, Task, panics};
use headrace_core::Signal;
use headrace_core::signal::Stopped;
use headrace_core::sync::QueuedFuture;
use std::sync::{Arc, Mutex};
use std::task::Waker;

/// Return the values that `visit` shows.
fn visited(signal: &Signal<u32>) -> Vec<u32> {
    let mut values = Vec::new();
    signal.visit(&mut |value| values.push(*value));
    values
}

#[test]
fn all_waiters_get_the_same_value() {
    let signal = Signal::new();
    let mut tasks: Vec<_> = (0..3).map(|_| Task::waiting(signal.wait())).collect();
    assert_eq!(signal.waiting(), 3);
    signal.publish(7, false);
    assert_eq!(signal.waiting(), 0);
    let values: Vec<_> = tasks.iter_mut().map(|task| task.ready().unwrap()).collect();
    assert!(values.iter().all(|value| Arc::ptr_eq(value, &values[0])));
    assert_eq!(*values[0], 7);
    assert!(tasks.iter().all(|task| task.wakes() == 1));
    Task::waiting(signal.wait());
}

#[test]
fn waiters_are_woken_in_order_of_first_poll() {
    let signal = Signal::new();
    let log = Arc::new(Mutex::new(Vec::new()));
    let mut tasks: Vec<_> = (0..5).map(|_| Task::new(signal.wait())).collect();
    for (name, task) in tasks.iter_mut().enumerate() {
        let waker = Waker::from(Arc::new(Named {
            name,
            log: Arc::clone(&log),
        }));
        assert!(task.poll_with(&waker).is_pending());
    }
    tasks.remove(2);
    signal.publish((), false);
    assert_eq!(*log.lock().unwrap(), [0, 1, 3, 4]);
}

#[test]
fn last_unheard_value_is_retained_for_one_wait() {
    let signal = Signal::new();
    signal.publish(1, false);
    signal.publish(2, false);
    assert_eq!(Task::new(signal.wait()).ready().as_deref(), Ok(&2));
    Task::waiting(signal.wait());
}

#[test]
fn wait_starts_at_its_first_poll() {
    let signal = Signal::new();
    let mut task = Task::new(signal.wait());
    signal.publish(1, false);
    assert_eq!(task.ready().as_deref(), Ok(&1));
}

#[test]
fn sticky_value_serves_all_waits_until_reset() {
    let signal = Signal::new();
    let mut waiter = Task::waiting(signal.wait());
    signal.publish(1, true);
    let value = waiter.ready().unwrap();
    for _ in 0..3 {
        assert!(Arc::ptr_eq(
            &Task::new(signal.wait()).ready().unwrap(),
            &value
        ));
    }
    signal.reset();
    Task::waiting(signal.wait());
}

#[test]
fn only_a_sticky_value_replaces_a_sticky_value() {
    let signal = Signal::new();
    signal.publish(1, true);
    signal.publish(2, false);
    assert_eq!(Task::new(signal.wait()).ready().as_deref(), Ok(&1));
    signal.publish(3, true);
    assert_eq!(Task::new(signal.wait()).ready().as_deref(), Ok(&3));
    signal.reset();
    Task::waiting(signal.wait());
    signal.publish(4, false);
    assert_eq!(Task::new(signal.wait()).ready().as_deref(), Ok(&4));
}

#[test]
fn given_up_position_retains_no_value() {
    let signal = Signal::new();
    let mut dead = Task::waiting(signal.wait());
    let position = dead.future.queue_position().unwrap();
    signal.publish(7, false);
    position.give_up();
    position.give_up();
    assert_eq!(Task::new(signal.wait()).ready().as_deref(), Ok(&7));
    // Polled again, it joins the queue again.
    assert!(dead.poll().is_pending());
    signal.publish(8, false);
    assert_eq!(dead.ready().as_deref(), Ok(&8));
    assert!(dead.future.queue_position().is_none());
}

#[test]
fn value_is_retained_if_all_members_are_dropped() {
    let signal = Signal::new();
    let tasks: Vec<_> = (0..3).map(|_| Task::waiting(signal.wait())).collect();
    signal.publish(7, false);
    drop(tasks);
    assert_eq!(Task::new(signal.wait()).ready().as_deref(), Ok(&7));
    Task::waiting(signal.wait());
}

#[test]
fn value_is_not_retained_if_one_member_took_it() {
    for taker in 0..3 {
        let signal = Signal::new();
        let mut tasks: Vec<_> = (0..3).map(|_| Task::waiting(signal.wait())).collect();
        signal.publish(7, false);
        assert_eq!(tasks[taker].ready().as_deref(), Ok(&7));
        drop(tasks);
        Task::waiting(signal.wait());
    }
}

#[test]
fn uncollected_value_goes_to_the_first_waiter() {
    let signal = Signal::new();
    let notified = Task::waiting(signal.wait());
    signal.publish(7, false);
    let next = Task::waiting(signal.wait());
    let mut second = Task::waiting(signal.wait());
    drop(notified);
    assert_eq!((next.wakes(), second.wakes()), (1, 0));
    // It is handed on again if the next waiter is dropped as well.
    drop(next);
    assert_eq!(second.wakes(), 1);
    assert_eq!(second.ready().as_deref(), Ok(&7));
    Task::waiting(signal.wait());
}

#[test]
fn returned_value_does_not_replace_a_later_one() {
    let signal = Signal::new();
    let first = Task::waiting(signal.wait());
    signal.publish(1, false);
    signal.publish(2, false);
    drop(first);
    assert_eq!(Task::new(signal.wait()).ready().as_deref(), Ok(&2));

    // Nor after the later value was consumed: it had replaced this one.
    let first = Task::waiting(signal.wait());
    signal.publish(1, false);
    signal.publish(2, false);
    assert_eq!(Task::new(signal.wait()).ready().as_deref(), Ok(&2));
    drop(first);
    Task::waiting(signal.wait());
}

#[test]
fn latest_returned_value_is_retained() {
    for older_first in [true, false] {
        let signal = Signal::new();
        let older = Task::waiting(signal.wait());
        signal.publish(1, false);
        let newer = Task::waiting(signal.wait());
        signal.publish(2, false);
        if older_first {
            drop(older);
            drop(newer);
        } else {
            drop(newer);
            drop(older);
        }
        assert_eq!(Task::new(signal.wait()).ready().as_deref(), Ok(&2));
        Task::waiting(signal.wait());
    }
}

#[test]
fn reset_drops_retained_and_returned_values() {
    let signal = Signal::new();
    signal.publish(1, false);
    signal.reset();
    let mut taker = Task::waiting(signal.wait());
    signal.publish(2, false);
    let dropped = Task::waiting(signal.wait());
    signal.publish(3, false);
    signal.reset();
    drop(dropped);
    let waiting = Task::waiting(signal.wait());
    assert_eq!(
        taker.ready().as_deref(),
        Ok(&2),
        "a promised value stays valid"
    );
    assert_eq!(waiting.wakes(), 0);
}

#[test]
fn stop_ends_current_and_later_waits() {
    let signal = Signal::new();
    let mut waiting = Task::waiting(signal.wait());
    assert!(!signal.is_stopped());
    signal.stop();
    signal.stop();
    assert!(signal.is_stopped());
    assert_eq!(waiting.wakes(), 1);
    assert_eq!(waiting.ready(), Err(Stopped));
    signal.publish(1, true);
    assert_eq!(Task::new(signal.wait()).ready(), Err(Stopped));
}

#[test]
fn stop_keeps_promised_and_drops_retained_values() {
    let signal = Signal::new();
    let mut taker = Task::waiting(signal.wait());
    signal.publish(1, false);
    let dropped = Task::waiting(signal.wait());
    signal.publish(2, false);
    signal.publish(3, false);
    signal.stop();
    drop(dropped);
    assert_eq!(taker.ready().as_deref(), Ok(&1));
    assert_eq!(visited(&signal), []);
    assert_eq!(Task::new(signal.wait()).ready(), Err(Stopped));
}

#[test]
fn latest_waker_is_woken() {
    let signal = Signal::new();
    let log = Arc::new(Mutex::new(Vec::new()));
    let waker = |name| {
        Waker::from(Arc::new(Named {
            name,
            log: Arc::clone(&log),
        }))
    };
    let mut task = Task::new(signal.wait());
    assert!(task.poll_with(&waker(1)).is_pending());
    assert!(task.poll_with(&waker(2)).is_pending());
    signal.publish((), false);
    assert_eq!(*log.lock().unwrap(), [2]);
}

#[test]
fn wakers_and_values_may_call_back() {
    let signal: Arc<Signal<Acting>> = Signal::new();
    let weak = Arc::downgrade(&signal);
    let act = move || {
        if let Some(signal) = weak.upgrade() {
            assert!(signal.waiting() <= 1);
        }
    };
    let waker = Reentrant::waker(act.clone());
    let value = || Acting::new(act.clone());

    signal.publish(value(), false);
    signal.publish(value(), true);
    signal.reset();
    let mut task = Task::new(signal.wait());
    assert!(task.poll_with(&waker).is_pending());
    assert!(task.poll_with(&Reentrant::waker(act.clone())).is_pending());
    signal.publish(value(), false);
    drop(task);
    signal.publish(value(), false);
    let mut task = Task::new(signal.wait());
    drop(task.ready());
    let mut task = Task::new(signal.wait());
    assert!(task.poll_with(&waker).is_pending());
    drop(waker);
    signal.publish(value(), true);
    signal.stop();
    signal.publish(value(), true);
    drop(task);
}

#[test]
fn visit_shows_each_solely_owned_value_once() {
    let signal = Signal::new();
    assert_eq!(visited(&signal), []);
    signal.publish(1, false);
    assert_eq!(visited(&signal), [1]);
    signal.reset();
    let mut tasks: Vec<_> = (0..2).map(|_| Task::waiting(signal.wait())).collect();
    signal.publish(2, true);
    assert_eq!(
        visited(&signal),
        [2],
        "retained, and promised to two waiters"
    );
    let outside = tasks[0].ready().unwrap();
    assert_eq!(visited(&signal), [], "also owned from outside");
    drop(outside);
    assert_eq!(visited(&signal), [2]);
    signal.reset();
    assert_eq!(visited(&signal), [2], "still promised to one waiter");
    drop(tasks);
    assert_eq!(visited(&signal), []);
}

#[test]
fn polling_after_completion_panics_without_poisoning() {
    let signal = Signal::new();
    signal.publish(1, false);
    let mut task = Task::new(signal.wait());
    assert!(task.ready().is_ok());
    assert_eq!(panics(|| task.poll()), "`Wait` polled after completion");
    assert!(!signal.is_broken());
}

#[test]
fn panic_under_the_lock_breaks_only_the_signal() {
    let signal = Signal::new();
    let waiting = Task::waiting(signal.wait());
    signal.publish(1, true);
    panics(|| signal.visit(&mut |_| panic!("a bad closure")));
    assert!(signal.is_broken());
    assert!(panics(|| signal.publish(2, false)).contains("broken"));
    drop(waiting);
    assert!(format!("{signal:?}").starts_with("Signal"));
}
