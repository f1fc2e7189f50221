//! What must never happen, whoever is served.

use crate::model::{Book, Claim, Model, OFFERED, Stand, Thing};
use headrace_core::capacity::AcquireError;

/// Why an ask may or must be refused.
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
    /// Every reason there is to refuse a claim that has just come, and whether it must be refused.
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
            // More than was ever in it is above its ceiling as well.
            add(Refusal::Ceiling, false);
        }
        (reasons, must)
    }

    /// Whether a budget of the path may be said not to cover a claim, and whether it must be.
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

    /// Whether what the owner holds is in its own way, perhaps and certainly, if it waits.
    pub fn deadlock(&self, claim: &Claim) -> (bool, bool) {
        let Some(owner) = claim.owner else {
            return (false, false);
        };
        let (mut may, mut must) = (false, false);
        for node in self.path(claim.node) {
            let at = &self.nodes[node];
            for thing in Thing::ALL {
                let (owned, cost) = (self.owned(owner, node, thing), thing.of(&claim.cost));
                if owned == 0 || cost == 0 {
                    continue;
                }
                // What its own leases took of a budget is theirs until they are settled, also while their slots are away.
                let limit = match thing {
                    Thing::Slots => at.slots,
                    Thing::Memory => at.memory,
                    Thing::Money => at
                        .money
                        .map(|money| money.amount.saturating_sub(money.spent)),
                };
                let above = limit.is_some_and(|limit| owned + cost > limit);
                may |= above;
                must |= above && (thing == Thing::Money || limit > Some(0));
            }
        }
        (may, must)
    }

    /// A grant is about to be booked: it must fit, and it must be its turn.
    pub fn watch_grant(&mut self, claim: &Claim, tried: bool) {
        let books = self.books();
        let lacks = self.lacks(&books, claim);
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
            "granted from the depth of the line: {claim:?}"
        );
        for waiter in self
            .waiters
            .iter()
            .filter(|waiter| waiter.stand == Stand::Waits)
        {
            let other = &waiter.claim;
            assert!(
                other.node != claim.node
                    || other.cost != claim.cost
                    || other.priority != claim.priority
                    || other.name >= claim.name,
                "{claim:?} was granted before its elder equal {other:?}",
            );
            // Two waiters of one line that need quota alone need the same rates, so their order is strict, whatever they cost.
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
            self.watch_pass(&books, index, claim);
        }
    }

    /// Counts how often a waiter was passed.
    fn watch_pass(&mut self, books: &[Book], index: usize, claim: &Claim) {
        let waiter = &self.waiters[index];
        let passed = waiter.claim;
        if waiter.stand != Stand::Waits || passed.name == claim.name {
            return;
        }
        let shared = self.shared(&passed, claim);
        if shared.is_empty() {
            return;
        }
        // Only where there is no doubt: it lacks one thing at one node and else has everything, and the other comes
        // behind it in the same line. Of another line it may just be the turn, and whoever waits for quota may have had the
        // turn at that before.
        let lacks = self.lacks(books, &passed);
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

    /// What both take, and where.
    fn shared(&self, one: &Claim, other: &Claim) -> Vec<(usize, Thing)> {
        let mut shared = Vec::new();
        for node in self.path(one.node) {
            if self.path(other.node).any(|above| above == node) {
                for thing in Thing::ALL {
                    if thing.of(&one.cost) > 0 && thing.of(&other.cost) > 0 {
                        shared.push((node, thing));
                    }
                }
            }
        }
        shared
    }

    /// After every operation: nobody waits for what is free, and who must be refused was.
    pub fn watch_waiters(&self, books: &[Book], next_ready: Option<u64>) {
        for waiter in self
            .waiters
            .iter()
            .filter(|waiter| waiter.stand == Stand::Waits)
        {
            let claim = &waiter.claim;
            assert!(
                !self.is_closed(claim.node),
                "nobody told {claim:?} that its node is closed"
            );
            assert!(
                !self.exhaustion(claim).1,
                "nobody told {claim:?} that the budget is exhausted"
            );
            let offered = self.rank(claim) < OFFERED && !self.is_parked(claim);
            if !offered || self.is_paused(claim.node) || !self.lacks(books, claim).is_empty() {
                continue;
            }
            if self.is_reserved(books, claim) || self.is_in_turn(claim) {
                continue;
            }
            assert!(
                !self.is_owed(claim, self.now),
                "{claim:?} waits for what is free"
            );
            // It waits for time alone, so somebody must know when that comes.
            let next =
                next_ready.unwrap_or_else(|| panic!("no deadline, though {claim:?} has one"));
            assert!(
                next > self.now && !self.is_owed(claim, next - 1),
                "{claim:?} is ready before {next}, which is the next deadline",
            );
        }
    }

    /// Whether what is left may be kept for those who were passed too often.
    fn is_reserved(&self, books: &[Book], claim: &Claim) -> bool {
        let holders: Vec<_> = self
            .waiters
            .iter()
            .filter(|waiter| {
                let holder = &waiter.claim;
                waiter.stand == Stand::Waits
                    && waiter.seen >= self.passes
                    && holder.name != claim.name
                    && !self.is_parked(holder)
                    && !self.is_paused(holder.node)
            })
            .map(|waiter| &waiter.claim)
            .collect();
        self.path(claim.node).any(|node| {
            Thing::ALL.into_iter().any(|thing| {
                let here = |holder: &&&Claim| self.path(holder.node).any(|above| above == node);
                let kept: u64 = holders
                    .iter()
                    .filter(here)
                    .map(|holder| thing.of(&holder.cost))
                    .sum();
                let cost = thing.of(&claim.cost);
                cost > 0 && kept > 0 && self.free(books, node, thing) < cost + kept
            })
        })
    }

    /// Whether somebody else may have the turn at a rate. It is of who lacked nothing but quota first, whoever came first
    /// and whatever has become of the slots since, until there is quota enough for it; or, of one that missed too many slots in this
    /// way, until it is granted.
    fn is_in_turn(&self, claim: &Claim) -> bool {
        self.path(claim.node).any(|node| {
            claim.cost.calls > 0
                && self.nodes[node].calls.is_some()
                && self.waiters.iter().any(|waiter| {
                    let other = &waiter.claim;
                    waiter.stand == Stand::Waits
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
