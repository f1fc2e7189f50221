//! The orders of a buffer, its overflow modes, and joining it.
#![cfg(not(loom))]

mod common;

use common::Task;
use headrace_core::Buffer;
use headrace_core::buffer::{Fault, Order, Overflow, PutError, Rank};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, Weak};

#[test]
fn lifo_delivers_the_newest_first() {
    let buffer = Buffer::with(NonZeroUsize::new(3), Overflow::DropOldest, Order::Lifo);
    (1..=4).for_each(|item| buffer.try_put(item).unwrap());
    assert_eq!(buffer.peek_with(|item| Some(*item?)), Some(4));
    assert_eq!(buffer.try_get(), Ok(4));
    assert_eq!(buffer.statistics().dropped, 1);
    assert_eq!(buffer.close(), [3, 2]);
}

#[test]
fn overflow_drops_oldest_or_newest_or_refuses() {
    let full = |overflow| {
        let buffer = Buffer::with(NonZeroUsize::new(2), overflow, Order::Fifo);
        buffer.try_put(1).unwrap();
        buffer.try_put(2).unwrap();
        buffer
    };
    let buffer = full(Overflow::DropOldest);
    assert_eq!(Task::new(buffer.put(3)).ready(), Ok(()));
    assert_eq!(buffer.close(), [2, 3]);
    let buffer = full(Overflow::DropNewest);
    assert_eq!(Task::new(buffer.put(3)).ready(), Ok(()));
    assert_eq!(
        (buffer.statistics().dropped, buffer.close()),
        (1, vec![1, 2])
    );
    let buffer = full(Overflow::Error);
    assert_eq!(Task::new(buffer.put(3)).ready(), Err(PutError::Full(3)));
    assert_eq!(buffer.try_put(3), Err(PutError::Full(3)));
    assert_eq!(
        (buffer.statistics().dropped, buffer.close()),
        (0, vec![1, 2])
    );
}

#[test]
fn promised_item_may_be_displaced() {
    let buffer = Buffer::with(NonZeroUsize::new(1), Overflow::DropOldest, Order::Fifo);
    let mut getter = Task::waiting(buffer.get());
    buffer.try_put(1).unwrap();
    buffer.try_put(2).unwrap();
    assert_eq!(getter.ready(), Ok(2));
    assert_eq!(getter.wakes(), 1);
}

#[test]
fn join_waits_until_all_items_are_processed() {
    let buffer = Buffer::new(None);
    Task::new(buffer.join()).ready();
    assert!(!buffer.task_done());
    buffer.try_put(1).unwrap();
    buffer.try_put(2).unwrap();
    let mut joined = Task::waiting(buffer.join());
    let dropped = Task::waiting(buffer.join());
    assert_eq!(buffer.try_get(), Ok(1));
    assert!(buffer.task_done());
    assert!(joined.poll().is_pending());
    drop(dropped);
    // Items that remain at the close will never be processed.
    assert_eq!(buffer.close(), [2]);
    assert_eq!((joined.wakes(), buffer.unfinished()), (1, 0));
    joined.ready();
    assert!(!buffer.task_done());
}

#[test]
fn join_completes_although_the_count_rose_again() {
    let buffer = Buffer::new(None);
    buffer.try_put(1).unwrap();
    let mut joined = Task::waiting(buffer.join());
    assert!(buffer.task_done());
    buffer.try_put(2).unwrap();
    joined.ready();
}

/// Compares with a closure.
struct By(Box<dyn Fn(u32, u32) -> Result<bool, Fault> + Send + Sync>);

impl Rank<u32> for By {
    fn share(&self, item: &u32) -> u32 {
        *item
    }

    fn before(&self, item: &u32, other: &u32) -> Result<bool, Fault> {
        self.0(*item, *other)
    }
}

fn sorted(
    maxsize: Option<usize>,
    by: impl Fn(u32, u32) -> Result<bool, Fault> + Send + Sync + 'static,
) -> Arc<Buffer<u32>> {
    Buffer::with(
        maxsize.and_then(NonZeroUsize::new),
        Overflow::Block,
        Order::Sorted(Box::new(By(Box::new(by)))),
    )
}

#[test]
fn unranked_item_is_returned() {
    let buffer = sorted(Some(2), |item, other| match (item, other) {
        (13, _) => Err("unlucky".into()),
        _ => Ok(item < other),
    });
    buffer.try_put(5).unwrap();
    buffer.try_put(3).unwrap();
    let mut bad = Task::waiting(buffer.put(13));
    let mut good = Task::waiting(buffer.put(4));
    assert_eq!(buffer.try_get(), Ok(3));
    match bad.ready() {
        Err(PutError::Unranked(13, fault)) => assert_eq!(fault.to_string(), "unlucky"),
        other => panic!("{other:?}"),
    }
    assert_eq!(good.wakes(), 1, "the slot was handed on");
    assert_eq!(good.ready(), Ok(()));
    assert_eq!(buffer.close(), [4, 5]);
}

#[test]
fn comparison_may_change_the_buffer() {
    let cell: Arc<Mutex<Weak<Buffer<u32>>>> = Arc::default();
    let buffer = sorted(None, {
        let cell = Arc::clone(&cell);
        move |item, other| {
            let buffer = cell.lock().unwrap().upgrade();
            // Only items above 1000 change the buffer; otherwise this would recurse forever.
            if let (true, Some(buffer)) = (item > 1000, buffer) {
                buffer.try_put(item % 7).unwrap();
                buffer.try_put(900 + item % 7).unwrap();
                if item % 2 == 0 {
                    buffer.try_get().unwrap();
                }
            }
            Ok(item < other)
        }
    });
    (0..600).for_each(|item| buffer.try_put(item * 2).unwrap());
    *cell.lock().unwrap() = Arc::downgrade(&buffer);
    (1001..1101).for_each(|item| buffer.try_put(item).unwrap());
    let left = buffer.close();
    assert!(left.is_sorted());
    assert_eq!(left.iter().filter(|&&item| item > 1000).count(), 100 + 99);
}

#[test]
fn random_rank_loses_no_item() {
    let state = Mutex::new(0_u32);
    let buffer = sorted(None, move |_, _| {
        let mut state = state.lock().unwrap();
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Ok(*state >> 31 == 0)
    });
    (0..2000).for_each(|item| buffer.try_put(item).unwrap());
    let mut left: Vec<_> = (0..500).map(|_| buffer.try_get().unwrap()).collect();
    left.extend(buffer.close());
    left.sort_unstable();
    assert!(left.into_iter().eq(0..2000));
}

#[test]
fn search_ends_if_each_comparison_adds_an_item() {
    let cell: Arc<Mutex<Weak<Buffer<u32>>>> = Arc::default();
    let buffer = sorted(None, {
        let cell = Arc::clone(&cell);
        move |item, other| {
            if item == 9 {
                let buffer = cell.lock().unwrap().upgrade().unwrap();
                // Not before any item in the buffer, and so directly behind the item compared with.
                buffer.try_put(7).unwrap();
            }
            Ok(item < other)
        }
    });
    *cell.lock().unwrap() = Arc::downgrade(&buffer);
    (0..8)
        .chain(10..18)
        .for_each(|item| buffer.try_put(item).unwrap());
    buffer.try_put(9).unwrap();
    let left = buffer.close();
    assert!(left.is_sorted());
    assert!((20..200).contains(&left.len()), "{}", left.len());
}
