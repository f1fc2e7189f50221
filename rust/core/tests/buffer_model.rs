//! A buffer against a plain model of it, under arbitrary operations.
#![cfg(not(loom))]

mod common;

use common::Task;
use headrace_core::Buffer;
use headrace_core::buffer::{Closed, Ended, Get, Put, TryGetError, TryPutError};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::task::Poll;

/// One operation. An index picks one of the futures that live, modulo their number.
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
        2 => pick.prop_map(Op::IntoItem),
        1 => Just(Op::Finish),
        1 => Just(Op::Close),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Status {
    Waiting,
    Notified,
    /// It was woken to learn of the end.
    SentHome,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Open,
    Finished,
    Closed,
}

/// The buffer as one would explain it, searched from front to back at every step; and beside it the real one.
struct Pair {
    real: Arc<Buffer<u32>>,
    items: VecDeque<u32>,
    maxsize: usize,
    end: End,
    /// In the order of their first polls.
    getters: Vec<(Status, Task<Get<u32>>)>,
    putters: Vec<(Status, u32, Task<Put<u32>>)>,
    next_item: u32,
    /// Everything that ever went in, and everything that came out, in order.
    accepted: Vec<u32>,
    delivered: Vec<u32>,
}

impl Pair {
    fn new(maxsize: Option<NonZeroUsize>) -> Self {
        Self {
            real: Buffer::new(maxsize),
            items: VecDeque::new(),
            maxsize: maxsize.map_or(usize::MAX, NonZeroUsize::get),
            end: End::Open,
            getters: Vec::new(),
            putters: Vec::new(),
            next_item: 0,
            accepted: Vec::new(),
            delivered: Vec::new(),
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

    fn fresh(&mut self) -> u32 {
        self.next_item += 1;
        self.next_item
    }

    fn accept(&mut self, item: u32) {
        self.items.push_back(item);
        self.accepted.push(item);
    }

    fn deliver(&mut self) -> u32 {
        let item = self.items.pop_front().expect("an item was promised");
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

    fn try_put_expected(&mut self, item: u32) -> Result<(), TryPutError<u32>> {
        if self.end != End::Open {
            return Err(TryPutError::Closed(item));
        }
        if !self.has_room() {
            return Err(TryPutError::Full(item));
        }
        self.accept(item);
        Ok(())
    }

    fn settle(&mut self) {
        if self.end == End::Closed || (self.end == End::Finished && self.items.is_empty()) {
            for getter in self
                .getters
                .iter_mut()
                .filter(|getter| getter.0 == Status::Waiting)
            {
                getter.0 = Status::SentHome;
            }
        }
        if self.end != End::Open {
            for putter in self
                .putters
                .iter_mut()
                .filter(|putter| putter.0 == Status::Waiting)
            {
                putter.0 = Status::SentHome;
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
                let item = self.fresh();
                assert_eq!(self.real.try_put(item), self.try_put_expected(item));
            }
            Op::TryGet => assert_eq!(self.real.try_get(), self.try_get_expected()),
            Op::Put => {
                let item = self.fresh();
                let mut task = Task::new(self.real.put(item));
                let polled = task.poll();
                match self.try_put_expected(item) {
                    Ok(()) => assert_eq!(polled, Poll::Ready(Ok(()))),
                    Err(TryPutError::Closed(item)) => {
                        assert_eq!(polled, Poll::Ready(Err(Closed(item))));
                    }
                    Err(TryPutError::Full(item)) => {
                        assert_eq!(polled, Poll::Pending);
                        self.putters.push((Status::Waiting, item, task));
                    }
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
                        assert_eq!(polled, Poll::Ready(Err(Closed(item))));
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
                    if status == Status::SentHome || self.end == End::Closed {
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
            Op::Finish => {
                self.real.finish();
                if self.end == End::Open {
                    self.end = End::Finished;
                }
            }
            Op::Close => {
                self.end = End::Closed;
                let left = self.real.close();
                assert_eq!(left, Vec::from(std::mem::take(&mut self.items)));
                self.delivered.extend(left);
            }
            // There is none to pick.
            _ => {}
        }
        self.settle();
        self.check();
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
            self.items.front().copied()
        );
        assert_eq!(self.real.waiting_getters(), waiting_getters);
        assert_eq!(self.real.waiting_putters(), waiting_putters);
        assert_eq!(self.real.is_finished(), self.end != End::Open);
        assert_eq!(self.real.is_closed(), self.end == End::Closed);
        // Whoever has something to come for was woken, exactly once; nobody else was.
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
    fn a_buffer_is_its_model(
        maxsize in prop_oneof![Just(None), (1..4_usize).prop_map(NonZeroUsize::new)],
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut pair = Pair::new(maxsize);
        for op in ops {
            pair.apply(op);
        }
        // Everything that went in comes out once and in order, whoever gave up.
        pair.getters.clear();
        pair.putters.clear();
        let Pair { real, accepted, mut delivered, .. } = pair;
        delivered.extend(real.close());
        prop_assert_eq!(accepted, delivered);
    }
}
