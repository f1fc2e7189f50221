//! Every interleaving of publications and dropped waits:
//! `RUSTFLAGS="--cfg loom" cargo test -p headrace-core --release --test 'loom_*'`
#![cfg(loom)]

use headrace_core::Signal;
use headrace_core::signal::Stopped;
use loom::future::block_on;
use loom::thread;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Polls once and drops: takes a place in the line and gives it up, at any moment of the other threads.
fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_value_survives_a_wait_that_is_dropped() {
    loom::model(|| {
        let signal = Signal::new();
        let dropped = thread::spawn({
            let signal = Arc::clone(&signal);
            move || poll_once(signal.wait())
        });
        signal.publish(7, false);
        let taken = dropped.join().unwrap();
        let kept = poll_once(signal.wait());
        assert!(taken.is_ready() != kept.is_ready(), "one of them has it");
    });
}

#[test]
fn a_waiter_is_woken_although_the_one_before_it_is_dropped() {
    loom::model(|| {
        let signal = Signal::new();
        let dropped = thread::spawn({
            let signal = Arc::clone(&signal);
            // Should it be ready, the value is for the other one after all.
            move || match poll_once(signal.wait()) {
                Poll::Ready(value) => signal.publish(*value.unwrap(), false),
                Poll::Pending => {}
            }
        });
        let publisher = thread::spawn({
            let signal = Arc::clone(&signal);
            move || signal.publish(7, false)
        });
        assert_eq!(block_on(signal.wait()).as_deref(), Ok(&7));
        dropped.join().unwrap();
        publisher.join().unwrap();
    });
}

#[test]
fn a_sticky_value_reaches_everybody() {
    loom::model(|| {
        let signal = Signal::new();
        let other = thread::spawn({
            let signal = Arc::clone(&signal);
            move || poll_once(signal.wait())
        });
        let publisher = thread::spawn({
            let signal = Arc::clone(&signal);
            move || signal.publish(7, true)
        });
        assert_eq!(block_on(signal.wait()).as_deref(), Ok(&7));
        drop(other.join().unwrap());
        publisher.join().unwrap();
        assert!(
            poll_once(signal.wait()).is_ready(),
            "and nobody consumes it"
        );
    });
}

#[test]
fn a_stop_reaches_those_who_wait() {
    loom::model(|| {
        let signal: Arc<Signal<()>> = Signal::new();
        let waiter = thread::spawn({
            let signal = Arc::clone(&signal);
            move || block_on(signal.wait())
        });
        signal.stop();
        assert_eq!(waiter.join().unwrap(), Err(Stopped));
    });
}

/// A future that nobody polls any more, because its executor is gone: all that is left is its place.
#[test]
fn a_place_that_is_given_up_takes_no_value_to_the_grave() {
    loom::model(|| {
        let signal = Signal::new();
        let mut dead = signal.wait();
        let waits = std::pin::Pin::new(&mut dead).poll(&mut Context::from_waker(Waker::noop()));
        assert!(waits.is_pending());
        let place = dead.queue_position().unwrap();
        let undertaker = thread::spawn(move || place.give_up());
        let publisher = thread::spawn({
            let signal = Arc::clone(&signal);
            move || signal.publish(7, false)
        });
        undertaker.join().unwrap();
        publisher.join().unwrap();
        assert_eq!(block_on(signal.wait()).as_deref(), Ok(&7));
        drop(dead);
    });
}

#[test]
fn a_sticky_value_outlives_the_others() {
    loom::model(|| {
        let signal = Signal::new();
        let dropped = thread::spawn({
            let signal = Arc::clone(&signal);
            move || poll_once(signal.wait())
        });
        let publisher = thread::spawn({
            let signal = Arc::clone(&signal);
            move || signal.publish(1, false)
        });
        signal.publish(7, true);
        let _ = dropped.join().unwrap();
        publisher.join().unwrap();
        assert_eq!(block_on(signal.wait()).as_deref(), Ok(&7));
    });
}
