//! The rules that every grant and every wait must obey.

use crate::model::{Claim, Model, OFFERED, Quantity, Totals, WaiterState};
use headrace_core::capacity::AcquireError;

/// A reason why an acquire may or must be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Closed,
    Unknown,
    Ceiling,
    Exhausted,
    Deadlock,
}

impl From<&AcquireError> for Refusal {
    fn from(error: &AcquireError) -> Self {
        match error {
            AcquireError::AboveCeiling { .. } => Self::Ceiling,
            AcquireError::UnknownResource { .. } => Self::Unknown,
            AcquireError::BudgetExhausted { .. } => Self::Exhausted,
            AcquireError::Closed => Self::Closed,
            AcquireError::WouldDeadlock { .. } => Self::Deadlock,
        }
    }
}

impl Model {
    /// All reasons to refuse a new claim, and whether it must be refused.
    pub fn refusals(&self, claim: &Claim) -> (Vec<Refusal>, bool) {
        let mut reasons = Vec::new();
        let mut must = false;
        let mut add = |reason, certain: bool| {
            reasons.push(reason);
            must |= certain;
        };
        if self.is_closed(claim.node) {
            add(Refusal::Closed, true);
        }
        let known = |limited: fn(&crate::model::Node) -> bool| {
            self.path(claim.node).any(|node| limited(&self.nodes[node]))
        };
        if claim.cost.slots > 0 && !known(|node| node.slots.is_some())
            || claim.cost.memory > 0 && !known(|node| node.memory.is_some())
            || claim.cost.calls > 0 && !known(|node| node.calls.is_some())
            || claim.cost.money > 0 && !known(|node| node.money.is_some())
        {
            add(Refusal::Unknown, true);
        }
        for node in self.path(claim.node) {
            let at = &self.nodes[node];
            let held = [(at.slots, claim.cost.slots), (at.memory, claim.cost.memory)];
            for (ceiling, (limit, cost)) in at.ceilings.into_iter().zip(held) {
                if limit.is_some() && cost > ceiling {
                    // A node that was never above 0 has no ceiling yet.
                    add(Refusal::Ceiling, ceiling > 0);
                }
            }
            if let Some(log) = &at.calls
                && claim.cost.calls > log.ceiling
            {
                add(Refusal::Ceiling, log.ceiling > 0);
            }
        }
        let (may, must_be) = self.exhaustion(claim);
        if may {
            add(Refusal::Exhausted, must_be);
            // More than the budget ever had also exceeds its ceiling.
            add(Refusal::Ceiling, false);
        }
        (reasons, must)
    }

    /// Return whether a budget of the path may count as exhausted for a claim, and whether it must.
    pub fn exhaustion(&self, claim: &Claim) -> (bool, bool) {
        let (mut may, mut must) = (false, false);
        for node in self.path(claim.node) {
            let Some(money) = self.nodes[node].money else {
                continue;
            };
            let settled = self.leases.iter().filter(|lease| {
                lease.settled && self.path(lease.claim.node).any(|above| above == node)
            });
            let settled: u64 = settled.map(|lease| lease.claim.cost.money).sum();
            if claim.cost.money > 0 {
                must |= money.spent + claim.cost.money > money.amount;
                may |= money.spent + settled + claim.cost.money > money.amount;
            }
        }
        (may || must, must)
    }

    /// Return whether waiting may be a deadlock with the owner's own permits, and whether it must be.
    pub fn deadlock(&self, claim: &Claim) -> (bool, bool) {
        let Some(owner) = claim.owner else {
            return (false, false);
        };
        let (mut may, mut must) = (false, false);
        for node in self.path(claim.node) {
            let at = &self.nodes[node];
            for quantity in Quantity::ALL {
                let (owned, cost) = (self.owned(owner, node, quantity), quantity.of(&claim.cost));
                if owned == 0 || cost == 0 {
                    continue;
                }
                // The budget of its own permits is theirs until it is settled, also while they are suspended.
                let limit = match quantity {
                    Quantity::Slots => at.slots,
                    Quantity::Memory => at.memory,
                    Quantity::Money => at
                        .money
                        .map(|money| money.amount.saturating_sub(money.spent)),
                };
                let above = limit.is_some_and(|limit| owned + cost > limit);
                may |= above;
                must |= above && (quantity == Quantity::Money || limit > Some(0));
            }
        }
        (may, must)
    }

    /// Check a grant before it is recorded: it must fit, and its order must be right.
    pub fn watch_grant(&mut self, claim: &Claim, tried: bool) {
        let totals = self.totals();
        self.count_full(&totals);
        let lacks = self.lacks(&totals, claim);
        assert!(
            lacks.is_empty(),
            "granted above a limit: {claim:?} lacks {lacks:?}"
        );
        assert!(
            !self.is_paused(claim.node),
            "granted at a paused node: {claim:?}"
        );
        assert!(
            !self.is_closed(claim.node),
            "granted at a closed node: {claim:?}"
        );
        assert!(self.is_allowed(claim), "granted before its time: {claim:?}");
        assert!(
            tried || self.rank(claim) < OFFERED,
            "granted from too far back in the queue: {claim:?}"
        );
        for waiter in self
            .waiters
            .iter()
            .filter(|waiter| waiter.state == WaiterState::Waits)
        {
            let other = &waiter.claim;
            assert!(
                other.node != claim.node
                    || other.cost != claim.cost
                    || other.priority != claim.priority
                    || other.name >= claim.name,
                "{claim:?} was granted before its older equal {other:?}",
            );
            // Two waiters of one queue that need only quota need the same rates, so their order is strict for any cost.
            let is_strict = other.node == claim.node
                && [other, claim].iter().all(|claim| claim.takes_quota_alone())
                && self.rank(other) < OFFERED
                && !self.is_parked(other);
            assert!(
                !is_strict || other.order() >= claim.order(),
                "{claim:?} passed {other:?} at a rate",
            );
        }
        for index in 0..self.waiters.len() {
            self.watch_pass(&totals, index, claim);
        }
    }

