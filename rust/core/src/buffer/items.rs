//! `Items`, the items of a buffer, stored for its order. Only the state of `Buffer` (`buffer.rs`) has one.

use super::priority_queue::{Position, PriorityQueue, Search, SearchStep};
use super::{Order, Rank};
use std::collections::VecDeque;

/// The items of a buffer, stored for its order.
#[derive(Debug)]
pub(super) enum Items<T> {
    Fifo(VecDeque<T>),
    Lifo(VecDeque<T>),
    Sorted(PriorityQueue<T>),
}

impl<T> Items<T> {
    pub(super) fn new(order: &Order<T>) -> Self {
        match order {
            Order::Fifo => Self::Fifo(VecDeque::new()),
            Order::Lifo => Self::Lifo(VecDeque::new()),
            Order::Sorted(_) => Self::Sorted(PriorityQueue::new()),
        }
    }

    /// Remove and return all items, in the order of delivery.
    pub(super) fn take_all(&mut self) -> Self {
        match self {
            Self::Fifo(items) => Self::Fifo(std::mem::take(items)),
            Self::Lifo(items) => Self::Lifo(std::mem::take(items)),
            Self::Sorted(items) => Self::Sorted(std::mem::replace(items, PriorityQueue::new())),
        }
    }

    pub(super) fn into_vec(self) -> Vec<T> {
        match self {
            Self::Fifo(items) => items.into(),
            Self::Lifo(items) => items.into_iter().rev().collect(),
            Self::Sorted(items) => items.into_items().collect(),
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Fifo(items) | Self::Lifo(items) => items.len(),
            Self::Sorted(items) => items.len(),
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Return the item to be delivered next.
    pub(super) fn first(&self) -> Option<&T> {
        match self {
            Self::Fifo(items) => items.front(),
            Self::Lifo(items) => items.back(),
            Self::Sorted(items) => items.first(),
        }
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<T> {
        match self {
            Self::Fifo(items) => items.pop_front(),
            Self::Lifo(items) => items.pop_back(),
            Self::Sorted(items) => items.pop_first(),
        }
    }

    /// Remove the item that was stored first.
    #[cold]
    pub(super) fn pop_oldest(&mut self) -> Option<T> {
        match self {
            Self::Fifo(items) | Self::Lifo(items) => items.pop_front(),
            Self::Sorted(items) => items.pop_oldest(),
        }
    }

    /// Add an item. A sorted buffer needs its `position`, found since the lock was taken.
    #[inline]
    pub(super) fn push(&mut self, position: Option<Position>, item: T) {
        match self {
            Self::Fifo(items) | Self::Lifo(items) => items.push_back(item),
            Self::Sorted(items) => {
                items.insert(position.expect("a sorted buffer is searched first"), item);
            }
        }
    }

    /// Make one step of the search for the position of a new item. Returns the position, `None` if the order needs
    /// none, or as `Err` a handle on the item to compare with after unlocking.
    pub(super) fn search(
        &self,
        search: &mut Search,
        rank: &dyn Rank<T>,
    ) -> Result<Option<Position>, T> {
        let Self::Sorted(items) = self else {
            return Ok(None);
        };
        match items.search(search) {
            SearchStep::Found(position) => Ok(Some(position)),
            SearchStep::Compare(other) => Err(rank.share(other)),
        }
    }

    pub(super) fn visit(&self, f: &mut dyn FnMut(&T)) {
        match self {
            Self::Fifo(items) | Self::Lifo(items) => items.iter().for_each(f),
            Self::Sorted(items) => items.iter().for_each(f),
        }
    }
}
