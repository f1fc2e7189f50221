//! The invariants, verified from scratch.

use super::index::NIL;
use super::model::resource::{LimitState, Resource, ResourceKind};
use super::model::share::Share;
use super::model::state::State;
use super::model::wait_queue::FrontRoom;
use super::model::waiter::WaiterState;
use super::policy::dispatch::{FitResult, Next};
use super::{Cost, ResourceId};
use std::collections::BTreeMap;

/// What the books of one resource of one node should say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    held: u128,
    own_held: u128,
    wanting: u32,
    own_wanting: u32,
    demand: Vec<u64>,
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
        self.check_permits();
    }

    /// [`find`](Self::find), by a look at everybody.
    pub(super) fn find_among_all(&self, node: u32) -> Next {
        let here = self.nodes.at(node);
        let mut places = Vec::new();
        places.extend(
            here.queue
                .share
                .eligible
                .then(|| here.queue.share.order_key(node)),
        );
        let mut child = here.first;
        while child != NIL {
            let below = self.nodes.at(child);
            places.extend(below.share.eligible.then(|| below.share.order_key(child)));
            child = below.after;
        }
        places.sort_unstable();
        let nexts = places.into_iter().map(|(_, _, child)| {
            if child != node {
                return self.find_among_all(child);
            }
            let mut offered = here
                .queue
                .offered()
                .filter(|&waiter| !self.is_starved(waiter));
            let next = offered.find_map(|waiter| match self.fit_waiter(waiter) {
                FitResult::Fits => Some(Next::Grant(waiter)),
                FitResult::Quota if self.waiters.at(waiter).rates_headed == 0 => {
                    Some(Next::RateHead(waiter))
                }
                _ => None,
            });
            next.unwrap_or(Next::Nothing)
        });
        let mut nexts = nexts.skip_while(|next| *next == Next::Nothing);
        nexts.next().unwrap_or(Next::Nothing)
    }

    fn add_up(
        &self,
        sums: &mut BTreeMap<(u32, ResourceId), Sums>,
        node: u32,
        cost: &Cost,
        add: impl Fn(&mut Sums, u64, bool),
    ) {
        for at in self.path(node) {
            for &(id, amount) in cost.parts() {
                let sums = sums.entry((at, id)).or_default();
                add(sums, amount.as_micros(), at == node);
            }
        }
    }

    fn check_sums(&self, all: &[u32]) {
        let mut sums = BTreeMap::new();
        for permit in self.permits.iter() {
            self.add_up(&mut sums, permit.node, &permit.cost, |sums, _, _| {
                sums.stamps.push(permit.stamp);
            });
            for &(id, amount) in permit.cost.parts() {
                let is_held = match self.kind(id) {
                    Some(ResourceKind::Slots) => permit.held.has_slots(),
                    Some(ResourceKind::Budget) => true,
                    _ => false,
                };
                if is_held {
                    let part = Cost::part(id, amount);
                    self.add_up(&mut sums, permit.node, &part, |sums, amount, is_own| {
                        sums.held += u128::from(amount);
                        sums.own_held += if is_own { u128::from(amount) } else { 0 };
                    });
                }
            }
        }
        for waiter in self.waiters.iter() {
            let is_offered = matches!(waiter.state, WaiterState::Offered);
            if matches!(
                waiter.state,
                WaiterState::Granted(_) | WaiterState::Failed(_)
            ) {
                continue;
            }
            self.add_up(
                &mut sums,
                waiter.node,
                &waiter.cost,
                |sums, amount, is_own| {
                    sums.wanting += 1;
                    sums.own_wanting += u32::from(is_own);
                    if is_offered {
                        sums.demand.push(amount);
                    }
                },
            );
        }
        for &node in all {
            for resource in self.nodes.at(node).resources.iter() {
                let sums = sums.remove(&(node, resource.id)).unwrap_or_default();
                self.check_resource(node, resource, &sums);
            }
        }
        assert!(sums.is_empty(), "books are missing: {sums:?}");
    }

    fn check_resource(&self, node: u32, resource: &Resource, sums: &Sums) {
        assert_eq!(
            resource.held, sums.held,
            "held is the sum of live permits below"
        );
        assert_eq!(
            resource.own_held, sums.own_held,
            "and of those of the node itself"
        );
        assert_eq!(
            (resource.wanting, resource.own_wanting),
            (sums.wanting, sums.own_wanting)
        );
        let demand = sums.demand.iter().copied().min().unwrap_or(u64::MAX);
        assert_eq!(resource.demand.len() as usize, sums.demand.len());
        assert_eq!(
            resource.demand.least(),
            demand,
            "the least need of those who are offered"
        );
        if let LimitState::Rate(rate) = &resource.limit {
            rate.check(&sums.stamps);
        }
        let mut users = u32::from(resource.is_used_by_queue());
        let mut child = self.nodes.at(node).first;
        while child != NIL {
            let here = self.nodes.at(child);
            users += u32::from(here.resource(resource.id).is_some_and(Resource::is_used));
            child = here.after;
        }
        assert_eq!(resource.users, users, "who holds or wants it");
        if let Some(waiter) = resource.head {
            assert!(
                matches!(resource.limit, LimitState::Rate(_)),
                "rates_headed are for rates"
            );
            assert!(matches!(
                self.waiters.at(waiter).state,
                WaiterState::Offered
            ));
            let is_timed = resource.timer.is_some() || self.keeps_rate_head(waiter);
            assert!(is_timed, "whose turn it is has a timer, or keeps it");
        }
        if let Some(timer) = resource.timer {
            let entry = (timer, node, Some(resource.id));
            assert!(self.timers.contains(&entry), "the timers know it");
        }
        if resource.kind == ResourceKind::Slots && self.now < resource.not_before {
            assert_eq!(
                resource.timer,
                Some(resource.not_before),
                "held off by a timer"
            );
        }
        for &(rank, amount) in resource.reservations() {
            let holder = self
                .reservation_holders
                .get(&rank)
                .expect("a reservation has a holder");
            assert_eq!(
                self.waiters.at(*holder).cost.get(resource.id).as_micros(),
                amount
            );
        }
    }

    fn check_node(&self, node: u32) {
        let here = self.nodes.at(node);
        if self.now < here.not_before {
            assert_eq!(here.timer, Some(here.not_before), "held off by a timer");
        }
        let has_offers = here.queue.has_offers();
        assert_eq!(
            here.queue.share.eligible, has_offers,
            "the queue is open while somebody is offered"
        );
        if let Some((behind, _)) = here.queue.first_behind() {
            assert!(
                here.queue.room_for(behind, &self.waiters) == FrontRoom::Full,
                "nobody is behind while there is room in front"
            );
        }
        let mut open = 0;
        let mut child = here.first;
        while child != NIL {
            let below = self.nodes.at(child);
            assert_eq!(below.parent, node);
            assert_eq!(
                below.share.eligible, below.eligible,
                "a child is open while it is eligible"
            );
            if below.share.eligible {
                let Share { class, leaf, .. } = below.share;
                assert_eq!(here.ready.rates(class), below.rates(), "by its rates");
                let taken = here.ready.at_leaf(class, leaf);
                assert_eq!(
                    taken,
                    below.share.order_key(child),
                    "who is open has a leaf"
                );
                open += 1;
            }
            child = below.after;
        }
        assert_eq!(here.ready.len(), open);
        if here.eligible {
            assert!(has_offers || open > 0, "a node is eligible by its children");
        }
        let mut counts = (0, 0, 0);
        for waiter in self.waiters.iter() {
            if matches!(
                waiter.state,
                WaiterState::Granted(_) | WaiterState::Failed(_)
            ) || !self.is_below(waiter.node, node)
            {
                continue;
            }
            counts.0 += 1;
            counts.1 += u32::from(matches!(waiter.state, WaiterState::Offered));
            counts.2 += usize::from(matches!(waiter.state, WaiterState::Parked));
        }
        assert_eq!((here.waiting, here.offered, here.parked), counts);
    }

    fn check_waiters(&self) {
        let mut waiting = 0;
        for (index, waiter) in self.waiters.entries() {
            match &waiter.state {
                WaiterState::Granted(_) | WaiterState::Failed(_) => {
                    assert_eq!(
                        (waiter.reserved, waiter.rates_headed),
                        (0, 0),
                        "an answer ends the wait"
                    );
                    continue;
                }
                WaiterState::Offered => {
                    // Whoever came after the last dispatch has yet to be looked at, time too.
                    let fit = self.fit_waiter(index);
                    assert_ne!(
                        fit,
                        FitResult::Fits,
                        "{waiter:?} fits what is free and unreserved to it"
                    );
                    assert!(
                        fit != FitResult::Quota || waiter.rates_headed > 0,
                        "{waiter:?} waits for time, and nobody knows"
                    );
                }
                WaiterState::Parked => {
                    assert!(
                        self.is_above_a_limit(waiter.node, &waiter.cost),
                        "parked for a reason"
                    );
                }
                WaiterState::Behind => {}
            }
            waiting += 1;
            assert!(
                !self.nodes.at(waiter.node).is_closed(),
                "nobody waits at what is closed"
            );
            let kept: usize = self
                .path(waiter.node)
                .flat_map(|node| self.nodes.at(node).resources.iter())
                .filter(|resource| {
                    resource
                        .reservations()
                        .iter()
                        .any(|(rank, _)| *rank == waiter.rank)
                })
                .count();
            assert_eq!(waiter.reserved as usize, kept);
            let holds = self.reservation_holders.get(&waiter.rank) == Some(&index);
            let is_starved = matches!(waiter.state, WaiterState::Offered) && self.is_starved(index);
            assert_eq!(
                holds, is_starved,
                "who was passed_over often is looked at first"
            );
            assert!(holds || kept == 0, "nothing is kept for others");
        }
        assert_eq!(self.waiting, waiting);
        for &waiter in &self.slot_missers {
            assert!(matches!(
                self.waiters.at(waiter).state,
                WaiterState::Offered
            ));
            assert!(
                !self.keeps_rate_head(waiter),
                "who keeps its turn misses nothing"
            );
        }
    }

    fn check_permits(&self) {
        let mut permit_refs = BTreeMap::<u32, usize>::new();
        for (index, permit) in self.permits.entries() {
            *permit_refs.entry(permit.node).or_default() += 1;
            if permit.charge != NIL {
                let until = self.charges.at(permit.charge).to;
                assert!(
                    self.expiry.contains(&(until, index)),
                    "its charge ends some time"
                );
            }
            if let Some(owner) = permit.owner {
                assert!(
                    self.permits_of(owner).contains(&index),
                    "its owner knows it"
                );
            }
        }
        let charged = self
            .permits
            .iter()
            .filter(|permit| permit.charge != NIL)
            .count();
        assert_eq!((self.expiry.len(), self.charges.len()), (charged, charged));
        for (index, node) in self.nodes.entries() {
            assert_eq!(
                node.permit_refs,
                permit_refs.get(&index).copied().unwrap_or(0)
            );
        }
        let timers = self.nodes.iter().map(|node| {
            usize::from(node.timer.is_some())
                + node
                    .resources
                    .iter()
                    .filter(|resource| resource.timer.is_some())
                    .count()
        });
        assert_eq!(self.timers.len(), timers.sum::<usize>());
    }
}
