//! Changes of a live tree: nodes, limits, weights, pauses and closing. The methods of `Tree` call them, such as
//! `Tree::resize` and `Tree::pause`.

use super::index::NIL;
use super::model::node::{Life, Node};
use super::model::resource::LimitState;
use super::model::share::Share;
use super::model::state::State;
use super::{Amount, Limit, MAX_DEPTH, NodeError, NodeOptions, ResourceId, Weight};
use crate::sync::{Key, WakeList};
use std::time::Duration;

impl State {
    /// Add a node, below `parent` or as the root.
    pub(super) fn add(
        &mut self,
        parent: Option<Key>,
        options: NodeOptions,
    ) -> Result<Key, NodeError> {
        let above = match parent {
            None if self.root != NIL => return Err(NodeError::SecondRoot),
            None => NIL,
            Some(parent) => {
                let parent = self.find_node(parent).ok_or(NodeError::Closed)?;
                if self.nodes.at(parent).is_closed() {
                    return Err(NodeError::Closed);
                }
                parent
            }
        };
        let depth = if above == NIL {
            0
        } else {
            self.nodes.at(above).depth + 1
        };
        if depth >= MAX_DEPTH {
            return Err(NodeError::TooDeep);
        }
        self.check_limits(&options.limits)?;
        self.check_new_floor(above, options.floor, &options.limits)?;
        let share = Share::new(options.weight);
        let record = Node::new(above, depth, options.name, share);
        let key = self.nodes.insert(Box::new(record));
        let node = key.index();
        if above == NIL {
            self.root = node;
        } else {
            let last = std::mem::replace(&mut self.nodes.at_mut(above).last, node);
            self.nodes.at_mut(node).before = last;
            if last == NIL {
                self.nodes.at_mut(above).first = node;
            } else {
                self.nodes.at_mut(last).after = node;
            }
        }
        self.set_limits(node, &options.limits);
        self.put_floor(node, options.floor);
        Ok(key)
    }

    /// Delete a node that nothing needs, and return its parent.
    pub(super) fn unlink(&mut self, node: u32) -> u32 {
        self.drop_floor(node);
        let key = self.nodes.key_at(node);
        let resources: Vec<_> = self.nodes.at(node).resources.iter().map(|p| p.id).collect();
        self.end_ramp(node);
        self.set_timer(node, None, None);
        for id in resources {
            self.set_timer(node, Some(id), None);
        }
        let removed = self.nodes.remove(key).expect("the node exists");
        let Node {
            parent,
            before,
            after,
            ..
        } = *removed;
        if before != NIL {
            self.nodes.at_mut(before).after = after;
        }
        if after != NIL {
            self.nodes.at_mut(after).before = before;
        }
        if parent == NIL {
            self.root = NIL;
        } else {
            let above = self.nodes.at_mut(parent);
            if before == NIL {
                above.first = after;
            }
            if after == NIL {
                above.last = before;
            }
        }
        parent
    }

