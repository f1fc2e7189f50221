//! Which of many children is next: a tournament in which only what changed is played again.
//!
//! Each child that is eligible has a seat in the lowest round. Of two who meet the lesser goes on, so the first of all has won at
//! the top. Whoever comes, goes or changes plays its way up again, as far as that changes anything: one round if it stays
//! behind, log2 n if it was first. The two who meet stand side by side, in one line of the cache; the upper rounds, which all
//! go through, stay in it. So a change touches a line or two of memory that is cold, however many children there are.

use super::NIL;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Where a child stands among those of its siblings that are eligible: by start tag, of equals the one that was served
/// longest ago.
pub(in crate::capacity) type Place = (i128, u64, u32);

/// Behind all others.
const NOBODY: Place = (i128::MAX, u64::MAX, NIL);

/// With so many seats or fewer nothing is given back.
const FEW: usize = 64;

/// Two who meet.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Match([Place; 2]);

#[derive(Debug, Default)]
pub(in crate::capacity) struct Tournament {
    /// Position `i` of the tree is contestant `i % 2` of match `i / 2`. The top is at 1, who won it of two at `2 i` and `2 i + 1`
    /// is at `i`, and the seats are in the second half. A power of two, or none.
    matches: Vec<Match>,
    /// Seats that nobody has.
    vacant: Vec<u32>,
    len: usize,
}

impl Tournament {
    #[inline]
    pub(in crate::capacity) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[cfg(any(test, debug_assertions))]
    pub(in crate::capacity) fn len(&self) -> usize {
        self.len
    }

    /// How many seats there are.
    fn seats(&self) -> usize {
        self.matches.len()
    }

    #[inline]
    fn at(&self, position: usize) -> Place {
        self.matches[position / 2].0[position % 2]
    }

    #[inline]
    fn put(&mut self, position: usize, place: Place) {
        self.matches[position / 2].0[position % 2] = place;
    }

    /// The first of all.
    #[inline]
    pub(in crate::capacity) fn first(&self) -> Option<Place> {
        (self.len > 0).then(|| self.at(1))
    }

    /// Whoever has this seat.
    #[cfg(any(test, debug_assertions))]
    pub(in crate::capacity) fn seated(&self, seat: u32) -> Place {
        self.at(self.seats() + seat as usize)
    }

    /// One more child: the seat that it has until it leaves, or all are [dealt](Self::deal) anew.
    pub(in crate::capacity) fn enter(&mut self, place: Place) -> u32 {
        if self.vacant.is_empty() {
            self.grow();
        }
        let seat = self.vacant.pop().expect("there is room for one more");
        self.len += 1;
        self.change(seat, place);
        seat
    }

    /// The child of this seat stands elsewhere now.
    #[inline]
    pub(in crate::capacity) fn change(&mut self, seat: u32, place: Place) {
        let mut position = self.seats() + seat as usize;
        let mut winner = place;
        self.put(position, winner);
        while position > 1 {
            winner = winner.min(self.at(position ^ 1));
            position /= 2;
            if self.at(position) == winner {
                break;
            }
            self.put(position, winner);
        }
    }

    /// The child of this seat goes. Whether so many have that seats should be [dealt](Self::deal) anew.
    pub(in crate::capacity) fn leave(&mut self, seat: u32) -> bool {
        self.change(seat, NOBODY);
        self.vacant.push(seat);
        self.len -= 1;
        self.seats() > FEW && self.len <= self.seats() / 4
    }

    /// Twice as many seats.
    fn grow(&mut self) {
        let seats = self.seats();
        let seated: Vec<_> = (seats..2 * seats).map(|at| self.at(at)).collect();
        let new = seats..(2 * seats).max(1);
        let new = new.map(|seat| u32::try_from(seat).expect("fewer than 2^32 children"));
        // The last that is pushed is the first that is given.
        self.vacant.extend(new.rev());
        self.seat(&seated, (2 * seats).max(1));
    }

    /// Deals seats anew, no more than are needed: who has which from now on.
    pub(in crate::capacity) fn deal(&mut self) -> impl Iterator<Item = (u32, u32)> {
        let seats = self.seats();
        let seated = (seats..2 * seats).map(|at| self.at(at));
        let seated: Vec<_> = seated.filter(|&place| place != NOBODY).collect();
        // Room for as many again, or they would be dealt anew all the time.
        let seats = (2 * seated.len()).next_power_of_two();
        let vacant = seated.len()..seats;
        self.vacant = vacant
            .rev()
            .filter_map(|seat| u32::try_from(seat).ok())
            .collect();
        self.seat(&seated, seats);
        seated.into_iter().map(|(_, _, child)| child).zip(0..)
    }

