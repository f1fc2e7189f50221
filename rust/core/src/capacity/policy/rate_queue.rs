//! Waiting for time: whose turn it is at a rate, and when to look again.

use super::dispatch::Fit;
use crate::capacity::index::NIL;
use crate::capacity::model::resource::Bound;
use crate::capacity::model::state::State;
use crate::capacity::model::waiter::Rank;
use crate::capacity::{Cost, Resource, Time};
use crate::sync::WakeList;
use std::time::Duration;

impl State {
    /// Gives a waiter the turn at each rate of its path that is not ready for it; all others there wait behind.
    ///
    /// It takes no more than the turn: slots and budgets stay free, and a rate that is ready is others' to use.
    pub(in crate::capacity) fn take_turns(&mut self, waiter: u32) {
        let record = self.waiters.at(waiter);
        let (node, cost, now) = (record.node, record.cost.clone(), self.now);
        let mut turns = 0;
        for &(resource, amount) in cost.parts() {
            let mut at = node;
            while at != NIL {
                let here = self.nodes.at_mut(at);
                let parent = here.parent;
                if let Some(pool) = here.pool_mut(resource)
                    && pool.turn.is_none()
                {
                    let ready = pool.ready_at(amount.as_micros(), now);
                    if let Bound::Rate(rate) = &mut pool.bound
                        && ready > now
                    {
                        rate.wait();
                        pool.turn = Some(waiter);
                        pool.scarce = true;
                        turns += 1;
                        self.set_timer(at, Some(resource), Some(ready));
                    }
                }
                at = parent;
            }
        }
        self.waiters.at_mut(waiter).turns = turns;
        self.refresh(node);
    }

    /// Gives a waiter that missed too much the turn at each rate of its path that it [needs](Self::quota_at) by now, ready or not,
    /// until it is granted, but for those that an older one of its kind has. While a pause or a limit holds it up it has none.
    ///
    /// Waiters that lack time alone keep theirs: it comes. Of two waiters that keep theirs, and would wait for each other, one is older.
    pub(in crate::capacity) fn keep_turns(&mut self, waiter: u32) {
        if self.fit_waiter(waiter) == Fit::Parked {
            self.drop_turns(waiter);
            return;
        }
        let record = self.waiters.at(waiter);
        let (node, cost, now) = (record.node, record.cost.clone(), self.now);
        let last = self.quota_at(waiter);
        for &(resource, amount) in cost.parts() {
            let amount = amount.as_micros();
            let mut at = node;
            while at != NIL {
                let here = self.nodes.at(at);
                let parent = here.parent;
                if let Some(pool) = here.pool(resource)
                    && let Bound::Rate(rate) = &pool.bound
                {
                    // Others may use this rate for as long as it brings the cost once more before the last rate is ready.
                    let again = Duration::from_nanos(rate.worth(amount));
                    let is_needed = last <= pool.ready_at(amount, now).after(again);
                    let other = pool.turn;
                    if other == Some(waiter) {
                        if !is_needed {
                            self.give_up_turn(at, resource, waiter);
                        }
                    } else if is_needed && other.is_none_or(|other| self.yields(other, waiter)) {
                        self.pass_turn(at, resource, other, waiter);
                    }
                }
                at = parent;
            }
        }
    }

    /// Whether a waiter that keeps its turns gives one to another that keeps its own: to an older one.
    fn yields(&self, waiter: u32, to: u32) -> bool {
        self.keeps_turn(waiter) && self.waiters.at(waiter).rank > self.waiters.at(to).rank
    }

    /// When the last of its rates is ready for a waiter that keeps its turns: not before another's turn there is over.
    fn quota_at(&self, waiter: u32) -> Time {
        let record = self.waiters.at(waiter);
        let mut last = self.ready_at(waiter);
        for at in self.path(record.node) {
            for &(resource, _) in record.cost.parts() {
                if let Some(pool) = self.nodes.at(at).pool(resource)
                    && let Some(other) = pool.turn.filter(|&other| other != waiter)
                    && !self.yields(other, waiter)
                {
                    last = last.max(pool.timer.unwrap_or(self.now));
                }
            }
        }
        last
    }

