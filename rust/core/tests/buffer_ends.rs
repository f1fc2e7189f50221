//! The endings of a buffer: remaining items are delivered or returned, and every wait ends.
#![cfg(not(loom))]

mod common;

use common::Task;
use headrace_core::Buffer;
use headrace_core::buffer::{Ended, PutError, TryGetError};
use std::num::NonZeroUsize;
use std::sync::Arc;

fn unbounded() -> Arc<Buffer<u32>> {
    Buffer::new(None)
}

fn bounded(maxsize: usize) -> Arc<Buffer<u32>> {
    Buffer::new(NonZeroUsize::new(maxsize))
}

#[test]
fn finish_delivers_remaining_items_then_ends() {
    let buffer = unbounded();
    buffer.try_put(1).unwrap();
    buffer.try_put(2).unwrap();
    buffer.finish();
    buffer.finish();
    assert!(buffer.is_finished());
    assert!(!buffer.is_closed());
    assert_eq!(buffer.try_put(3), Err(PutError::Closed(3)));
    assert_eq!(Task::new(buffer.put(3)).ready(), Err(PutError::Closed(3)));
    assert_eq!(buffer.try_get(), Ok(1));
    assert_eq!(Task::new(buffer.get()).ready(), Ok(2));
    assert_eq!(buffer.try_get(), Err(TryGetError::Ended));
    assert_eq!(Task::new(buffer.get()).ready(), Err(Ended));
}

#[test]
fn finish_ends_waiting_getters() {
    let buffer = unbounded();
    let mut tasks: Vec<_> = (0..3).map(|_| Task::waiting(buffer.get())).collect();
    buffer.finish();
    assert_eq!(buffer.waiting_getters(), 0);
    for task in &mut tasks {
        assert_eq!(task.wakes(), 1);
        assert_eq!(task.ready(), Err(Ended));
    }
}

#[test]
fn finish_returns_items_to_waiting_putters() {
    let buffer = bounded(1);
    buffer.try_put(0).unwrap();
    let mut notified = Task::waiting(buffer.put(1));
    let mut waiting = Task::waiting(buffer.put(2));
    assert_eq!(buffer.try_get(), Ok(0));
    buffer.finish();
    assert_eq!((notified.wakes(), waiting.wakes()), (1, 1));
    assert_eq!(notified.ready(), Err(PutError::Closed(1)));
    assert_eq!(waiting.ready(), Err(PutError::Closed(2)));
    assert_eq!(buffer.try_get(), Err(TryGetError::Ended));
}

#[test]
fn getters_end_only_after_the_last_item_is_taken() {
    // Taken by the getter that it was promised to: the other getter sees the end.
    let buffer = unbounded();
    let mut promised = Task::waiting(buffer.get());
    let mut other = Task::waiting(buffer.get());
    buffer.try_put(1).unwrap();
    buffer.finish();
    assert_eq!(other.wakes(), 0);
    assert!(other.poll().is_pending());
    assert_eq!(buffer.try_get(), Err(TryGetError::Empty));
    assert_eq!(promised.ready(), Ok(1));
    assert_eq!(other.wakes(), 1);
    assert_eq!(other.ready(), Err(Ended));

    // That getter is dropped: the other one gets the item.
    let buffer = unbounded();
    let promised = Task::waiting(buffer.get());
    let mut other = Task::waiting(buffer.get());
    buffer.try_put(1).unwrap();
    buffer.finish();
    drop(promised);
    assert_eq!(other.wakes(), 1);
    assert_eq!(other.ready(), Ok(1));
}

#[test]
fn close_returns_remaining_items_and_ends_waits() {
    let buffer = bounded(2);
    buffer.try_put(1).unwrap();
    buffer.try_put(2).unwrap();
    let mut putter = Task::waiting(buffer.put(3));
    assert_eq!(buffer.close(), [1, 2]);
    assert_eq!(buffer.close(), []);
    assert!(buffer.is_finished() && buffer.is_closed());
    assert_eq!(putter.wakes(), 1);
    assert_eq!(putter.ready(), Err(PutError::Closed(3)));
    assert_eq!(buffer.try_put(4), Err(PutError::Closed(4)));
    assert_eq!(buffer.try_get(), Err(TryGetError::Ended));
    assert_eq!(Task::new(buffer.get()).ready(), Err(Ended));
}

#[test]
fn close_ends_waiting_and_notified_getters() {
    let buffer = unbounded();
    let mut notified = Task::waiting(buffer.get());
    let dropped = Task::waiting(buffer.get());
    let mut waiting = Task::waiting(buffer.get());
    buffer.try_put(1).unwrap();
    buffer.try_put(2).unwrap();
    assert_eq!(buffer.close(), [1, 2]);
    drop(dropped);
    assert_eq!(waiting.wakes(), 1);
    assert_eq!(notified.ready(), Err(Ended));
    assert_eq!(waiting.ready(), Err(Ended));
}

#[test]
fn close_after_finish_returns_remaining_items() {
    let buffer = unbounded();
    buffer.try_put(1).unwrap();
    buffer.finish();
    assert_eq!(buffer.close(), [1]);
    assert_eq!(buffer.try_get(), Err(TryGetError::Ended));
}
