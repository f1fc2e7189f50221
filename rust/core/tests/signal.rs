//! What a signal promises, one poll at a time.
#![cfg(not(loom))]

mod common;

use common::{Acting, Named, Reentrant, Task, panics};
use headrace_core::Signal;
use headrace_core::signal::Stopped;
use std::sync::{Arc, Mutex};
use std::task::Waker;

/// What `visit` shows.
fn seen(signal: &Signal<u32>) -> Vec<u32> {
    let mut seen = Vec::new();
    signal.visit(&mut |value| seen.push(*value));
    seen
}

#[test]
fn everybody_who_waits_gets_the_same_value() {
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
fn waiters_are_woken_in_the_order_of_their_first_polls() {
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
fn a_value_that_nobody_hears_is_kept_for_one_wait_and_the_last_one_wins() {
    let signal = Signal::new();
    signal.publish(1, false);
    signal.publish(2, false);
    assert_eq!(Task::new(signal.wait()).ready().as_deref(), Ok(&2));
    Task::waiting(signal.wait());
}

#[test]
fn a_wait_counts_from_its_first_poll() {
    let signal = Signal::new();
    let mut task = Task::new(signal.wait());
    signal.publish(1, false);
    assert_eq!(task.ready().as_deref(), Ok(&1));
}

#[test]
fn a_sticky_value_serves_everybody_until_reset() {
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
fn only_another_sticky_value_takes_the_place_of_a_sticky_one() {
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
fn a_place_that_is_given_up_keeps_no_value() {
    let signal = Signal::new();
    let mut dead = Task::waiting(signal.wait());
    let place = dead.future.queue_position().unwrap();
    signal.publish(7, false);
    place.give_up();
    place.give_up();
    assert_eq!(Task::new(signal.wait()).ready().as_deref(), Ok(&7));
    // Polled after all, it waits anew.
    assert!(dead.poll().is_pending());
    signal.publish(8, false);
    assert_eq!(dead.ready().as_deref(), Ok(&8));
    assert!(dead.future.queue_position().is_none());
}

#[test]
fn a_value_is_kept_if_all_who_were_woken_are_dropped() {
    let signal = Signal::new();
    let tasks: Vec<_> = (0..3).map(|_| Task::waiting(signal.wait())).collect();
    signal.publish(7, false);
    drop(tasks);
    assert_eq!(Task::new(signal.wait()).ready().as_deref(), Ok(&7));
    Task::waiting(signal.wait());
}

#[test]
fn a_value_is_not_kept_if_one_of_them_took_it() {
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
fn a_value_that_was_left_behind_goes_to_the_first_in_the_line() {
    let signal = Signal::new();
    let notified = Task::waiting(signal.wait());
    signal.publish(7, false);
    let heir = Task::waiting(signal.wait());
    let mut second = Task::waiting(signal.wait());
    drop(notified);
    assert_eq!((heir.wakes(), second.wakes()), (1, 0));
    // And on, should the heir be dropped as well.
    drop(heir);
    assert_eq!(second.wakes(), 1);
    assert_eq!(second.ready().as_deref(), Ok(&7));
    Task::waiting(signal.wait());
}

#[test]
fn a_value_that_comes_back_does_not_replace_a_later_one() {
    let signal = Signal::new();
    let first = Task::waiting(signal.wait());
    signal.publish(1, false);
    signal.publish(2, false);
    drop(first);
    assert_eq!(Task::new(signal.wait()).ready().as_deref(), Ok(&2));

    // Nor once that one has been consumed: it had taken this one's place.
    let first = Task::waiting(signal.wait());
    signal.publish(1, false);
    signal.publish(2, false);
    assert_eq!(Task::new(signal.wait()).ready().as_deref(), Ok(&2));
    drop(first);
    Task::waiting(signal.wait());
}

#[test]
fn of_several_values_that_come_back_the_last_published_is_kept() {
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
fn reset_forgets_what_is_kept_and_what_comes_back() {
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
    assert_eq!(taker.ready().as_deref(), Ok(&2), "what was promised stands");
    assert_eq!(waiting.wakes(), 0);
}

#[test]
fn stop_ends_the_waits_of_now_and_later() {
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
fn stop_leaves_the_notified_their_value_and_drops_what_is_kept() {
    let signal = Signal::new();
    let mut taker = Task::waiting(signal.wait());
    signal.publish(1, false);
    let dropped = Task::waiting(signal.wait());
    signal.publish(2, false);
    signal.publish(3, false);
    signal.stop();
    drop(dropped);
    assert_eq!(taker.ready().as_deref(), Ok(&1));
    assert_eq!(seen(&signal), []);
    assert_eq!(Task::new(signal.wait()).ready(), Err(Stopped));
}

#[test]
fn the_newest_waker_is_woken() {
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
fn a_visitor_sees_each_value_once_and_only_what_the_signal_keeps_alive() {
    let signal = Signal::new();
    assert_eq!(seen(&signal), []);
    signal.publish(1, false);
    assert_eq!(seen(&signal), [1]);
    signal.reset();
    let mut tasks: Vec<_> = (0..2).map(|_| Task::waiting(signal.wait())).collect();
    signal.publish(2, true);
    assert_eq!(seen(&signal), [2], "kept, and owed to two");
    let outside = tasks[0].ready().unwrap();
    assert_eq!(seen(&signal), [], "kept alive from outside as well");
    drop(outside);
    assert_eq!(seen(&signal), [2]);
    signal.reset();
    assert_eq!(seen(&signal), [2], "still owed to one");
    drop(tasks);
    assert_eq!(seen(&signal), []);
}

#[test]
fn polling_after_completion_panics_and_breaks_nothing() {
    let signal = Signal::new();
    signal.publish(1, false);
    let mut task = Task::new(signal.wait());
    assert!(task.ready().is_ok());
    assert_eq!(panics(|| task.poll()), "`Wait` polled after completion");
    assert!(!signal.is_broken());
}

#[test]
fn a_panic_under_the_lock_breaks_the_signal_and_nothing_else() {
    let signal = Signal::new();
    let waiting = Task::waiting(signal.wait());
    signal.publish(1, true);
    panics(|| signal.visit(&mut |_| panic!("a bad closure")));
    assert!(signal.is_broken());
    assert!(panics(|| signal.publish(2, false)).contains("broken"));
    drop(waiting);
    assert!(format!("{signal:?}").starts_with("Signal"));
}
