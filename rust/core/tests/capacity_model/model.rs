//! The tree as one would explain it: lists of nodes, waiters and leases, every sum taken anew.
//!
//! The model does not decide who is served. It watches whom the tree serves, and knows what must never happen: see
//! `watch.rs`.

use crate::op::{Amounts, Limits};
use crate::quota::Log;
use headrace_core::capacity::{Acquire, NodeId, Permit, Resume};

/// A leaf offers so many of its waiters at most.
pub const OFFERED: usize = 8;
/// One step of priority counts as having come so many nanoseconds earlier.
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
    pub slots: Option<u64>,
    pub memory: Option<u64>,
    /// The last limit above 0, of slots and of memory.
    pub ceilings: [u64; 2],
    pub calls: Option<Log>,
    pub money: Option<Money>,
    /// Nothing is admitted before, whatever it asks for; nor anything that asks for slots, memory, calls, money.
    pub not_before: [u64; 5],
}

impl Node {
    /// Of these limits those of what it limits already; and its own of what they leave out.
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

    /// Other limits in the place of all. What it limits no more is forgotten, but for what is held.
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
    /// By leases that are gone.
    pub spent: u64,
}

/// What is or will be taken for one ask.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Never given twice; in the order of the first polls.
    pub name: u64,
    pub node: usize,
    pub cost: Amounts,
    pub priority: i32,
    /// When it was first polled, in nanoseconds.
    pub since: u64,
    pub owner: Option<u64>,
}

impl Claim {
    /// The lower, the earlier its turn among those at the same node.
    pub fn order(&self) -> (i128, u64) {
        let since = i128::from(self.since);
        (since - i128::from(self.priority) * AGEING, self.name)
    }

    pub fn takes_quota_alone(&self) -> bool {
        self.cost.calls > 0 && Thing::ALL.iter().all(|thing| thing.of(&self.cost) == 0)
    }
}

#[derive(Debug)]
pub enum Wish {
    Acquire(Acquire),
    /// Of the lease of this name.
    Resume(u64, Resume),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    Waits,
    /// It was woken for a grant, and has not come to collect.
    Granted,
    /// It was woken because it can never be granted.
    Refused,
}

#[derive(Debug)]
pub struct Waiter {
    pub claim: Claim,
    pub wish: Wish,
    pub stand: Stand,
    /// Which of the alarms sees to it.
    pub alarm: Option<usize>,
    /// How many that shared something with it were granted while it waited.
    pub seen: u64,
    /// How many of these were younger, and took the only thing that it lacked.
    pub passed: u64,
}

#[derive(Debug)]
pub struct Lease {
    pub claim: Claim,
    pub permit: Permit,
    pub suspended: bool,
    /// Whether its money was settled: what is settled may be taken for final.
    pub settled: bool,
}

/// What all claims at a node and below come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Book {
    pub slots: u64,
    pub memory: u64,
    /// Of a budget, everything that was ever taken and not given back.
    pub money: u64,
    pub permits: usize,
    pub waiting: usize,
}

/// What a waiter may lack until somebody else gives it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thing {
    Slots,
    Memory,
    Money,
}

