//! The guarantees of a buffer, tested poll by poll.
#![cfg(not(loom))]

mod common;

use common::{Acting, Named, Reentrant, Task, panics};
use headrace_core::Buffer;
use headrace_core::buffer::{PutError, TryGetError};
use headrace_core::sync::QueuedFuture;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

fn unbounded() -> Arc<Buffer<u32>> {
    Buffer::new(None)
}

fn bounded(maxsize: usize) -> Arc<Buffer<u32>> {
    Buffer::new(NonZeroUsize::new(maxsize))
}

#[test]
fn items_are_delivered_in_fifo_order() {
    let buffer = unbounded();
    for item in 0..100 {
        buffer.try_put(item).unwrap();
    }
    assert_eq!(buffer.len(), 100);
    for item in 0..100 {
        assert_eq!(buffer.try_get(), Ok(item));
    }
    assert_eq!(buffer.try_get(), Err(TryGetError::Empty));
    assert!(buffer.is_empty());
}

#[test]
fn full_buffer_returns_the_item() {
    let buffer = bounded(2);
    buffer.try_put(1).unwrap();
    buffer.try_put(2).unwrap();
    assert_eq!(buffer.try_put(3), Err(PutError::Full(3)));
    assert_eq!(PutError::Full(3).into_item(), 3);
    assert_eq!(buffer.maxsize(), NonZeroUsize::new(2));
    assert_eq!(buffer.try_get(), Ok(1));
    buffer.try_put(3).unwrap();
}

#[test]
fn ready_put_and_get_complete_at_the_first_poll() {
    let buffer = bounded(1);
    assert_eq!(Task::new(buffer.put(1)).ready(), Ok(()));
    assert_eq!(Task::new(buffer.get()).ready(), Ok(1));
}

#[test]
fn put_wakes_only_the_first_getter_once() {
    let buffer = unbounded();
    let mut first = Task::waiting(buffer.get());
    let second = Task::waiting(buffer.get());
    assert_eq!(buffer.waiting_getters(), 2);
    buffer.try_put(1).unwrap();
    assert_eq!((first.wakes(), second.wakes()), (1, 0));
    assert_eq!(buffer.waiting_getters(), 1);
    assert_eq!(
        buffer.len(),
        1,
        "the item stays until the poll that delivers it"
    );
    assert_eq!(first.ready(), Ok(1));
    assert!(buffer.is_empty());
}

#[test]
fn getters_are_served_in_order_of_first_poll() {
    let buffer = unbounded();
    let mut late = Task::new(buffer.get());
    let mut tasks: Vec<_> = (0..3).map(|_| Task::waiting(buffer.get())).collect();
    assert!(late.poll().is_pending());
    for item in 0..3 {
        buffer.try_put(item).unwrap();
        assert_eq!(tasks[item as usize].ready(), Ok(item));
    }
    assert_eq!(late.wakes(), 0);
    buffer.try_put(3).unwrap();
    assert_eq!(late.ready(), Ok(3));
}

#[test]
fn putters_are_served_in_order_of_first_poll() {
    let buffer = bounded(1);
    buffer.try_put(0).unwrap();
    let mut tasks: Vec<_> = (1..4).map(|item| Task::waiting(buffer.put(item))).collect();
    assert_eq!(buffer.waiting_putters(), 3);
    for item in 0..3 {
        assert_eq!(buffer.try_get(), Ok(item));
        assert_eq!(tasks[item as usize].wakes(), 1);
        assert_eq!(tasks[item as usize].ready(), Ok(()));
    }
    assert_eq!(buffer.try_get(), Ok(3));
}

#[test]
fn new_getter_leaves_a_promised_item() {
    let buffer = unbounded();
    let mut notified = Task::waiting(buffer.get());
    buffer.try_put(1).unwrap();
    assert_eq!(buffer.try_get(), Err(TryGetError::Empty));
    let mut latecomer = Task::waiting(buffer.get());
    buffer.try_put(2).unwrap();
    // Both were promised an item, so either may be polled first.
    assert_eq!(latecomer.ready(), Ok(1));
    assert_eq!(notified.ready(), Ok(2));
}

#[test]
fn new_getter_takes_a_spare_item() {
    let buffer = unbounded();
    let mut notified = Task::waiting(buffer.get());
    buffer.try_put(1).unwrap();
    buffer.try_put(2).unwrap();
    assert_eq!(buffer.try_get(), Ok(1));
    assert_eq!(buffer.try_get(), Err(TryGetError::Empty));
    assert_eq!(notified.ready(), Ok(2));
}

#[test]
fn new_putter_leaves_a_promised_slot() {
    let buffer = bounded(1);
    buffer.try_put(0).unwrap();
    let mut notified = Task::waiting(buffer.put(1));
    assert_eq!(buffer.try_get(), Ok(0));
    assert_eq!(buffer.try_put(9), Err(PutError::Full(9)));
    let latecomer = Task::waiting(buffer.put(9));
    assert_eq!(notified.ready(), Ok(()));
    assert_eq!(buffer.try_get(), Ok(1));
    assert_eq!(latecomer.wakes(), 1);
}

