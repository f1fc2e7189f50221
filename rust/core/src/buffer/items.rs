use super::sorted::{Search, Seat, Sorted, Sought};
use super::{Order, Rank};
use std::collections::VecDeque;

/// The items of a buffer, in their order.
#[derive(Debug)]
pub(super) enum Items<T> {
    Fifo(VecDeque<T>),
    Lifo(VecDeque<T>),
    Sorted(Sorted<T>),
}

impl<T> Items<T> {
    pub(super) fn new(order: &Order<T>) -> Self {
        match order {
            Order::Fifo => Self::Fifo(VecDeque::new()),
            Order::Lifo => Self::Lifo(VecDeque::new()),
            Order::Sorted(_) => Self::Sorted(Sorted::new()),
        }
    }

    /// Empties it. The items come in the order in which they would have come out.
    pub(super) fn take_all(&mut self) -> Self {
        match self {
            Self::Fifo(items) => Self::Fifo(std::mem::take(items)),
            Self::Lifo(items) => Self::Lifo(std::mem::take(items)),
            Self::Sorted(items) => Self::Sorted(std::mem::replace(items, Sorted::new())),
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

    /// The one that comes out next.
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

    /// Takes out the one that has been here longest.
    #[cold]
    pub(super) fn pop_oldest(&mut self) -> Option<T> {
        match self {
            Self::Fifo(items) | Self::Lifo(items) => items.pop_front(),
            Self::Sorted(items) => items.pop_oldest(),
        }
    }

    /// Adds an item; `seat` is for a sorted buffer, which found it under this very lock.
    #[inline]
    pub(super) fn push(&mut self, seat: Option<Seat>, item: T) {
        match self {
            Self::Fifo(items) | Self::Lifo(items) => items.push_back(item),
            Self::Sorted(items) => {
                items.insert(seat.expect("a sorted buffer was searched first"), item);
            }
        }
    }

    /// One step of the search for the place of a new item: the seat, if it needs one, or a handle on the item with
    /// which to compare it after unlocking.
    pub(super) fn seek(&self, search: &mut Search, rank: &dyn Rank<T>) -> Result<Option<Seat>, T> {
        let Self::Sorted(items) = self else {
            return Ok(None);
        };
        match items.seek(search) {
            Sought::Here(seat) => Ok(Some(seat)),
            Sought::Compare(other) => Err(rank.share(other)),
        }
    }

    pub(super) fn visit(&self, f: &mut dyn FnMut(&T)) {
        match self {
            Self::Fifo(items) | Self::Lifo(items) => items.iter().for_each(f),
            Self::Sorted(items) => items.iter().for_each(f),
        }
    }
}