impl Thing {
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
    /// By so many nanoseconds what is let through may be taken for having been so earlier.
    pub lateness: u64,
    /// Smaller work may pass a waiter that does not fit so often.
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
            slots: limits.slots,
            memory: limits.memory,
            ceilings: [limits.slots, limits.memory].map(Option::unwrap_or_default),
            calls: limits.calls.map(|quota| Log::new(quota, self.now)),
            money: limits.money.map(|amount| Money { amount, spent: 0 }),
            not_before: [0; 5],
        });
    }

    /// The node and all above it.
    pub fn path(&self, node: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(node), |&node| self.nodes[node].parent)
    }

    /// Whether nobody may ask here any more.
    pub fn is_closed(&self, node: usize) -> bool {
        self.nodes[node].removed || self.path(node).any(|above| self.nodes[above].closed)
    }

    pub fn is_paused(&self, node: usize) -> bool {
        self.path(node).any(|above| self.nodes[above].paused)
    }

    /// Everything that is held, whether or not it was collected, and how much it is.
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
            .filter(|waiter| waiter.stand == Stand::Granted);
        leases.chain(granted.map(|waiter| (&waiter.claim, waiter.claim.cost)))
    }

    pub fn books(&self) -> Vec<Book> {
        let mut books: Vec<_> = self.nodes.iter().map(|_| Book::default()).collect();
        for (claim, held) in self.held() {
            for node in self.path(claim.node) {
                books[node].slots += held.slots;
                books[node].memory += held.memory;
                books[node].money += held.money;
            }
        }
        for (node, book) in self.nodes.iter().zip(&mut books) {
            book.money += node.money.map_or(0, |money| money.spent);
        }
        let here = self
            .leases
            .iter()
            .filter(|lease| !lease.suspended)
            .map(|lease| &lease.claim);
        let granted = self
            .waiters
            .iter()
            .filter(|waiter| waiter.stand == Stand::Granted);
        for claim in here.chain(granted.map(|waiter| &waiter.claim)) {
            for node in self.path(claim.node) {
                books[node].permits += 1;
            }
        }
        let waiting = self
            .waiters
            .iter()
            .filter(|waiter| waiter.stand == Stand::Waits);
        for waiter in waiting {
            for node in self.path(waiter.claim.node) {
                books[node].waiting += 1;
            }
        }
        books
    }

    /// What an owner holds at a node and below, and has of a budget there that is not settled for good.
    pub fn owned(&self, owner: u64, node: usize, thing: Thing) -> u64 {
        let own = self.held().filter(|(claim, _)| claim.owner == Some(owner));
        let here = own.filter(|(claim, _)| self.path(claim.node).any(|above| above == node));
        here.map(|(_, held)| thing.of(&held)).sum()
    }

    /// Where what is left does not cover the claim.
    pub fn lacks(&self, books: &[Book], claim: &Claim) -> Vec<(usize, Thing)> {
        let mut lacks = Vec::new();
        for node in self.path(claim.node) {
            for thing in Thing::ALL {
                if thing.of(&claim.cost) > self.free(books, node, thing) {
                    lacks.push((node, thing));
                }
            }
        }
        lacks
    }

    /// What is left at a node.
    pub fn free(&self, books: &[Book], node: usize, thing: Thing) -> u64 {
        let (limit, held) = match thing {
            Thing::Slots => (self.nodes[node].slots, books[node].slots),
            Thing::Memory => (self.nodes[node].memory, books[node].memory),
            Thing::Money => {
                let money = self.nodes[node].money;
                (money.map(|money| money.amount), books[node].money)
            }
        };
        limit.map_or(u64::MAX, |limit| limit.saturating_sub(held))
    }

    /// Whether it is above a limit as it is now, so that nothing that others do can let it through.
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

    /// Each rate that the claim is counted by, and how much.
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

    /// Whether the rates of the path may let it through now.
    pub fn is_allowed(&self, claim: &Claim) -> bool {
        self.path(claim.node).all(|node| {
            let rate = self.nodes[node].calls.as_ref();
            claim.cost.calls == 0
                || rate.is_none_or(|log| log.allows(self.now, claim.cost.calls, self.lateness))
        }) && self.is_admitted(claim, self.now)
    }

    /// Whether the rates of the path must let it through at that time.
    pub fn is_owed(&self, claim: &Claim, time: u64) -> bool {
        self.path(claim.node)
            .all(|node| self.is_owed_at(node, claim, time))
            && self.is_admitted(claim, time)
    }

    pub fn is_owed_at(&self, node: usize, claim: &Claim, time: u64) -> bool {
        let rate = self.nodes[node].calls.as_ref();
        claim.cost.calls == 0 || rate.is_none_or(|log| log.owes(time, claim.cost.calls))
    }

    /// Whether nobody said that it is to come later.
    fn is_admitted(&self, claim: &Claim, time: u64) -> bool {
        self.path(claim.node)
            .all(|node| self.is_admitted_at(node, claim, time))
    }

    pub fn is_admitted_at(&self, node: usize, claim: &Claim, time: u64) -> bool {
        let Amounts {
            slots,
            memory,
            calls,
            money,
        } = claim.cost;
        let asks = [true, slots > 0, memory > 0, calls > 0, money > 0];
        let not_before = asks.into_iter().zip(self.nodes[node].not_before);
        not_before
            .into_iter()
            .all(|(asks, not_before)| !asks || time >= not_before)
    }

    /// The place among those of its node that wait and are not parked.
    pub fn rank(&self, claim: &Claim) -> usize {
        let rivals = self.waiters.iter().filter(|waiter| {
            waiter.stand == Stand::Waits
                && waiter.claim.node == claim.node
                && waiter.claim.order() < claim.order()
        });
        rivals
            .filter(|waiter| !self.is_parked(&waiter.claim))
            .count()
    }
}
