//! Joining a line and leaving it.

use crate::capacity::index::NIL;
use crate::capacity::model::node::Life;
use crate::capacity::model::resource::{Bound, Kind};
use crate::capacity::model::state::State;
use crate::capacity::model::wait_queue::Room;
use crate::capacity::model::waiter::{Rank, Stage, Waiter};
use crate::capacity::{AcquireError, Amount, Cost, Resource};
use crate::sync::WakeList;

impl State {
    /// Puts a waiter into the line of its node. Follow with a `dispatch`.
    pub(in crate::capacity) fn join(&mut self, record: Waiter) -> u32 {
        let (node, rank, cost, alarm) =
            (record.node, record.rank, record.cost.clone(), record.alarm);
        let waiter = self.waiters.insert(record).index();
        if self.waiting == 0 {
            self.busy_since = self.now;
        }
        self.waiting += 1;
        if let Some(watch) = alarm.and_then(|alarm| self.alarms.get_mut(alarm)) {
            watch.waiting += 1;
            // It may be the first, whose alarm knows of no deadline yet.
            self.announced = None;
        }
        self.for_path(node, |node| node.waiting += 1);
        self.for_pools(node, &cost, |pool, amount, is_line| {
            pool.wanting += 1;
            pool.line_wanting += u32::from(is_line);
            pool.enlist(amount, waiter);
        });
        if !self.fresh.is_empty() {
            self.charge_fresh();
        }
        self.place(node, rank, waiter);
        self.refresh(node);
        waiter
    }

    /// Gives a waiter its place: in front, behind, or aside.
    fn place(&mut self, node: u32, rank: Rank, waiter: u32) {
        if self.is_above_a_limit(node, &self.waiters.at(waiter).cost) {
            self.park(node, rank, waiter);
            return;
        }
        match self.nodes.at(node).line.room_for(rank, &self.waiters) {
            Room::Free => self.offer(node, rank, waiter),
            Room::Instead(last) => {
                self.withdraw_offer(last);
                self.put_behind(node, last);
                self.offer(node, rank, waiter);
            }
            Room::Full => self.put_behind(node, waiter),
        }
    }

    fn put_behind(&mut self, node: u32, waiter: u32) {
        let line = &mut self.nodes.at_mut(node).line;
        line.push_behind(waiter, &mut self.waiters);
        self.waiters.at_mut(waiter).stage = Stage::Behind;
    }

    fn remove_behind(&mut self, node: u32, waiter: u32) {
        let line = &mut self.nodes.at_mut(node).line;
        line.remove_behind(waiter, &mut self.waiters);
    }

    fn park(&mut self, node: u32, rank: Rank, waiter: u32) {
        self.nodes.at_mut(node).line.park(rank, waiter);
        self.waiters.at_mut(waiter).stage = Stage::Parked;
        self.for_path(node, |node| node.parked += 1);
    }

    fn offer(&mut self, node: u32, rank: Rank, waiter: u32) {
        let cost = self.waiters.at(waiter).cost.clone();
        self.take_precedence(node, rank, &cost);
        let line = &mut self.nodes.at_mut(node).line;
        line.push_offered(rank, waiter, &self.waiters);
        self.waiters.at_mut(waiter).stage = Stage::Offered;
        if self.was_passed(waiter) {
            self.holders.insert(rank, waiter);
        }
        self.count_offer(waiter, true);
    }

    /// Takes a waiter from the front of its line, and what was kept for it with it.
    fn withdraw_offer(&mut self, waiter: u32) {
        self.drop_reservations(waiter);
        self.drop_turns(waiter);
        self.forget_next(waiter);
        self.forget_outrun(waiter);
        let record = self.waiters.at(waiter);
        let (node, rank) = (record.node, record.rank);
        self.holders.remove(&rank);
        self.nodes.at_mut(node).line.remove_offered(waiter);
        self.count_offer(waiter, false);
    }

    /// Moves up those behind into the room in front; whose cost is above a limit by now goes aside.
    fn move_up(&mut self, node: u32) {
        while let Some((rank, waiter)) = self.nodes.at(node).line.first_behind()
            && self.nodes.at(node).line.room_for(rank, &self.waiters) == Room::Free
        {
            self.remove_behind(node, waiter);
            self.place(node, rank, waiter);
        }
    }

