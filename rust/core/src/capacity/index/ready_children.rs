//! The eligible children of one node in order, with those that all wait for the same rates kept apart.
//! Each `Node` has one: `policy/fair_queue.rs` updates it, and `policy/dispatch.rs` searches it.
//!
//! The head of a rate keeps all other waiters from it, and at a rate of the root these may be all other waiters. A search that
//! visited them would take longer the more they are, and grant none. Children are therefore sorted into *classes*, by the rates
//! that all their offered waiters need. Each class has its own tournament tree. A search skips the classes that wait behind a
//! head, except for the first child of each, which may count as passed. There are as many classes as combinations of rates,
//! usually one or two. The first class is for children that need no rate.

use super::tournament_tree;
use super::tournament_tree::{OrderKey, TournamentTree};
use crate::capacity::ResourceId;

/// The index of a class of children.
pub(in crate::capacity) type ClassId = u32;

#[derive(Debug, Default)]
pub(in crate::capacity) struct ReadyChildren {
    /// Children without a rate that all their offered waiters need.
    free: TournamentTree,
    /// The other classes, each with its rates, sorted.
    bound: Vec<(Vec<ResourceId>, TournamentTree)>,
}

impl ReadyChildren {
    pub(in crate::capacity) fn is_empty(&self) -> bool {
        self.classes().all(TournamentTree::is_empty)
    }

    fn classes(&self) -> impl Iterator<Item = &TournamentTree> {
        let bound = self.bound.iter().map(|(_, bound)| bound);
        std::iter::once(&self.free).chain(bound)
    }

    #[inline]
    fn of(&mut self, class: ClassId) -> &mut TournamentTree {
        match class.checked_sub(1) {
            None => &mut self.free,
            Some(bound) => &mut self.bound[bound as usize].1,
        }
    }

    /// Return the rates of a class.
    pub(in crate::capacity) fn rates(&self, class: ClassId) -> &[ResourceId] {
        match class.checked_sub(1) {
            None => &[],
            Some(bound) => &self.bound[bound as usize].0,
        }
    }

    /// Return the class with these rates, which are sorted; added if needed.
    pub(in crate::capacity) fn class(&mut self, rates: Vec<ResourceId>) -> ClassId {
        if rates.is_empty() {
            return 0;
        }
        let known = self.bound.iter().position(|(other, _)| *other == rates);
        // An empty class is reused, so there are no more classes than children.
        let position = known.or_else(|| {
            let position = self.bound.iter().position(|(_, bound)| bound.is_empty())?;
            self.bound[position].0.clone_from(&rates);
            Some(position)
        });
        let position = position.unwrap_or_else(|| {
            self.bound.push((rates, TournamentTree::default()));
            self.bound.len() - 1
        });
        ClassId::try_from(position + 1).expect("fewer than 2^32 children")
    }

    /// Insert a child. Returns [its leaf](TournamentTree::insert).
    #[inline]
    pub(in crate::capacity) fn insert(&mut self, class: ClassId, key: OrderKey) -> u32 {
        self.of(class).insert(key)
    }

    /// Change the key of a child.
    #[inline]
    pub(in crate::capacity) fn update(&mut self, class: ClassId, leaf: u32, key: OrderKey) {
        self.of(class).update(leaf, key);
    }

    /// Remove a child. Returns whether leaves of its class should be [assigned anew](Self::assign_leaves).
    pub(in crate::capacity) fn remove(&mut self, class: ClassId, leaf: u32) -> bool {
        self.of(class).remove(leaf)
    }

    pub(in crate::capacity) fn assign_leaves(
        &mut self,
        class: ClassId,
    ) -> impl Iterator<Item = (u32, u32)> {
        self.of(class).assign_leaves()
    }

    /// Return the first of all.
    #[inline]
    pub(in crate::capacity) fn first(&self) -> Option<OrderKey> {
        self.classes().filter_map(TournamentTree::first).min()
    }

    /// Iterate over all children and `other` in order, but only over the first of each class whose rates `waits` accepts.
    pub(in crate::capacity) fn in_order(
        &self,
        other: Option<OrderKey>,
        waits: impl Fn(&[ResourceId]) -> bool,
    ) -> InOrder<'_> {
        let bound = self.bound.iter().filter(|(_, bound)| !bound.is_empty());
        InOrder {
            other,
            free: self.free.in_order(),
            bound: bound
                .map(|(rates, bound)| (bound.in_order(), waits(rates)))
                .collect(),
            last: None,
        }
    }

    #[cfg(any(test, debug_assertions))]
    pub(in crate::capacity) fn len(&self) -> usize {
        self.classes().map(TournamentTree::len).sum()
    }

    /// Return the key at a leaf.
    #[cfg(any(test, debug_assertions))]
    pub(in crate::capacity) fn at_leaf(&self, class: ClassId, leaf: u32) -> OrderKey {
        let class = self.classes().nth(class as usize);
        class.expect("the class of a child exists").at_leaf(leaf)
    }
}

/// See [`ReadyChildren::in_order`].
#[derive(Debug)]
pub(in crate::capacity) struct InOrder<'a> {
    other: Option<OrderKey>,
    free: tournament_tree::InOrder<'a>,
    /// One iterator per class, and whether only the first child is wanted.
    bound: Vec<(tournament_tree::InOrder<'a>, bool)>,
    /// The position in `bound` of the last child's class, if that is still there.
    last: Option<usize>,
}

impl InOrder<'_> {
    /// Leave out all further children of the class of the last one, unless they need no rate.
    pub(in crate::capacity) fn leave_class(&mut self) {
        if let Some(class) = self.last.take() {
            drop(self.bound.swap_remove(class));
        }
    }
}

impl Iterator for InOrder<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        let free = self.free.peek();
        let mut least = free.into_iter().chain(self.other).min();
        let mut winner = None;
        for (class, (bound, _)) in self.bound.iter_mut().enumerate() {
            if let Some(position) = bound.peek()
                && least.is_none_or(|least| position < least)
            {
                (least, winner) = (Some(position), Some(class));
            }
        }
        self.last = winner.filter(|&class| !self.bound[class].1);
        match winner {
            Some(class) if self.bound[class].1 => drop(self.bound.swap_remove(class)),
            Some(class) => self.bound[class].0.pop(),
            None if least == free => self.free.pop(),
            None => self.other = None,
        }
        least.map(|(_, _, child)| child)
    }
}
