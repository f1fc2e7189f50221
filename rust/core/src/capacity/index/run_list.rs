//! A sorted queue of any length, kept as a few lists that link the entries themselves.
//! `model/wait_queue.rs` keeps the waiters behind the offered ones in it.
//!
//! Waiters arrive nearly in order: of equal priority each ranks behind all earlier ones. So they are kept as *runs*, which are
//! sorted linked lists. A new entry is appended to a run or prepended to one; only if neither is possible, it starts a new run.
//! Only the ends of the runs are searched, and there are about as many runs as priorities in use. An entry therefore costs
//! eight bytes, and the time of an insertion or removal does not depend on the length of the queue.

use super::NIL;
use super::sorted_set::SortedSet;
use crate::sync::Slab;

/// The neighbours of an entry in its run.
#[derive(Clone, Copy, Debug)]
pub(in crate::capacity) struct Links {
    before: u32,
    after: u32,
}

impl Links {
    pub(in crate::capacity) const NONE: Self = Self {
        before: NIL,
        after: NIL,
    };
}

/// A record that has a rank, and links to its neighbours.
pub(in crate::capacity) trait Linked {
    type Rank: Copy + Ord;

    fn rank(&self) -> Self::Rank;
    fn links(&self) -> &Links;
    fn links_mut(&mut self) -> &mut Links;
}

#[derive(Debug)]
pub(in crate::capacity) struct RunList<R> {
    /// The first and the last entry of each run.
    heads: SortedSet<(R, u32)>,
    tails: SortedSet<(R, u32)>,
}

impl<R> Default for RunList<R> {
    fn default() -> Self {
        Self {
            heads: SortedSet::default(),
            tails: SortedSet::default(),
        }
    }
}

impl<R: Copy + Ord> RunList<R> {
    pub(in crate::capacity) fn first(&self) -> Option<(R, u32)> {
        self.heads.first()
    }

    /// Add the entry with this index of `slab`.
    pub(in crate::capacity) fn insert<T: Linked<Rank = R>>(
        &mut self,
        index: u32,
        slab: &mut Slab<T>,
    ) {
        let entry = (slab.at(index).rank(), index);
        let mut links = Links::NONE;
        if let Some(tail) = self.tails.last_below(&entry) {
            links.before = tail.1;
            slab.at_mut(tail.1).links_mut().after = index;
            self.tails.remove(&tail);
            self.tails.insert(entry);
        } else if let Some(head) = self.heads.first() {
            // All tails are above it. It would lie inside a run whose head is below it.
            if head > entry {
                links.after = head.1;
                slab.at_mut(head.1).links_mut().before = index;
                self.heads.remove(&head);
            } else {
                self.tails.insert(entry);
            }
            self.heads.insert(entry);
        } else {
            self.heads.insert(entry);
            self.tails.insert(entry);
        }
        *slab.at_mut(index).links_mut() = links;
    }

    /// Remove the entry with this index of `slab`.
    pub(in crate::capacity) fn remove<T: Linked<Rank = R>>(
        &mut self,
        index: u32,
        slab: &mut Slab<T>,
    ) {
        let record = slab.at_mut(index);
        let entry = (record.rank(), index);
        let Links { before, after } = std::mem::replace(record.links_mut(), Links::NONE);
        if before == NIL {
            self.heads.remove(&entry);
        } else {
            slab.at_mut(before).links_mut().after = after;
        }
        if after == NIL {
            self.tails.remove(&entry);
        } else {
            slab.at_mut(after).links_mut().before = before;
        }
        if before == NIL && after != NIL {
            self.heads.insert((slab.at(after).rank(), after));
        }
        if after == NIL && before != NIL {
            self.tails.insert((slab.at(before).rank(), before));
        }
    }

    /// Return all entries, run by run.
    pub(in crate::capacity) fn iter<'a, T: Linked<Rank = R>>(
        &'a self,
        slab: &'a Slab<T>,
    ) -> impl Iterator<Item = u32> + 'a {
        let some = |index| (index != NIL).then_some(index);
        self.heads.iter().flat_map(move |(_, head)| {
            std::iter::successors(Some(head), move |&index| some(slab.at(index).links().after))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Linked, Links, RunList};
    use crate::sync::Slab;
    use std::collections::BTreeSet;

    type Rank = (i64, u64);

    struct Record {
        rank: Rank,
        links: Links,
    }

    impl Linked for Record {
        type Rank = Rank;

        fn rank(&self) -> Rank {
            self.rank
        }

        fn links(&self) -> &Links {
            &self.links
        }

        fn links_mut(&mut self) -> &mut Links {
            &mut self.links
        }
    }

    fn record(slab: &mut Slab<Record>, rank: Rank) -> u32 {
        let links = Links::NONE;
        slab.insert(Record { rank, links }).index()
    }

    #[test]
    fn equal_priorities_share_one_run() {
        let (mut runs, mut slab) = (RunList::default(), Slab::new());
        for ticket in 0..1000 {
            let index = record(&mut slab, (0, ticket));
            runs.insert(index, &mut slab);
        }
        assert_eq!((runs.heads.len(), runs.tails.len()), (1, 1));
    }

    #[test]
    fn run_list_agrees_with_a_sorted_set() {
        let (mut runs, mut slab) = (RunList::default(), Slab::new());
        let mut model = BTreeSet::<(Rank, u32)>::new();
        let mut random = 1_u64;
        for ticket in 0..4_000 {
            // Knuth's generator; its high digits are good.
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let due = i64::try_from((random >> 40) % 50).unwrap();
            // The number of entries rises for a while, then falls.
            let is_insertion = (random >> 60) % 4 < if ticket / 500 % 2 == 0 { 3 } else { 1 };
            let somewhere = ((due, 0), 0);
            let removed = match (random >> 56) % 3 {
                0 => model.first(),
                1 => model.last(),
                _ => model.range(somewhere..).next().or(model.first()),
            };
            match removed.copied() {
                Some(entry) if !is_insertion => {
                    model.remove(&entry);
                    runs.remove(entry.1, &mut slab);
                    slab.discard(slab.key_at(entry.1));
                }
                _ => {
                    let index = record(&mut slab, (due, ticket));
                    model.insert((slab.at(index).rank, index));
                    runs.insert(index, &mut slab);
                }
            }
            assert_eq!(runs.first(), model.first().copied());
            assert_eq!(runs.heads.len(), runs.tails.len());
            assert!(runs.heads.len() <= 100, "about one run per priority");
            let mut all: Vec<_> = runs.iter(&slab).collect();
            let mut expected: Vec<_> = model.iter().map(|entry| entry.1).collect();
            all.sort_unstable();
            expected.sort_unstable();
            assert_eq!(all, expected);
        }
    }
}
