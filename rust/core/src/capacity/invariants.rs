//! The invariants, verified from scratch.

use super::index::NIL;
use super::model::resource::{Bound, Kind, Pool};
use super::model::share::Flow;
use super::model::state::State;
use super::model::wait_queue::Room;
use super::model::waiter::Stage;
use super::policy::dispatch::{Fit, Next};
use super::{Cost, Resource};
use std::collections::BTreeMap;

/// What the books of one resource of one node should say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    held: u128,
    line_held: u128,
    wanting: u32,
    line_wanting: u32,
    needs: Vec<u64>,
    /// Of the leases that ask for it.
    stamps: Vec<u64>,
}

impl State {
    /// Panics at the first thing that is not as it should be.
    pub(super) fn check(&self) {
        if self.root == NIL {
            assert_eq!(
                (self.nodes.len(), self.waiting),
                (0, 0),
                "nothing without a root"
            );
            return;
        }
        let all = self.below(self.root);
        assert_eq!(all.len(), self.nodes.len(), "every node is in the tree");
        self.check_sums(&all);
        for &node in &all {
            self.check_node(node);
        }
        self.check_waiters();
        self.check_leases();
    }

    /// [`find`](Self::find), by a look at everybody.
    pub(super) fn find_among_all(&self, node: u32) -> Next {
        let here = self.nodes.at(node);
        let mut places = Vec::new();
        places.extend(here.line.flow.open.then(|| here.line.flow.place(node)));
        let mut child = here.first;
        while child != NIL {
            let below = self.nodes.at(child);
            places.extend(below.flow.open.then(|| below.flow.place(child)));
            child = below.after;
        }
        places.sort_unstable();
        let nexts = places.into_iter().map(|(_, _, child)| {
            if child != node {
                return self.find_among_all(child);
            }
            let mut offered = here
                .line
                .offered()
                .filter(|&waiter| !self.was_passed(waiter));
            let next = offered.find_map(|waiter| match self.fit_waiter(waiter) {
                Fit::Fits => Some(Next::Grant(waiter)),
                Fit::Quota if self.waiters.at(waiter).turns == 0 => Some(Next::Turn(waiter)),
                _ => None,
            });
            next.unwrap_or(Next::Nobody)
        });
        let mut nexts = nexts.skip_while(|next| *next == Next::Nobody);
        nexts.next().unwrap_or(Next::Nobody)
    }

    fn add_up(
        &self,
        sums: &mut BTreeMap<(u32, Resource), Sums>,
        node: u32,
        cost: &Cost,
        add: impl Fn(&mut Sums, u64, bool),
    ) {
        for at in self.path(node) {
            for &(resource, amount) in cost.parts() {
                let sums = sums.entry((at, resource)).or_default();
                add(sums, amount.as_micros(), at == node);
            }
        }
    }

    fn check_sums(&self, all: &[u32]) {
        let mut sums = BTreeMap::new();
        for lease in self.leases.iter() {
            self.add_up(&mut sums, lease.node, &lease.cost, |sums, _, _| {
                sums.stamps.push(lease.stamp);
            });
            for &(resource, amount) in lease.cost.parts() {
                let is_held = match self.kind(resource) {
                    Some(Kind::Slots) => lease.held.has_slots(),
                    Some(Kind::Budget) => true,
                    _ => false,
                };
                if is_held {
                    let part = Cost::part(resource, amount);
                    self.add_up(&mut sums, lease.node, &part, |sums, amount, is_line| {
                        sums.held += u128::from(amount);
                        sums.line_held += if is_line { u128::from(amount) } else { 0 };
                    });
                }
            }
        }
        for waiter in self.waiters.iter() {
            let is_offered = matches!(waiter.stage, Stage::Offered);
            if matches!(waiter.stage, Stage::Granted(_) | Stage::Failed(_)) {
                continue;
            }
            self.add_up(
                &mut sums,
                waiter.node,
                &waiter.cost,
                |sums, amount, is_line| {
                    sums.wanting += 1;
                    sums.line_wanting += u32::from(is_line);
                    if is_offered {
                        sums.needs.push(amount);
                    }
                },
            );
        }
        for &node in all {
            for pool in self.nodes.at(node).pools.iter() {
                let sums = sums.remove(&(node, pool.resource)).unwrap_or_default();
                self.check_pool(node, pool, &sums);
            }
        }
        assert!(sums.is_empty(), "books are missing: {sums:?}");
    }

    fn check_pool(&self, node: u32, pool: &Pool, sums: &Sums) {
        assert_eq!(pool.held, sums.held, "held is the sum of live leases below");
        assert_eq!(
            pool.line_held, sums.line_held,
            "and of those of the node itself"
        );
        assert_eq!(
            (pool.wanting, pool.line_wanting),
            (sums.wanting, sums.line_wanting)
        );
        let needs = sums.needs.iter().copied().min().unwrap_or(u64::MAX);
        assert_eq!(pool.needs.len() as usize, sums.needs.len());
        assert_eq!(
            pool.needs.least(),
            needs,
            "the least need of those who are offered"
        );
        if let Bound::Rate(rate) = &pool.bound {
            rate.check(&sums.stamps);
        }
        let mut users = u32::from(pool.is_used_by_line());
        let mut child = self.nodes.at(node).first;
        while child != NIL {
            let here = self.nodes.at(child);
            users += u32::from(here.pool(pool.resource).is_some_and(Pool::is_used));
            child = here.after;
        }
        assert_eq!(pool.users, users, "who holds or wants it");
        if let Some(waiter) = pool.turn {
            assert!(matches!(pool.bound, Bound::Rate(_)), "turns are for rates");
            assert!(matches!(self.waiters.at(waiter).stage, Stage::Offered));
            let is_timed = pool.timer.is_some() || self.keeps_turn(waiter);
            assert!(is_timed, "whose turn it is has a timer, or keeps it");
        }
        if let Some(timer) = pool.timer {
            let entry = (timer, node, Some(pool.resource));
            assert!(self.timers.contains(&entry), "the timers know it");
        }
        if pool.kind == Kind::Slots && self.now < pool.not_before {
            assert_eq!(pool.timer, Some(pool.not_before), "held off by a timer");
        }
        for &(rank, amount) in pool.reservations() {
            let holder = self.holders.get(&rank).expect("a reservation has a holder");
            assert_eq!(
                self.waiters.at(*holder).cost.get(pool.resource).as_micros(),
                amount
            );
        }
    }

