//! The queue at a rate: its head, and the timers of the tree.
//! `dispatch.rs` chooses the heads and fires the timers; `reconfigure.rs` checks the heads after a new limit or a
//! pause.
//!
//! The *head* of a rate is the one waiter that takes the next quota; all other waiters that need the rate are behind it.

use super::dispatch::FitResult;
use crate::capacity::index::NIL;
use crate::capacity::model::resource::LimitState;
use crate::capacity::model::state::State;
use crate::capacity::model::waiter::Rank;
use crate::capacity::{Cost, ResourceId, Time};
use crate::sync::WakeList;
use std::time::Duration;

impl State {
    /// Make a waiter the head of each rate of its path that is not ready for it. All other waiters there are behind it.
    ///
    /// It reserves nothing else: slots and budgets stay free, and other waiters may use a rate that is ready.
    pub(in crate::capacity) fn take_rate_heads(&mut self, waiter: u32) {
        let record = self.waiters.at(waiter);
        let (node, cost, now) = (record.node, record.cost.clone(), self.now);
        let mut rates_headed = 0;
        for &(id, amount) in cost.parts() {
            let mut at = node;
            while at != NIL {
                let here = self.nodes.at_mut(at);
                let parent = here.parent;
                if let Some(resource) = here.resource_mut(id)
                    && resource.head.is_none()
                {
                    let ready = resource.ready_at(amount.as_micros(), now);
                    if let LimitState::Rate(rate) = &mut resource.limit
                        && ready > now
                    {
                        rate.wait();
                        resource.head = Some(waiter);
                        resource.contended = true;
                        rates_headed += 1;
                        self.set_timer(at, Some(id), Some(ready));
                    }
                }
                at = parent;
            }
        }
        self.waiters.at_mut(waiter).rates_headed = rates_headed;
        self.refresh(node);
    }

    /// Make a waiter that keeps its heads the head of each rate that it [needs](Self::quota_at) now, ready or not, until it is
    /// granted. An older waiter that keeps its heads stays the head. A waiter that a pause or a limit holds up has no heads.
    ///
    /// Waiters that lack only time keep theirs, as the time passes. Of two waiters that keep theirs and wait for each other, one is older.
    pub(in crate::capacity) fn keep_rate_heads(&mut self, waiter: u32) {
        if self.fit_waiter(waiter) == FitResult::Parked {
            self.drop_rate_heads(waiter);
            return;
        }
        let record = self.waiters.at(waiter);
        let (node, cost, now) = (record.node, record.cost.clone(), self.now);
        let last = self.quota_at(waiter);
        for &(id, amount) in cost.parts() {
            let amount = amount.as_micros();
            let mut at = node;
            while at != NIL {
                let here = self.nodes.at(at);
                let parent = here.parent;
                if let Some(resource) = here.resource(id)
                    && let LimitState::Rate(rate) = &resource.limit
                {
                    // Others may use this rate while it can bring the cost once more before the last rate is ready.
                    let again = Duration::from_nanos(rate.worth(amount));
                    let is_needed = last <= resource.ready_at(amount, now).after(again);
                    let other = resource.head;
                    if other == Some(waiter) {
                        if !is_needed {
                            self.give_up_rate_head(at, id, waiter);
                        }
                    } else if is_needed && other.is_none_or(|other| self.yields(other, waiter)) {
                        self.pass_rate_head(at, id, other, waiter);
                    }
                }
                at = parent;
            }
        }
    }

    /// Return whether a waiter that keeps its heads yields one to another: only to an older one that keeps its own.
    fn yields(&self, waiter: u32, to: u32) -> bool {
        self.keeps_rate_head(waiter) && self.waiters.at(waiter).rank > self.waiters.at(to).rank
    }

    /// Return when the last rate is ready for a waiter that keeps its heads: not before another waiter there stops being the head.
    fn quota_at(&self, waiter: u32) -> Time {
        let record = self.waiters.at(waiter);
        let mut last = self.ready_at(waiter);
        for at in self.path(record.node) {
            for &(id, _) in record.cost.parts() {
                if let Some(resource) = self.nodes.at(at).resource(id)
                    && let Some(other) = resource.head.filter(|&other| other != waiter)
                    && !self.yields(other, waiter)
                {
                    last = last.max(resource.timer.unwrap_or(self.now));
                }
            }
        }
        last
    }

    /// Return when the last rate has brought the quota that a waiter needs, whichever waiter is the head.
    pub(in crate::capacity) fn ready_at(&self, waiter: u32) -> Time {
        let (record, now) = (self.waiters.at(waiter), self.now);
        let resources = self.path(record.node).flat_map(|at| {
            let parts = record.cost.parts().iter();
            parts.filter_map(move |&(id, amount)| {
                let resource = self.nodes.at(at).resource(id)?;
                Some(resource.ready_at(amount.as_micros(), now))
            })
        });
        resources.fold(now, Time::max)
    }

