//! Every interleaving of publications and dropped waits:
//! `RUSTFLAGS="--cfg loom" cargo test -p headrace-core --release --test 'loom_*'`
#![cfg(loom)]

use headrace_core::Signal;
use headrace_core::signal::Stopped;
use headrace_core::sync::QueuedFuture;
use loom::future::block_on;
use loom::thread;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Poll once and drop: join the queue and leave it, interleaved with the other threads.
fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn value_survives_a_dropped_wait() {
    loom::model(|| {
        let signal = Signal::new();
        let dropped = thread::spawn({
            let signal = Arc::clone(&signal);
            move || poll_once(signal.wait())
        });
        signal.publish(7, false);
        let taken = dropped.join().unwrap();
        let retained = poll_once(signal.wait());
        assert!(
            taken.is_ready() != retained.is_ready(),
            "exactly one of them has the value"
        );
    });
}

#[test]
fn waiter_is_woken_if_the_previous_one_is_dropped() {
    loom::model(|| {
        let signal = Signal::new();
        let dropped = thread::spawn({
            let signal = Arc::clone(&signal);
            // If it is ready, publish the value again for the other waiter.
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
fn sticky_value_reaches_all_waiters() {
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
        assert!(poll_once(signal.wait()).is_ready(), "no wait consumes it");
    });
}

#[test]
fn stop_ends_all_waits() {
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

/// A future that is never polled again, because its executor is gone: only its queue position remains.
#[test]
fn given_up_position_loses_no_value() {
    loom::model(|| {
        let signal = Signal::new();
        let mut dead = signal.wait();
        let waits = std::pin::Pin::new(&mut dead).poll(&mut Context::from_waker(Waker::noop()));
        assert!(waits.is_pending());
        let position = dead.queue_position().unwrap();
        let cleaner = thread::spawn(move || position.give_up());
        let publisher = thread::spawn({
            let signal = Arc::clone(&signal);
            move || signal.publish(7, false)
        });
        cleaner.join().unwrap();
        publisher.join().unwrap();
        assert_eq!(block_on(signal.wait()).as_deref(), Ok(&7));
        drop(dead);
    });
}

#[test]
fn sticky_value_outlives_other_values() {
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
