//! While nobody waits: there is no order to respect and nothing to share, so an ask that fits is booked, and a lease that
//! ends is struck off, in one walk up the path each.
//!
//! What [`fit`](State::fit), [`take`](State::take) and [`end`](State::end) do for any cost at any time is done here for one part,
//! of slots, in quiet times; whatever else comes is theirs. The models drive both ways.

use super::dispatch::Fit;
use crate::capacity::clock::nanos;
use crate::capacity::index::NIL;
use crate::capacity::model::node::Node;
use crate::capacity::model::permit_record::Held;
use crate::capacity::model::resource::{Bound, Kind};
use crate::capacity::model::state::State;
use crate::capacity::{Amount, Ask, Cost, OwnerId, Resource};
use crate::sync::Key;

impl State {
    /// Grants an ask at once if nobody waits anywhere and it fits.
    #[inline]
    pub(in crate::capacity) fn ask_alone(&mut self, ask: &Ask) -> Option<Key> {
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

    /// Takes so many slots, if they fit. Nothing is held off for a time: that would be among the timers.
    #[inline]
    fn take_alone(
        &mut self,
        node: u32,
        resource: Resource,
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
            if let Some(pool) = here.pool(resource)
                && let Bound::Slots(_) = pool.bound
            {
                is_known = true;
                if micros > pool.unreserved() {
                    return None;
                }
            }
            at = here.parent;
        }
        if !is_known {
            return None;
        }
        let since = self.is_timed(node).then(|| self.read_clock());
        self.for_books(
            node,
            resource,
            Kind::Slots,
            Node::count_grant,
            |pool, is_line| {
                pool.hold(micros, is_line);
            },
        );
        Some(self.open(node, Cost::part(resource, amount), since, owner))
    }

    /// Ends a lease if nobody waits anywhere and it is of slots alone, which it holds; says whether it did.
    #[inline]
    pub(in crate::capacity) fn end_alone(&mut self, key: Key) -> bool {
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
        // One that was charged is to be corrected.
        let is_plain = record.is_fresh() && record.held == Held::Yes;
        if !is_plain || self.kind(resource) != Some(Kind::Slots) {
            return false;
        }
        let (node, since, micros) = (record.node, record.since, amount.as_micros());
        let hold = since.map(|since| nanos(self.read_clock().since(since)));
        self.unmake_fresh(key.index());
        self.strike_off(key);
        let count = |node: &mut Node| {
            node.permits -= 1;
            if let Some(hold) = hold {
                node.learn(hold);
            }
        };
        self.for_books(node, resource, Kind::Slots, count, |pool, is_line| {
            pool.unhold(micros, is_line);
        });
        self.forget(node);
        true
    }
}
