//! The invariants, verified from scratch. Tests call them by `Tree::check`. From its first call on,
//! `policy/dispatch.rs` also compares each of its searches with a full one.

use super::index::NIL;
use super::model::resource::{LimitState, Resource, ResourceKind};
use super::model::share::Share;
use super::model::state::State;
use super::model::wait_queue::FrontRoom;
use super::model::waiter::WaiterState;
use super::policy::dispatch::{FitResult, Next};
use super::{Cost, ResourceId};
use std::collections::BTreeMap;

/// The expected counts of one resource of one node.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    held: u128,
    own_held: u128,
    wanting: u32,
    own_wanting: u32,
    demand: Vec<u64>,
    /// The stamps of the permits whose cost includes it.
    stamps: Vec<u64>,
}

impl State {
    /// Panic at the first broken invariant.
    pub(super) fn check(&self) {
        if self.root == NIL {
            assert_eq!(
                (self.nodes.len(), self.waiting),
                (0, 0),
                "no node or waiter without a root"
            );
            return;
        }
        let all = self.below(self.root);
        assert_eq!(all.len(), self.nodes.len(), "every node is below the root");
        self.check_sums(&all);
        for &node in &all {
            self.check_node(node);
        }
        self.check_waiters();
        self.check_permits();
    }

    /// [`find`](Self::find), by visiting every waiter.
    pub(super) fn find_among_all(&self, node: u32) -> Next {
        if let Ok(waiter) = self.search_all_floors(node) {
            return Next::Grant(waiter);
        }
        let here = self.nodes.at(node);
        let mut positions = Vec::new();
        positions.extend(
            here.queue
                .share
                .eligible
                .then(|| here.queue.share.order_key(node)),
        );
        for child in self.children(node) {
            let below = self.nodes.at(child);
            positions.extend(below.share.eligible.then(|| below.share.order_key(child)));
        }
        positions.sort_unstable();
        let nexts = positions.into_iter().map(|(_, _, child)| {
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
            if waiter.state.is_answered() {
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
        assert!(sums.is_empty(), "missing resources: {sums:?}");
    }

    fn check_resource(&self, node: u32, resource: &Resource, sums: &Sums) {
        assert_eq!(
            resource.held, sums.held,
            "held is the sum of live permits at the node and below"
        );
        assert_eq!(
            resource.own_held, sums.own_held,
            "own_held is the sum of live permits at the node"
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
            "the least demand of the offered waiters"
        );
        if let LimitState::Rate(rate) = &resource.limit {
            rate.check(&sums.stamps);
        }
        let mut users = u32::from(resource.is_used_by_queue());
        for child in self.children(node) {
            let here = self.nodes.at(child);
            users += u32::from(here.resource(resource.id).is_some_and(Resource::is_used));
        }
        assert_eq!(resource.users, users, "children that hold or want it");
        if let Some(waiter) = resource.head {
            assert!(
                matches!(resource.limit, LimitState::Rate(_)),
                "only rates have a head"
            );
            assert!(matches!(
                self.waiters.at(waiter).state,
                WaiterState::Offered
            ));
            let is_timed = resource.timer.is_some() || self.keeps_rate_head(waiter);
            assert!(is_timed, "a head has a timer, or is kept");
        }
        if let Some(timer) = resource.timer {
            let entry = (timer, node, Some(resource.id));
            assert!(self.timers.contains(&entry), "the timers contain it");
        }
        if self.now < resource.not_before {
            assert!(
                resource.head.is_none(),
                "no waiter is the head of a cooled rate"
            );
            assert_eq!(
                resource.timer,
                Some(resource.not_before),
                "a node or resource that is held off has a timer"
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

    fn check_ramp(&self, node: u32) {
        let here = self.nodes.at(node);
        let Some(ramp) = &here.ramp else {
            assert!(here.timer.is_none() && here.most == usize::MAX);
            assert!(self.now >= here.not_before, "a cooldown has a ramp");
            return;
        };
        if let Some(places) = ramp.probes {
            let breaker = here.breaker.as_ref().expect("probes belong to a breaker");
            let probes = breaker.options.probes;
            assert!((1..=probes).contains(&places) && ramp.resource.is_none());
            assert!(
                here.permits - ramp.before <= probes,
                "no more probes are held than allowed"
            );
        }
        let is_probed = ramp.probes.is_some() && ramp.is_open;
        let is_kept = ramp.window == usize::MAX && !ramp.is_over();
        assert!(
            here.timer.is_none() == is_probed || here.timer.is_none() && is_kept,
            "a ramp has a timer, unless it waits for probes or for a call"
        );
        if self.now < here.not_before {
            let has_timer = here.timer.is_some_and(|timer| timer >= here.not_before);
            assert!(has_timer, "a closed node has a timer");
            assert!(!ramp.is_open);
        }
        let before = self.permits.entries().filter(|(index, permit)| {
            self.permits.key_at(*index).ticket() < ramp.ticket
                && permit.held.has_slots()
                && self.is_below(permit.node, node)
        });
        assert_eq!(
            ramp.before,
            before.count(),
            "the permits held from before the event"
        );
        let resource = ramp.resource.and_then(|id| here.resource(id));
        let most = match ramp.resource {
            None => Some(here.most),
            Some(_) => resource.map(|resource| resource.most),
        };
        // A resource that lost its limit has no bound until the next step.
        assert!(
            most.is_none_or(|most| most == ramp.most() || most == usize::MAX && resource.is_some()),
            "the bound follows the window"
        );
    }

    fn check_node(&self, node: u32) {
        let here = self.nodes.at(node);
        self.check_ramp(node);
        let has_offers = here.queue.has_offers();
        assert_eq!(
            here.queue.share.eligible, has_offers,
            "the queue is eligible while it offers a waiter"
        );
        if let Some((behind, _)) = here.queue.first_behind() {
            assert!(
                here.queue.room_for(behind, &self.waiters) == FrontRoom::Full,
                "no waiter is behind while there is room in front"
            );
        }
        let mut open = 0;
        for child in self.children(node) {
            let below = self.nodes.at(child);
            assert_eq!(below.parent, node);
            assert_eq!(
                below.share.eligible, below.eligible,
                "a share is eligible while its node is"
            );
            if below.share.eligible {
                let Share { class, leaf, .. } = below.share;
                assert_eq!(
                    here.ready.rates(class),
                    below.rates(),
                    "a child is in the class of its rates"
                );
                let taken = here.ready.at_leaf(class, leaf);
                assert_eq!(
                    taken,
                    below.share.order_key(child),
                    "an eligible child has a leaf"
                );
                open += 1;
            }
        }
        assert_eq!(here.ready.len(), open);
        self.check_floors_of(node);
        if here.eligible {
            assert!(
                has_offers || open > 0,
                "an eligible node has an eligible child"
            );
        }
        let mut counts = (0, 0, 0);
        for waiter in self.waiters.iter() {
            if waiter.state.is_answered() || !self.is_below(waiter.node, node) {
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
                        "an answered waiter has no reservation and no head"
                    );
                    continue;
                }
                WaiterState::Offered => {
                    // Changes since the last dispatch, of time too, are not handled yet.
                    let fit = self.fit_waiter(index);
                    assert_ne!(
                        fit,
                        FitResult::Fits,
                        "{waiter:?} fits what is free and unreserved to it"
                    );
                    assert!(
                        fit != FitResult::Quota || waiter.rates_headed > 0,
                        "{waiter:?} waits for time without being a head"
                    );
                }
                WaiterState::Parked => {
                    assert!(
                        self.is_above_a_limit(waiter.node, &waiter.cost),
                        "a parked waiter exceeds a limit"
                    );
                }
                WaiterState::Behind => {}
            }
            waiting += 1;
            assert!(
                !self.nodes.at(waiter.node).is_closed(),
                "a closed node has no waiter"
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
                "a starved waiter is among the reservation holders"
            );
            assert!(holds || kept == 0, "only starved waiters have reservations");
        }
        assert_eq!(self.waiting, waiting);
        let ramps = self.nodes.iter().filter(|node| node.ramp.is_some()).count();
        assert_eq!((self.ramps, self.busy), (ramps, ramps + waiting));
        assert!(
            self.busy > 0 || self.timers.is_empty(),
            "the fast path needs no timer"
        );
        for &waiter in &self.slot_missers {
            assert!(matches!(
                self.waiters.at(waiter).state,
                WaiterState::Offered
            ));
            assert!(!self.keeps_rate_head(waiter), "a kept head misses nothing");
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
                    "the expiry of a charge is known"
                );
            }
            if let Some(owner) = permit.owner {
                assert!(
                    self.permits_of(owner).contains(&index),
                    "a permit is in the list of its owner"
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
