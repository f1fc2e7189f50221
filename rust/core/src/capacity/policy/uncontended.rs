//! The fast path while the tree is not busy: it has no waiter and no ramp, so there is no order to respect and nothing to share.
//! `acquire.rs` and `Tree::try_take` call `submit_uncontended` first, which grants a request that fits. `Tree::release` calls
//! `release_uncontended`, which ends a permit.
//!
//! A cost of slots alone is checked in one walk up the path, and counted in a second. Other costs take the general path of
//! [`fit`](State::fit), [`take`](State::take) and [`end`](State::end). The models test both.

use super::dispatch::FitResult;
use crate::capacity::clock::nanos;
use crate::capacity::index::NIL;
use crate::capacity::model::node::Node;
use crate::capacity::model::permit_record::Held;
use crate::capacity::model::resource::{LimitState, ResourceKind};
use crate::capacity::model::state::State;
use crate::capacity::{AcquireRequest, Amount, Cost, OwnerId, ResourceId};
use crate::sync::Key;

impl State {
    /// Grant a request at once if the tree is not busy and it fits.
    #[inline]
    pub(in crate::capacity) fn submit_uncontended(
        &mut self,
        request: &AcquireRequest,
    ) -> Option<Key> {
        if self.busy > 0 {
            return None;
        }
        let node = self.find_node(request.node.key)?;
        if self.nodes.at(node).is_closed() {
            return None;
        }
        if let &[(id, amount)] = request.cost.parts()
            && self.kind(id) == Some(ResourceKind::Slots)
        {
            return self.take_uncontended(node, id, amount, request.owner);
        }
        // Without a waiter or a ramp, only rates need the clock here.
        if self.has_rate(&request.cost) {
            self.read_clock();
        }
        if self.fit(node, &request.cost, None, None) != FitResult::Fits {
            return None;
        }
        Some(self.take(node, request.cost.clone(), request.owner))
    }

    /// Take slots, if they fit. No node is cooled down, as it would have a ramp.
    #[inline]
    fn take_uncontended(
        &mut self,
        node: u32,
        id: ResourceId,
        amount: Amount,
        owner: Option<OwnerId>,
    ) -> Option<Key> {
        let micros = amount.as_micros();
        let mut is_known = false;
        let mut at = node;
        while at != NIL {
            let here = self.nodes.at(at);
            if here.paused {
                return None;
            }
            if let Some(resource) = here.resource(id)
                && let LimitState::Slots(_) = resource.limit
            {
                is_known = true;
                if micros > resource.unreserved() {
                    return None;
                }
            }
            at = here.parent;
        }
        if !is_known {
            return None;
        }
        let since = self.is_timed(node).then(|| self.read_clock());
        self.for_resource(
            node,
            id,
            ResourceKind::Slots,
            Node::count_grant,
            |resource, is_own| {
                resource.hold(micros, is_own);
            },
        );
        Some(self.open(node, Cost::part(id, amount), since, owner))
    }

    /// End a permit that holds only slots, if the tree is not busy. Returns whether it did.
    #[inline]
    pub(in crate::capacity) fn release_uncontended(&mut self, key: Key) -> bool {
        if self.busy > 0 {
            return false;
        }
        let Some(record) = self.permits.get(key) else {
            // It was released before.
            return true;
        };
        let &[(id, amount)] = record.cost.parts() else {
            return false;
        };
        // A permit that was charged needs a correction.
        let is_plain = record.is_uncharged() && record.held == Held::Yes;
        if !is_plain || self.kind(id) != Some(ResourceKind::Slots) {
            return false;
        }
        let (node, since, micros) = (record.node, record.since, amount.as_micros());
        let hold = since.map(|since| nanos(self.read_clock().since(since)));
        self.remove_uncharged(key.index());
        self.remove_permit(key);
        let count = |node: &mut Node| {
            node.permits -= 1;
            if let Some(hold) = hold {
                node.learn(hold);
            }
        };
        self.for_resource(node, id, ResourceKind::Slots, count, |resource, is_own| {
            resource.unhold(micros, is_own);
        });
        self.forget(node);
        true
    }
}
