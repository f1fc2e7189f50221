//! A sorted line of any length, as a few lists that run through the waiters themselves.
//!
//! Waiters come nearly in order: of equal priority each is behind all who came before. So they are kept as *runs*, lists in
//! order; one who comes is put behind the last of some run or before the first of one, and only if neither can be opens
//! a new one. What has to be searched are the ends of runs, of which there are about as many as priorities in use. Thus a place costs
//! eight bytes, and to come and go the same however many wait.

use super::sorted_set::Ordered;
use crate::capacity::model::node::NIL;
use crate::capacity::model::wait_queue::{Rank, Waiter};
use crate::sync::Slab;

/// The neighbours of a waiter in its run.
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

#[derive(Debug, Default)]
pub(in crate::capacity) struct Runs {
    /// The first and the last of each run.
    heads: Ordered<(Rank, u32)>,
    tails: Ordered<(Rank, u32)>,
}

impl Runs {
    pub(in crate::capacity) fn first(&self) -> Option<(Rank, u32)> {
        self.heads.first()
    }

    pub(in crate::capacity) fn insert(&mut self, waiter: u32, waiters: &mut Slab<Waiter>) {
        let entry = (waiters.at(waiter).rank, waiter);
        let mut links = Links::NONE;
        if let Some(tail) = self.tails.last_below(&entry) {
            links.before = tail.1;
            waiters.at_mut(tail.1).links.after = waiter;
            self.tails.remove(&tail);
            self.tails.insert(entry);
        } else if let Some(head) = self.heads.first() {
            // All tails are above it. A head below it would belong to a run that it can only stand within.
            if head > entry {
                links.after = head.1;
                waiters.at_mut(head.1).links.before = waiter;
                self.heads.remove(&head);
            } else {
                self.tails.insert(entry);
            }
            self.heads.insert(entry);
        } else {
            self.heads.insert(entry);
            self.tails.insert(entry);
        }
        waiters.at_mut(waiter).links = links;
    }

    pub(in crate::capacity) fn remove(&mut self, waiter: u32, waiters: &mut Slab<Waiter>) {
        let record = waiters.at_mut(waiter);
        let entry = (record.rank, waiter);
        let Links { before, after } = std::mem::replace(&mut record.links, Links::NONE);
        if before == NIL {
            self.heads.remove(&entry);
        } else {
            waiters.at_mut(before).links.after = after;
        }
        if after == NIL {
            self.tails.remove(&entry);
        } else {
            waiters.at_mut(after).links.before = before;
        }
        if before == NIL && after != NIL {
            self.heads.insert((waiters.at(after).rank, after));
        }
        if after == NIL && before != NIL {
            self.tails.insert((waiters.at(before).rank, before));
        }
    }

    /// All, run by run.
    pub(in crate::capacity) fn iter<'a>(
        &'a self,
        waiters: &'a Slab<Waiter>,
    ) -> impl Iterator<Item = u32> + 'a {
        let some = |waiter| (waiter != NIL).then_some(waiter);
        self.heads.iter().flat_map(move |(_, head)| {
            std::iter::successors(Some(head), move |&waiter| {
                some(waiters.at(waiter).links.after)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{NIL, Rank, Runs, Waiter};
    use crate::capacity::Cost;
    use crate::capacity::model::wait_queue::Wants;
    use crate::sync::Slab;
    use std::collections::BTreeSet;

    fn waiter(waiters: &mut Slab<Waiter>, due: i64, ticket: u64) -> u32 {
        let rank = Rank { due, ticket };
        let record = Waiter::new(NIL, rank, Cost::slots(1), Wants::New(None), None);
        waiters.insert(record).index()
    }

    #[test]
    fn equals_are_one_run() {
        let (mut runs, mut waiters) = (Runs::default(), Slab::new());
        for ticket in 0..1000 {
            let waiter = waiter(&mut waiters, 0, ticket);
            runs.insert(waiter, &mut waiters);
        }
        assert_eq!((runs.heads.len(), runs.tails.len()), (1, 1));
    }

    #[test]
    fn the_first_is_known_whoever_comes_and_goes() {
        let (mut runs, mut waiters) = (Runs::default(), Slab::new());
        let mut model = BTreeSet::<(Rank, u32)>::new();
        let mut dice = 1_u64;
        for ticket in 0..4_000 {
            // Knuth's generator; its high digits are good.
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let due = i64::try_from((dice >> 40) % 50).unwrap();
            // They become more for a while, then fewer.
            let comes = (dice >> 60) % 4 < if ticket / 500 % 2 == 0 { 3 } else { 1 };
            let somewhere = (Rank { due, ticket: 0 }, 0);
            let goes = match (dice >> 56) % 3 {
                0 => model.first(),
                1 => model.last(),
                _ => model.range(somewhere..).next().or(model.first()),
            };
            match goes.copied() {
                Some(entry) if !comes => {
                    model.remove(&entry);
                    runs.remove(entry.1, &mut waiters);
                    waiters.discard(waiters.key_at(entry.1));
                }
                _ => {
                    let waiter = waiter(&mut waiters, due, ticket);
                    model.insert((waiters.at(waiter).rank, waiter));
                    runs.insert(waiter, &mut waiters);
                }
            }
            assert_eq!(runs.first(), model.first().copied());
            assert_eq!(runs.heads.len(), runs.tails.len());
            assert!(runs.heads.len() <= 100, "as many as priorities, about");
            let mut all: Vec<_> = runs.iter(&waiters).collect();
            let mut expected: Vec<_> = model.iter().map(|entry| entry.1).collect();
            all.sort_unstable();
            expected.sort_unstable();
            assert_eq!(all, expected);
        }
    }
}