    /// When the last of its rates has brought what a waiter needs, whoever has the turn.
    pub(in crate::capacity) fn ready_at(&self, waiter: u32) -> Time {
        let (record, now) = (self.waiters.at(waiter), self.now);
        let pools = self.path(record.node).flat_map(|at| {
            let parts = record.cost.parts().iter();
            parts.filter_map(move |&(resource, amount)| {
                let pool = self.nodes.at(at).pool(resource)?;
                Some(pool.ready_at(amount.as_micros(), now))
            })
        });
        pools.fold(now, Time::max)
    }

    /// Whether a waiter lacks quota of a rate at which it does not have the turn.
    fn lacks_other_turns(&self, waiter: u32) -> bool {
        let (record, now) = (self.waiters.at(waiter), self.now);
        self.path(record.node).any(|at| {
            record.cost.parts().iter().any(|&(resource, amount)| {
                let pool = self.nodes.at(at).pool(resource);
                pool.is_some_and(|pool| {
                    let is_ready = pool.ready_at(amount.as_micros(), now) <= now;
                    pool.turn != Some(waiter) && (pool.turn.is_some() || !is_ready)
                })
            })
        })
    }

    /// Whether a waiter that is about to [take turns](Self::take_turns) takes one that another waiter needs.
    pub(in crate::capacity) fn takes_turn_of(&self, taking: u32, other: u32) -> bool {
        let (taking, other) = (self.waiters.at(taking), self.waiters.at(other));
        self.path(taking.node).any(|at| {
            self.is_below(other.node, at)
                && taking.cost.parts().iter().any(|&(resource, amount)| {
                    let pool = self.nodes.at(at).pool(resource);
                    let is_taken = pool.is_some_and(|pool| {
                        pool.turn.is_none()
                            && pool.ready_at(amount.as_micros(), self.now) > self.now
                    });
                    is_taken && !other.cost.get(resource).is_zero()
                })
        })
    }

    /// Takes the turns from waiters behind a newcomer in its own line, so that priority counts for quota as it does for slots. Nothing
    /// is lost by it: what the rate brought meanwhile is there. Follow with a `refresh` of the node.
    pub(in crate::capacity) fn take_precedence(&mut self, node: u32, rank: Rank, cost: &Cost) {
        let mut later = Vec::new();
        for at in self.path(node) {
            for &(resource, _) in cost.parts() {
                if let Some(other) = self.nodes.at(at).pool(resource).and_then(|pool| pool.turn) {
                    let record = self.waiters.at(other);
                    if record.node == node && record.rank > rank && !self.keeps_turn(other) {
                        later.push(other);
                    }
                }
            }
        }
        for other in later {
            self.drop_turns(other);
        }
    }

    /// Ends one turn of a waiter.
    fn give_up_turn(&mut self, node: u32, resource: Resource, waiter: u32) {
        self.waiters.at_mut(waiter).turns -= 1;
        if let Some(pool) = self.nodes.at_mut(node).pool_mut(resource) {
            pool.turn = None;
        }
        self.set_timer(node, Some(resource), None);
        self.refresh(node);
    }

    /// The turn at a rate goes from one waiter, if anybody has it, to another.
    fn pass_turn(&mut self, node: u32, resource: Resource, from: Option<u32>, to: u32) {
        if let Some(from) = from {
            self.waiters.at_mut(from).turns -= 1;
        }
        self.waiters.at_mut(to).turns += 1;
        if let Some(pool) = self.nodes.at_mut(node).pool_mut(resource) {
            pool.turn = Some(to);
            pool.scarce = true;
        }
        self.rearm(node, resource);
        self.refresh(node);
    }

    /// Takes all turns from a waiter. Follow with a `refresh` of its node.
    pub(in crate::capacity) fn drop_turns(&mut self, waiter: u32) {
        let record = self.waiters.at_mut(waiter);
        if std::mem::take(&mut record.turns) == 0 {
            return;
        }
        let (node, cost) = (record.node, record.cost.clone());
        for &(resource, _) in cost.parts() {
            let mut at = node;
            while at != NIL {
                let here = self.nodes.at_mut(at);
                let parent = here.parent;
                if let Some(pool) = here.pool_mut(resource)
                    && pool.turn == Some(waiter)
                {
                    pool.turn = None;
                    self.set_timer(at, Some(resource), None);
                }
                at = parent;
            }
        }
    }

