//! Configuration of nodes and trees: `Tree::new` takes `Settings`; `Tree::root` and `Tree::add` take `NodeOptions`, and
//! `Tree::resize` takes each `Limit`.

use super::{Amount, Clock, Monotonic, ResourceId, Weight};
use std::sync::Arc;
use std::time::Duration;

/// The limit of a node for one resource, for all requests at it and below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The largest amount held at any moment. 0 pauses.
    Slots(Amount),
    /// The amount taken in each `per`; quota comes back with time, not with a release.
    ///
    /// Any window of length t admits at most `burst + amount / per x t`, apart from amounts that [`settle`] added.
    ///
    /// [`settle`]: super::Permit::settle
    Rate {
        /// The amount in each `per`. 0 pauses.
        amount: Amount,
        /// From a microsecond to a year.
        per: Duration,
        /// The amount that may be taken at once after a pause; a larger cost is refused. `None` for a smooth rate: time must have brought
        /// one request's cost before the next is admitted, and only a cost above `amount` is refused.
        burst: Option<Amount>,
    },
    /// The amount that may be taken in total.
    Budget(Amount),
    /// As `Slots`, but the limit follows the outcomes that are [reported](super::Tree::report); see [`adaptive`](super::adaptive).
    ///
    /// A node that has such a limit keeps it: a later `Slots` sets its maximum, and a later `Adaptive` its range.
    Adaptive {
        /// The limit before the first report. A snapshot shows the current one.
        start: Amount,
        /// The least limit. A larger cost that waits raises it.
        minimum: Amount,
        /// The greatest limit.
        maximum: Amount,
    },
    /// As `Rate`, but the rate follows the outcomes and the limits of the server that are reported; see [`auto_rate`](super::auto_rate).
    ///
    /// A node that has such a rate keeps it: a later `Rate` sets its maximum, and a later `AutoRate` its range. Any cost is accepted: one
    /// above the burst is granted when all quota is restored.
    AutoRate {
        /// The amount in each `per` before the first report. A snapshot shows the current one.
        start: Amount,
        /// As in `Rate`.
        per: Duration,
        /// As in `Rate`.
        burst: Option<Amount>,
        /// The least amount.
        minimum: Amount,
        /// The greatest amount. 0 pauses.
        maximum: Amount,
    },
}

/// The options of a node: see [`Tree::root`](super::Tree::root) and [`Tree::add`](super::Tree::add).
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    /// Its limits, each resource once. Other resources are limited by the ancestors alone.
    pub limits: Vec<(ResourceId, Limit)>,
    /// Its weight among its siblings.
    pub weight: Weight,
    /// Its guaranteed minimum of slots, while it has waiters: see [`NodeOptions::floor`].
    pub floor: Amount,
    /// Its name in errors and snapshots.
    pub name: Option<Arc<str>>,
}

impl NodeOptions {
    /// Return a node with a number of `"slots"`.
    ///
    /// # Panics
    ///
    /// Above [`Amount::MAX`].
    pub fn slots(slots: u64) -> Self {
        Self::new([(ResourceId::SLOTS, Limit::Slots(Amount::units(slots)))])
    }

    /// Return a node with these limits.
    pub fn new(limits: impl IntoIterator<Item = (ResourceId, Limit)>) -> Self {
        Self {
            limits: limits.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Set the weight.
    #[must_use]
    pub fn weight(mut self, weight: Weight) -> Self {
        self.weight = weight;
        self
    }

    /// Set the floor, in `"slots"`. While the node holds fewer and has a waiter that fits, that waiter precedes those of the siblings.
    ///
    /// An idle floor is lent, and comes back with the next release. It is guaranteed only if the floors of the ancestors cover it.
    #[must_use]
    pub fn floor(mut self, floor: Amount) -> Self {
        self.floor = floor;
        self
    }

    /// Set the name.
    #[must_use]
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }
}

/// The settings of a [`Tree`](super::Tree), fixed at its creation.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The one clock of the tree.
    pub clock: Arc<dyn Clock>,
    /// The worth of one step of priority, as an earlier arrival. Default: 10 s.
    pub ageing: Duration,
    /// How often smaller requests may pass a waiter that does not fit; then capacity is reserved for it. Default: 8.
    pub passes: u32,
    /// How late [`Tree::tick`](super::Tree::tick) may be without loss of quota, at a rate that a waiter has to wait for. A grant is
    /// charged as of the time at which its quota was ready, if that is no longer ago. A window of such a rate may admit more by the
    /// quota of this time. Default: zero, which is exact.
    pub lateness: Duration,
    /// The expected hold time of a permit at a node without earlier permits. Default: 1 s.
    pub estimate: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            clock: Arc::new(Monotonic),
            ageing: Duration::from_secs(10),
            passes: 8,
            lateness: Duration::ZERO,
            estimate: Duration::from_secs(1),
        }
    }
}

impl Settings {
    /// Return the defaults, with another clock.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            ..Self::default()
        }
    }
}
