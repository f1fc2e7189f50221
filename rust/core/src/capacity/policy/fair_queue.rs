//! Start-time fair queueing of hold time: tags, charges, corrections and lifts.

use crate::capacity::index::NIL;
use crate::capacity::model::node::Node;
use crate::capacity::model::permit_record::Charge;
use crate::capacity::model::resource::Bound;
use crate::capacity::model::share::{FRACTION, Flow, Level, Prices};
use crate::capacity::model::state::State;
use crate::capacity::{Cost, Time, Weight};

/// A share of a limit, by weight.
#[inline]
fn price(amount: u64, limit: u64, weight: Weight) -> u64 {
    let share = (u128::from(amount) << FRACTION) / u128::from(limit.max(1));
    let share = share.min(1 << FRACTION) * u128::from(Weight::ONE.as_micros());
    // At most 2^48 x 10^3: the least weight is a thousandth.
    let price = share.div_ceil(u128::from(weight.as_micros()));
    u64::try_from(price).unwrap_or(u64::MAX)
}

impl State {
    /// The child of `node` that goes by `child`: its own line goes by its own index.
    #[inline]
    pub(in crate::capacity) fn flow(&self, node: u32, child: u32) -> &Flow {
        if node == child {
            &self.nodes.at(node).line.flow
        } else {
            &self.nodes.at(child).flow
        }
    }

    #[inline]
    pub(in crate::capacity) fn flow_mut(&mut self, node: u32, child: u32) -> &mut Flow {
        if node == child {
            &mut self.nodes.at_mut(node).line.flow
        } else {
            &mut self.nodes.at_mut(child).flow
        }
    }

    /// Makes `child` of `node` eligible, or no longer. One that becomes so is lifted to [where it starts](Self::start).
    pub(in crate::capacity) fn set_open(&mut self, node: u32, child: u32, open: bool) {
        if self.flow(node, child).open == open {
            return;
        }
        let (now, stamp) = (self.now, self.next_stamp());
        let start = if open { self.start(node, child) } else { 0 };
        let flow = self.flow_mut(node, child);
        flow.open = open;
        if !open {
            flow.left = stamp;
        } else if flow.tag < start {
            flow.tag = start;
            flow.lifted = stamp;
            flow.lifted_at = now;
        }
        if node == child {
            return;
        }
        if open {
            self.seat(node, child);
        } else {
            self.unseat(node, child);
        }
    }

    /// Gives a child of `node` a seat among those of its siblings who need the same rates.
    fn seat(&mut self, node: u32, child: u32) {
        let rates = self.nodes.at(child).rates();
        let place = self.nodes.at(child).flow.place(child);
        let siblings = &mut self.nodes.at_mut(node).open;
        let kind = siblings.kind(rates);
        let seat = siblings.enter(kind, place);
        let flow = &mut self.nodes.at_mut(child).flow;
        (flow.kind, flow.seat) = (kind, seat);
    }

    fn unseat(&mut self, node: u32, child: u32) {
        let Flow { kind, seat, .. } = self.nodes.at(child).flow;
        let siblings = &mut self.nodes.at_mut(node).open;
        if siblings.leave(kind, seat) {
            let mut siblings = std::mem::take(siblings);
            for (child, seat) in siblings.deal(kind) {
                self.nodes.at_mut(child).flow.seat = seat;
            }
            self.nodes.at_mut(node).open = siblings;
        }
    }

    /// Seats an eligible child of `node` among others if it needs other rates now.
    pub(in crate::capacity) fn reseat(&mut self, node: u32, child: u32) {
        let here = self.nodes.at(child);
        let kind = here.flow.kind;
        if !here.needs_rates(self.nodes.at(node).open.rates(kind)) {
            self.unseat(node, child);
            self.seat(node, child);
        }
    }

    /// Changes the flow of `child`, and its place among its siblings with it.
    pub(in crate::capacity) fn move_flow(
        &mut self,
        node: u32,
        child: u32,
        change: impl FnOnce(&mut Flow),
    ) {
        let flow = self.flow_mut(node, child);
        change(flow);
        let (place, kind, seat) = (flow.place(child), flow.kind, flow.seat);
        if flow.open && node != child {
            self.nodes.at_mut(node).open.change(kind, seat, place);
        }
    }

    /// The levels of a path, the line of `node` first, in room that is to be [put back](Self::put_back).
    fn levels_of(&mut self, node: u32) -> Vec<Level> {
        let mut levels = std::mem::take(&mut self.levels);
        let (mut parent, mut child) = (node, node);
        while parent != NIL {
            levels.push(Level {
                parent,
                child,
                price: 0,
                quota: 0,
            });
            child = parent;
            parent = self.nodes.at(parent).parent;
        }
        levels
    }

    fn put_back(&mut self, mut levels: Vec<Level>) {
        levels.clear();
        self.levels = levels;
    }

    /// What a nanosecond of `cost` at `node` is worth, level by level, and what the quota in it is worth in all.
    ///
    /// At each level it is the largest share of a limit, of those resources that two children compete for and that
    /// somebody had to wait for. What nobody else there wants is no loss to anybody: charging for it would starve those
    /// beside it (Bhattacharya et al. 2013).
    fn price_levels(&self, cost: &Cost, levels: &mut [Level]) {
        for &(resource, amount) in cost.parts() {
            let amount = amount.as_micros();
            let (mut scarce, mut limit, mut worth) = (false, None, 0);
            for level in levels.iter_mut().rev() {
                let Some(pool) = self.nodes.at(level.parent).pool(resource) else {
                    continue;
                };
                scarce |= pool.scarce;
                match &pool.bound {
                    // A budget is spent once, whoever holds it and however long.
                    Bound::None | Bound::Budget { .. } => {}
                    Bound::Slots(here) => {
                        let last = pool.ceiling.unwrap_or(0);
                        let here = if *here > 0 { *here } else { last };
                        limit = Some(limit.map_or(here, |above: u64| above.min(here)));
                    }
                    Bound::Rate(rate) => worth = worth.max(rate.worth(amount)),
                }
                if !scarce || pool.users < 2 {
                    continue;
                }
                if let Some(limit) = limit {
                    let weight = self.flow(level.parent, level.child).weight;
                    level.price = price(amount, limit, weight).max(level.price);
                }
                level.quota = worth.max(level.quota);
            }
        }
    }

