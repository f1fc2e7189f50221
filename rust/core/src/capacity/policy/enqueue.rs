//! Queueing and dequeueing of waiters: `admission.rs` queues them, `dispatch.rs` dequeues those that it grants, and
//! `reconfigure.rs` fails those of a closed node.

use crate::capacity::index::NIL;
use crate::capacity::model::node::Life;
use crate::capacity::model::resource::{LimitState, ResourceKind};
use crate::capacity::model::state::State;
use crate::capacity::model::wait_queue::FrontRoom;
use crate::capacity::model::waiter::{Rank, Waiter, WaiterState};
use crate::capacity::{AcquireError, Amount, Cost, ResourceId};
use crate::sync::WakeList;

impl State {
    /// Queue a waiter at its node. Must be followed by a `dispatch`.
    pub(in crate::capacity) fn join(&mut self, record: Waiter) -> u32 {
        let (node, rank, cost, alarm) =
            (record.node, record.rank, record.cost.clone(), record.alarm);
        let waiter = self.waiters.insert(record).index();
        if self.waiting == 0 {
            self.busy_since = self.now;
        }
        self.waiting += 1;
        self.busy += 1;
        if let Some(record) = alarm.and_then(|alarm| self.alarms.get_mut(alarm)) {
            record.waiting += 1;
            // Its alarm may have had no waiter, and thus no deadline.
            self.last_deadline = None;
        }
        self.for_path(node, |node| node.waiting += 1);
        self.for_resources(node, &cost, |resource, amount, is_own| {
            resource.wanting += 1;
            resource.own_wanting += u32::from(is_own);
            resource.enlist(amount, waiter);
        });
        if !self.uncharged.is_empty() {
            self.charge_uncharged();
        }
        self.place(node, rank, waiter);
        self.refresh(node);
        self.return_before_heads(waiter);
        waiter
    }

    /// Put a waiter among the offered ones, behind them, or among the parked ones.
    fn place(&mut self, node: u32, rank: Rank, waiter: u32) {
        if self.is_above_a_limit(node, &self.waiters.at(waiter).cost)
            && !self.raise_adaptive_limits(node, waiter)
        {
            self.park(node, rank, waiter);
            return;
        }
        match self.nodes.at(node).queue.room_for(rank, &self.waiters) {
            FrontRoom::Free => self.offer(node, rank, waiter),
            FrontRoom::Instead(last) => {
                self.withdraw_offer(last);
                self.put_behind(node, last);
                self.offer(node, rank, waiter);
            }
            FrontRoom::Full => self.put_behind(node, waiter),
        }
    }

    fn put_behind(&mut self, node: u32, waiter: u32) {
        let queue = &mut self.nodes.at_mut(node).queue;
        queue.push_behind(waiter, &mut self.waiters);
        self.waiters.at_mut(waiter).state = WaiterState::Behind;
    }

    fn remove_behind(&mut self, node: u32, waiter: u32) {
        let queue = &mut self.nodes.at_mut(node).queue;
        queue.remove_behind(waiter, &mut self.waiters);
    }

    fn park(&mut self, node: u32, rank: Rank, waiter: u32) {
        self.nodes.at_mut(node).queue.park(rank, waiter);
        self.waiters.at_mut(waiter).state = WaiterState::Parked;
        self.for_path(node, |node| node.parked += 1);
    }

    fn offer(&mut self, node: u32, rank: Rank, waiter: u32) {
        let cost = self.waiters.at(waiter).cost.clone();
        self.take_precedence(node, rank, &cost);
        let queue = &mut self.nodes.at_mut(node).queue;
        queue.push_offered(rank, waiter, &self.waiters);
        self.waiters.at_mut(waiter).state = WaiterState::Offered;
        if self.is_starved(waiter) {
            self.reservation_holders.insert(rank, waiter);
        }
        self.count_offer(waiter, true);
    }

    /// Remove a waiter from the front of its queue, with its reservations.
    fn withdraw_offer(&mut self, waiter: u32) {
        self.drop_reservations(waiter);
        self.drop_rate_heads(waiter);
        self.forget_next(waiter);
        self.forget_slot_misser(waiter);
        let record = self.waiters.at(waiter);
        let (node, rank) = (record.node, record.rank);
        self.reservation_holders.remove(&rank);
        self.nodes.at_mut(node).queue.remove_offered(waiter);
        self.count_offer(waiter, false);
    }

    /// Fill the front of a queue from the waiters behind, and park those whose cost is above a limit now.
    fn move_up(&mut self, node: u32) {
        while let Some((rank, waiter)) = self.nodes.at(node).queue.first_behind()
            && self.nodes.at(node).queue.room_for(rank, &self.waiters) == FrontRoom::Free
        {
            self.remove_behind(node, waiter);
            self.place(node, rank, waiter);
        }
    }

