//! A buffer compared with a simple model, under arbitrary operations.
#![cfg(not(loom))]

mod common;

use common::Task;
use headrace_core::Buffer;
use headrace_core::buffer::{
    Ended, Fault, Get, Order, Overflow, Put, PutError, Rank, Statistics, TryGetError,
};
use headrace_core::sync::QueuedFuture;
use proptest::prelude::*;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::task::Poll;

/// One operation. An index selects one of the existing futures, modulo their number.
#[derive(Clone, Copy, Debug)]
enum Op {
    TryPut,
    TryGet,
    Put,
    Get,
    PollPut(usize),
    PollGet(usize),
    DropPut(usize),
    DropGet(usize),
    IntoItem(usize),
    GiveUpPut(usize),
    GiveUpGet(usize),
    TaskDone,
    Finish,
    Close,
}

fn op() -> impl Strategy<Value = Op> {
    let pick = 0..16_usize;
    prop_oneof![
        6 => Just(Op::TryPut),
        6 => Just(Op::TryGet),
        8 => Just(Op::Put),
        8 => Just(Op::Get),
        8 => pick.clone().prop_map(Op::PollPut),
        8 => pick.clone().prop_map(Op::PollGet),
        4 => pick.clone().prop_map(Op::DropPut),
        4 => pick.clone().prop_map(Op::DropGet),
        2 => pick.clone().prop_map(Op::IntoItem),
        2 => pick.clone().prop_map(Op::GiveUpPut),
        2 => pick.prop_map(Op::GiveUpGet),
        2 => Just(Op::TaskDone),
        1 => Just(Op::Finish),
        1 => Just(Op::Close),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Status {
    Waiting,
    Notified,
    /// It was woken because of the end.
    Released,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Open,
    Finished,
    Closed,
}

/// Ranks by the last two bits, to produce many equal items.
struct Rough;

impl Rank<u32> for Rough {
    fn share(&self, item: &u32) -> u32 {
        *item
    }

    fn before(&self, item: &u32, other: &u32) -> Result<bool, Fault> {
        Ok(item % 4 < other % 4)
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Fifo,
    Lifo,
    Sorted,
}

/// A simple model of the buffer, scanned from front to back at every step, and the real buffer.
struct Comparison {
    real: Arc<Buffer<u32>>,
    kind: Kind,
    overflow: Overflow,
    /// In the order of insertion.
    items: Vec<u32>,
    maxsize: usize,
    end: End,
    /// In the order of their first polls.
    getters: Vec<(Status, Task<Get<u32>>)>,
    putters: Vec<(Status, u32, Task<Put<u32>>)>,
    next_item: u32,
    /// All items that were ever accepted, delivered or displaced.
    accepted: Vec<u32>,
    delivered: Vec<u32>,
    displaced: Vec<u32>,
    dropped: u64,
    high_water: usize,
    unfinished: usize,
}

impl Comparison {
    fn new(maxsize: Option<NonZeroUsize>, overflow: Overflow, kind: Kind) -> Self {
        let order = match kind {
            Kind::Fifo => Order::Fifo,
            Kind::Lifo => Order::Lifo,
            Kind::Sorted => Order::Sorted(Box::new(Rough)),
        };
        Self {
            real: Buffer::with(maxsize, overflow, order),
            kind,
            overflow,
            items: Vec::new(),
            maxsize: maxsize.map_or(usize::MAX, NonZeroUsize::get),
            end: End::Open,
            getters: Vec::new(),
            putters: Vec::new(),
            next_item: 0,
            accepted: Vec::new(),
            delivered: Vec::new(),
            displaced: Vec::new(),
            dropped: 0,
            high_water: 0,
            unfinished: 0,
        }
    }

    /// Return the index of the next item to deliver.
    fn next_index(&self) -> Option<usize> {
        let indices = 0..self.items.len();
        match self.kind {
            Kind::Fifo => indices.min(),
            Kind::Lifo => indices.max(),
            // The first of several minima.
            Kind::Sorted => indices.min_by_key(|&index| self.items[index] % 4),
        }
    }

    fn promised_items(&self) -> usize {
        self.getters
            .iter()
            .filter(|getter| getter.0 == Status::Notified)
            .count()
    }

    fn promised_slots(&self) -> usize {
        self.putters
            .iter()
            .filter(|putter| putter.0 == Status::Notified)
            .count()
    }

    fn has_room(&self) -> bool {
        self.items.len() + self.promised_slots() < self.maxsize
    }

    fn new_item(&mut self) -> u32 {
        self.next_item += 1;
        self.next_item
    }

    fn accept(&mut self, item: u32) {
        self.items.push(item);
        self.accepted.push(item);
        self.unfinished += 1;
        self.high_water = self.high_water.max(self.items.len());
    }

    fn deliver(&mut self) -> u32 {
        let index = self.next_index().expect("an item was promised");
        let item = self.items.remove(index);
        self.delivered.push(item);
        item
    }

    fn try_get_expected(&mut self) -> Result<u32, TryGetError> {
        match self.end {
            End::Closed => Err(TryGetError::Ended),
            _ if self.items.len() > self.promised_items() => Ok(self.deliver()),
            End::Finished if self.items.is_empty() => Err(TryGetError::Ended),
            _ => Err(TryGetError::Empty),
        }
    }

    fn try_put_expected(&mut self, item: u32) -> Result<(), PutError<u32>> {
        if self.end != End::Open {
            return Err(PutError::Closed(item));
        }
        if self.has_room() {
            self.accept(item);
            return Ok(());
        }
        match self.overflow {
            Overflow::Block | Overflow::Error => return Err(PutError::Full(item)),
            Overflow::DropNewest => {}
            Overflow::DropOldest => {
                self.displaced.push(self.items.remove(0));
                self.items.push(item);
                self.accepted.push(item);
            }
        }
        self.dropped += 1;
        Ok(())
    }

    fn settle(&mut self) {
        if self.end == End::Closed || (self.end == End::Finished && self.items.is_empty()) {
            for getter in self
                .getters
                .iter_mut()
                .filter(|getter| getter.0 == Status::Waiting)
            {
                getter.0 = Status::Released;
            }
        }
        if self.end != End::Open {
            for putter in self
                .putters
                .iter_mut()
                .filter(|putter| putter.0 == Status::Waiting)
            {
                putter.0 = Status::Released;
            }
        }
        while self.items.len() > self.promised_items() {
            match self
                .getters
                .iter_mut()
                .find(|getter| getter.0 == Status::Waiting)
            {
                Some(first) => first.0 = Status::Notified,
                None => break,
            }
        }
        while self.has_room() {
            match self
                .putters
                .iter_mut()
                .find(|putter| putter.0 == Status::Waiting)
            {
                Some(first) => first.0 = Status::Notified,
                None => break,
            }
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::TryPut => {
                let item = self.new_item();
                assert_eq!(self.real.try_put(item), self.try_put_expected(item));
            }
            Op::TryGet => assert_eq!(self.real.try_get(), self.try_get_expected()),
            Op::Put => {
                let item = self.new_item();
                let mut task = Task::new(self.real.put(item));
                let polled = task.poll();
                match self.try_put_expected(item) {
                    Ok(()) => assert_eq!(polled, Poll::Ready(Ok(()))),
                    Err(PutError::Closed(item)) => {
                        assert_eq!(polled, Poll::Ready(Err(PutError::Closed(item))));
                    }
                    Err(PutError::Full(item)) if self.overflow == Overflow::Error => {
                        assert_eq!(polled, Poll::Ready(Err(PutError::Full(item))));
                    }
                    Err(PutError::Full(item)) => {
                        assert_eq!(polled, Poll::Pending);
                        self.putters.push((Status::Waiting, item, task));
                    }
                    Err(PutError::Unranked(..)) => unreachable!("numbers can be compared"),
                }
            }
            Op::Get => {
                let mut task = Task::new(self.real.get());
                let polled = task.poll();
                match self.try_get_expected() {
                    Ok(item) => assert_eq!(polled, Poll::Ready(Ok(item))),
                    Err(TryGetError::Ended) => assert_eq!(polled, Poll::Ready(Err(Ended))),
                    Err(TryGetError::Empty) => {
                        assert_eq!(polled, Poll::Pending);
                        self.getters.push((Status::Waiting, task));
                    }
                }
            }
            Op::PollPut(index) if !self.putters.is_empty() => {
                let index = index % self.putters.len();
                let (status, item, task) = &mut self.putters[index];
                let (status, item, polled) = (*status, *item, task.poll());
                if status == Status::Waiting {
                    assert_eq!(polled, Poll::Pending);
                } else {
                    self.putters.remove(index);
                    if self.end == End::Open {
                        assert_eq!(polled, Poll::Ready(Ok(())));
                        self.accept(item);
                    } else {
                        assert_eq!(polled, Poll::Ready(Err(PutError::Closed(item))));
                    }
                }
            }
            Op::PollGet(index) if !self.getters.is_empty() => {
                let index = index % self.getters.len();
                let (status, task) = &mut self.getters[index];
                let (status, polled) = (*status, task.poll());
                if status == Status::Waiting {
                    assert_eq!(polled, Poll::Pending);
                } else {
                    self.getters.remove(index);
                    if status == Status::Released || self.end == End::Closed {
                        assert_eq!(polled, Poll::Ready(Err(Ended)));
                    } else {
                        assert_eq!(polled, Poll::Ready(Ok(self.deliver())));
                    }
                }
            }
            Op::DropPut(index) if !self.putters.is_empty() => {
                drop(self.putters.remove(index % self.putters.len()));
            }
            Op::DropGet(index) if !self.getters.is_empty() => {
                drop(self.getters.remove(index % self.getters.len()));
            }
            Op::IntoItem(index) if !self.putters.is_empty() => {
                let (_, item, task) = self.putters.remove(index % self.putters.len());
                assert_eq!(task.future.into_item(), Some(item));
            }
            other => self.apply_rarer(other),
        }
        self.settle();
        self.check();
    }

    fn apply_rarer(&mut self, op: Op) {
        match op {
            // A future of a dead executor is never polled again, whatever the state of its queue position.
            Op::GiveUpPut(index) if !self.putters.is_empty() => {
                let (_, item, task) = self.putters.remove(index % self.putters.len());
                let position = task.future.queue_position().expect("it was polled");
                position.give_up();
                self.settle();
                self.check();
                position.give_up();
                assert_eq!(task.future.into_item(), Some(item));
            }
            Op::GiveUpGet(index) if !self.getters.is_empty() => {
                let (_, task) = self.getters.remove(index % self.getters.len());
                let position = task.future.queue_position().expect("it was polled");
                position.give_up();
                self.settle();
                self.check();
                position.give_up();
            }
            Op::TaskDone => {
                assert_eq!(self.real.task_done(), self.unfinished > 0);
                self.unfinished = self.unfinished.saturating_sub(1);
            }
            Op::Finish => {
                self.real.finish();
                if self.end == End::Open {
                    self.end = End::Finished;
                }
            }
            Op::Close => {
                // A buffer that has ended by itself stays so.
                if self.end == End::Open || !self.items.is_empty() {
                    self.end = End::Closed;
                }
                let left = self.real.close();
                self.unfinished = self.unfinished.saturating_sub(left.len());
                let mut expected = Vec::new();
                while let Some(index) = self.next_index() {
                    expected.push(self.items.remove(index));
                }
                assert_eq!(left, expected);
                self.delivered.extend(left);
            }
            // There is no future to select.
            _ => {}
        }
    }

    fn check(&self) {
        let waiting_getters = self
            .getters
            .iter()
            .filter(|getter| getter.0 == Status::Waiting)
            .count();
        let waiting_putters = self
            .putters
            .iter()
            .filter(|putter| putter.0 == Status::Waiting)
            .count();
        assert_eq!(self.real.len(), self.items.len());
        assert!(self.items.len() <= self.maxsize, "the bound holds");
        assert_eq!(
            self.real.peek_with(|item| Some(*item?)),
            self.next_index().map(|index| self.items[index])
        );
        assert_eq!(
            self.real.statistics(),
            Statistics {
                len: self.items.len(),
                high_water: self.high_water,
                dropped: self.dropped,
                waiting_getters,
                waiting_putters,
            }
        );
        assert_eq!(self.real.unfinished(), self.unfinished);
        assert_eq!(self.real.is_full(), !self.has_room());
        assert_eq!(
            self.real.available(),
            self.items.len().saturating_sub(self.promised_items())
        );
        assert_eq!(self.real.waiting_getters(), waiting_getters);
        assert_eq!(self.real.waiting_putters(), waiting_putters);
        assert_eq!(self.real.is_finished(), self.end != End::Open);
        assert_eq!(self.real.is_closed(), self.end == End::Closed);
        // Each future with a result was woken exactly once; no other future was woken.
        for (status, task) in &self.getters {
            assert_eq!(task.wakes(), usize::from(*status != Status::Waiting));
        }
        for (status, _, task) in &self.putters {
            assert_eq!(task.wakes(), usize::from(*status != Status::Waiting));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn buffer_matches_the_model(
        maxsize in prop_oneof![Just(None), (1..4_usize).prop_map(NonZeroUsize::new)],
        overflow in prop_oneof![
            3 => Just(Overflow::Block),
            1 => Just(Overflow::DropOldest),
            1 => Just(Overflow::DropNewest),
            1 => Just(Overflow::Error),
        ],
        kind in prop_oneof![2 => Just(Kind::Fifo), 1 => Just(Kind::Lifo), 1 => Just(Kind::Sorted)],
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut comparison = Comparison::new(maxsize, overflow, kind);
        for op in ops {
            comparison.apply(op);
        }
        // Every accepted item leaves exactly once, whichever futures were dropped; in FIFO order if that is the order.
        comparison.getters.clear();
        comparison.putters.clear();
        let Comparison { real, mut accepted, mut delivered, displaced, .. } = comparison;
        delivered.extend(real.close());
        delivered.extend(&displaced);
        if !matches!(kind, Kind::Fifo) || !displaced.is_empty() {
            accepted.sort_unstable();
            delivered.sort_unstable();
        }
        prop_assert_eq!(accepted, delivered);
    }

    #[test]
    fn sorted_buffer_is_stable(
        items in prop::collection::vec(0..400_u32, 0..1500),
        taken in 0..400_usize,
    ) {
        let buffer = Buffer::with(None, Overflow::Block, Order::Sorted(Box::new(Rough)));
        let (first, second) = items.split_at(items.len() / 2);
        let mut expected = first.to_vec();
        for &item in first {
            buffer.try_put(item).unwrap();
        }
        expected.sort_by_key(|item| item % 4);
        for item in expected.drain(..taken.min(first.len())) {
            prop_assert_eq!(buffer.try_get(), Ok(item));
        }
        for &item in second {
            buffer.try_put(item).unwrap();
        }
        expected.extend(second);
        expected.sort_by_key(|item| item % 4);
        prop_assert_eq!(buffer.close(), expected);
    }
}