    /// How long a permit of `node` is expected to be held, in nanoseconds.
    pub(in crate::capacity) fn estimate(&self, node: u32) -> u64 {
        let mut nodes = self.path(node);
        nodes
            .find_map(|node| self.nodes.at(node).hold)
            .unwrap_or(self.estimate)
            .max(1)
    }

    /// Charges a lease for its next stretch, from `from` on, as long as its like is expected to be held; at each level of
    /// its path it counts as served if it is a grant.
    pub(in crate::capacity) fn charge(&mut self, lease: u32, from: Time, is_grant: bool) {
        let node = self.leases.at(lease).node;
        let until = from.as_nanos().saturating_add(self.estimate(node));
        let mut levels = self.levels_of(node);
        self.price_levels(&self.leases.at(lease).cost, &mut levels);
        let stamp = self.next_stamp();
        for level in &levels {
            let &Level { parent, child, .. } = level;
            let weight = i128::from(self.flow(parent, child).weight.as_micros());
            let mut charge = i128::from(level.price) * i128::from(until - from.as_nanos());
            if is_grant && level.quota > 0 {
                let one = i128::from(Weight::ONE.as_micros());
                charge = charge.max((i128::from(level.quota) << FRACTION) / weight * one);
            }
            let start = if is_grant {
                self.begin(parent, child)
            } else {
                i128::MIN
            };
            let mut tag = 0;
            self.move_flow(parent, child, |flow| {
                flow.tag = flow.tag.max(start) + charge;
                flow.serve(charge);
                if is_grant {
                    flow.served = stamp;
                }
                tag = flow.tag;
            });
            let node = self.nodes.at_mut(parent);
            node.greatest_tag = node.greatest_tag.max(tag);
            if is_grant {
                node.last_grant = stamp;
            }
        }
        let charge = Charge {
            to: Time::from_nanos(until),
            stamp,
            prices: Prices::of(&levels),
        };
        self.put_back(levels);
        self.note_charge(lease, charge);
    }

    /// Begins a grant to `child`: the virtual time moves on to its start tag. Where nobody competes for anything, that is as late
    /// as any tag there, and is to be the child's: a lead from an earlier competition ends with it.
    fn begin(&mut self, parent: u32, child: u32) -> i128 {
        let tag = self.flow(parent, child).tag;
        let node = self.nodes.at_mut(parent);
        let is_alone = node.pools.iter().all(|pool| pool.users < 2);
        let tag = if is_alone {
            tag.max(node.greatest_tag)
        } else {
            tag
        };
        node.virtual_time = node.virtual_time.max(tag);
        tag
    }

    /// Charges a lease for what it was held beyond what it was charged for, or gives back what it was not held of it.
    ///
    /// What a child was charged before it was lifted is forgiven, so what of that would be given back is forgiven too:
    /// it would be savings. `until` is when the lease ended, or outlived its charge.
    pub(in crate::capacity) fn correct(&mut self, lease: u32, until: Time) {
        let record = self.leases.at(lease);
        if record.charge == NIL {
            return;
        }
        let (node, place) = (record.node, record.charge);
        let mut levels = self.levels_of(node);
        let charge = self.charges.at(place);
        charge.prices.put_into(&mut levels);
        let (charged_to, stamp) = (charge.to, charge.stamp);
        // While nobody waited there was nothing to share.
        let busy_until = if self.waiting > 0 {
            until
        } else {
            self.calm_since.min(until)
        };
        let from = charged_to.max(self.busy_since);
        for &Level {
            parent,
            child,
            price,
            ..
        } in &levels
        {
            if price == 0 {
                continue;
            }
            let price = i128::from(price);
            let flow = self.flow(parent, child);
            let was_lifted = flow.lifted > stamp;
            let (service, tag) = if until < charged_to {
                let early = i128::from(charged_to.as_nanos() - until.as_nanos());
                let back = -price * early;
                (back, if was_lifted { 0 } else { back })
            } else {
                let lifted_at = if was_lifted {
                    flow.lifted_at
                } else {
                    Time::ZERO
                };
                let late =
                    |from: Time| i128::from(busy_until.as_nanos().saturating_sub(from.as_nanos()));
                (price * late(from), price * late(from.max(lifted_at)))
            };
            self.move_flow(parent, child, |flow| {
                flow.tag += tag;
                flow.serve(service);
            });
        }
        self.put_back(levels);
    }

    /// Charges every lease that has outlived its charge for another stretch.
    pub(in crate::capacity) fn recharge(&mut self) {
        let now = self.now;
        while let Some((until, lease)) = self.expiry.first()
            && until <= now
        {
            self.correct(lease, now);
            self.charge(lease, now, false);
        }
    }
}

impl Node {
    /// Takes a hold into the moving average.
    pub(in crate::capacity) fn learn(&mut self, nanos: u64) {
        self.hold = Some(match self.hold {
            None => nanos,
            Some(mean) => {
                let mean = u128::from(mean) * 7 + u128::from(nanos);
                u64::try_from(mean.div_ceil(8)).unwrap_or(u64::MAX)
            }
        });
    }
}