    /// Dequeue a waiter in any state; its record stays. Must be followed by a `dispatch` unless it is for a grant.
    pub(in crate::capacity) fn leave(&mut self, waiter: u32) {
        let record = self.waiters.at(waiter);
        let (node, rank, cost, alarm) =
            (record.node, record.rank, record.cost.clone(), record.alarm);
        match record.state {
            WaiterState::Offered => {
                self.withdraw_offer(waiter);
                self.move_up(node);
            }
            WaiterState::Behind => self.remove_behind(node, waiter),
            WaiterState::Parked => {
                self.nodes.at_mut(node).queue.unpark(rank);
                self.for_path(node, |node| node.parked -= 1);
            }
            WaiterState::Granted(_) | WaiterState::Failed(_) => {
                unreachable!("the waiter is queued")
            }
        }
        self.for_resources(node, &cost, |resource, amount, is_own| {
            resource.wanting -= 1;
            resource.own_wanting -= u32::from(is_own);
            if resource.wanting == 0 {
                resource.contended = false;
            }
            resource.delist(amount, waiter);
        });
        self.for_path(node, |node| node.waiting -= 1);
        if let Some(record) = alarm.and_then(|alarm| self.alarms.get_mut(alarm)) {
            record.waiting -= 1;
        }
        self.waiting -= 1;
        self.busy -= 1;
        if self.waiting == 0 {
            self.calm_since = self.now;
        }
        self.refresh(node);
    }

    /// Fail a waiter.
    pub(in crate::capacity) fn fail(
        &mut self,
        waiter: u32,
        error: AcquireError,
        wakes: &mut WakeList,
    ) {
        self.leave(waiter);
        let record = self.waiters.at_mut(waiter);
        record.state = WaiterState::Failed(Box::new(error));
        if let Some(waker) = record.waker.take() {
            wakes.push(waker);
        }
        let resumes = record.resumes();
        self.end_resuming(resumes);
    }

    /// Park and unpark the waiters of a subtree after a change of limits.
    pub(in crate::capacity) fn repark(&mut self, node: u32) {
        for at in self.below(node) {
            let mut parked = self.nodes.at_mut(at).queue.take_parked();
            let back = parked.len();
            self.for_path(at, |node| node.parked -= back);
            let offered: Vec<_> = self.nodes.at(at).queue.offered().collect();
            for waiter in offered {
                let is_above = self.is_above_a_limit(at, &self.waiters.at(waiter).cost);
                if is_above && !self.raise_adaptive_limits(at, waiter) {
                    let rank = self.waiters.at(waiter).rank;
                    self.withdraw_offer(waiter);
                    self.park(at, rank, waiter);
                }
            }
            self.move_up(at);
            while let Some((rank, waiter)) = parked.pop_first() {
                self.place(at, rank, waiter);
            }
            self.refresh(at);
        }
    }

    /// Fail the waiters for which the budgets of a cost can no longer suffice along a path, whatever is settled.
    pub(in crate::capacity) fn fail_exhausted(
        &mut self,
        node: u32,
        cost: &Cost,
        wakes: &mut WakeList,
    ) {
        for &(id, _) in cost.parts() {
            if self.kind(id) == Some(ResourceKind::Budget) {
                let mut at = node;
                while at != NIL {
                    self.exhaust(at, id, wakes);
                    at = self.nodes.at(at).parent;
                }
            }
        }
    }

    /// Fail the waiters for which the budget of a node can no longer suffice.
    pub(in crate::capacity) fn exhaust(&mut self, node: u32, id: ResourceId, wakes: &mut WakeList) {
        while let Some(resource) = self.nodes.at(node).resource(id)
            && let LimitState::Budget { total, spent } = resource.limit
            && let left = total.saturating_sub(spent)
            && let Some((amount, waiter)) = resource.largest_request()
            && amount > left
        {
            let error = AcquireError::BudgetExhausted {
                node: self.id_of(node),
                resource: id,
                left: Amount::raw(left),
            };
            self.fail(waiter, error, wakes);
        }
    }

    /// Fail all waiters at `node` itself.
    pub(in crate::capacity) fn fail_all(&mut self, node: u32, wakes: &mut WakeList) {
        for waiter in self.nodes.at(node).queue.all(&self.waiters) {
            // A waiter that was answered meanwhile is in no queue.
            if !self.waiters.at(waiter).state.is_answered() {
                self.fail(waiter, AcquireError::Closed, wakes);
            }
        }
    }

    /// Return whether `node` itself has waiters.
    pub(in crate::capacity) fn has_waiters(&self, node: u32) -> bool {
        !self.nodes.at(node).queue.is_empty()
    }

    /// Remove a node that was removed by the user, and such ancestors, once nothing needs it.
    #[inline]
    pub(in crate::capacity) fn forget(&mut self, node: u32) {
        if self.nodes.at(node).life == Life::Removed {
            self.forget_removed(node);
        }
    }

    #[cold]
    fn forget_removed(&mut self, node: u32) {
        let mut at = node;
        while at != NIL {
            let record = self.nodes.at(at);
            let is_needed = record.permit_refs > 0 || record.first != NIL || self.has_waiters(at);
            if record.life != Life::Removed || is_needed {
                return;
            }
            at = self.unlink(at);
        }
    }
}