    fn check_limits(&self, limits: &[(ResourceId, Limit)]) -> Result<(), NodeError> {
        const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);
        for (place, &(id, limit)) in limits.iter().enumerate() {
            if limits[..place].iter().any(|(other, _)| *other == id) {
                return Err(NodeError::Twice(id));
            }
            if self.name_of(id).is_none() {
                return Err(NodeError::Foreign(id));
            }
            if self.kind(id).is_some_and(|kind| kind != limit.kind()) {
                return Err(NodeError::Kind(id));
            }
            if let Limit::Rate { amount, per, burst }
            | Limit::AutoRate {
                maximum: amount,
                per,
                burst,
                ..
            } = limit
            {
                if per < Duration::from_micros(1) || per > YEAR {
                    return Err(NodeError::Per(id));
                }
                if !amount.is_zero() && burst.is_some_and(Amount::is_zero) {
                    return Err(NodeError::Burst(id));
                }
            }
        }
        Ok(())
    }

    fn set_limits(&mut self, node: u32, limits: &[(ResourceId, Limit)]) {
        let now = self.now;
        let here = self.nodes.at_mut(node);
        for resource in here.resources.iter_mut() {
            if !limits.iter().any(|(named, _)| *named == resource.id) {
                resource.set_controller(None);
                resource.set_rate_controller(None);
                resource.set_limit_state(LimitState::None, now);
            }
        }
        for &(id, limit) in limits {
            self.kinds[id.0 as usize] = Some(limit.kind());
            here.resource_or_new(id, limit.kind()).set_limit(limit, now);
        }
    }

    /// Replace all limits of a node.
    pub(super) fn resize(
        &mut self,
        node: Key,
        limits: &[(ResourceId, Limit)],
        wakes: &mut WakeList,
    ) -> Result<(), NodeError> {
        let node = self.live(node)?;
        self.check_limits(limits)?;
        self.check_floors(node, limits)?;
        self.read_clock();
        self.drop_heads_of(node);
        let gone: Vec<_> = self.nodes.at(node).resources.iter().map(|p| p.id).collect();
        for id in gone {
            if !limits.iter().any(|(named, _)| *named == id) {
                self.set_timer(node, Some(id), None);
            }
        }
        self.set_limits(node, limits);
        self.rescale_floors(node);
        if self.waiting > 0 {
            for &(id, _) in limits {
                self.exhaust(node, id, wakes);
            }
            self.repark(node);
            self.check_rate_heads();
            self.dispatch(wakes);
        }
        Ok(())
    }

    /// Drop the heads of the rates of a node: they are chosen again under its new limits.
    pub(super) fn drop_heads_of(&mut self, node: u32) {
        let resources = self.nodes.at(node).resources.iter();
        let rates_headed: Vec<_> = resources.filter_map(|resource| resource.head).collect();
        for waiter in rates_headed {
            self.drop_rate_heads(waiter);
            self.refresh(self.waiters.at(waiter).node);
        }
    }

    /// Return the index of a node that is not closed.
    pub(super) fn live(&self, node: Key) -> Result<u32, NodeError> {
        let node = self.find_node(node).ok_or(NodeError::Closed)?;
        if self.nodes.at(node).is_closed() {
            return Err(NodeError::Closed);
        }
        Ok(node)
    }

    pub(super) fn reweigh(&mut self, node: Key, weight: Weight) -> Result<(), NodeError> {
        let node = self.live(node)?;
        self.nodes.at_mut(node).share.weight = weight;
        Ok(())
    }

    pub(super) fn refloor(&mut self, node: Key, floor: Amount) -> Result<(), NodeError> {
        let node = self.live(node)?;
        self.set_floor(node, floor)
    }

    pub(super) fn pause(
        &mut self,
        node: Key,
        paused: bool,
        wakes: &mut WakeList,
    ) -> Result<(), NodeError> {
        let node = self.live(node)?;
        self.read_clock();
        self.nodes.at_mut(node).paused = paused;
        self.refresh(node);
        self.check_rate_heads();
        self.dispatch(wakes);
        Ok(())
    }

    /// Close a node and everything below it.
    pub(super) fn close(&mut self, node: Key, wakes: &mut WakeList) {
        let Some(node) = self.find_node(node) else {
            return;
        };
        self.read_clock();
        let all = self.below(node);
        for &at in &all {
            let here = self.nodes.at_mut(at);
            if here.life == Life::Open {
                here.life = Life::Closed;
            }
        }
        for at in all {
            self.drop_floor(at);
            self.fail_all(at, wakes);
        }
        self.dispatch(wakes);
    }

    /// Close a node itself, and delete it as soon as nothing needs it.
    pub(super) fn remove(&mut self, node: Key, wakes: &mut WakeList) {
        let Some(node) = self.find_node(node) else {
            return;
        };
        self.read_clock();
        let here = self.nodes.at_mut(node);
        here.life = Life::Removed;
        if here.first == NIL {
            // Children that stay open keep what their parent is guaranteed.
            self.drop_floor(node);
        }
        self.fail_all(node, wakes);
        self.dispatch(wakes);
        self.forget(node);
    }
}
