//! Waiting for time: whose turn it is at a rate, and when to look again.

use super::dispatch::Fit;
use super::node::NIL;
use super::pool::Bound;
use super::state::State;
use super::{Cost, Resource, Time};
use crate::sync::WakeList;

impl State {
    /// Gives a waiter the turn at each rate of its path that is not ready for it; all others there wait behind.
    ///
    /// It takes no more than the turn: slots and budgets stay free, and a rate that is ready is others' to use.
    pub(super) fn take_turns(&mut self, waiter: u32) {
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

    /// Gives a waiter that missed slots too often the turn at each rate of its path, ready or not, until it is granted, but for those
    /// that an older one of its kind has. While it is held up for other reasons than these it has none.
    ///
    /// Others who wait for time alone keep theirs: it comes. Of two who keep theirs, and would wait for each other, one is older.
    pub(super) fn keep_turns(&mut self, waiter: u32) {
        if self.fit_waiter(waiter) == Fit::Parked {
            self.drop_turns(waiter);
            return;
        }
        let record = self.waiters.at(waiter);
        let (node, rank, cost) = (record.node, record.rank, record.cost.clone());
        for &(resource, _) in cost.parts() {
            let mut at = node;
            while at != NIL {
                let here = self.nodes.at(at);
                let parent = here.parent;
                if let Some(pool) = here.pool(resource)
                    && let Bound::Rate(_) = pool.bound
                    && pool.turn != Some(waiter)
                {
                    let other = pool.turn;
                    let is_free = other.is_none_or(|other| {
                        self.keeps_turn(other) && self.waiters.at(other).rank > rank
                    });
                    if is_free {
                        self.pass_turn(at, resource, other, waiter);
                    }
                }
                at = parent;
            }
        }
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
    pub(super) fn drop_turns(&mut self, waiter: u32) {
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
    pub(super) fn set_timer(&mut self, node: u32, resource: Option<Resource>, at: Option<Time>) {
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
    pub(super) fn rearm_path(&mut self, node: u32, cost: &Cost) {
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
    pub(super) fn check_turns(&mut self) {
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
    pub(super) fn fire(&mut self, wakes: &mut WakeList) {
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
            match self.fit_waiter(waiter) {
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
