//! Every interleaving of puts, gets and dropped futures:
//! `RUSTFLAGS="--cfg loom" cargo test -p headrace-core --release --test 'loom_*'`
#![cfg(loom)]

use headrace_core::Buffer;
use headrace_core::buffer::{Ended, Fault, Order, Overflow, PutError, Rank};
use headrace_core::sync::QueuedFuture;
use loom::future::block_on;
use loom::thread;
use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Poll once and drop: join the queue and leave it, interleaved with the other threads.
fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn item_survives_a_dropped_getter() {
    loom::model(|| {
        let buffer = Buffer::new(None);
        let dropped = thread::spawn({
            let buffer = Arc::clone(&buffer);
            move || poll_once(buffer.get())
        });
        buffer.try_put(1).unwrap();
        let left = match dropped.join().unwrap() {
            Poll::Ready(item) => vec![item.unwrap()],
            Poll::Pending => buffer.close(),
        };
        assert_eq!(left, [1]);
    });
}

#[test]
fn getter_is_woken_if_the_previous_one_is_dropped() {
    loom::model(|| {
        let buffer = Buffer::new(None);
        let dropped = thread::spawn({
            let buffer = Arc::clone(&buffer);
            // If it is ready, put the item back for the other getter.
            move || match poll_once(buffer.get()) {
                Poll::Ready(item) => buffer.try_put(item.unwrap()).unwrap(),
                Poll::Pending => {}
            }
        });
        let putter = thread::spawn({
            let buffer = Arc::clone(&buffer);
            move || buffer.try_put(1).unwrap()
        });
        assert_eq!(block_on(buffer.get()), Ok(1));
        dropped.join().unwrap();
        putter.join().unwrap();
        assert!(buffer.is_empty());
    });
}

#[test]
fn putter_is_woken_if_the_previous_one_is_dropped() {
    loom::model(|| {
        let buffer = Buffer::new(NonZeroUsize::new(1));
        buffer.try_put(0).unwrap();
        let dropped = thread::spawn({
            let buffer = Arc::clone(&buffer);
            move || match poll_once(buffer.put(1)) {
                // It ran after the get and before the other put: free the slot again.
                Poll::Ready(stored) => {
                    stored.unwrap();
                    while buffer.try_get().is_err() {
                        thread::yield_now();
                    }
                }
                Poll::Pending => {}
            }
        });
        let getter = thread::spawn({
            let buffer = Arc::clone(&buffer);
            move || assert_eq!(buffer.try_get(), Ok(0))
        });
        assert_eq!(block_on(buffer.put(2)), Ok(()));
        getter.join().unwrap();
        dropped.join().unwrap();
    });
}

#[test]
fn put_and_get_alternate_in_a_full_buffer() {
    loom::model(|| {
        let buffer = Buffer::new(NonZeroUsize::new(1));
        let producer = thread::spawn({
            let buffer = Arc::clone(&buffer);
            move || {
                for item in 0..2 {
                    block_on(buffer.put(item)).unwrap();
                }
                buffer.finish();
            }
        });
        assert_eq!(block_on(buffer.get()), Ok(0));
        assert_eq!(block_on(buffer.get()), Ok(1));
        assert_eq!(block_on(buffer.get()), Err(Ended));
        producer.join().unwrap();
    });
}

#[test]
fn close_ends_all_waits() {
    loom::model(|| {
        let buffer = Buffer::new(NonZeroUsize::new(1));
        buffer.try_put(0).unwrap();
        let putter = thread::spawn({
            let buffer = Arc::clone(&buffer);
            move || block_on(buffer.put(1))
        });
        let dropped = thread::spawn({
            let buffer = Arc::clone(&buffer);
            move || poll_once(buffer.get()).is_ready()
        });
        let mut left = buffer.close();
        let stored = putter.join().unwrap();
        left.extend(stored.err().map(PutError::into_item));
        assert!(dropped.join().unwrap() || !left.is_empty());
        assert_eq!(block_on(buffer.get()), Err(Ended));
    });
}

/// A future that is never polled again, because its executor is gone: only its queue position remains.
#[test]
fn given_up_position_loses_no_item() {
    loom::model(|| {
        let buffer = Buffer::new(None);
        let mut dead = buffer.get();
        let waits = std::pin::Pin::new(&mut dead).poll(&mut Context::from_waker(Waker::noop()));
        assert!(waits.is_pending());
        let position = dead.queue_position().unwrap();
        let cleaner = thread::spawn(move || position.give_up());
        let putter = thread::spawn({
            let buffer = Arc::clone(&buffer);
            move || buffer.try_put(1).unwrap()
        });
        assert_eq!(block_on(buffer.get()), Ok(1));
        cleaner.join().unwrap();
        putter.join().unwrap();
        drop(dead);
        assert!(buffer.is_empty());
    });
}

#[test]
fn displaced_items_are_counted() {
    loom::model(|| {
        let buffer = Buffer::with(NonZeroUsize::new(1), Overflow::DropOldest, Order::Lifo);
        let dropped = thread::spawn({
            let buffer = Arc::clone(&buffer);
            move || poll_once(buffer.get())
        });
        let putter = thread::spawn({
            let buffer = Arc::clone(&buffer);
            move || buffer.try_put(1).unwrap()
        });
        buffer.try_put(2).unwrap();
        putter.join().unwrap();
        let taken = usize::from(dropped.join().unwrap().is_ready());
        let displaced = usize::try_from(buffer.statistics().dropped).unwrap();
        assert_eq!(taken + displaced + buffer.close().len(), 2);
    });
}

struct Least;

impl Rank<u32> for Least {
    fn share(&self, item: &u32) -> u32 {
        *item
    }

    fn before(&self, item: &u32, other: &u32) -> Result<bool, Fault> {
        Ok(item < other)
    }
}

#[test]
fn sorted_buffer_stays_sorted_under_concurrency() {
    loom::model(|| {
        let order = Order::Sorted(Box::new(Least) as Box<dyn Rank<u32>>);
        let buffer = Buffer::with(NonZeroUsize::new(2), Overflow::Block, order);
        buffer.try_put(5).unwrap();
        let dropped = thread::spawn({
            let buffer = Arc::clone(&buffer);
            move || poll_once(buffer.put(3))
        });
        let getter = thread::spawn({
            let buffer = Arc::clone(&buffer);
            move || buffer.try_get().ok()
        });
        let stored = buffer.try_put(4);
        let mut all: Vec<u32> = getter.join().unwrap().into_iter().collect();
        all.extend(dropped.join().unwrap().is_pending().then_some(3));
        all.extend(stored.err().map(PutError::into_item));
        let left = buffer.close();
        assert!(left.is_sorted());
        all.extend(left);
        all.sort_unstable();
        assert_eq!(all, [3, 4, 5]);
    });
}

#[test]
fn join_is_woken_if_the_previous_one_is_dropped() {
    loom::model(|| {
        let buffer = Buffer::new(None);
        buffer.try_put(1).unwrap();
        let mut dropped = buffer.join();
        let waits = std::pin::Pin::new(&mut dropped).poll(&mut Context::from_waker(Waker::noop()));
        assert!(waits.is_pending());
        let worker = thread::spawn({
            let buffer = Arc::clone(&buffer);
            move || assert!(buffer.task_done())
        });
        drop(dropped);
        block_on(buffer.join());
        worker.join().unwrap();
    });
}
