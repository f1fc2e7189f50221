use super::{Amount, Clock, Monotonic, ResourceId, Weight};
use std::sync::Arc;
use std::time::Duration;

/// What a node allows of one resource, to all who ask at it and below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// So much may be held at any moment. 0 pauses.
    Slots(Amount),
    /// So much may be taken in each `per`; what is released does not come back, time brings it.
    ///
    /// In any window of length t no more than `burst + amount / per x t` is admitted, what [`settle`] added aside.
    ///
    /// [`settle`]: super::Permit::settle
    Rate {
        /// How much comes in each `per`. 0 pauses.
        amount: Amount,
        /// From a microsecond to a year.
        per: Duration,
        /// How much may be taken at once after a silence; a cost above it can never be had. `None` for a smooth
        /// rate: what one ask took must have been brought by time before the next is admitted, so the largest cost is
        /// the burst, and only a cost above `amount` can never be had.
        burst: Option<Amount>,
    },
    /// So much may be taken, ever.
    Budget(Amount),
}

/// What a node is: see [`Tree::root`](super::Tree::root) and [`Tree::add`](super::Tree::add).
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    /// What it allows, each resource once. What is not named here is limited by the ancestors alone.
    pub limits: Vec<(ResourceId, Limit)>,
    /// Its share beside its siblings'.
    pub weight: Weight,
    /// What errors and snapshots call it.
    pub name: Option<Arc<str>>,
}

impl NodeOptions {
    /// A node that allows so many units of `"slots"`.
    ///
    /// # Panics
    ///
    /// Above [`Amount::MAX`].
    pub fn slots(slots: u64) -> Self {
        Self::new([(ResourceId::SLOTS, Limit::Slots(Amount::units(slots)))])
    }

    /// A node of these limits.
    pub fn new(limits: impl IntoIterator<Item = (ResourceId, Limit)>) -> Self {
        Self {
            limits: limits.into_iter().collect(),
            ..Self::default()
        }
    }

    /// The same with another weight.
    #[must_use]
    pub fn weight(mut self, weight: Weight) -> Self {
        self.weight = weight;
        self
    }

    /// The same with a name.
    #[must_use]
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }
}

/// What a [`Tree`](super::Tree) goes by, fixed when it is made.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The one clock of the tree.
    pub clock: Arc<dyn Clock>,
    /// One step of priority counts as having come so much earlier. 10 s.
    pub ageing: Duration,
    /// So often may smaller work pass a waiter that does not fit; then what frees is kept for it. 8.
    pub passes: u32,
    /// So late may [`Tree::tick`](super::Tree::tick) come without loss of quota: what is granted is charged as of when its
    /// quota was ready, if that was no longer ago, at a rate that somebody has to wait for. What such a rate admits in a window may be more by what it brings in this time. Zero, which is exact.
    pub lateness: Duration,
    /// How long a permit is expected to be held where nothing was held before. 1 s.
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
    /// The defaults on another clock.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            ..Self::default()
        }
    }
}
