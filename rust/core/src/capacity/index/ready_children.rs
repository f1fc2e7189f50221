//! The children of one node that are eligible, in order: those who all have to wait at some rate apart from the others.
//!
//! Who has the turn at a rate keeps everybody from it who needs it, and at a rate of all that may be everybody else. None of them can be
//! granted anything, so a search that had to go by them would take longer the more they are. Therefore children are sorted into *kinds*,
//! by the rates that all whom they offer need; each kind plays its own tournament, and a search leaves those out that
//! wait at a turn, but for the first of them, who may be counted as passed. There are as many kinds as there are ways to need
//! rates, which is one or two as a rule; what needs none is the first kind.

use super::tournament_tree;
use super::tournament_tree::{Place, Tournament};
use crate::capacity::Resource;

/// One of the kinds of a node's children, by its place among these.
pub(in crate::capacity) type KindId = u32;

#[derive(Debug, Default)]
pub(in crate::capacity) struct Siblings {
    /// Those who offer somebody who needs no rate, or not the same.
    free: Tournament,
    /// The others, by the rates that they need, in the order of their numbers.
    bound: Vec<(Vec<Resource>, Tournament)>,
}

impl Siblings {
    pub(in crate::capacity) fn is_empty(&self) -> bool {
        self.kinds().all(Tournament::is_empty)
    }

    fn kinds(&self) -> impl Iterator<Item = &Tournament> {
        let bound = self.bound.iter().map(|(_, bound)| bound);
        std::iter::once(&self.free).chain(bound)
    }

    #[inline]
    fn of(&mut self, kind: KindId) -> &mut Tournament {
        match kind.checked_sub(1) {
            None => &mut self.free,
            Some(bound) => &mut self.bound[bound as usize].1,
        }
    }

    /// The rates that a kind needs.
    pub(in crate::capacity) fn rates(&self, kind: KindId) -> &[Resource] {
        match kind.checked_sub(1) {
            None => &[],
            Some(bound) => &self.bound[bound as usize].0,
        }
    }

    /// The kind that needs these rates, in the order of their numbers.
    pub(in crate::capacity) fn kind(&mut self, rates: Vec<Resource>) -> KindId {
        if rates.is_empty() {
            return 0;
        }
        let known = self.bound.iter().position(|(other, _)| *other == rates);
        // One that nobody is of any more is forgotten where another is to be known, so there are no more than there are children.
        let place = known.or_else(|| {
            let place = self.bound.iter().position(|(_, bound)| bound.is_empty())?;
            self.bound[place].0.clone_from(&rates);
            Some(place)
        });
        let place = place.unwrap_or_else(|| {
            self.bound.push((rates, Tournament::default()));
            self.bound.len() - 1
        });
        KindId::try_from(place + 1).expect("fewer than 2^32 children")
    }

    /// One more child: [its seat](Tournament::enter).
    #[inline]
    pub(in crate::capacity) fn enter(&mut self, kind: KindId, place: Place) -> u32 {
        self.of(kind).enter(place)
    }

    /// A child stands elsewhere now.
    #[inline]
    pub(in crate::capacity) fn change(&mut self, kind: KindId, seat: u32, place: Place) {
        self.of(kind).change(seat, place);
    }

    /// A child goes. Whether seats of its kind should be [dealt](Self::deal) anew.
    pub(in crate::capacity) fn leave(&mut self, kind: KindId, seat: u32) -> bool {
        self.of(kind).leave(seat)
    }

    pub(in crate::capacity) fn deal(&mut self, kind: KindId) -> impl Iterator<Item = (u32, u32)> {
        self.of(kind).deal()
    }

    /// The first of all.
    #[inline]
    pub(in crate::capacity) fn first(&self) -> Option<Place> {
        self.kinds().filter_map(Tournament::first).min()
    }

    /// All of them, and one who is none of them, in order; but only the first of each kind that `waits` says of its rates.
    pub(in crate::capacity) fn in_order(
        &self,
        other: Option<Place>,
        waits: impl Fn(&[Resource]) -> bool,
    ) -> InOrder<'_> {
        let bound = self.bound.iter().filter(|(_, bound)| !bound.is_empty());
        InOrder {
            other,
            free: self.free.in_order(),
            bound: bound
                .map(|(rates, bound)| (bound.in_order(), waits(rates)))
                .collect(),
        }
    }

    #[cfg(any(test, debug_assertions))]
    pub(in crate::capacity) fn len(&self) -> usize {
        self.kinds().map(Tournament::len).sum()
    }

    /// Whoever has this seat.
    #[cfg(any(test, debug_assertions))]
    pub(in crate::capacity) fn seated(&self, kind: KindId, seat: u32) -> Place {
        let kind = self.kinds().nth(kind as usize);
        kind.expect("a child is of a kind that there is")
            .seated(seat)
    }
}

/// See [`Siblings::in_order`].
#[derive(Debug)]
pub(in crate::capacity) struct InOrder<'a> {
    other: Option<Place>,
    free: tournament_tree::InOrder<'a>,
    /// Of each kind, and whether only the first is wanted.
    bound: Vec<(tournament_tree::InOrder<'a>, bool)>,
}

impl Iterator for InOrder<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        let free = self.free.peek();
        let mut least = free.into_iter().chain(self.other).min();
        let mut winner = None;
        for (kind, (bound, _)) in self.bound.iter_mut().enumerate() {
            if let Some(place) = bound.peek()
                && least.is_none_or(|least| place < least)
            {
                (least, winner) = (Some(place), Some(kind));
            }
        }
        match winner {
            Some(kind) if self.bound[kind].1 => drop(self.bound.swap_remove(kind)),
            Some(kind) => self.bound[kind].0.pop(),
            None if least == free => self.free.pop(),
            None => self.other = None,
        }
        least.map(|(_, _, child)| child)
    }
}