    /// Takes a waiter out of its line, wherever it stands; its record stays. Follow with a `dispatch` unless it is for a grant.
    pub(in crate::capacity) fn leave(&mut self, waiter: u32) {
        let record = self.waiters.at(waiter);
        let (node, rank, cost, alarm) =
            (record.node, record.rank, record.cost.clone(), record.alarm);
        match record.stage {
            Stage::Offered => {
                self.withdraw_offer(waiter);
                self.move_up(node);
            }
            Stage::Behind => self.remove_behind(node, waiter),
            Stage::Parked => {
                self.nodes.at_mut(node).line.unpark(rank);
                self.for_path(node, |node| node.parked -= 1);
            }
            Stage::Granted(_) | Stage::Failed(_) => unreachable!("it stands in a line"),
        }
        self.for_pools(node, &cost, |pool, amount, is_line| {
            pool.wanting -= 1;
            pool.line_wanting -= u32::from(is_line);
            if pool.wanting == 0 {
                pool.scarce = false;
            }
            pool.delist(amount, waiter);
        });
        self.for_path(node, |node| node.waiting -= 1);
        if let Some(watch) = alarm.and_then(|alarm| self.alarms.get_mut(alarm)) {
            watch.waiting -= 1;
        }
        self.waiting -= 1;
        if self.waiting == 0 {
            self.calm_since = self.now;
        }
        self.refresh(node);
    }

    /// Answers a waiter that it will get nothing.
    pub(in crate::capacity) fn fail(
        &mut self,
        waiter: u32,
        error: AcquireError,
        wakes: &mut WakeList,
    ) {
        self.leave(waiter);
        let record = self.waiters.at_mut(waiter);
        record.stage = Stage::Failed(Box::new(error));
        if let Some(waker) = record.waker.take() {
            wakes.push(waker);
        }
        let resumes = record.resumes();
        self.end_resuming(resumes);
    }

    /// Goes through the lines of a subtree after limits changed: who is above one goes aside, who no longer is comes back.
    pub(in crate::capacity) fn sort_out(&mut self, node: u32) {
        for at in self.below(node) {
            let mut parked = self.nodes.at_mut(at).line.take_parked();
            let back = parked.len();
            self.for_path(at, |node| node.parked -= back);
            let offered: Vec<_> = self.nodes.at(at).line.offered().collect();
            for waiter in offered {
                let record = self.waiters.at(waiter);
                if self.is_above_a_limit(at, &record.cost) {
                    let rank = record.rank;
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

    /// Fails those for whom budgets of a cost can no longer suffice along a path, whatever is settled.
    pub(in crate::capacity) fn fail_exhausted(
        &mut self,
        node: u32,
        cost: &Cost,
        wakes: &mut WakeList,
    ) {
        for &(resource, _) in cost.parts() {
            if self.kind(resource) == Some(Kind::Budget) {
                let mut at = node;
                while at != NIL {
                    self.exhaust(at, resource, wakes);
                    at = self.nodes.at(at).parent;
                }
            }
        }
    }

    /// Fails those for whom the budget of a node can no longer suffice.
    pub(in crate::capacity) fn exhaust(
        &mut self,
        node: u32,
        resource: Resource,
        wakes: &mut WakeList,
    ) {
        while let Some(pool) = self.nodes.at(node).pool(resource)
            && let Bound::Budget { total, spent } = pool.bound
            && let left = total.saturating_sub(spent)
            && let Some((amount, waiter)) = pool.largest_ask()
            && amount > left
        {
            let error = AcquireError::BudgetExhausted {
                node: self.id_of(node),
                resource,
                left: Amount::raw(left),
            };
            self.fail(waiter, error, wakes);
        }
    }

    /// Fails all who wait at `node` itself, or also below.
    pub(in crate::capacity) fn fail_all(&mut self, node: u32, wakes: &mut WakeList) {
        for waiter in self.nodes.at(node).line.everybody(&self.waiters) {
            // One that was answered in the meantime stands in no line.
            if !matches!(
                self.waiters.at(waiter).stage,
                Stage::Granted(_) | Stage::Failed(_)
            ) {
                self.fail(waiter, AcquireError::Closed, wakes);
            }
        }
    }

    /// Whether anybody waits at `node` itself.
    pub(in crate::capacity) fn has_line(&self, node: u32) -> bool {
        !self.nodes.at(node).line.is_empty()
    }

    /// Forgets a node that was removed, and those above it, once nothing is left that needs it.
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
            let is_needed = record.pins > 0 || record.first != NIL || self.has_line(at);
            if record.life != Life::Removed || is_needed {
                return;
            }
            at = self.unlink(at);
        }
    }
}