    /// Count the times that a waiter was passed.
    fn watch_pass(&mut self, totals: &[Totals], index: usize, claim: &Claim) {
        let waiter = &self.waiters[index];
        let passed = waiter.claim;
        if waiter.state != WaiterState::Waits || passed.name == claim.name {
            return;
        }
        let shared = self.shared(&passed, claim);
        if shared.is_empty() {
            return;
        }
        // Only the certain cases: it lacks one quantity at one node and nothing else, and the other waiter is behind it in the
        // same queue. A waiter of another queue may rightly be next, and a waiter for quota may already have been the head
        // of the rate queue.
        let lacks = self.lacks(totals, &passed);
        let younger =
            claim.node == passed.node && claim.order() > passed.order() && claim.cost.calls == 0;
        let held_up = self.rank(&passed) < OFFERED
            && !self.is_parked(&passed)
            && !self.is_paused(passed.node)
            && self.is_owed(&passed, self.now);
        let certain = younger && held_up && lacks.len() == 1 && shared.contains(&lacks[0]);
        let passes = self.passes;
        let waiter = &mut self.waiters[index];
        waiter.seen += 1;
        waiter.passed += u64::from(certain);
        assert!(
            waiter.passed <= passes,
            "{passed:?} was passed more than {passes} times, the last time by {claim:?}",
        );
    }

    /// Return the quantities that both take, with the nodes.
    fn shared(&self, one: &Claim, other: &Claim) -> Vec<(usize, Quantity)> {
        let mut shared = Vec::new();
        for node in self.path(one.node) {
            if self.path(other.node).any(|above| above == node) {
                for quantity in Quantity::ALL {
                    if quantity.of(&one.cost) > 0 && quantity.of(&other.cost) > 0 {
                        shared.push((node, quantity));
                    }
                }
            }
        }
        shared
    }

    /// Check after every operation that no waiter fits, and that every claim that must be refused was refused.
    pub fn watch_waiters(&self, totals: &[Totals], next_ready: Option<u64>) {
        for waiter in self
            .waiters
            .iter()
            .filter(|waiter| waiter.state == WaiterState::Waits)
        {
            let claim = &waiter.claim;
            assert!(
                !self.is_closed(claim.node),
                "{claim:?} still waits at a closed node"
            );
            assert!(
                !self.exhaustion(claim).1,
                "{claim:?} still waits for an exhausted budget"
            );
            let offered = self.rank(claim) < OFFERED && !self.is_parked(claim);
            if !offered || self.is_paused(claim.node) || !self.lacks(totals, claim).is_empty() {
                continue;
            }
            if self.is_reserved(totals, claim) || self.is_behind_a_head(claim) {
                continue;
            }
            assert!(
                !self.is_owed(claim, self.now),
                "{claim:?} waits although it fits"
            );
            // It waits for time only, so there must be a deadline.
            let next =
                next_ready.unwrap_or_else(|| panic!("no deadline, although {claim:?} has one"));
            assert!(
                next > self.now && !self.is_owed(claim, next - 1),
                "{claim:?} is ready before {next}, which is the next deadline",
            );
        }
    }

    /// Return whether the rest may be reserved for waiters that were passed too often.
    fn is_reserved(&self, totals: &[Totals], claim: &Claim) -> bool {
        let holders: Vec<_> = self
            .waiters
            .iter()
            .filter(|waiter| {
                let holder = &waiter.claim;
                waiter.state == WaiterState::Waits
                    && waiter.seen >= self.passes
                    && holder.name != claim.name
                    && !self.is_parked(holder)
                    && !self.is_paused(holder.node)
            })
            .map(|waiter| &waiter.claim)
            .collect();
        self.path(claim.node).any(|node| {
            Quantity::ALL.into_iter().any(|quantity| {
                let here = |holder: &&&Claim| self.path(holder.node).any(|above| above == node);
                let reserved: u64 = holders
                    .iter()
                    .filter(here)
                    .map(|holder| quantity.of(&holder.cost))
                    .sum();
                let cost = quantity.of(&claim.cost);
                cost > 0 && reserved > 0 && self.free(totals, node, quantity) < cost + reserved
            })
        })
    }

    /// Return whether another waiter may be the head of a rate queue. The head is the first waiter that lacked only
    /// quota, whatever the arrival order and the slots since, until its quota is there. A head that missed too many
    /// slots stays until it is granted.
    fn is_behind_a_head(&self, claim: &Claim) -> bool {
        self.path(claim.node).any(|node| {
            claim.cost.calls > 0
                && self.nodes[node].calls.is_some()
                && self.waiters.iter().any(|waiter| {
                    let other = &waiter.claim;
                    waiter.state == WaiterState::Waits
                        && other.name != claim.name
                        && other.cost.calls > 0
                        && self.path(other.node).any(|above| above == node)
                        && self.rank(other) < OFFERED
                        && !self.is_parked(other)
                        && !self.is_paused(other.node)
                        && (!self.is_owed(other, self.now) || waiter.seen >= self.passes)
                })
        })
    }
}
