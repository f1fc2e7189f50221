//! A tournament tree of the children of a node, which finds the first of them and replays only the matches that change.
//! `ready_children.rs` has one for each class.
//!
//! Each eligible child has a leaf. In each match the lesser key wins and moves up, so the first child of all is at the top. An
//! insertion, removal or change replays the matches of one leaf upward, as far as they change: one match if the child stays
//! behind, log2 n if it was first. The two sides of a match share a cache line, and the upper rounds, which all changes
//! use, stay in the cache. So a change touches one or two cold cache lines, however many children there are.

use super::NIL;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The order of eligible siblings: by start tag; of equal tags, the sibling that was served longest ago is first.
pub(in crate::capacity) type OrderKey = (i128, u64, u32);

/// The key of a vacant leaf, behind all others.
const VACANT: OrderKey = (i128::MAX, u64::MAX, NIL);

/// With this many leaves or fewer, no memory is given back.
const FEW: usize = 64;

/// The two sides of a match.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Match([OrderKey; 2]);

#[derive(Debug, Default)]
pub(in crate::capacity) struct TournamentTree {
    /// Position `i` of the tree is side `i % 2` of match `i / 2`. The top is at 1, the winner of `2 i` and `2 i + 1` is at `i`, and
    /// the leaves are the second half. The number of leaves is a power of two, or 0.
    matches: Vec<Match>,
    /// The vacant leaves.
    vacant: Vec<u32>,
    len: usize,
}

impl TournamentTree {
    #[inline]
    pub(in crate::capacity) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[cfg(any(test, debug_assertions))]
    pub(in crate::capacity) fn len(&self) -> usize {
        self.len
    }

    /// Return the number of leaves.
    fn leaves(&self) -> usize {
        self.matches.len()
    }

    #[inline]
    fn at(&self, position: usize) -> OrderKey {
        self.matches[position / 2].0[position % 2]
    }

    #[inline]
    fn put(&mut self, position: usize, key: OrderKey) {
        self.matches[position / 2].0[position % 2] = key;
    }

    /// Return the first of all.
    #[inline]
    pub(in crate::capacity) fn first(&self) -> Option<OrderKey> {
        (self.len > 0).then(|| self.at(1))
    }

    /// Return the key at a leaf.
    #[cfg(any(test, debug_assertions))]
    pub(in crate::capacity) fn at_leaf(&self, leaf: u32) -> OrderKey {
        self.at(self.leaves() + leaf as usize)
    }

    /// Insert a child. Returns its leaf, which it keeps until it is removed or [leaves are assigned anew](Self::assign_leaves).
    pub(in crate::capacity) fn insert(&mut self, key: OrderKey) -> u32 {
        if self.vacant.is_empty() {
            self.grow();
        }
        let leaf = self.vacant.pop().expect("the tree has a vacant leaf");
        self.len += 1;
        self.update(leaf, key);
        leaf
    }

    /// Change the key at a leaf.
    #[inline]
    pub(in crate::capacity) fn update(&mut self, leaf: u32, key: OrderKey) {
        let mut position = self.leaves() + leaf as usize;
        let mut winner = key;
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

    /// Remove the child at a leaf. Returns whether so many are vacant that [leaves should be assigned anew](Self::assign_leaves).
    pub(in crate::capacity) fn remove(&mut self, leaf: u32) -> bool {
        self.update(leaf, VACANT);
        self.vacant.push(leaf);
        self.len -= 1;
        self.leaves() > FEW && self.len <= self.leaves() / 4
    }

    /// Double the number of leaves.
    fn grow(&mut self) {
        let leaves = self.leaves();
        let taken: Vec<_> = (leaves..2 * leaves).map(|at| self.at(at)).collect();
        let new = leaves..(2 * leaves).max(1);
        let new = new.map(|leaf| u32::try_from(leaf).expect("fewer than 2^32 children"));
        // They are popped in reverse.
        self.vacant.extend(new.rev());
        self.rebuild(&taken, (2 * leaves).max(1));
    }

    /// Assign leaves anew, with no more of them than needed. Yields each child with its new leaf.
    pub(in crate::capacity) fn assign_leaves(&mut self) -> impl Iterator<Item = (u32, u32)> {
        let leaves = self.leaves();
        let taken = (leaves..2 * leaves).map(|at| self.at(at));
        let taken: Vec<_> = taken.filter(|&key| key != VACANT).collect();
        // Twice as many leaves as children, so that this happens rarely.
        let leaves = (2 * taken.len()).next_power_of_two();
        let vacant = taken.len()..leaves;
        self.vacant = vacant
            .rev()
            .filter_map(|leaf| u32::try_from(leaf).ok())
            .collect();
        self.rebuild(&taken, leaves);
        taken.into_iter().map(|(_, _, child)| child).zip(0..)
    }

    /// Replay everything with this many leaves, the first of which have these keys.
    fn rebuild(&mut self, taken: &[OrderKey], leaves: usize) {
        self.matches = vec![Match([VACANT; 2]); leaves];
        for (leaf, &key) in taken.iter().enumerate() {
            self.put(leaves + leaf, key);
        }
        for position in (1..leaves).rev() {
            let winner = self.at(2 * position).min(self.at(2 * position + 1));
            self.put(position, winner);
        }
    }

    /// Iterate over all keys in order. The first costs nothing, each later one O(log n).
    pub(in crate::capacity) fn in_order(&self) -> InOrder<'_> {
        InOrder {
            tree: self,
            next: self.first().map(|first| (first, 1)),
            losers: BinaryHeap::new(),
            last: None,
        }
    }
}

