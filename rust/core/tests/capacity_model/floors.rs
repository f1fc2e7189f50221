//! The floors of nodes: which are refused, and which are in force. `nodes.rs` applies the operations.

use crate::model::Model;
use crate::run::Run;
use headrace_core::capacity::{Amount, NodeError};

impl Model {
    /// Return the least ceiling with which the floors of the children of a node are compared. `changed` has another one; 0 is none.
    fn floor_bound(&self, node: usize, changed: Option<(usize, u64)>) -> Option<u64> {
        let bounds = self.path(node).map(|at| match changed {
            Some((node, bound)) if node == at => bound,
            _ => self.nodes[at].ceilings[0],
        });
        bounds.filter(|&bound| bound > 0).min()
    }

    fn floor_sum(&self, parent: usize) -> u64 {
        let children = self.nodes.iter().filter(|node| node.parent == Some(parent));
        children.map(|node| node.floor).sum()
    }

    /// Return whether a node may have this floor.
    pub fn allows_floor(&self, node: usize, floor: u64) -> bool {
        if floor == 0 {
            return true;
        }
        let here = &self.nodes[node];
        let Some(parent) = here.parent else {
            return false;
        };
        let own = Some(here.ceilings[0]).filter(|&own| own > 0);
        let sum = self.floor_sum(parent) - here.floor + floor;
        own.is_none_or(|own| floor <= own)
            && self
                .floor_bound(parent, None)
                .is_none_or(|bound| sum <= bound)
    }

    /// Return whether a node may have this ceiling of slots, 0 for none.
    pub fn allows_bound(&self, node: usize, bound: u64) -> bool {
        let own = bound == 0 || self.nodes[node].floor <= bound;
        let below = (0..self.nodes.len()).filter(|&at| self.path(at).any(|above| above == node));
        own && below.into_iter().all(|at| {
            let bound = self.floor_bound(at, Some((node, bound)));
            bound.is_none_or(|bound| self.floor_sum(at) <= bound)
        })
    }
}

impl Run {
    /// Forget the floors of nodes that were deleted, or accept no more requests.
    pub fn drop_floors(&mut self) {
        for node in 0..self.model.nodes.len() {
            let here = &self.model.nodes[node];
            let is_gone = self.tree.usage(here.id).is_none()
                || self
                    .model
                    .path(node)
                    .any(|above| self.model.nodes[above].closed);
            if is_gone {
                self.model.nodes[node].floor = 0;
            }
        }
    }

    /// Forget the floor of a node that is about to be removed, unless it has children.
    pub fn drop_leaf_floor(&mut self, node: usize) {
        let mut nodes = self.model.nodes.iter();
        let has_children =
            nodes.any(|child| child.parent == Some(node) && self.tree.usage(child.id).is_some());
        if !has_children {
            self.model.nodes[node].floor = 0;
        }
    }

    pub fn set_floor(&mut self, node: usize, floor: u64) {
        let allowed = self.model.allows_floor(node, floor);
        let id = self.model.nodes[node].id;
        let done = self.tree.refloor(id, Amount::units(floor));
        assert_eq!(done.is_ok(), allowed, "{done:?} for a floor of {floor}");
        if allowed {
            self.model.nodes[node].floor = floor;
        } else {
            let is_floor = matches!(
                done,
                Err(NodeError::Floor { .. } | NodeError::Floors { .. } | NodeError::RootFloor)
            );
            assert!(is_floor, "{done:?}");
        }
    }

    /// Verify that the tree reports the floors of the model.
    pub fn compare_floors(&mut self) {
        self.drop_floors();
        for node in &self.model.nodes {
            if let Some(usage) = self.tree.usage(node.id) {
                assert_eq!(usage.floor, Amount::units(node.floor));
            }
        }
    }
}
