//! Start-time fair queueing of hold time: tags, charges, corrections and lifts. `charging.rs` charges and corrects
//! permits by it, and `eligibility.rs` adds and removes the eligible children.

use crate::capacity::index::NIL;
use crate::capacity::model::node::Node;
use crate::capacity::model::permit_record::Charge;
use crate::capacity::model::resource::LimitState;
use crate::capacity::model::share::{FRACTION, Level, Prices, Share};
use crate::capacity::model::state::State;
use crate::capacity::{Cost, Time, Weight};

/// Return a share of a limit, divided by the weight.
#[inline]
fn price(amount: u64, limit: u64, weight: Weight) -> u64 {
    let share = (u128::from(amount) << FRACTION) / u128::from(limit.max(1));
    let share = share.min(1 << FRACTION) * u128::from(Weight::ONE.as_micros());
    // At most 2^48 x 10^3: the least weight is a thousandth.
    let price = share.div_ceil(u128::from(weight.as_micros()));
    u64::try_from(price).unwrap_or(u64::MAX)
}

impl State {
    /// Return the share of a child of `node`. The node's own index stands for its own queue.
    #[inline]
    pub(in crate::capacity) fn share(&self, node: u32, child: u32) -> &Share {
        if node == child {
            &self.nodes.at(node).queue.share
        } else {
            &self.nodes.at(child).share
        }
    }

    #[inline]
    pub(in crate::capacity) fn share_mut(&mut self, node: u32, child: u32) -> &mut Share {
        if node == child {
            &mut self.nodes.at_mut(node).queue.share
        } else {
            &mut self.nodes.at_mut(child).share
        }
    }

    /// Make `child` of `node` eligible or ineligible. A child that becomes eligible is lifted to [its start](Self::start).
    pub(in crate::capacity) fn set_eligible(&mut self, node: u32, child: u32, eligible: bool) {
        if self.share(node, child).eligible == eligible {
            return;
        }
        let (now, stamp) = (self.now, self.next_stamp());
        let start = if eligible { self.start(node, child) } else { 0 };
        let share = self.share_mut(node, child);
        share.eligible = eligible;
        if !eligible {
            share.left = stamp;
        } else if share.tag < start {
            share.tag = start;
            share.lifted = stamp;
            share.lifted_at = now;
        }
        if node == child {
            return;
        }
        if eligible {
            self.add_leaf(node, child);
        } else {
            self.free_leaf(node, child);
        }
    }

    /// Add a child of `node` to its ready children, in the class of its rates.
    fn add_leaf(&mut self, node: u32, child: u32) {
        let rates = self.nodes.at(child).rates();
        let key = self.nodes.at(child).share.order_key(child);
        let ready = &mut self.nodes.at_mut(node).ready;
        let class = ready.class(rates);
        let leaf = ready.insert(class, key);
        let share = &mut self.nodes.at_mut(child).share;
        (share.class, share.leaf) = (class, leaf);
    }

    fn free_leaf(&mut self, node: u32, child: u32) {
        let Share { class, leaf, .. } = self.nodes.at(child).share;
        let ready = &mut self.nodes.at_mut(node).ready;
        if ready.remove(class, leaf) {
            let mut ready = std::mem::take(ready);
            for (child, leaf) in ready.assign_leaves(class) {
                self.nodes.at_mut(child).share.leaf = leaf;
            }
            self.nodes.at_mut(node).ready = ready;
        }
    }

    /// Move an eligible child of `node` to other siblings if it needs other rates now.
    pub(in crate::capacity) fn update_class(&mut self, node: u32, child: u32) {
        let here = self.nodes.at(child);
        let class = here.share.class;
        if !here.needs_rates(self.nodes.at(node).ready.rates(class)) {
            self.free_leaf(node, child);
            self.add_leaf(node, child);
        }
    }

    /// Change the share of `child`, and its position among its siblings.
    pub(in crate::capacity) fn update_share(
        &mut self,
        node: u32,
        child: u32,
        change: impl FnOnce(&mut Share),
    ) {
        let share = self.share_mut(node, child);
        change(share);
        let (key, class, leaf) = (share.order_key(child), share.class, share.leaf);
        if share.eligible && node != child {
            self.nodes.at_mut(node).ready.update(class, leaf, key);
            self.move_below_floor(node, child);
        }
    }

    /// Return the levels of a path, the queue of `node` first, in a buffer that must be [put back](Self::put_back).
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