/// See [`TournamentTree::in_order`].
#[derive(Debug)]
pub(in crate::capacity) struct InOrder<'a> {
    tree: &'a TournamentTree,
    /// The next key, and the highest position that it has won.
    next: Option<(OrderKey, usize)>,
    /// The same for the keys that lost a match against an earlier key.
    losers: BinaryHeap<Reverse<(OrderKey, usize)>>,
    /// The last key: the keys that lost against it are not among the losers yet.
    last: Option<(OrderKey, usize)>,
}

impl InOrder<'_> {
    /// Find the next key after the last one was popped: the least that lost against any popped key.
    fn find_next(&mut self) {
        let Some((key, mut position)) = self.last.take() else {
            return;
        };
        while position < self.tree.leaves() {
            let mut won = 2 * position;
            if self.tree.at(won) != key {
                won += 1;
            }
            let lost = self.tree.at(won ^ 1);
            if lost != VACANT {
                self.losers.push(Reverse((lost, won ^ 1)));
            }
            position = won;
        }
        self.next = self.losers.pop().map(|Reverse(next)| next);
    }

    /// Return the next key.
    #[inline]
    pub(in crate::capacity) fn peek(&mut self) -> Option<OrderKey> {
        self.find_next();
        self.next.map(|(key, _)| key)
    }

    /// Remove the next key.
    #[inline]
    pub(in crate::capacity) fn pop(&mut self) {
        self.last = self.next.take();
    }
}

#[cfg(test)]
mod tests {
    use super::{OrderKey, TournamentTree};
    use std::collections::BTreeMap;

    /// Draw from Knuth's generator, whose high digits are good.
    fn roll(random: &mut u64, below: u64) -> u64 {
        *random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*random >> 33) % below
    }

    #[test]
    fn tournament_tree_agrees_with_a_sorted_list() {
        for seed in 0..8 {
            let mut random = seed;
            let mut tree = TournamentTree::default();
            let mut leaves = BTreeMap::<u32, (u32, OrderKey)>::new();
            for child in 0..2_000 {
                // The number of children rises, then falls.
                let is_insertion = roll(&mut random, 8) < if child < 1_000 { 6 } else { 2 };
                let picked = leaves.len().max(1) as u64;
                let picked = usize::try_from(roll(&mut random, picked)).unwrap();
                let picked = leaves.keys().nth(picked).copied();
                let tag = i128::from(roll(&mut random, 300)) - 100;
                match picked {
                    Some(picked) if !is_insertion => {
                        let (leaf, _) = leaves.remove(&picked).unwrap();
                        if tree.remove(leaf) {
                            for (child, leaf) in tree.assign_leaves() {
                                leaves.get_mut(&child).unwrap().0 = leaf;
                            }
                        }
                    }
                    Some(picked) if roll(&mut random, 2) == 0 => {
                        let key = (tag, u64::from(child), picked);
                        let (leaf, old) = leaves.get_mut(&picked).unwrap();
                        *old = key;
                        tree.update(*leaf, key);
                    }
                    _ => {
                        let key = (tag, u64::from(child), child);
                        let leaf = tree.insert(key);
                        leaves.insert(child, (leaf, key));
                    }
                }
                let mut keys: Vec<_> = leaves.values().map(|&(_, key)| key).collect();
                keys.sort_unstable();
                assert_eq!(tree.len(), keys.len(), "seed {seed}");
                assert_eq!(tree.first(), keys.first().copied(), "seed {seed}");
                if child % 16 == 0 {
                    let mut order = tree.in_order();
                    for key in keys.iter().copied().map(Some).chain([None]) {
                        assert_eq!(order.peek(), key, "seed {seed}");
                        order.pop();
                    }
                }
                assert!(tree.matches.len() <= 64.max(4 * keys.len()), "seed {seed}");
            }
        }
    }
}
