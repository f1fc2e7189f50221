//! `Partitions`: the keys of a `map` with `partition_by`, and the items that wait for their key. `state.rs` holds it.
//!
//! A key has a record while calls of it run or items of it wait, so the memory is that of those items, however many keys there are.
//!
//! - An item starts at once if the map has a call free, its key has one free, and no item of its key waits. Otherwise it joins the wait
//!   queue of its key.
//! - `startable` has the first waiting item of each key that has a call free, by the number of the item. A free call is given to the
//!   least of them, which is the oldest item that may start. A key whose first item has started has its next item there, if it has
//!   another call free.
//! - A call is counted when it is given, not when the task of the item wakes up. So no later item can take it meanwhile, and an item that
//!   is cancelled in between passes it on.
//!
//! Each operation is O(log n) in the number of waiting items; removing a cancelled item is O(n) in those of its key.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::task::Waker;

use headrace_core::sync::BuildIntHasher;
use pyo3::prelude::*;

use crate::object::gc::{Traverse, VisitError, Visitor};

/// The right of an item to a call of its key, from its arrival to the end of its call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    /// The number of the key.
    key: u64,
    /// The number of the item.
    item: u64,
}

/// An item that waits for its key.
#[derive(Debug)]
pub(super) struct WaitingItem {
    number: u64,
    /// `None` until its asyncio task waits.
    pub(super) waker: Option<Waker>,
}

/// The record of a key.
#[derive(Debug)]
struct Record {
    key: Py<PyAny>,
    /// The number of running calls.
    running: usize,
    waiting: VecDeque<WaitingItem>,
}

/// The result of [`Partitions::leave`].
#[derive(Debug)]
pub(super) struct Left {
    /// Whether the item had its call.
    pub(super) had_call: bool,
    /// The key, if nothing of it runs or waits any more.
    pub(super) idle_key: Option<Py<PyAny>>,
}

/// See the top of this file.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    per_key: usize,
    /// The number of items that wait.
    pub(super) waiting: usize,
    records: HashMap<u64, Record, BuildIntHasher>,
    /// The number of the key, by the number of its first waiting item.
    startable: BTreeMap<u64, u64>,
    /// The number of the next item; that of the first item of a key is the key's, too.
    next: u64,
}

impl Partitions {
    /// Return the number for the next item's key, unless the key has one.
    pub(super) fn next_number(&self) -> u64 {
        self.next
    }

    /// Add an item of the key with this number. Return its claim, and whether its call starts at once.
    pub(super) fn enter(
        &mut self,
        number: u64,
        key: &Bound<'_, PyAny>,
        is_call_free: bool,
    ) -> (Claim, bool) {
        let claim = Claim {
            key: number,
            item: self.next,
        };
        self.next += 1;
        let record = self.records.entry(number).or_insert_with(|| Record {
            key: key.clone().unbind(),
            running: 0,
            waiting: VecDeque::new(),
        });
        let starts = is_call_free && record.waiting.is_empty() && record.running < self.per_key;
        if starts {
            record.running += 1;
        } else {
            record.waiting.push_back(WaitingItem {
                number: claim.item,
                waker: None,
            });
            self.waiting += 1;
            self.update_startable(number);
        }
        (claim, starts)
    }

    /// Return an item, if it still waits.
    pub(super) fn waiting_item(&mut self, claim: Claim) -> Option<&mut WaitingItem> {
        let record = self.records.get_mut(&claim.key)?;
        let index = record.position(claim).ok()?;
        record.waiting.get_mut(index)
    }

    pub(super) fn is_waiting(&mut self, claim: Claim) -> bool {
        self.waiting_item(claim).is_some()
    }

    /// Give a call to the oldest item that may start, and return it, if there is one.
    pub(super) fn start_next(&mut self) -> Option<WaitingItem> {
        let (_, number) = self.startable.pop_first()?;
        let record = self.records.get_mut(&number)?;
        let started = record.waiting.pop_front()?;
        record.running += 1;
        self.waiting -= 1;
        self.update_startable(number);
        Some(started)
    }

    /// Remove an item whose call has ended, or that was cancelled before.
    pub(super) fn leave(&mut self, claim: Claim) -> Left {
        let mut left = Left {
            had_call: true,
            idle_key: None,
        };
        let Some(record) = self.records.get_mut(&claim.key) else {
            return left;
        };
        if let Ok(index) = record.position(claim) {
            record.waiting.remove(index);
            self.waiting -= 1;
            self.startable.remove(&claim.item);
            left.had_call = false;
        } else {
            record.running -= 1;
        }
        if record.running == 0 && record.waiting.is_empty() {
            left.idle_key = self.records.remove(&claim.key).map(|record| record.key);
        } else {
            self.update_startable(claim.key);
        }
        left
    }

    /// Set the maximum number of running calls of a key.
    pub(super) fn set_per_key(&mut self, per_key: usize) {
        self.per_key = per_key;
        self.startable.clear();
        let numbers: Vec<u64> = self.records.keys().copied().collect();
        for number in numbers {
            self.update_startable(number);
        }
    }

    /// Return an empty value with the same configuration.
    pub(super) fn emptied(&self) -> Self {
        Self {
            per_key: self.per_key,
            ..Self::default()
        }
    }

    /// List the first waiting item of a key if the key has a call free.
    fn update_startable(&mut self, number: u64) {
        if let Some(record) = self.records.get(&number)
            && record.running < self.per_key
            && let Some(first) = record.waiting.front()
        {
            self.startable.insert(first.number, number);
        }
    }
}

impl Record {
    fn position(&self, claim: Claim) -> Result<usize, usize> {
        self.waiting
            .binary_search_by_key(&claim.item, |waiting| waiting.number)
    }
}

impl Traverse for Partitions {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        self.records
            .values()
            .try_for_each(|record| record.key.traverse(visit))
    }
}
