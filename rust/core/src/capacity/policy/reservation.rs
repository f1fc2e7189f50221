//! What is kept for waiters that were passed too often.

use super::dispatch::Fit;
use crate::capacity::Resource;
use crate::capacity::index::NIL;
use crate::capacity::model::resource::{Kind, Pool};
use crate::capacity::model::state::State;

impl State {
    /// Notes that a waiter was next and did not fit. From now on whoever takes of what it lacks passes it, also while it is not
    /// even looked at because it lacks something else as well.
    pub(in crate::capacity) fn was_next(&mut self, waiter: u32) {
        self.waiters.at_mut(waiter).was_next = true;
        self.for_bounded(waiter, |pool| pool.push_passed(waiter));
    }

    /// Whether it was passed, or missed slots, as often as may be.
    pub(in crate::capacity) fn was_passed(&self, waiter: u32) -> bool {
        let record = self.waiters.at(waiter);
        record.bypassed.max(record.missed) >= self.passes
    }

    /// Forgets that a waiter was next.
    pub(in crate::capacity) fn forget_next(&mut self, waiter: u32) {
        if std::mem::take(&mut self.waiters.at_mut(waiter).was_next) {
            self.for_bounded(waiter, |pool| pool.remove_passed(waiter));
        }
    }

    /// Changes each pool of slots or of a budget that a waiter draws on.
    fn for_bounded(&mut self, waiter: u32, mut change: impl FnMut(&mut Pool)) {
        let record = self.waiters.at(waiter);
        let (node, cost) = (record.node, record.cost.clone());
        for &(resource, _) in cost.parts() {
            self.for_path(node, |node| {
                let pool = node.pool_mut(resource);
                if let Some(pool) = pool.filter(|pool| pool.kind != Kind::Rate) {
                    change(pool);
                }
            });
        }
    }

    /// Counts who is passed by a grant that is about to take of what they lack, once each. From the last pass allowed on it is
    /// kept for them. Who came before in the same line passes nobody there; nor does, anywhere, who was passed often itself,
    /// unless it is younger.
    pub(in crate::capacity) fn pass(&mut self, granted: u32) {
        let was_passed = self.was_passed(granted);
        let record = self.waiters.at(granted);
        let (node, rank, cost) = (record.node, record.rank, record.cost.clone());
        // Those in front of it in its line were next, whether or not they were looked at.
        let line = &self.nodes.at(node).line;
        let in_front: Vec<_> = line
            .offered()
            .take_while(|&waiter| waiter != granted)
            .filter(|&waiter| !self.waiters.at(waiter).was_next && !self.was_passed(waiter))
            .filter(|&waiter| matches!(self.fit_waiter(waiter), Fit::Short(..)))
            .collect();
        for waiter in in_front {
            self.was_next(waiter);
        }
        let mut passed = Vec::new();
        for at in self.path(node) {
            for &(resource, _) in cost.parts() {
                let Some(pool) = self.nodes.at(at).pool(resource) else {
                    continue;
                };
                for &waiter in pool.passed() {
                    let record = self.waiters.at(waiter);
                    let lacks = record.cost.get(resource).as_micros() > pool.unreserved();
                    let is_behind = (record.node == node || was_passed) && record.rank >= rank;
                    let is_counted = passed.iter().any(|&(other, _, _)| other == waiter);
                    if lacks && !is_behind && !is_counted {
                        passed.push((waiter, at, resource));
                    }
                }
            }
        }
        for (waiter, at, resource) in passed {
            let record = self.waiters.at_mut(waiter);
            record.bypassed += 1;
            let (below, rank) = (record.node, record.rank);
            self.for_path(below, |node| node.bypassed += 1);
            if self.was_passed(waiter) {
                self.forget_next(waiter);
                self.holders.insert(rank, waiter);
                self.reserve(waiter, at, resource);
            }
        }
    }

    /// Keeps for a waiter what it needs of a resource of a node, from now on until it is granted or leaves. Those who are
    /// older and have reservations of their own may still have it, so that of two who wait for each other one gets on.
    pub(in crate::capacity) fn reserve(&mut self, waiter: u32, node: u32, resource: Resource) {
        let record = self.waiters.at(waiter);
        let (rank, amount, below) = (record.rank, record.cost.get(resource), record.node);
        let pool = self.nodes.at_mut(node).pool_mut(resource);
        let pool = pool.expect("a waiter lacks only what is limited");
        if pool.reserve(rank, amount.as_micros()) {
            self.waiters.at_mut(waiter).reserved += 1;
            self.refresh(below);
        }
    }

    /// Keeps nothing for a waiter any more. Follow with a `refresh` of its node.
    pub(in crate::capacity) fn drop_reservations(&mut self, waiter: u32) {
        let record = self.waiters.at_mut(waiter);
        if std::mem::take(&mut record.reserved) == 0 {
            return;
        }
        let (node, rank, cost) = (record.node, record.rank, record.cost.clone());
        for &(resource, _) in cost.parts() {
            let mut at = node;
            while at != NIL {
                let here = self.nodes.at_mut(at);
                if let Some(pool) = here.pool_mut(resource) {
                    pool.unreserve(rank);
                }
                at = here.parent;
            }
        }
    }

    /// The oldest of those who were passed as often as may be that fits by now. For one that does not, what it lacks is kept. Who
    /// waits for time, or for a limit, has nothing kept meanwhile.
    pub(in crate::capacity) fn next_holder(&mut self) -> Option<u32> {
        if self.holders.is_empty() {
            return None;
        }
        let holders: Vec<_> = self.holders.values().copied().collect();
        for waiter in holders {
            if self.keeps_turn(waiter) {
                self.keep_turns(waiter);
            }
            match self.fit_waiter(waiter) {
                Fit::Fits => return Some(waiter),
                // First its quota, then its slots: these would only lie idle until then.
                Fit::Short(..) if self.keeps_turn(waiter) && self.ready_at(waiter) > self.now => {
                    self.drop_reservations(waiter);
                    self.refresh(self.waiters.at(waiter).node);
                }
                Fit::Short(node, resource) => self.reserve(waiter, node, resource),
                fit => {
                    if self.waiters.at(waiter).reserved > 0 && fit != Fit::Parked {
                        self.miss(waiter);
                    }
                    self.drop_reservations(waiter);
                    if fit == Fit::Quota && self.waiters.at(waiter).turns == 0 {
                        self.take_turns(waiter);
                    }
                    self.refresh(self.waiters.at(waiter).node);
                }
            }
        }
        None
    }
}
