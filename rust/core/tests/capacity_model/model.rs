//! A simple model of the tree: lists of nodes, waiters and permits, with every sum computed from scratch.
//!
//! The model does not decide the grants. It observes the grants of the tree, and checks that they are allowed: see
//! `watch.rs`.

use crate::op::{Amounts, Limits};
use crate::quota::Log;
use headrace_core::capacity::{Acquire, NodeId, Permit, Resume};

/// The number of waiters that a leaf offers at most.
pub const OFFERED: usize = 8;
/// The earlier arrival, in nanoseconds, that one step of priority is worth.
pub const AGEING: i128 = 10_000_000_000;
/// The longest path.
pub const DEPTH: usize = 5;

#[derive(Debug)]
pub struct Node {
    pub id: NodeId,
    pub parent: Option<usize>,
    pub removed: bool,
    pub closed: bool,
    pub paused: bool,
    pub floor: u64,
    pub slots: Option<u64>,
    pub memory: Option<u64>,
    /// The last limit above 0, of slots and of memory.
    pub ceilings: [u64; 2],
    pub calls: Option<Log>,
    pub money: Option<Money>,
    /// The earliest admission of any cost, and of costs that include slots, memory, calls, money.
    pub not_before: [u64; 5],
    /// The permits at which a ramp rejects these. The model takes them from the tree, and `invariants.rs` verifies them.
    pub windows: [usize; 5],
    /// Whether a ramp rejects these at the moment.
    pub is_full: [bool; 5],
}

impl Node {
    /// Return the new limits of the resources that it limits already. Its own limits fill the gaps.
    pub fn within(&self, limits: Limits) -> Limits {
        let (slots, money) = (self.slots, self.money.map(|money| money.amount));
        let calls = self.calls.as_ref().map(|log| log.quota);
        Limits {
            slots: slots.map(|old| limits.slots.unwrap_or(old)),
            memory: self.memory.map(|old| limits.memory.unwrap_or(old)),
            calls: calls.map(|old| limits.calls.unwrap_or(old)),
            money: money.map(|old| limits.money.unwrap_or(old)),
        }
    }

