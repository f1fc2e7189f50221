//! While nobody waits: there is no order to respect and nothing to share, so an ask that fits is booked, and a lease that
//! ends is struck off, in one walk up the path each.
//!
//! What [`fit`](State::fit), [`take`](State::take) and [`end`](State::end) do for any cost at any time is done here for one part,
//! of slots, in quiet times; whatever else comes is theirs. The models drive both ways.

use super::dispatch::Fit;
use super::lease::Held;
use super::node::NIL;
use super::pool::{Bound, Kind};
use super::state::State;
use super::{Amount, Ask, Cost, OwnerId, Resource};
use crate::sync::Key;

impl State {
    /// Grants an ask at once if nobody waits anywhere and it fits.
    #[inline]
    pub(super) fn ask_alone(&mut self, ask: &Ask) -> Option<u32> {
        if self.waiting > 0 {
            return None;
        }
        let node = self.find_node(ask.node.key)?;
        if self.nodes.at(node).is_closed() {
            return None;
        }
        // Without a waiter time matters only to rates, and to those who are to be kept out for a time.
        if self.timers.is_empty()
            && let &[(resource, amount)] = ask.cost.parts()
            && self.kind(resource) == Some(Kind::Slots)
        {
            return self.take_alone(node, resource, amount, ask.owner);
        }
        if self.has_rate(&ask.cost) || !self.timers.is_empty() {
            self.read_clock();
        }
        if self.fit(node, &ask.cost, None, None) != Fit::Fits {
            return None;
        }
        Some(self.take(node, ask.cost.clone(), ask.owner))
    }

    /// Takes so many slots, if they fit.
    fn take_alone(
        &mut self,
        node: u32,
        resource: Resource,
        amount: Amount,
        owner: Option<OwnerId>,
    ) -> Option<u32> {
        let (now, micros) = (self.now, amount.as_micros());
        let mut is_known = false;
        let mut at = node;
        while at != NIL {
            let here = self.nodes.at(at);
            if here.is_held_off(now) {
                return None;
            }
            if let Some(pool) = here.pool(resource)
                && let Bound::Slots(_) = pool.bound
            {
                is_known = true;
                if micros > pool.unreserved() || now < pool.not_before {
                    return None;
                }
            }
            at = here.parent;
        }
        if !is_known {
            return None;
        }
        let since = self.is_timed(node).then(|| self.read_clock());
        let mut at = node;
        // Whether one more child of the next node uses it.
        let mut more = false;
        while at != NIL {
            let here = self.nodes.at_mut(at);
            here.permits += 1;
            here.granted += 1;
            let parent = here.parent;
            let pool = here.books(resource, Kind::Slots);
            let was_used = pool.is_used();
            if at == node {
                more = !pool.is_used_by_line();
                pool.line_held += u128::from(micros);
            }
            pool.held += u128::from(micros);
            pool.users += u32::from(more);
            more = !was_used;
            at = parent;
        }
        let lease = self.open(node, Cost::part(resource, amount), since, owner);
        self.make_fresh(lease);
        Some(lease)
    }

    /// Ends a lease if nobody waits anywhere and it is of slots alone, which it holds; says whether it did.
    #[inline]
    pub(super) fn end_alone(&mut self, key: Key) -> bool {
        if self.waiting > 0 {
            return false;
        }
        let Some(record) = self.leases.get(key) else {
            // It has ended before.
            return true;
        };
        let &[(resource, amount)] = record.cost.parts() else {
            return false;
        };
        // One that was timed teaches how long its like are held; one that was charged is to be corrected.
        let is_plain = record.is_fresh() && record.since.is_none() && record.held == Held::Yes;
        if !is_plain || self.kind(resource) != Some(Kind::Slots) {
            return false;
        }
        let (node, micros) = (record.node, amount.as_micros());
        self.unmake_fresh(key.index());
        self.unlist(key.index());
        self.leases.discard(key);
        self.nodes.at_mut(node).pins -= 1;
        let mut at = node;
        let mut fewer = false;
        while at != NIL {
            let here = self.nodes.at_mut(at);
            here.permits -= 1;
            let parent = here.parent;
            let pool = here.books(resource, Kind::Slots);
            let was_used = pool.is_used();
            pool.held -= u128::from(micros);
            if at == node {
                let was_used_by_line = pool.is_used_by_line();
                pool.line_held -= u128::from(micros);
                fewer = was_used_by_line && !pool.is_used_by_line();
            }
            pool.users -= u32::from(fewer);
            fewer = was_used && !pool.is_used();
            at = parent;
        }
        self.forget(node);
        true
    }
}