    /// Return whether a waiter lacks quota of a rate whose head it is not.
    fn lacks_other_rates(&self, waiter: u32) -> bool {
        let (record, now) = (self.waiters.at(waiter), self.now);
        self.path(record.node).any(|at| {
            record.cost.parts().iter().any(|&(id, amount)| {
                let resource = self.nodes.at(at).resource(id);
                resource.is_some_and(|resource| {
                    let is_ready = resource.ready_at(amount.as_micros(), now) <= now;
                    resource.head != Some(waiter) && (resource.head.is_some() || !is_ready)
                })
            })
        })
    }

    /// Return whether a waiter that is about to [become a head](Self::take_rate_heads) does so at a rate that another
    /// waiter needs.
    pub(in crate::capacity) fn takes_rate_head_from(&self, taking: u32, other: u32) -> bool {
        let (taking, other) = (self.waiters.at(taking), self.waiters.at(other));
        self.path(taking.node).any(|at| {
            self.is_below(other.node, at)
                && taking.cost.parts().iter().any(|&(id, amount)| {
                    let resource = self.nodes.at(at).resource(id);
                    let is_taken = resource.is_some_and(|resource| {
                        resource.head.is_none()
                            && resource.ready_at(amount.as_micros(), self.now) > self.now
                    });
                    is_taken && !other.cost.get(id).is_zero()
                })
        })
    }

    /// Replace the heads that rank behind a new waiter of their own queue, so that priority counts for quota as it does for slots.
    ///
    /// Nothing is lost: quota that the rate has brought meanwhile stays. Must be followed by a `refresh` of the node.
    pub(in crate::capacity) fn take_precedence(&mut self, node: u32, rank: Rank, cost: &Cost) {
        let mut later = Vec::new();
        for at in self.path(node) {
            for &(id, _) in cost.parts() {
                if let Some(other) = self
                    .nodes
                    .at(at)
                    .resource(id)
                    .and_then(|resource| resource.head)
                {
                    let record = self.waiters.at(other);
                    if record.node == node && record.rank > rank && !self.keeps_rate_head(other) {
                        later.push(other);
                    }
                }
            }
        }
        for other in later {
            self.drop_rate_heads(other);
        }
    }

    /// Replace the heads that the shares order behind a new waiter of another node, if its node would have been first when they were chosen.
    ///
    /// A client that requests once more after each grant is never queued at that moment: the next head is chosen in the step that
    /// grants its last request. Two such clients would get equal parts of a rate, whatever their weights. Must be preceded by a
    /// `refresh` of the node.
    pub(in crate::capacity) fn return_before_heads(&mut self, waiter: u32) {
        if self.fit_waiter(waiter) != FitResult::BehindHead {
            return;
        }
        let record = self.waiters.at(waiter);
        let node = record.node;
        let mut later = Vec::new();
        for at in self.path(node) {
            for &(id, _) in record.cost.parts() {
                let resource = self.nodes.at(at).resource(id);
                if let Some(other) = resource.and_then(|resource| resource.head)
                    && !self.keeps_rate_head(other)
                    && self.returns_before(node, self.waiters.at(other).node)
                {
                    later.push(other);
                }
            }
        }
        for other in later {
            self.drop_rate_heads(other);
            self.refresh(self.waiters.at(other).node);
        }
    }

    /// Return whether a node precedes another one by its share, where their paths meet, and was away there for no grant.
    ///
    /// A longer absence makes it a newcomer. It precedes no head, as any number of newcomers could.
    fn returns_before(&self, node: u32, other: u32) -> bool {
        let meets = self.path(node).find(|&at| self.is_below(other, at));
        let Some(parent) = meets.filter(|_| node != other) else {
            return false;
        };
        let share_of = |node| {
            let child = self.path(node).take_while(|&at| at != parent).last();
            self.share(parent, child.unwrap_or(parent))
        };
        let (share, other) = (share_of(node), share_of(other));
        share.tag < other.tag && share.left >= self.nodes.at(parent).last_grant
    }

    /// Remove a waiter from the head of one rate.
    fn give_up_rate_head(&mut self, node: u32, id: ResourceId, waiter: u32) {
        self.waiters.at_mut(waiter).rates_headed -= 1;
        if let Some(resource) = self.nodes.at_mut(node).resource_mut(id) {
            resource.head = None;
        }
        self.set_timer(node, Some(id), None);
        self.refresh(node);
    }

    /// Make `to` the head of a rate in the place of `from`, if there is one.
    fn pass_rate_head(&mut self, node: u32, id: ResourceId, from: Option<u32>, to: u32) {
        if let Some(from) = from {
            self.waiters.at_mut(from).rates_headed -= 1;
        }
        self.waiters.at_mut(to).rates_headed += 1;
        if let Some(resource) = self.nodes.at_mut(node).resource_mut(id) {
            resource.head = Some(to);
            resource.contended = true;
        }
        self.rearm(node, id);
        self.refresh(node);
    }

