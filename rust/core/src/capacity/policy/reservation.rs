//! Reservations for waiters that were passed too often.

use super::dispatch::FitResult;
use crate::capacity::ResourceId;
use crate::capacity::index::NIL;
use crate::capacity::model::resource::{Resource, ResourceKind};
use crate::capacity::model::state::State;

impl State {
    /// Note that a waiter was next and did not fit.
    ///
    /// From now on each grant of a resource that it lacks passes it, even while it is not visited for lack of something else.
    pub(in crate::capacity) fn mark_next(&mut self, waiter: u32) {
        self.waiters.at_mut(waiter).was_next = true;
        self.for_held_resources(waiter, |resource| resource.push_passed_over(waiter));
    }

    /// Return whether a waiter was passed, or missed capacity, as often as allowed.
    pub(in crate::capacity) fn is_starved(&self, waiter: u32) -> bool {
        let record = self.waiters.at(waiter);
        record.bypassed.max(record.missed) >= self.passes
    }

    /// Forget that a waiter was next.
    pub(in crate::capacity) fn forget_next(&mut self, waiter: u32) {
        if std::mem::take(&mut self.waiters.at_mut(waiter).was_next) {
            self.for_held_resources(waiter, |resource| resource.remove_passed_over(waiter));
        }
    }

    /// Change each slots or budget resource that a waiter needs.
    fn for_held_resources(&mut self, waiter: u32, mut change: impl FnMut(&mut Resource)) {
        let record = self.waiters.at(waiter);
        let (node, cost) = (record.node, record.cost.clone());
        for &(id, _) in cost.parts() {
            self.for_path(node, |node| {
                let resource = node.resource_mut(id);
                if let Some(resource) =
                    resource.filter(|resource| resource.kind != ResourceKind::Rate)
                {
                    change(resource);
                }
            });
        }
    }

    /// Count a pass for each waiter that lacks a resource of a grant about to be made, and reserve the resource after the last pass.
    ///
    /// An earlier waiter of the same queue passes no later one. A starved waiter passes only older ones, in any queue.
    pub(in crate::capacity) fn pass(&mut self, granted: u32) {
        let is_starved = self.is_starved(granted);
        let record = self.waiters.at(granted);
        let (node, rank, cost) = (record.node, record.rank, record.cost.clone());
        // Earlier waiters of the same queue were next, whether or not they were visited.
        let queue = &self.nodes.at(node).queue;
        let in_front: Vec<_> = queue
            .offered()
            .take_while(|&waiter| waiter != granted)
            .filter(|&waiter| !self.waiters.at(waiter).was_next && !self.is_starved(waiter))
            .filter(|&waiter| matches!(self.fit_waiter(waiter), FitResult::Short(..)))
            .collect();
        for waiter in in_front {
            self.mark_next(waiter);
        }
        let mut passed_over = Vec::new();
        for at in self.path(node) {
            for &(id, _) in cost.parts() {
                let Some(resource) = self.nodes.at(at).resource(id) else {
                    continue;
                };
                for &waiter in resource.passed_over() {
                    let record = self.waiters.at(waiter);
                    let lacks = record.cost.get(id).as_micros() > resource.unreserved();
                    let is_behind = (record.node == node || is_starved) && record.rank >= rank;
                    let is_counted = passed_over.iter().any(|&(other, _, _)| other == waiter);
                    if lacks && !is_behind && !is_counted {
                        passed_over.push((waiter, at, id));
                    }
                }
            }
        }
        for (waiter, at, id) in passed_over {
            let record = self.waiters.at_mut(waiter);
            record.bypassed += 1;
            let (below, rank) = (record.node, record.rank);
            self.for_path(below, |node| node.bypassed += 1);
            if self.is_starved(waiter) {
                self.forget_next(waiter);
                self.reservation_holders.insert(rank, waiter);
                self.reserve(waiter, at, id);
            }
        }
    }

    /// Reserve a resource of a node for a waiter until it is granted or leaves.
    ///
    /// Older waiters that have reservations may still use it. So of two waiters that wait for each other, one is granted.
    pub(in crate::capacity) fn reserve(&mut self, waiter: u32, node: u32, id: ResourceId) {
        let record = self.waiters.at(waiter);
        let (rank, amount, below) = (record.rank, record.cost.get(id), record.node);
        let resource = self.nodes.at_mut(node).resource_mut(id);
        let resource = resource.expect("a waiter lacks only what is limited");
        if resource.reserve(rank, amount.as_micros()) {
            self.waiters.at_mut(waiter).reserved += 1;
            self.refresh(below);
        }
    }

    /// Reserve each slots or budget resource that a starved waiter lacks.
    ///
    /// All of them: a pause drops the reservations, and afterwards the waiter may first lack another resource than the one on
    /// which it was passed as often as allowed.
    fn reserve_lacking(&mut self, waiter: u32) {
        let record = self.waiters.at(waiter);
        let (node, rank, cost) = (record.node, record.rank, record.cost.clone());
        let mut at = node;
        while at != NIL {
            for &(id, amount) in cost.parts() {
                let resource = self.nodes.at(at).resource(id);
                let resource = resource.filter(|resource| resource.kind != ResourceKind::Rate);
                if resource.is_some_and(|resource| amount.as_micros() > resource.free_for(rank)) {
                    self.reserve(waiter, at, id);
                }
            }
            at = self.nodes.at(at).parent;
        }
    }

    /// Drop all reservations of a waiter. Must be followed by a `refresh` of its node.
    pub(in crate::capacity) fn drop_reservations(&mut self, waiter: u32) {
        let record = self.waiters.at_mut(waiter);
        if std::mem::take(&mut record.reserved) == 0 {
            return;
        }
        let (node, rank, cost) = (record.node, record.rank, record.cost.clone());
        for &(id, _) in cost.parts() {
            let mut at = node;
            while at != NIL {
                let here = self.nodes.at_mut(at);
                if let Some(resource) = here.resource_mut(id) {
                    resource.unreserve(rank);
                }
                at = here.parent;
            }
        }
    }

    /// Return the oldest starved waiter that fits, and reserve what the older ones lack.
    ///
    /// Waiters that wait for time or for a limit have no reservations meanwhile.
    pub(in crate::capacity) fn next_holder(&mut self) -> Option<u32> {
        if self.reservation_holders.is_empty() {
            return None;
        }
        let reservation_holders: Vec<_> = self.reservation_holders.values().copied().collect();
        for waiter in reservation_holders {
            if self.keeps_rate_head(waiter) {
                self.keep_rate_heads(waiter);
            }
            match self.fit_waiter(waiter) {
                FitResult::Fits => return Some(waiter),
                // Quota first: slots would lie idle until it is ready.
                FitResult::Short(..)
                    if self.keeps_rate_head(waiter) && self.ready_at(waiter) > self.now =>
                {
                    self.drop_reservations(waiter);
                    self.refresh(self.waiters.at(waiter).node);
                }
                FitResult::Short(..) => self.reserve_lacking(waiter),
                fit => {
                    if self.waiters.at(waiter).reserved > 0 && fit != FitResult::Parked {
                        self.miss(waiter);
                    }
                    self.drop_reservations(waiter);
                    if fit == FitResult::Quota && self.waiters.at(waiter).rates_headed == 0 {
                        self.take_rate_heads(waiter);
                    }
                    self.refresh(self.waiters.at(waiter).node);
                }
            }
        }
        None
    }
}
