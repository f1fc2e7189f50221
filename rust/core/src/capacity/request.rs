use super::{AlarmId, Cost, NodeId, OwnerId};

/// What is asked for, where, and by whom.
#[derive(Clone, Debug)]
pub struct AcquireRequest {
    /// Where; it is taken at all ancestors of this node as well.
    pub node: NodeId,
    /// How much.
    pub cost: Cost,
    /// One more counts as having come [`Settings::ageing`](super::Settings::ageing) earlier. 0.
    pub priority: i32,
    /// Who asks; what they hold already tells whether they would wait for themselves. Nobody.
    pub owner: Option<OwnerId>,
    /// Whose timer sees to it while this waits. Nobody's: then somebody else calls [`Tree::tick`](super::Tree::tick).
    pub alarm: Option<AlarmId>,
}

impl AcquireRequest {
    /// An ask of priority 0, of nobody.
    #[inline]
    pub fn new(node: NodeId, cost: Cost) -> Self {
        Self {
            node,
            cost,
            priority: 0,
            owner: None,
            alarm: None,
        }
    }

    /// An ask for so many units of `"slots"`.
    ///
    /// # Panics
    ///
    /// As [`Cost::slots`].
    pub fn slots(node: NodeId, slots: u64) -> Self {
        Self::new(node, Cost::slots(slots))
    }

    /// The same with another priority.
    #[must_use]
    #[inline]
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// The same on behalf of an owner.
    #[must_use]
    #[inline]
    pub fn owner(mut self, owner: OwnerId) -> Self {
        self.owner = Some(owner);
        self
    }

    /// The same under an alarm.
    #[must_use]
    #[inline]
    pub fn alarm(mut self, alarm: AlarmId) -> Self {
        self.alarm = Some(alarm);
        self
    }
}