#[test]
fn dropped_waiting_getter_leaves_the_queue() {
    let buffer = unbounded();
    let first = Task::waiting(buffer.get());
    let middle = Task::waiting(buffer.get());
    let mut last = Task::waiting(buffer.get());
    drop(middle);
    drop(first);
    assert_eq!(buffer.waiting_getters(), 1);
    buffer.try_put(1).unwrap();
    assert_eq!(last.ready(), Ok(1));
}

#[test]
fn dropped_notified_getter_hands_on_its_promise() {
    let buffer = unbounded();
    let first = Task::waiting(buffer.get());
    let mut second = Task::waiting(buffer.get());
    buffer.try_put(1).unwrap();
    assert_eq!(second.wakes(), 0);
    drop(first);
    assert_eq!(second.wakes(), 1);
    assert_eq!(second.ready(), Ok(1));
}

#[test]
fn dropped_notified_getter_leaves_its_item() {
    let buffer = unbounded();
    let notified = Task::waiting(buffer.get());
    buffer.try_put(1).unwrap();
    drop(notified);
    assert_eq!(buffer.try_get(), Ok(1));
}

#[test]
fn dropped_waiting_putter_leaves_the_queue() {
    let buffer = bounded(1);
    buffer.try_put(0).unwrap();
    let first = Task::waiting(buffer.put(1));
    let mut second = Task::waiting(buffer.put(2));
    drop(first);
    assert_eq!(buffer.try_get(), Ok(0));
    assert_eq!(second.ready(), Ok(()));
    assert_eq!(buffer.try_get(), Ok(2));
}

#[test]
fn dropped_notified_putter_hands_on_its_slot() {
    let buffer = bounded(1);
    buffer.try_put(0).unwrap();
    let first = Task::waiting(buffer.put(1));
    let mut second = Task::waiting(buffer.put(2));
    assert_eq!(buffer.try_get(), Ok(0));
    assert_eq!((first.wakes(), second.wakes()), (1, 0));
    drop(first);
    assert_eq!(second.wakes(), 1);
    assert_eq!(second.ready(), Ok(()));
}

#[test]
fn into_item_returns_an_unaccepted_item() {
    let buffer = bounded(1);
    assert_eq!(buffer.put(7).into_item(), Some(7), "never polled");
    buffer.try_put(0).unwrap();
    let waiting = Task::waiting(buffer.put(1));
    assert_eq!(waiting.future.item(), Some(&1));
    assert_eq!(waiting.future.into_item(), Some(1), "waiting");
    let notified = Task::waiting(buffer.put(2));
    let next = Task::waiting(buffer.put(3));
    assert_eq!(buffer.try_get(), Ok(0));
    assert_eq!(notified.future.into_item(), Some(2), "notified");
    assert_eq!(next.wakes(), 1, "the slot was handed on");
    drop(next);
    let mut complete = Task::new(buffer.put(4));
    assert_eq!(complete.ready(), Ok(()));
    assert_eq!(complete.future.into_item(), None, "the buffer has it");
    assert_eq!(buffer.try_get(), Ok(4));
}

#[test]
fn latest_waker_is_woken() {
    let buffer = unbounded();
    let log = Arc::new(Mutex::new(Vec::new()));
    let waker = |name| {
        Waker::from(Arc::new(Named {
            name,
            log: Arc::clone(&log),
        }))
    };
    let mut task = Task::new(buffer.get());
    assert!(task.poll_with(&waker(1)).is_pending());
    assert!(task.poll_with(&waker(2)).is_pending());
    assert_eq!(buffer.waiting_getters(), 1);
    buffer.try_put(1).unwrap();
    assert_eq!(*log.lock().unwrap(), [2]);
}

#[test]
fn equivalent_waker_is_not_cloned_again() {
    let buffer = unbounded();
    let wake = Arc::new(Named {
        name: 0,
        log: Arc::default(),
    });
    let waker = Waker::from(Arc::clone(&wake));
    let mut task = Task::new(buffer.get());
    assert!(task.poll_with(&waker).is_pending());
    let count = Arc::strong_count(&wake);
    assert!(task.poll_with(&waker).is_pending());
    assert_eq!(Arc::strong_count(&wake), count);
    drop(task);
    assert_eq!(Arc::strong_count(&wake), count - 1);
}

#[test]
fn all_waiters_are_woken_in_order_despite_a_panic() {
    let buffer = unbounded();
    let log = Arc::new(Mutex::new(Vec::new()));
    let mut tasks: Vec<_> = (0..4).map(|_| Task::new(buffer.get())).collect();
    for (name, task) in tasks.iter_mut().enumerate() {
        let waker = if name == 1 {
            Waker::from(Arc::new(Reentrant {
                on_wake: Box::new(|| panic!("a bad waker")),
                on_drop: Box::new(|| {}),
            }))
        } else {
            Waker::from(Arc::new(Named {
                name,
                log: Arc::clone(&log),
            }))
        };
        assert!(task.poll_with(&waker).is_pending());
    }
    assert_eq!(panics(|| buffer.finish()), "a bad waker");
    assert_eq!(*log.lock().unwrap(), [0, 2, 3]);
    assert!(!buffer.is_broken());
}