    fn check_node(&self, node: u32) {
        let here = self.nodes.at(node);
        if self.now < here.not_before {
            assert_eq!(here.timer, Some(here.not_before), "held off by a timer");
        }
        let has_offers = here.line.has_offers();
        assert_eq!(
            here.line.flow.open, has_offers,
            "the line is open while somebody is offered"
        );
        if let Some((behind, _)) = here.line.first_behind() {
            assert!(
                here.line.room_for(behind, &self.waiters) == Room::Full,
                "nobody is behind while there is room in front"
            );
        }
        let mut open = 0;
        let mut child = here.first;
        while child != NIL {
            let below = self.nodes.at(child);
            assert_eq!(below.parent, node);
            assert_eq!(
                below.flow.open, below.eligible,
                "a child is open while it is eligible"
            );
            if below.flow.open {
                let Flow { kind, seat, .. } = below.flow;
                assert_eq!(here.open.rates(kind), below.rates(), "by its rates");
                let seated = here.open.seated(kind, seat);
                assert_eq!(seated, below.flow.place(child), "who is open has a seat");
                open += 1;
            }
            child = below.after;
        }
        assert_eq!(here.open.len(), open);
        if here.eligible {
            assert!(has_offers || open > 0, "a node is eligible by its children");
        }
        let mut counts = (0, 0, 0);
        for waiter in self.waiters.iter() {
            if matches!(waiter.stage, Stage::Granted(_) | Stage::Failed(_))
                || !self.is_below(waiter.node, node)
            {
                continue;
            }
            counts.0 += 1;
            counts.1 += u32::from(matches!(waiter.stage, Stage::Offered));
            counts.2 += usize::from(matches!(waiter.stage, Stage::Parked));
        }
        assert_eq!((here.waiting, here.offered, here.parked), counts);
    }

    fn check_waiters(&self) {
        let mut waiting = 0;
        for (index, waiter) in self.waiters.entries() {
            match &waiter.stage {
                Stage::Granted(_) | Stage::Failed(_) => {
                    assert_eq!(
                        (waiter.reserved, waiter.turns),
                        (0, 0),
                        "an answer ends the wait"
                    );
                    continue;
                }
                Stage::Offered => {
                    // Whoever came after the last dispatch has yet to be looked at, time too.
                    let fit = self.fit_waiter(index);
                    assert_ne!(
                        fit,
                        Fit::Fits,
                        "{waiter:?} fits what is free and unreserved to it"
                    );
                    assert!(
                        fit != Fit::Quota || waiter.turns > 0,
                        "{waiter:?} waits for time, and nobody knows"
                    );
                }
                Stage::Parked => {
                    assert!(
                        self.is_above_a_limit(waiter.node, &waiter.cost),
                        "parked for a reason"
                    );
                }
                Stage::Behind => {}
            }
            waiting += 1;
            assert!(
                !self.nodes.at(waiter.node).is_closed(),
                "nobody waits at what is closed"
            );
            let kept: usize = self
                .path(waiter.node)
                .flat_map(|node| self.nodes.at(node).pools.iter())
                .filter(|pool| {
                    pool.reservations()
                        .iter()
                        .any(|(rank, _)| *rank == waiter.rank)
                })
                .count();
            assert_eq!(waiter.reserved as usize, kept);
            let holds = self.holders.get(&waiter.rank) == Some(&index);
            let was_passed = matches!(waiter.stage, Stage::Offered) && self.was_passed(index);
            assert_eq!(holds, was_passed, "who was passed often is looked at first");
            assert!(holds || kept == 0, "nothing is kept for others");
        }
        assert_eq!(self.waiting, waiting);
        for &waiter in &self.outrun {
            assert!(matches!(self.waiters.at(waiter).stage, Stage::Offered));
            assert!(
                !self.keeps_turn(waiter),
                "who keeps its turn misses nothing"
            );
        }
    }

    fn check_leases(&self) {
        let mut pins = BTreeMap::<u32, usize>::new();
        for (index, lease) in self.leases.entries() {
            *pins.entry(lease.node).or_default() += 1;
            if lease.charge != NIL {
                let until = self.charges.at(lease.charge).to;
                assert!(
                    self.expiry.contains(&(until, index)),
                    "its charge ends some time"
                );
            }
            if let Some(owner) = lease.owner {
                assert!(self.leases_of(owner).contains(&index), "its owner knows it");
            }
        }
        let charged = self
            .leases
            .iter()
            .filter(|lease| lease.charge != NIL)
            .count();
        assert_eq!((self.expiry.len(), self.charges.len()), (charged, charged));
        for (index, node) in self.nodes.entries() {
            assert_eq!(node.pins, pins.get(&index).copied().unwrap_or(0));
        }
        let timers = self.nodes.iter().map(|node| {
            usize::from(node.timer.is_some())
                + node
                    .pools
                    .iter()
                    .filter(|pool| pool.timer.is_some())
                    .count()
        });
        assert_eq!(self.timers.len(), timers.sum::<usize>());
    }
}