    /// Plays everything from the start, with so many seats, of which these are taken.
    fn seat(&mut self, seated: &[Place], seats: usize) {
        self.matches = vec![Match([NOBODY; 2]); seats];
        for (seat, &place) in seated.iter().enumerate() {
            self.put(seats + seat, place);
        }
        for position in (1..seats).rev() {
            let winner = self.at(2 * position).min(self.at(2 * position + 1));
            self.put(position, winner);
        }
    }

    /// All who are in, in order. The first costs nothing, each later one O(log n).
    pub(in crate::capacity) fn in_order(&self) -> InOrder<'_> {
        InOrder {
            tournament: self,
            next: self.first().map(|first| (first, 1)),
            losers: BinaryHeap::new(),
            last: None,
        }
    }
}

/// See [`Tournament::in_order`].
#[derive(Debug)]
pub(in crate::capacity) struct InOrder<'a> {
    tournament: &'a Tournament,
    /// Who is next, and the highest position that it has won.
    next: Option<(Place, usize)>,
    /// The same of those who lost against one who was next already.
    losers: BinaryHeap<Reverse<(Place, usize)>>,
    /// Who was next last: those who lost against it have yet to be looked at.
    last: Option<(Place, usize)>,
}

impl InOrder<'_> {
    /// Who is next once the last is out: the best of those who lost against any.
    fn find_next(&mut self) {
        let Some((place, mut position)) = self.last.take() else {
            return;
        };
        while position < self.tournament.seats() {
            let mut won = 2 * position;
            if self.tournament.at(won) != place {
                won += 1;
            }
            let lost = self.tournament.at(won ^ 1);
            if lost != NOBODY {
                self.losers.push(Reverse((lost, won ^ 1)));
            }
            position = won;
        }
        self.next = self.losers.pop().map(|Reverse(next)| next);
    }

    /// Who is next.
    #[inline]
    pub(in crate::capacity) fn peek(&mut self) -> Option<Place> {
        self.find_next();
        self.next.map(|(place, _)| place)
    }

    /// Whoever is next is out.
    #[inline]
    pub(in crate::capacity) fn pop(&mut self) {
        self.last = self.next.take();
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, Tournament};
    use std::collections::BTreeMap;

    /// Knuth's generator; its high digits are good.
    fn roll(dice: &mut u64, below: u64) -> u64 {
        *dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*dice >> 33) % below
    }

    #[test]
    fn all_are_in_order_whoever_comes_goes_and_changes() {
        for seed in 0..8 {
            let mut dice = seed;
            let mut tournament = Tournament::default();
            let mut seats = BTreeMap::<u32, (u32, Place)>::new();
            for child in 0..2_000 {
                // They become many, then few.
                let comes = roll(&mut dice, 8) < if child < 1_000 { 6 } else { 2 };
                let picked = seats.len().max(1) as u64;
                let picked = usize::try_from(roll(&mut dice, picked)).unwrap();
                let picked = seats.keys().nth(picked).copied();
                let tag = i128::from(roll(&mut dice, 300)) - 100;
                match picked {
                    Some(picked) if !comes => {
                        let (seat, _) = seats.remove(&picked).unwrap();
                        if tournament.leave(seat) {
                            for (child, seat) in tournament.deal() {
                                seats.get_mut(&child).unwrap().0 = seat;
                            }
                        }
                    }
                    Some(picked) if roll(&mut dice, 2) == 0 => {
                        let place = (tag, u64::from(child), picked);
                        let (seat, old) = seats.get_mut(&picked).unwrap();
                        *old = place;
                        tournament.change(*seat, place);
                    }
                    _ => {
                        let place = (tag, u64::from(child), child);
                        let seat = tournament.enter(place);
                        seats.insert(child, (seat, place));
                    }
                }
                let mut places: Vec<_> = seats.values().map(|&(_, place)| place).collect();
                places.sort_unstable();
                assert_eq!(tournament.len(), places.len(), "seed {seed}");
                assert_eq!(tournament.first(), places.first().copied(), "seed {seed}");
                if child % 16 == 0 {
                    let mut order = tournament.in_order();
                    for place in places.iter().copied().map(Some).chain([None]) {
                        assert_eq!(order.peek(), place, "seed {seed}");
                        order.pop();
                    }
                }
                assert!(
                    tournament.matches.len() <= 64.max(4 * places.len()),
                    "seed {seed}"
                );
            }
        }
    }
}