#[test]
fn wakers_and_values_may_call_back() {
    let buffer: Arc<Buffer<Acting>> = Buffer::new(NonZeroUsize::new(1));
    let weak = Arc::downgrade(&buffer);
    let act = move || {
        if let Some(buffer) = weak.upgrade() {
            assert!(buffer.len() <= 1);
        }
    };
    let waker = Reentrant::waker(act.clone());
    let other = Reentrant::waker(act.clone());
    let item = || Acting::new(act.clone());

    let mut getter = Task::new(buffer.get());
    assert!(getter.poll_with(&waker).is_pending());
    assert!(getter.poll_with(&other).is_pending());
    drop(other);
    buffer.try_put(item()).ok().unwrap();
    drop(getter);
    let mut putter = Task::new(buffer.put(item()));
    assert!(putter.poll_with(&waker).is_pending());
    drop(waker);
    drop(buffer.try_put(item()));
    drop(putter);
    drop(buffer.close());
    drop(buffer.try_put(item()));
}

#[test]
fn polling_after_completion_panics_without_poisoning() {
    let buffer = unbounded();
    let mut put = Task::new(buffer.put(1));
    assert_eq!(put.ready(), Ok(()));
    assert_eq!(panics(|| put.poll()), "`Put` polled after completion");
    let mut get = Task::new(buffer.get());
    assert_eq!(get.ready(), Ok(1));
    assert_eq!(panics(|| get.poll()), "`Get` polled after completion");
    assert!(!buffer.is_broken());
}

#[test]
fn panic_under_the_lock_breaks_only_the_buffer() {
    let buffer = bounded(1);
    let getter = Task::waiting(buffer.get());
    assert!(!buffer.is_broken());
    panics(|| buffer.peek_with(|_| panic!("a bad closure")));
    assert!(buffer.is_broken());
    assert!(panics(|| buffer.try_get()).contains("broken"));
    buffer.visit(&mut |_| unreachable!("no item is shown"));
    drop(getter);
    assert!(format!("{buffer:?}").starts_with("Buffer"));
}

#[test]
fn visit_and_peek_show_items() {
    let buffer = unbounded();
    assert_eq!(buffer.peek_with(|item| Some(*item?)), None);
    buffer.try_put(1).unwrap();
    buffer.try_put(2).unwrap();
    assert_eq!(buffer.peek_with(|item| Some(*item?)), Some(1));
    let mut seen = Vec::new();
    buffer.visit(&mut |item| seen.push(*item));
    assert_eq!(seen, [1, 2]);
    // The lock is taken here: `visit` shows no item and does not wait.
    buffer.peek_with(|_| buffer.visit(&mut |_| unreachable!("the lock is taken")));
}

#[test]
fn unpolled_future_is_not_queued() {
    let buffer = unbounded();
    let mut early = Task::new(buffer.get());
    let mut polled = Task::waiting(buffer.get());
    buffer.try_put(1).unwrap();
    assert_eq!(early.poll(), Poll::Pending);
    assert_eq!(polled.ready(), Ok(1));
}

#[test]
fn waiter_cost_is_independent_of_queue_length() {
    // Linear time; otherwise this takes minutes. Every other waiter leaves from the middle, the others are served in order.
    let buffer: Arc<Buffer<usize>> = Buffer::new(None);
    let mut tasks: Vec<_> = (0..10_000)
        .map(|_| Some(Task::waiting(buffer.get())))
        .collect();
    tasks
        .iter_mut()
        .skip(1)
        .step_by(2)
        .for_each(|task| *task = None);
    for (item, task) in tasks.iter_mut().flatten().enumerate() {
        buffer.try_put(item).unwrap();
        assert_eq!(task.ready(), Ok(item));
    }
}

#[test]
fn given_up_position_hands_on_its_promise() {
    let buffer = bounded(1);
    let mut dead = Task::waiting(buffer.get());
    let mut next = Task::waiting(buffer.get());
    let position = dead.future.queue_position().unwrap();
    buffer.try_put(1).unwrap();
    position.give_up();
    assert_eq!(next.wakes(), 1);
    position.give_up();
    assert_eq!(next.ready(), Ok(1));
    // Polled again, it joins the queue again, and the old position is invalid.
    assert!(dead.poll().is_pending());
    position.give_up();
    buffer.try_put(2).unwrap();
    assert_eq!(dead.ready(), Ok(2));

    buffer.try_put(0).unwrap();
    let dead = Task::waiting(buffer.put(1));
    let mut next = Task::waiting(buffer.put(2));
    assert_eq!(buffer.try_get(), Ok(0));
    dead.future.queue_position().unwrap().give_up();
    assert_eq!(next.ready(), Ok(()));
    assert_eq!(dead.future.into_item(), Some(1));
}
