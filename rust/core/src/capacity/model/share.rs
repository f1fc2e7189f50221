//! The share of a child in its parent: its tag, its service, and the prices of its permits. `Node` and `WaitQueue` have
//! one each, and `policy/fair_queue.rs` updates them.

use crate::capacity::index::ready_children::ClassId;
use crate::capacity::index::tournament_tree::OrderKey;
use crate::capacity::{Time, Weight};

/// The number of bits of a tag below one nanosecond of a whole limit.
pub(in crate::capacity) const FRACTION: u32 = 48;

/// The service of one child of a node.
#[derive(Debug, Default)]
pub(in crate::capacity) struct Share {
    pub(in crate::capacity) weight: Weight,
    /// The start tag of its next grant: its charges over its weight, in nanoseconds of the whole limit x 2^48.
    pub(in crate::capacity) tag: i128,
    /// The stamp of its last grant.
    pub(in crate::capacity) served: u64,
    /// The stamp and the time of its last lift.
    pub(in crate::capacity) lifted: u64,
    pub(in crate::capacity) lifted_at: Time,
    /// Whether it is eligible; and its class and leaf among the ready children, unless it is a queue.
    pub(in crate::capacity) eligible: bool,
    pub(in crate::capacity) class: ClassId,
    pub(in crate::capacity) leaf: u32,
    /// The stamp at which it was eligible last.
    pub(in crate::capacity) left: u64,
    /// The sum of its charges, corrected, times its weight.
    pub(in crate::capacity) service: i128,
}

impl Share {
    pub(in crate::capacity) fn new(weight: Weight) -> Self {
        Self {
            weight,
            ..Self::default()
        }
    }

    /// Return its position among its siblings. The node's own index stands for the node's own queue.
    #[inline]
    pub(in crate::capacity) fn order_key(&self, child: u32) -> OrderKey {
        (self.tag, self.served, child)
    }

    /// Charge it from its tag or from `start`, whichever is greater.
    ///
    /// `cut` is the greatest start tag, with a stamp and the time. A charge that is cut counts as a lift: later refunds of this and
    /// earlier charges do not change the tag.
    #[inline]
    pub(in crate::capacity) fn advance(
        &mut self,
        start: i128,
        charge: i128,
        cut: Option<(i128, u64, Time)>,
    ) {
        self.tag = self.tag.max(start) + charge;
        if let Some((most, stamp, now)) = cut
            && self.tag > most + charge
        {
            self.tag = most + charge;
            self.lifted = stamp;
            self.lifted_at = now;
        }
    }

    pub(in crate::capacity) fn serve(&mut self, charge: i128) {
        if charge == 0 {
            return;
        }
        let weight = i128::from(self.weight.as_micros());
        self.service += charge / i128::from(Weight::ONE.as_micros()) * weight;
    }
}

/// The price of one nanosecond of a permit at each level of its path, the queue of its node first, divided by the weight of the
/// charged child. A correction uses the prices of the charge.
#[derive(Debug)]
pub(in crate::capacity) enum Prices {
    Inline([u64; 4]),
    Boxed(Box<[u64]>),
}

impl Prices {
    pub(in crate::capacity) fn of(levels: &[Level]) -> Self {
        if levels.len() > 4 {
            return Self::Boxed(levels.iter().map(|level| level.price).collect());
        }
        let mut inline = [0; 4];
        for (price, level) in inline.iter_mut().zip(levels) {
            *price = level.price;
        }
        Self::Inline(inline)
    }

    pub(in crate::capacity) fn put_into(&self, levels: &mut [Level]) {
        let prices: &[u64] = match self {
            Self::Inline(prices) => prices,
            Self::Boxed(prices) => prices,
        };
        for (level, &price) in levels.iter_mut().zip(prices) {
            level.price = price;
        }
    }
}

/// One level of a path during a charge.
#[derive(Clone, Copy, Debug)]
pub(in crate::capacity) struct Level {
    pub(in crate::capacity) parent: u32,
    /// The child on the path; the parent itself for its own queue.
    pub(in crate::capacity) child: u32,
    /// The price of one nanosecond.
    pub(in crate::capacity) price: u64,
    /// The worth of the quota in the cost, in nanoseconds of the whole rate.
    pub(in crate::capacity) quota: u64,
}
