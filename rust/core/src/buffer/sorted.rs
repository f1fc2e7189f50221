use std::collections::VecDeque;

/// A chunk that grows beyond this is split in two.
const CHUNK: usize = 256;

/// How many more comparisons a search makes than one that nobody comes between.
const PATIENCE: u32 = 64;

/// Items from first to last, each with a ticket that says when it came.
///
/// To find the place of a new item, ask [`seek`](Self::seek) for one comparison after another, made by the caller where
/// and when it likes. A comparison is a fact that stays true: *not before this one*, *before that one*. So if others
/// come and go in between, the search goes on between the same two items instead of starting anew, with one comparison
/// for each halving. A comparison that each time adds an item just there would keep it busy for ever. So after
/// [`PATIENCE`] comparisons more than it needs it takes what it knows for enough: the item is put before the first
/// that it is known to be before.
///
/// The items lie in chunks: adding one moves at most a chunk, whatever their number.
#[derive(Debug)]
pub(super) struct Sorted<T> {
    /// None of them is empty.
    chunks: VecDeque<VecDeque<Slot<T>>>,
    len: usize,
    next_ticket: u64,
    /// Counts the changes, after which a seat may be another one.
    version: u64,
}

#[derive(Debug)]
struct Slot<T> {
    ticket: u64,
    item: T,
}

/// A place between two items: the index of a chunk, and in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seat(usize, usize);

/// What is known of the place of a new item.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// The item is not before the one with this ticket.
    low: Option<u64>,
    /// It is before this one.
    high: Option<u64>,
    /// The two as seats, at one version.
    between: Option<Between>,
    /// How many comparisons were made.
    made: u32,
}

/// The seats that are left for a new item, at one version, and the one in their middle that it is compared with.
#[derive(Clone, Copy, Debug)]
struct Between {
    version: u64,
    low: Seat,
    high: Seat,
    middle: (u64, Seat),
}

/// What a search comes to.
#[derive(Debug)]
pub(super) enum Sought<'a, T> {
    /// The item belongs here, at this version.
    Here(Seat),
    /// Compare it with this one, and tell [`Search::learn`].
    Compare(&'a T),
}

impl Search {
    /// Takes note of whether the item is before the one that was handed out.
    pub(super) fn learn(&mut self, before: bool) {
        let Some(between) = &mut self.between else {
            return;
        };
        self.made += 1;
        let (ticket, Seat(index, place)) = between.middle;
        if before {
            self.high = Some(ticket);
            between.high = Seat(index, place);
        } else {
            self.low = Some(ticket);
            between.low = Seat(index, place + 1);
        }
    }
}

impl<T> Sorted<T> {
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
        self.chunks.iter().flatten().map(|slot| &slot.item)
    }

    pub(super) fn into_items(self) -> impl Iterator<Item = T> {
        self.chunks.into_iter().flatten().map(|slot| slot.item)
    }

    pub(super) fn pop_first(&mut self) -> Option<T> {
        self.remove(Seat(0, 0))
    }

    /// Takes out the one that came first. O(number of items).
    pub(super) fn pop_oldest(&mut self) -> Option<T> {
        let tickets = self.chunks.iter().enumerate().flat_map(|(index, chunk)| {
            let seats = chunk.iter().enumerate();
            seats.map(move |(place, slot)| (slot.ticket, Seat(index, place)))
        });
        let (_, seat) = tickets.min()?;
        self.remove(seat)
    }

    fn remove(&mut self, Seat(index, place): Seat) -> Option<T> {
        let chunk = self.chunks.get_mut(index)?;
        let slot = chunk.remove(place)?;
        if chunk.is_empty() {
            self.chunks.remove(index);
        }
        self.len -= 1;
        self.version += 1;
        Some(slot.item)
    }

    /// One step of the search: where the item belongs, or with what to compare it first.
    pub(super) fn seek<'a>(&'a self, search: &mut Search) -> Sought<'a, T> {
        let (mut low, mut high) = match search.between {
            Some(between) if between.version == self.version => (between.low, between.high),
            _ => (self.after(search.low), self.until(search.high)),
        };
        // The end of one chunk is the beginning of the next: let both be in the same, if they can.
        if (self.chunks.get(low.0)).is_some_and(|chunk| low.1 == chunk.len()) {
            low = Seat(low.0 + 1, 0);
        }
        if high.1 == 0 && high.0 > low.0 {
            high = Seat(high.0 - 1, self.chunks[high.0 - 1].len());
        }
        let needed = usize::BITS - self.len.leading_zeros();
        if low >= high || search.made > 2 * needed + PATIENCE {
            return Sought::Here(high);
        }
        let middle = if low.0 == high.0 {
            Seat(low.0, usize::midpoint(low.1, high.1))
        } else {
            let index = usize::midpoint(low.0, high.0);
            Seat(index, self.chunks[index].len() - 1)
        };
        let slot = &self.chunks[middle.0][middle.1];
        search.between = Some(Between {
            version: self.version,
            low,
            high,
            middle: (slot.ticket, middle),
        });
        Sought::Compare(&slot.item)
    }

    /// Puts an item where a search at this very version said that it belongs.
    pub(super) fn insert(&mut self, Seat(index, place): Seat, item: T) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.version += 1;
        self.len += 1;
        let slot = Slot { ticket, item };
        // The beginning of a chunk that is not there is the end of the one before.
        let (index, place) = match self.chunks.get(index) {
            Some(_) => (index, place),
            None if self.chunks.is_empty() => {
                self.chunks.push_back(VecDeque::from([slot]));
                return;
            }
            None => (index - 1, self.chunks[index - 1].len()),
        };
        let chunk = &mut self.chunks[index];
        chunk.insert(place, slot);
        if chunk.len() > CHUNK {
            let half = chunk.split_off(CHUNK / 2);
            self.chunks.insert(index + 1, half);
        }
    }

    /// Behind the item with this ticket; the very beginning if it is gone, or was never asked for.
    fn after(&self, ticket: Option<u64>) -> Seat {
        self.seat_of(ticket)
            .map_or(Seat(0, 0), |Seat(index, place)| Seat(index, place + 1))
    }

    /// Before the item with this ticket; the very end if it is gone, or was never asked for.
    fn until(&self, ticket: Option<u64>) -> Seat {
        self.seat_of(ticket).unwrap_or(Seat(self.chunks.len(), 0))
    }

    /// O(number of items), so only for searches that others came between.
    fn seat_of(&self, ticket: Option<u64>) -> Option<Seat> {
        let ticket = ticket?;
        self.chunks.iter().enumerate().find_map(|(index, chunk)| {
            let place = chunk.iter().position(|slot| slot.ticket == ticket)?;
            Some(Seat(index, place))
        })
    }
}