    /// When to look again at a resource of a node, or at the node itself; `None` for not at all.
    pub(in crate::capacity) fn set_timer(
        &mut self,
        node: u32,
        resource: Option<Resource>,
        at: Option<Time>,
    ) {
        let here = self.nodes.at_mut(node);
        let timer = match resource {
            None => &mut here.timer,
            Some(resource) => match here.pool_mut(resource) {
                Some(pool) => &mut pool.timer,
                None => return,
            },
        };
        let before = std::mem::replace(timer, at);
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.timers.remove(&(before, node, resource));
        }
        if let Some(at) = at {
            self.timers.insert((at, node, resource));
        }
    }

    /// [`rearm`](Self::rearm) for each part of a cost, at a node and all above it.
    pub(in crate::capacity) fn rearm_path(&mut self, node: u32, cost: &Cost) {
        for &(resource, _) in cost.parts() {
            let mut at = node;
            while at != NIL {
                let parent = self.nodes.at(at).parent;
                self.rearm(at, resource);
                at = parent;
            }
        }
    }

    /// Looks anew when a rate is ready for whose turn it is, since something was taken or given back.
    fn rearm(&mut self, node: u32, resource: Resource) {
        let now = self.now;
        if let Some(pool) = self.nodes.at(node).pool(resource)
            && let Some(waiter) = pool.turn
        {
            let amount = self.waiters.at(waiter).cost.get(resource);
            let ready = pool.ready_at(amount.as_micros(), now);
            // Who keeps the turn until slots are there waits for time no longer than that.
            let is_over = ready <= now && self.keeps_turn(waiter);
            self.set_timer(node, Some(resource), (!is_over).then_some(ready));
        }
    }

    /// Takes the turn from those who do not wait for time alone any more, because a pause or a limit is in the way now.
    pub(in crate::capacity) fn check_turns(&mut self) {
        self.rearm_kept();
        let due: Vec<_> = self.timers.iter().collect();
        for (_, node, resource) in due {
            if let Some(resource) = resource {
                self.rearm(node, resource);
                self.check_turn(node, resource);
            }
        }
    }

    /// Who keeps its turn at a rate that was ready has no timer there; and it may not be ready any more.
    fn rearm_kept(&mut self) {
        let holders = self.holders.values().copied();
        let kept: Vec<_> = holders.filter(|&holder| self.keeps_turn(holder)).collect();
        for waiter in kept {
            let record = self.waiters.at(waiter);
            let (node, cost) = (record.node, record.cost.clone());
            self.rearm_path(node, &cost);
        }
    }

    fn check_turn(&mut self, node: u32, resource: Resource) {
        let turn = self
            .nodes
            .at(node)
            .pool(resource)
            .and_then(|pool| pool.turn);
        if let Some(waiter) = turn
            && !self.keeps_turn(waiter)
            && !matches!(self.fit_waiter(waiter), Fit::Fits | Fit::Quota)
        {
            self.drop_turns(waiter);
            self.refresh(self.waiters.at(waiter).node);
        }
    }

    /// Grants to those for whom time has come, and opens what was shut for a time.
    pub(in crate::capacity) fn fire(&mut self, wakes: &mut WakeList) {
        while let Some((due, node, resource)) = self.timers.first()
            && due <= self.now
        {
            self.set_timer(node, resource, None);
            let turn = resource.and_then(|resource| {
                let pool = self.nodes.at(node).pool(resource)?;
                Some((pool.turn?, resource))
            });
            let Some((waiter, resource)) = turn else {
                self.refresh(node);
                continue;
            };
            let fit = self.fit_waiter(waiter);
            if matches!(fit, Fit::Quota | Fit::Behind)
                && !self.keeps_turn(waiter)
                && self.lacks_other_turns(waiter)
            {
                self.miss(waiter);
            }
            match fit {
                Fit::Fits => self.grant(waiter, wakes),
                // It is looked at in a moment, with all that it keeps.
                _ if self.keeps_turn(waiter) => self.rearm(node, resource),
                Fit::Quota => {
                    // Another rate is not ready, or this one no longer: it waits there, and only there.
                    self.drop_turns(waiter);
                    self.take_turns(waiter);
                    self.refresh(node);
                }
                _ => {
                    self.drop_turns(waiter);
                    self.refresh(self.waiters.at(waiter).node);
                }
            }
        }
    }
}
