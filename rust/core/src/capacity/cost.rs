//! `Cost` and the resources that it consists of. Each request (`request.rs`) has one, and `policy/charging.rs` takes it
//! along the path of the node.

use super::{Amount, CostError};
use std::sync::Arc;

/// A resource of a tree, as a small number: see [`Tree::resource`](super::Tree::resource).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId(pub(super) u32);

impl ResourceId {
    /// `"slots"`, the default resource. The same in every tree.
    pub const SLOTS: Self = Self(0);
}

/// The amount of each resource in a request: at least one resource, each once, each positive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost(Parts);

/// Small, since each waiter and each permit has a copy. A single part is inline; several parts are shared.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Parts {
    One((ResourceId, Amount)),
    Many(Arc<[(ResourceId, Amount)]>),
}

impl Cost {
    /// Return a cost of one resource.
    ///
    /// # Errors
    ///
    /// [`CostError::Zero`] for an amount of 0.
    #[inline]
    pub fn of(resource: ResourceId, amount: Amount) -> Result<Self, CostError> {
        if amount.is_zero() {
            return Err(CostError::Zero);
        }
        Ok(Self::part(resource, amount))
    }

    /// Return a cost of `"slots"`: [`of`](Self::of) for the usual case.
    ///
    /// # Panics
    ///
    /// For 0 slots, and above [`Amount::MAX`].
    pub fn slots(slots: u64) -> Self {
        Self::of(ResourceId::SLOTS, Amount::units(slots)).expect("a cost of slots is above 0")
    }

    /// Return a cost of several resources. Amounts of 0 are left out.
    ///
    /// # Errors
    ///
    /// [`CostError::Zero`] if nothing is left, [`CostError::Twice`] if a resource is named twice.
    pub fn new(parts: impl IntoIterator<Item = (ResourceId, Amount)>) -> Result<Self, CostError> {
        let mut parts: Vec<_> = parts
            .into_iter()
            .filter(|(_, amount)| !amount.is_zero())
            .collect();
        parts.sort_unstable_by_key(|&(resource, _)| resource);
        if let Some(pair) = parts.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(CostError::Twice(pair[0].0));
        }
        let (&first, others) = parts.split_first().ok_or(CostError::Zero)?;
        Ok(Self(match others {
            [] => Parts::One(first),
            _ => Parts::Many(parts.into()),
        }))
    }

    /// Move the cost out of a record that is about to be deleted, which keeps a meaningless cost.
    #[inline]
    pub(super) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::part(ResourceId::SLOTS, Amount::ZERO))
    }

    /// Return one part of a cost; its amount may be 0.
    #[inline]
    pub(super) const fn part(resource: ResourceId, amount: Amount) -> Self {
        Self(Parts::One((resource, amount)))
    }

    /// Replace the amount of a resource of the cost; the new one may be 0.
    pub(super) fn set(&mut self, resource: ResourceId, amount: Amount) {
        let parts = match &mut self.0 {
            Parts::One(part) => std::slice::from_mut(part),
            Parts::Many(parts) => Arc::make_mut(parts),
        };
        for part in parts.iter_mut().filter(|part| part.0 == resource) {
            part.1 = amount;
        }
    }

    /// Return the resources, sorted, each with its amount.
    #[inline]
    pub fn parts(&self) -> &[(ResourceId, Amount)] {
        match &self.0 {
            Parts::One(part) => std::slice::from_ref(part),
            Parts::Many(parts) => parts,
        }
    }

    /// Return the amount of `resource`; 0 if it is not part of the cost.
    #[inline]
    pub fn get(&self, resource: ResourceId) -> Amount {
        self.parts()
            .iter()
            .find(|(named, _)| *named == resource)
            .map_or(Amount::ZERO, |&(_, amount)| amount)
    }
}