    /// Set the price of a nanosecond of `cost` at `node`, level by level, and the worth of its quota.
    ///
    /// The price at a level is the largest share of a limit, among the contended resources for which two children compete. A charge
    /// for an uncontended resource would starve its user of the contended ones (Bhattacharya et al. 2013).
    fn price_levels(&self, cost: &Cost, levels: &mut [Level]) {
        for &(id, amount) in cost.parts() {
            let amount = amount.as_micros();
            let (mut contended, mut limit, mut worth) = (false, None, 0);
            for level in levels.iter_mut().rev() {
                let Some(resource) = self.nodes.at(level.parent).resource(id) else {
                    continue;
                };
                contended |= resource.contended;
                match &resource.limit {
                    // A budget is spent once, whichever permit holds it and however long.
                    LimitState::None | LimitState::Budget { .. } => {}
                    LimitState::Slots(here) => {
                        let last = resource.ceiling.unwrap_or(0);
                        let here = if *here > 0 { *here } else { last };
                        limit = Some(limit.map_or(here, |above: u64| above.min(here)));
                    }
                    LimitState::Rate(rate) => worth = worth.max(rate.worth(amount)),
                }
                if !contended || resource.users < 2 {
                    continue;
                }
                if let Some(limit) = limit {
                    let weight = self.share(level.parent, level.child).weight;
                    level.price = price(amount, limit, weight).max(level.price);
                }
                level.quota = worth.max(level.quota);
            }
        }
    }

    /// Return the expected hold time of a permit of `node`, in nanoseconds.
    pub(in crate::capacity) fn estimate(&self, node: u32) -> u64 {
        let mut nodes = self.path(node);
        nodes
            .find_map(|node| self.nodes.at(node).hold)
            .unwrap_or(self.estimate)
            .max(1)
    }

    /// Charge a permit for its next stretch, from `from` on, for the expected hold time. A grant also counts as service at each
    /// level of its path.
    pub(in crate::capacity) fn charge(&mut self, permit: u32, from: Time, is_grant: bool) {
        let node = self.permits.at(permit).node;
        let until = from.as_nanos().saturating_add(self.estimate(node));
        let mut levels = self.levels_of(node);
        self.price_levels(&self.permits.at(permit).cost, &mut levels);
        let stamp = self.next_stamp();
        for level in &levels {
            let &Level { parent, child, .. } = level;
            let weight = i128::from(self.share(parent, child).weight.as_micros());
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
            let most = self.greatest_start(parent, child);
            let cut = most.map(|most| (most, self.next_stamp(), self.now));
            let mut tag = 0;
            self.update_share(parent, child, |share| {
                share.advance(start, charge, cut);
                share.serve(charge);
                if is_grant {
                    share.served = stamp;
                }
                tag = share.tag;
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
        self.note_charge(permit, charge);
    }

    /// Begin a grant to `child` and return its start tag. The virtual time advances to it, or to the first tag for a grant below a
    /// floor.
    ///
    /// Where no children compete, the start tag is the greatest tag there. So a lead from an earlier competition ends.
    fn begin(&mut self, parent: u32, child: u32) -> i128 {
        let first = self.first_if_below_floor(parent, child);
        let tag = self.share(parent, child).tag;
        let node = self.nodes.at_mut(parent);
        let is_alone = node.resources.iter().all(|resource| resource.users < 2);
        let tag = if is_alone {
            tag.max(node.greatest_tag)
        } else {
            tag
        };
        let reached = match first {
            Some(first) if !is_alone => tag.min(first),
            _ => tag,
        };
        node.virtual_time = node.virtual_time.max(reached);
        tag
    }

    /// Charge a permit for a hold beyond its last charge, or refund the part of the charge that was not held.
    ///
    /// A lift forgives the charges from before it. A refund of them would be savings, so it is dropped. `until` is when the permit
    /// ended or outlived its charge.
    pub(in crate::capacity) fn correct(&mut self, permit: u32, until: Time) {
        let record = self.permits.at(permit);
        if record.charge == NIL {
            return;
        }
        let (node, position) = (record.node, record.charge);
        let mut levels = self.levels_of(node);
        let charge = self.charges.at(position);
        charge.prices.put_into(&mut levels);
        let (charged_to, stamp) = (charge.to, charge.stamp);
        // Without a waiter there was nothing to share.
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
            let share = self.share(parent, child);
            let was_lifted = share.lifted > stamp;
            let (service, tag) = if until < charged_to {
                let early = i128::from(charged_to.as_nanos() - until.as_nanos());
                let back = -price * early;
                (back, if was_lifted { 0 } else { back })
            } else {
                let lifted_at = if was_lifted {
                    share.lifted_at
                } else {
                    Time::ZERO
                };
                let late =
                    |from: Time| i128::from(busy_until.as_nanos().saturating_sub(from.as_nanos()));
                (price * late(from), price * late(from.max(lifted_at)))
            };
            self.update_share(parent, child, |share| {
                share.tag += tag;
                share.serve(service);
            });
        }
        self.put_back(levels);
    }

    /// Charge every permit that has outlived its charge for another stretch.
    pub(in crate::capacity) fn recharge(&mut self) {
        let now = self.now;
        while let Some((until, permit)) = self.expiry.first()
            && until <= now
        {
            self.correct(permit, now);
            self.charge(permit, now, false);
        }
    }
}

impl Node {
    /// Take a hold into the moving average.
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