    /// Replace all limits. A resource without a limit is forgotten, except for the held amounts.
    pub fn resize(&mut self, limits: Limits, now: u64) {
        let Limits {
            slots,
            memory,
            calls,
            money,
        } = limits;
        for (ceiling, limit) in self.ceilings.iter_mut().zip([slots, memory]) {
            *ceiling = match limit {
                None => 0,
                Some(0) => *ceiling,
                Some(limit) => limit,
            };
        }
        self.slots = slots;
        self.memory = memory;
        self.calls = calls.map(|quota| match self.calls.take() {
            None => Log::new(quota, now),
            Some(mut log) => {
                log.resize(quota, now);
                log
            }
        });
        self.money = money.map(|amount| Money {
            amount,
            spent: self.money.map_or(0, |money| money.spent),
        });
        let is_limited = [
            true,
            slots.is_some(),
            memory.is_some(),
            calls.is_some(),
            money.is_some(),
        ];
        for (not_before, is_limited) in self.not_before.iter_mut().zip(is_limited) {
            if !is_limited {
                *not_before = 0;
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Money {
    pub amount: u64,
    /// Spent by released permits.
    pub spent: u64,
}

/// The amounts that one acquire takes or will take.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Unique, and ascending in the order of the first polls.
    pub name: u64,
    pub node: usize,
    pub cost: Amounts,
    pub priority: i32,
    /// The time of the first poll, in nanoseconds.
    pub since: u64,
    pub owner: Option<u64>,
}

impl Claim {
    /// Return the queue order among the claims of one node, lowest first.
    pub fn order(&self) -> (i128, u64) {
        let since = i128::from(self.since);
        (since - i128::from(self.priority) * AGEING, self.name)
    }

    /// Return whether it needs anything, slots, memory, calls and money.
    pub fn needs(&self) -> [bool; 5] {
        let Amounts {
            slots,
            memory,
            calls,
            money,
        } = self.cost;
        [true, slots > 0, memory > 0, calls > 0, money > 0]
    }

    pub fn takes_quota_alone(&self) -> bool {
        self.cost.calls > 0
            && Quantity::ALL
                .iter()
                .all(|quantity| quantity.of(&self.cost) == 0)
    }
}

#[derive(Debug)]
pub enum Request {
    Acquire(Acquire),
    /// Resumes the permit of this name.
    Resume(u64, Resume),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaiterState {
    Waits,
    /// It was woken for a grant that it has not collected.
    Granted,
    /// It was woken because it can never be granted.
    Refused,
}

#[derive(Debug)]
pub struct Waiter {
    pub claim: Claim,
    pub request: Request,
    pub state: WaiterState,
    /// The index of the alarm that serves it.
    pub alarm: Option<usize>,
    /// The number of grants during its wait that shared a resource with it.
    pub seen: u64,
    /// The number of these that were younger and took the only quantity that it lacked.
    pub passed: u64,
}

#[derive(Debug)]
pub struct Lease {
    pub claim: Claim,
    pub permit: Permit,
    pub suspended: bool,
    /// Whether its money was settled: a settled amount may count as final.
    pub settled: bool,
}

/// The sums over all claims at a node and below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub slots: u64,
    pub memory: u64,
    /// The budget that was ever taken and not returned.
    pub money: u64,
    pub permits: usize,
    pub waiting: usize,
}

/// A quantity that a waiter may lack until another claim returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    Slots,
    Memory,
    Money,
}

impl Quantity {
    pub const ALL: [Self; 3] = [Self::Slots, Self::Memory, Self::Money];

    pub fn of(self, cost: &Amounts) -> u64 {
        match self {
            Self::Slots => cost.slots,
            Self::Memory => cost.memory,
            Self::Money => cost.money,
        }
    }
}

#[derive(Debug, Default)]
pub struct Model {
    pub now: u64,
    /// An admission may count as earlier by at most this many nanoseconds.
    pub lateness: u64,
    /// The number of times that smaller costs may pass a waiter that does not fit.
    pub passes: u64,
    pub nodes: Vec<Node>,
    pub waiters: Vec<Waiter>,
    pub leases: Vec<Lease>,
}

impl Model {
    pub fn add(&mut self, id: NodeId, parent: Option<usize>, limits: Limits) {
        self.nodes.push(Node {
            id,
            parent,
            removed: false,
            closed: false,
            paused: false,
            floor: 0,
            slots: limits.slots,
            memory: limits.memory,
            ceilings: [limits.slots, limits.memory].map(Option::unwrap_or_default),
            calls: limits.calls.map(|quota| Log::new(quota, self.now)),
            money: limits.money.map(|amount| Money { amount, spent: 0 }),
            not_before: [0; 5],
            windows: [usize::MAX; 5],
            is_full: [false; 5],
        });
    }

    /// Return the node and all its ancestors.
    pub fn path(&self, node: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(node), |&node| self.nodes[node].parent)
    }

    /// Return whether no acquire is possible here.
    pub fn is_closed(&self, node: usize) -> bool {
        self.nodes[node].removed || self.path(node).any(|above| self.nodes[above].closed)
    }

    pub fn is_paused(&self, node: usize) -> bool {
        self.path(node).any(|above| self.nodes[above].paused)
    }

    /// All held claims, collected or not, with the held amounts.
    fn held(&self) -> impl Iterator<Item = (&Claim, Amounts)> {
        let leases = self.leases.iter().map(|lease| {
            let mut cost = lease.claim.cost;
            if lease.suspended {
                (cost.slots, cost.memory) = (0, 0);
            }
            (&lease.claim, cost)
        });
        let granted = self
            .waiters
            .iter()
            .filter(|waiter| waiter.state == WaiterState::Granted);
        leases.chain(granted.map(|waiter| (&waiter.claim, waiter.claim.cost)))
    }

    pub fn totals(&self) -> Vec<Totals> {
        let mut totals: Vec<_> = self.nodes.iter().map(|_| Totals::default()).collect();
        for (claim, held) in self.held() {
            for node in self.path(claim.node) {
                totals[node].slots += held.slots;
                totals[node].memory += held.memory;
                totals[node].money += held.money;
            }
        }
        for (node, totals) in self.nodes.iter().zip(&mut totals) {
            totals.money += node.money.map_or(0, |money| money.spent);
        }
        let here = self
            .leases
            .iter()
            .filter(|lease| !lease.suspended)
            .map(|lease| &lease.claim);
        let granted = self
            .waiters
            .iter()
            .filter(|waiter| waiter.state == WaiterState::Granted);
        for claim in here.chain(granted.map(|waiter| &waiter.claim)) {
            for node in self.path(claim.node) {
                totals[node].permits += 1;
            }
        }
        let waiting = self
            .waiters
            .iter()
            .filter(|waiter| waiter.state == WaiterState::Waits);
        for waiter in waiting {
            for node in self.path(waiter.claim.node) {
                totals[node].waiting += 1;
            }
        }
        totals
    }

    /// Return the amount that an owner holds at a node and below; of a budget, the part that is not settled finally.
    pub fn owned(&self, owner: u64, node: usize, quantity: Quantity) -> u64 {
        let own = self.held().filter(|(claim, _)| claim.owner == Some(owner));
        let here = own.filter(|(claim, _)| self.path(claim.node).any(|above| above == node));
        here.map(|(_, held)| quantity.of(&held)).sum()
    }

    /// Return the nodes and quantities of which less is left than the claim needs.
    pub fn lacks(&self, totals: &[Totals], claim: &Claim) -> Vec<(usize, Quantity)> {
        let mut lacks = Vec::new();
        for node in self.path(claim.node) {
            for quantity in Quantity::ALL {
                if quantity.of(&claim.cost) > self.free(totals, node, quantity) {
                    lacks.push((node, quantity));
                }
            }
        }
        lacks
    }

    /// Return the amount left at a node.
    pub fn free(&self, totals: &[Totals], node: usize, quantity: Quantity) -> u64 {
        let (limit, held) = match quantity {
            Quantity::Slots => (self.nodes[node].slots, totals[node].slots),
            Quantity::Memory => (self.nodes[node].memory, totals[node].memory),
            Quantity::Money => {
                let money = self.nodes[node].money;
                (money.map(|money| money.amount), totals[node].money)
            }
        };
        limit.map_or(u64::MAX, |limit| limit.saturating_sub(held))
    }

    /// Compare the permits of each node with the windows of its ramp.
    pub fn count_full(&mut self, totals: &[Totals]) {
        for (node, totals) in self.nodes.iter_mut().zip(totals) {
            node.is_full = node.windows.map(|window| totals.permits >= window);
        }
    }

    /// Return whether it exceeds a current limit, so that no release can make it fit.
    pub fn is_parked(&self, claim: &Claim) -> bool {
        self.path(claim.node).any(|node| {
            let Node {
                slots,
                memory,
                calls,
                ..
            } = &self.nodes[node];
            let calls = calls.as_ref().map(|log| log.quota.largest());
            slots.is_some_and(|limit| claim.cost.slots > limit)
                || memory.is_some_and(|limit| claim.cost.memory > limit)
                || calls.is_some_and(|largest| claim.cost.calls > largest)
        })
    }

    /// Call `act` with each rate that counts the claim, and the number of calls.
    pub fn for_rates(&mut self, claim: &Claim, act: impl Fn(&mut Log, u64)) {
        if claim.cost.calls == 0 {
            return;
        }
        for node in self.path(claim.node).collect::<Vec<_>>() {
            if let Some(log) = &mut self.nodes[node].calls {
                act(log, claim.cost.calls);
            }
        }
    }

    /// Return whether the rates of the path may admit it now.
    pub fn is_allowed(&self, claim: &Claim) -> bool {
        self.path(claim.node).all(|node| {
            let rate = self.nodes[node].calls.as_ref();
            claim.cost.calls == 0
                || rate.is_none_or(|log| log.allows(self.now, claim.cost.calls, self.lateness))
        }) && self.is_admitted(claim, self.now)
    }

    /// Return whether the rates of the path must admit it at that time.
    pub fn is_owed(&self, claim: &Claim, time: u64) -> bool {
        self.path(claim.node)
            .all(|node| self.is_owed_at(node, claim, time) && !self.is_full_at(node, claim))
            && self.is_admitted(claim, time)
    }

    pub fn is_owed_at(&self, node: usize, claim: &Claim, time: u64) -> bool {
        let rate = self.nodes[node].calls.as_ref();
        claim.cost.calls == 0 || rate.is_none_or(|log| log.owes(time, claim.cost.calls))
    }

    /// Return whether no cooldown defers it.
    fn is_admitted(&self, claim: &Claim, time: u64) -> bool {
        self.path(claim.node)
            .all(|node| self.is_admitted_at(node, claim, time))
    }

    pub fn is_admitted_at(&self, node: usize, claim: &Claim, time: u64) -> bool {
        let not_before = claim.needs().into_iter().zip(self.nodes[node].not_before);
        not_before
            .into_iter()
            .all(|(needs, not_before)| !needs || time >= not_before)
    }

    fn is_full_at(&self, node: usize, claim: &Claim) -> bool {
        let mut is_full = claim.needs().into_iter().zip(self.nodes[node].is_full);
        is_full.any(|(needs, is_full)| needs && is_full)
    }

    /// Return the index among the waiters of its node that are not parked.
    pub fn rank(&self, claim: &Claim) -> usize {
        let rivals = self.waiters.iter().filter(|waiter| {
            waiter.state == WaiterState::Waits
                && waiter.claim.node == claim.node
                && waiter.claim.order() < claim.order()
        });
        rivals
            .filter(|waiter| !self.is_parked(&waiter.claim))
            .count()
    }
}
