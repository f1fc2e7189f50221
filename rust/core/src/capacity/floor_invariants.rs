//! The invariants of floors, verified from scratch: `invariants.rs` calls them for each node, and `policy/dispatch.rs` for each
//! grant of its search.

use super::index::NIL;
use super::index::tournament_tree::OrderKey;
use super::model::floor::Floor;
use super::model::resource::LimitState;
use super::model::state::State;
use super::model::waiter::WaiterState;
use super::policy::dispatch::FitResult;
use super::{Cost, ResourceId};

impl State {
    fn needs_slots(cost: &Cost) -> bool {
        !cost.get(ResourceId::SLOTS).is_zero()
    }

    /// Return the floor of a child that is in force: scaled down if the limit does not cover the floors of all its siblings.
    fn floor_in_force(&self, child: u32) -> u128 {
        let here = self.nodes.at(child);
        let Some(floor) = &here.floor else {
            return 0;
        };
        let amounts = self.children(here.parent).filter_map(|child| {
            let floor = self.nodes.at(child).floor.as_ref()?;
            Some(u128::from(floor.amount))
        });
        let sum: u128 = amounts.sum();
        let limits = self.path(here.parent).filter_map(|at| {
            match self.nodes.at(at).resource(ResourceId::SLOTS)?.limit {
                LimitState::Slots(limit) => Some(u128::from(limit)),
                _ => None,
            }
        });
        let (floor, limit) = (u128::from(floor.amount), limits.min());
        let scaled = limit.filter(|&limit| limit < sum);
        scaled.map_or(floor, |limit| floor * limit / sum)
    }

    /// Return whether a child holds less than its floor, and an offered waiter at it or below needs slots.
    fn lacks_floor(&self, child: u32) -> bool {
        let here = self.nodes.at(child);
        let held = here
            .resource(ResourceId::SLOTS)
            .map_or(0, |slots| slots.held);
        let wants = || {
            self.waiters.iter().any(|waiter| {
                matches!(waiter.state, WaiterState::Offered)
                    && Self::needs_slots(&waiter.cost)
                    && self.is_below(waiter.node, child)
            })
        };
        here.share.eligible && held < self.floor_in_force(child) && wants()
    }

    /// Verify the floors of the children of a node.
    pub(super) fn check_floors_of(&self, node: u32) {
        let (mut sum, mut below) = (0, 0);
        for child in self.children(node) {
            let here = self.nodes.at(child);
            let lacks = self.lacks_floor(child);
            let Some(floor) = &here.floor else {
                continue;
            };
            assert!(floor.amount > 0, "a floor of nothing is no floor");
            sum += u128::from(floor.amount);
            assert_eq!(u128::from(floor.in_force), self.floor_in_force(child));
            assert_eq!(floor.is_below, lacks, "a child below its floor is indexed");
            if floor.is_below {
                let &Floor { class, leaf, .. } = &**floor;
                let index = &self.nodes.at(node).floors.as_ref().unwrap().below;
                assert_eq!(index.rates(class), here.rates());
                assert_eq!(index.at_leaf(class, leaf), here.share.order_key(child));
                below += 1;
            }
        }
        let floors = self.nodes.at(node).floors.as_ref();
        let found = floors.map_or((0, 0), |floors| (floors.sum, floors.below.len()));
        assert_eq!(
            found,
            (sum, below),
            "the sum, and the children below their floors"
        );
    }

    /// Verify that the grant of `waiter`, which the search has found, passes over no child below its floor that has a waiter which fits
    /// and needs slots but no rate.
    pub(in crate::capacity) fn check_floors_first(&self, waiter: u32) {
        let granted = self.waiters.at(waiter);
        let (mut parent, mut child) = (granted.node, granted.node);
        while parent != NIL {
            let is_due =
                parent != child && Self::needs_slots(&granted.cost) && self.lacks_floor(child);
            if !is_due {
                for sibling in self
                    .children(parent)
                    .filter(|&other| self.lacks_floor(other))
                {
                    let fits = self.waiters.entries().find(|(index, other)| {
                        matches!(other.state, WaiterState::Offered)
                            && self.is_below(other.node, sibling)
                            && Self::needs_slots(&other.cost)
                            && !self.has_rate(&other.cost)
                            && !self.is_starved(*index)
                            && self.fit_waiter(*index) == FitResult::Fits
                    });
                    assert!(
                        fits.is_none(),
                        "{fits:?} is below a floor that is not reached, but {granted:?} is granted"
                    );
                }
            }
            (child, parent) = (parent, self.nodes.at(parent).parent);
        }
    }

    /// [`find_below_floors`](Self::find_below_floors), by visiting every waiter. `Err` is the depth of the highest node whose rate is not ready.
    pub(super) fn search_all_floors(&self, node: u32) -> Result<u32, usize> {
        let below = self.children(node).filter(|&child| self.lacks_floor(child));
        let keys = below.map(|child| self.nodes.at(child).share.order_key(child));
        self.search_in_order(node, keys.collect())
    }

    fn search_all_slots(&self, node: u32) -> Result<u32, usize> {
        let first = match self.search_all_floors(node) {
            Ok(waiter) => return Ok(waiter),
            Err(depth) => depth,
        };
        let queue = &self.nodes.at(node).queue.share;
        let others = self
            .children(node)
            .filter(|&child| self.nodes.at(child).share.eligible && !self.lacks_floor(child));
        let keys = others.map(|child| self.nodes.at(child).share.order_key(child));
        let keys = keys.chain(queue.eligible.then(|| queue.order_key(node)));
        let found = self.search_in_order(node, keys.collect());
        found.map_err(|depth| depth.min(first))
    }

    /// Search children of a node in the order of their keys. Once a waiter lacks quota at the node or above, the others of its class
    /// are left out.
    fn search_in_order(&self, node: u32, mut keys: Vec<OrderKey>) -> Result<u32, usize> {
        keys.sort_unstable();
        let (mut left, mut least) = (Vec::new(), usize::MAX);
        for (_, _, child) in keys {
            let rates = self.nodes.at(child).rates();
            let found = if child == node {
                self.search_all_in_queue(node)
            } else if left.contains(&rates) {
                continue;
            } else {
                self.search_all_slots(child)
            };
            let depth = match found {
                Ok(waiter) => return Ok(waiter),
                Err(depth) => depth,
            };
            if child != node && depth <= self.nodes.at(node).depth && !rates.is_empty() {
                left.push(rates);
            }
            least = least.min(depth);
        }
        Err(least)
    }

    fn search_all_in_queue(&self, node: u32) -> Result<u32, usize> {
        let mut least = usize::MAX;
        for waiter in self.nodes.at(node).queue.offered() {
            if !Self::needs_slots(&self.waiters.at(waiter).cost) || self.is_starved(waiter) {
                continue;
            }
            match self.fit_waiter(waiter) {
                FitResult::Fits => return Ok(waiter),
                FitResult::Quota => least = least.min(self.depth_of_missing_quota(waiter)),
                _ => {}
            }
        }
        Err(least)
    }
}
