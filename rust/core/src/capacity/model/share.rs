//! The share of a child in its parent: its tag, its service, and the prices of its permits.

use crate::capacity::index::ready_children::KindId;
use crate::capacity::index::tournament_tree::Place;
use crate::capacity::{Time, Weight};

/// So many bits of a tag are below one nanosecond of a whole limit.
pub(in crate::capacity) const FRACTION: u32 = 48;

/// A child in the eyes of its parent: who has had how much.
#[derive(Debug, Default)]
pub(in crate::capacity) struct Flow {
    pub(in crate::capacity) weight: Weight,
    /// Where its next grant starts: what it was charged, over its weight. In nanoseconds of the whole limit x 2^48.
    pub(in crate::capacity) tag: i128,
    /// When it was served last, as the tree counts.
    pub(in crate::capacity) served: u64,
    /// When it was lifted last: as the tree counts, and by the clock.
    pub(in crate::capacity) lifted: u64,
    pub(in crate::capacity) lifted_at: Time,
    /// Whether it is among the eligible ones, and of which kind it is and where it sits among these unless it is a line.
    pub(in crate::capacity) open: bool,
    pub(in crate::capacity) kind: KindId,
    pub(in crate::capacity) seat: u32,
    /// When it was so last, as the tree counts.
    pub(in crate::capacity) left: u64,
    /// All it was ever charged, corrected, times its weight.
    pub(in crate::capacity) service: i128,
}

impl Flow {
    pub(in crate::capacity) fn new(weight: Weight) -> Self {
        Self {
            weight,
            ..Self::default()
        }
    }

    /// Where it stands, by the name of `child`. The own line of a node goes by the node's own index.
    #[inline]
    pub(in crate::capacity) fn place(&self, child: u32) -> Place {
        (self.tag, self.served, child)
    }

    pub(in crate::capacity) fn serve(&mut self, charge: i128) {
        if charge == 0 {
            return;
        }
        let weight = i128::from(self.weight.as_micros());
        self.service += charge / i128::from(Weight::ONE.as_micros()) * weight;
    }
}

/// What one nanosecond of a permit is worth at each level of its path, the line of its node first: over the
/// weight of the child that is charged. Kept with the permit, so that what is corrected is what was charged.
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

/// One level of a path, while it is charged.
#[derive(Clone, Copy, Debug)]
pub(in crate::capacity) struct Level {
    pub(in crate::capacity) parent: u32,
    /// The child on the path; the parent itself for its own line.
    pub(in crate::capacity) child: u32,
    /// Of one nanosecond.
    pub(in crate::capacity) price: u64,
    /// What the quota in it is worth, in nanoseconds of the whole rate.
    pub(in crate::capacity) quota: u64,
}
