//! `PriorityQueue`, the items of a sorted buffer. `Items` (`items.rs`) stores one, and `buffer.rs` drives its searches.

use std::collections::VecDeque;

/// A chunk that grows beyond this is split in two.
const CHUNK: usize = 256;

/// The comparisons that a search may make beyond those of an undisturbed search.
const PATIENCE: u32 = 64;

/// Items in sorted order, each with a ticket that records the order of insertion.
///
/// To find the position of a new item, call [`search`](Self::search) repeatedly. Each call requests at most one
/// comparison, which the caller makes where and when it likes. The result of a comparison stays true: *not before this
/// item*, *before that item*. So if other items come and go in between, the search continues between the same two items
/// instead of starting again, with one comparison for each halving.
///
/// A comparison that itself adds an item at that position each time would never end. So after [`PATIENCE`] comparisons
/// more than it needs, the search stops: the item goes before the first item that it is known to precede.
///
/// The items are stored in chunks: an insertion moves at most one chunk, whatever the number of items.
#[derive(Debug)]
pub(super) struct PriorityQueue<T> {
    /// No chunk is empty.
    chunks: VecDeque<VecDeque<Entry<T>>>,
    len: usize,
    next_ticket: u64,
    /// Counts the changes. A change invalidates every position that was found before.
    version: u64,
}

#[derive(Debug)]
struct Entry<T> {
    ticket: u64,
    item: T,
}

/// A position between two items: the index of a chunk, and the offset in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position(usize, usize);

/// The progress of a search for the position of a new item.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// The item is not before the one with this ticket.
    low: Option<u64>,
    /// It is before this one.
    high: Option<u64>,
    /// The two as positions, at one version.
    range: Option<Range>,
    /// The number of comparisons so far.
    comparisons: u32,
}

/// The remaining positions for a new item at one version, and the middle one, with which the item is compared.
#[derive(Clone, Copy, Debug)]
struct Range {
    version: u64,
    low: Position,
    high: Position,
    middle: (u64, Position),
}

/// One step of a search.
#[derive(Debug)]
pub(super) enum SearchStep<'a, T> {
    /// The item belongs here, at this version.
    Found(Position),
    /// Compare the item with this one, and pass the result to [`Search::record`].
    Compare(&'a T),
}

impl Search {
    /// Record whether the item is before the one of the last [`SearchStep::Compare`].
    pub(super) fn record(&mut self, before: bool) {
        let Some(range) = &mut self.range else {
            return;
        };
        self.comparisons += 1;
        let (ticket, Position(index, offset)) = range.middle;
        if before {
            self.high = Some(ticket);
            range.high = Position(index, offset);
        } else {
            self.low = Some(ticket);
            range.low = Position(index, offset + 1);
        }
    }
}

impl<T> PriorityQueue<T> {
    pub(super) const fn new() -> Self {
        Self {
            chunks: VecDeque::new(),
            len: 0,
            next_ticket: 0,
            version: 0,
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn first(&self) -> Option<&T> {
        Some(&self.chunks.front()?.front()?.item)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten().map(|entry| &entry.item)
    }

    pub(super) fn into_items(self) -> impl Iterator<Item = T> {
        self.chunks.into_iter().flatten().map(|entry| entry.item)
    }

    pub(super) fn pop_first(&mut self) -> Option<T> {
        self.remove(Position(0, 0))
    }

    /// Remove the item that was inserted first. O(number of items).
    pub(super) fn pop_oldest(&mut self) -> Option<T> {
        let tickets = self.chunks.iter().enumerate().flat_map(|(index, chunk)| {
            let entries = chunk.iter().enumerate();
            entries.map(move |(offset, entry)| (entry.ticket, Position(index, offset)))
        });
        let (_, position) = tickets.min()?;
        self.remove(position)
    }

    fn remove(&mut self, Position(index, offset): Position) -> Option<T> {
        let chunk = self.chunks.get_mut(index)?;
        let entry = chunk.remove(offset)?;
        if chunk.is_empty() {
            self.chunks.remove(index);
        }
        self.len -= 1;
        self.version += 1;
        Some(entry.item)
    }

    /// Make one step of the search: return the position, or the item to compare with first.
    pub(super) fn search<'a>(&'a self, search: &mut Search) -> SearchStep<'a, T> {
        let (mut low, mut high) = match search.range {
            Some(range) if range.version == self.version => (range.low, range.high),
            _ => (self.after(search.low), self.until(search.high)),
        };
        // The end of one chunk equals the start of the next: put both bounds into the same chunk if possible.
        if (self.chunks.get(low.0)).is_some_and(|chunk| low.1 == chunk.len()) {
            low = Position(low.0 + 1, 0);
        }
        if high.1 == 0 && high.0 > low.0 {
            high = Position(high.0 - 1, self.chunks[high.0 - 1].len());
        }
        let needed = usize::BITS - self.len.leading_zeros();
        if low >= high || search.comparisons > 2 * needed + PATIENCE {
            return SearchStep::Found(high);
        }
        let middle = if low.0 == high.0 {
            Position(low.0, usize::midpoint(low.1, high.1))
        } else {
            let index = usize::midpoint(low.0, high.0);
            Position(index, self.chunks[index].len() - 1)
        };
        let entry = &self.chunks[middle.0][middle.1];
        search.range = Some(Range {
            version: self.version,
            low,
            high,
            middle: (entry.ticket, middle),
        });
        SearchStep::Compare(&entry.item)
    }

    /// Insert an item at a position that a search found at this version.
    pub(super) fn insert(&mut self, Position(index, offset): Position, item: T) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.version += 1;
        self.len += 1;
        let entry = Entry { ticket, item };
        // The start of a chunk that does not exist is the end of the one before.
        let (index, offset) = match self.chunks.get(index) {
            Some(_) => (index, offset),
            None if self.chunks.is_empty() => {
                self.chunks.push_back(VecDeque::from([entry]));
                return;
            }
            None => (index - 1, self.chunks[index - 1].len()),
        };
        let chunk = &mut self.chunks[index];
        chunk.insert(offset, entry);
        if chunk.len() > CHUNK {
            let half = chunk.split_off(CHUNK / 2);
            self.chunks.insert(index + 1, half);
        }
    }

    /// Return the position after the item with this ticket; the start if there is no ticket or the item is gone.
    fn after(&self, ticket: Option<u64>) -> Position {
        self.position_of(ticket)
            .map_or(Position(0, 0), |Position(index, offset)| {
                Position(index, offset + 1)
            })
    }

    /// Return the position before the item with this ticket; the end if there is no ticket or the item is gone.
    fn until(&self, ticket: Option<u64>) -> Position {
        self.position_of(ticket)
            .unwrap_or(Position(self.chunks.len(), 0))
    }

    /// O(number of items), so only for searches during which the items changed.
    fn position_of(&self, ticket: Option<u64>) -> Option<Position> {
        let ticket = ticket?;
        self.chunks.iter().enumerate().find_map(|(index, chunk)| {
            let offset = chunk.iter().position(|entry| entry.ticket == ticket)?;
            Some(Position(index, offset))
        })
    }
}
