use super::{Amount, Resource, Weight};
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
    pub limits: Vec<(Resource, Limit)>,
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
        Self::new([(Resource::SLOTS, Limit::Slots(Amount::units(slots)))])
    }

    /// A node of these limits.
    pub fn new(limits: impl IntoIterator<Item = (Resource, Limit)>) -> Self {
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