    /// Remove a waiter from the head of all its rates. Must be followed by a `refresh` of its node.
    pub(in crate::capacity) fn drop_rate_heads(&mut self, waiter: u32) {
        let record = self.waiters.at_mut(waiter);
        if std::mem::take(&mut record.rates_headed) == 0 {
            return;
        }
        let (node, cost) = (record.node, record.cost.clone());
        for &(id, _) in cost.parts() {
            let mut at = node;
            while at != NIL {
                let here = self.nodes.at_mut(at);
                let parent = here.parent;
                if let Some(resource) = here.resource_mut(id)
                    && resource.head == Some(waiter)
                {
                    resource.head = None;
                    self.set_timer(at, Some(id), None);
                }
                at = parent;
            }
        }
    }

    /// Set the timer of a resource of a node, or of the node itself; `None` removes it.
    pub(in crate::capacity) fn set_timer(
        &mut self,
        node: u32,
        id: Option<ResourceId>,
        at: Option<Time>,
    ) {
        let here = self.nodes.at_mut(node);
        let timer = match id {
            None => &mut here.timer,
            Some(id) => match here.resource_mut(id) {
                Some(resource) => &mut resource.timer,
                None => return,
            },
        };
        let before = std::mem::replace(timer, at);
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.timers.remove(&(before, node, id));
        }
        if let Some(at) = at {
            self.timers.insert((at, node, id));
        }
    }

    /// [`rearm`](Self::rearm) each resource of a cost, at a node and all its ancestors.
    pub(in crate::capacity) fn rearm_path(&mut self, node: u32, cost: &Cost) {
        for &(id, _) in cost.parts() {
            let mut at = node;
            while at != NIL {
                let parent = self.nodes.at(at).parent;
                self.rearm(at, id);
                at = parent;
            }
        }
    }

    /// Update the timer of a rate's head after the rate was taken from or refunded.
    fn rearm(&mut self, node: u32, id: ResourceId) {
        let now = self.now;
        if let Some(resource) = self.nodes.at(node).resource(id)
            && let Some(waiter) = resource.head
        {
            let amount = self.waiters.at(waiter).cost.get(id);
            let ready = resource.ready_at(amount.as_micros(), now);
            // A head that is kept until slots are free needs no timer once its quota is ready.
            let is_over = ready <= now && self.keeps_rate_head(waiter);
            self.set_timer(node, Some(id), (!is_over).then_some(ready));
        }
    }

    /// Remove the heads that no longer wait for time alone, because of a pause or a limit.
    pub(in crate::capacity) fn check_rate_heads(&mut self) {
        self.rearm_kept();
        let due: Vec<_> = self.timers.iter().collect();
        for (_, node, id) in due {
            if let Some(id) = id {
                self.rearm(node, id);
                self.check_rate_head(node, id);
            }
        }
    }

    /// Update timers of kept heads: a rate that was ready has no timer, and may be no longer ready.
    fn rearm_kept(&mut self) {
        let reservation_holders = self.reservation_holders.values().copied();
        let kept: Vec<_> = reservation_holders
            .filter(|&holder| self.keeps_rate_head(holder))
            .collect();
        for waiter in kept {
            let record = self.waiters.at(waiter);
            let (node, cost) = (record.node, record.cost.clone());
            self.rearm_path(node, &cost);
        }
    }

    fn check_rate_head(&mut self, node: u32, id: ResourceId) {
        let head = self
            .nodes
            .at(node)
            .resource(id)
            .and_then(|resource| resource.head);
        if let Some(waiter) = head
            && !self.keeps_rate_head(waiter)
            && !matches!(self.fit_waiter(waiter), FitResult::Fits | FitResult::Quota)
        {
            self.drop_rate_heads(waiter);
            self.refresh(self.waiters.at(waiter).node);
        }
    }

    /// Grant the waiters whose time has come, and open or ramp up nodes that were cooled down.
    pub(in crate::capacity) fn fire_timers(&mut self, wakes: &mut WakeList) {
        while let Some((due, node, id)) = self.timers.first()
            && due <= self.now
        {
            self.set_timer(node, id, None);
            let head = id.and_then(|id| {
                let resource = self.nodes.at(node).resource(id)?;
                Some((resource.head?, id))
            });
            let Some((waiter, id)) = head else {
                if id.is_none() {
                    self.ramp_up(node, due);
                }
                self.refresh(node);
                continue;
            };
            let fit = self.fit_waiter(waiter);
            if matches!(fit, FitResult::Quota | FitResult::BehindHead)
                && !self.keeps_rate_head(waiter)
                && self.lacks_other_rates(waiter)
            {
                self.miss(waiter);
            }
            match fit {
                FitResult::Fits => self.grant(waiter, wakes),
                // `next_holder` handles it, with all its reservations.
                _ if self.keeps_rate_head(waiter) => self.rearm(node, id),
                FitResult::Quota => {
                    // Another rate is not ready, or this one no longer is. The waiter becomes the head there, and only there.
                    self.drop_rate_heads(waiter);
                    self.take_rate_heads(waiter);
                    self.refresh(node);
                }
                _ => {
                    self.drop_rate_heads(waiter);
                    self.refresh(self.waiters.at(waiter).node);
                }
            }
        }
    }
}
