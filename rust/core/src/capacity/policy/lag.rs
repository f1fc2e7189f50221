//! Whom quota holds back, while others get on without it: how much it may be owed, and where newcomers start.
//!
//! A child that waits at a rate of the node, or of one above, keeps its tag while slots go to its siblings, and the virtual time goes on
//! with them. Were there no end to that, whoever fetches and calls would stand behind all of it wherever it calls, for as long as
//! the tree is old; and whoever turned from calls to fetches would have the slots to itself for as long. So there is an end. Two siblings may
//! differ in any case by all that the node has, for a hold of each. Once a child that nothing but quota holds back is behind the virtual
//! time by twice as much, all who wait for quota *move on*: those at each rate together, so that the last of them is behind by no more than
//! that. Between them nothing changes by this: what they have of a rate is by weight. Who waits at several rates moves on by the largest
//! of these steps, which is why all rates move at the same moment, each by about as much.
//!
//! Who becomes eligible and comes to wait behind somebody's turn starts beside the first of its siblings: level with those who wait
//! there already, not behind what they are owed. By that it is owed no more than they.
//!
//! That nobody is owed too much is seen by the first of all. Moving on costs a look at all who are eligible and at their waiters, and
//! comes due once in about so many grants as hold all that the node has.

use crate::capacity::index::NIL;
use crate::capacity::index::tournament_tree::Place;
use crate::capacity::model::share::FRACTION;
use crate::capacity::model::state::State;
use crate::capacity::{Resource, Weight};

/// A child that nothing but quota holds back.
struct Behind {
    child: u32,
    tag: i128,
    /// The rates at which it waits.
    rates: Vec<Resource>,
}

impl State {
    /// Where a child of `parent` starts, at least, that becomes eligible: at the virtual time, since while it could not have taken
    /// anything it cannot have saved anything up; or level with those who wait already where it comes to wait.
    ///
    /// If nothing was granted meanwhile it has never been away: whoever asks for the next only after it was granted the last would
    /// else lose at each grant what it is owed.
    pub(in crate::capacity) fn start(&self, parent: u32, child: u32) -> i128 {
        let flow = self.flow(parent, child);
        let here = self.nodes.at(parent);
        if flow.tag >= here.virtual_time || flow.left >= here.last_grant {
            return flow.tag;
        }
        match self.first(parent) {
            Some((tag, ..)) if tag < here.virtual_time && self.comes_to_a_turn(parent, child) => {
                tag
            }
            _ => here.virtual_time,
        }
    }

    /// Moves on those who are owed too much by their siblings, since something was granted to a waiter of `node` as the next of all.
    pub(in crate::capacity) fn move_on(&mut self, node: u32) {
        let (mut parent, mut granted) = (node, node);
        while parent != NIL {
            if self.is_anybody_far_behind(parent, granted) {
                self.move_on_from(parent, granted);
            }
            granted = parent;
            parent = self.nodes.at(parent).parent;
        }
    }

    fn is_anybody_far_behind(&self, parent: u32, granted: u32) -> bool {
        let virtual_time = self.nodes.at(parent).virtual_time;
        // The last is the dearest to find out.
        self.first(parent).is_some_and(|(tag, _, first)| {
            tag < virtual_time
                && self.is_there_a_turn(parent)
                && tag < virtual_time - 2 * self.allowance(parent, first, granted)
        })
    }

    fn move_on_from(&mut self, parent: u32, granted: u32) {
        let here = self.nodes.at(parent);
        let virtual_time = here.virtual_time;
        let own = here.line.flow.open.then(|| here.line.flow.place(parent));
        let everybody = here.open.in_order(own, |_| false);
        let behind: Vec<_> = everybody
            .filter_map(|child| self.behind(parent, child))
            .collect();
        let mut steps: Vec<(Resource, i128)> = Vec::new();
        for Behind { child, tag, rates } in &behind {
            let step = virtual_time - self.allowance(parent, *child, granted) - tag;
            if step <= 0 {
                continue;
            }
            for &rate in rates {
                match steps.iter_mut().find(|(other, _)| *other == rate) {
                    Some((_, largest)) => *largest = step.max(*largest),
                    None => steps.push((rate, step)),
                }
            }
        }
        for Behind { child, tag, rates } in behind {
            let steps = steps.iter().filter(|(rate, _)| rates.contains(rate));
            if let Some(step) = steps.map(|&(_, step)| step).max() {
                self.move_flow(parent, child, |flow| flow.tag += step);
                let here = self.nodes.at_mut(parent);
                here.greatest_tag = here.greatest_tag.max(tag + step);
            }
        }
    }

    /// What two children may differ by: the whole node, for one hold of each, over their weights.
    fn allowance(&self, parent: u32, one: u32, other: u32) -> i128 {
        let hold = i128::from(self.estimate(parent)) << FRACTION;
        let of = |child| {
            let weight = self.flow(parent, child).weight.as_micros();
            hold / i128::from(weight) * i128::from(Weight::ONE.as_micros())
        };
        of(one) + of(other)
    }

    /// The first of those that are eligible.
    fn first(&self, parent: u32) -> Option<Place> {
        let here = self.nodes.at(parent);
        let own = here.line.flow.open.then(|| here.line.flow.place(parent));
        here.open.first().into_iter().chain(own).min()
    }

    /// The rates of a node and of those above at which somebody has the turn.
    pub(in crate::capacity) fn turns(&self, node: u32) -> impl Iterator<Item = Resource> + '_ {
        let pools = self
            .path(node)
            .flat_map(|at| self.nodes.at(at).pools.iter());
        pools
            .filter(|pool| pool.turn.is_some())
            .map(|pool| pool.resource)
    }

    fn is_there_a_turn(&self, node: u32) -> bool {
        self.turns(node).next().is_some()
    }

    /// Whether all whom a child offers need one rate at which somebody has the turn.
    fn comes_to_a_turn(&self, parent: u32, child: u32) -> bool {
        self.turns(parent).any(|rate| {
            let here = self.nodes.at(child);
            if parent == child {
                let mut costs = here
                    .line
                    .offered()
                    .map(|waiter| &self.waiters.at(waiter).cost);
                return costs.all(|cost| !cost.get(rate).is_zero());
            }
            let pool = here.pool(rate);
            pool.is_some_and(|pool| pool.needs.len() == here.offered)
        })
    }

    /// A child whose offered waiters all wait at some rate.
    fn behind(&self, parent: u32, child: u32) -> Option<Behind> {
        let tag = self.flow(parent, child).tag;
        let mut rates = Vec::new();
        let is_behind = if parent == child {
            self.line_is_behind(child, &mut rates)
        } else {
            self.is_behind(child, &mut rates)
        };
        is_behind.then_some(Behind { child, tag, rates })
    }

    fn is_behind(&self, node: u32, rates: &mut Vec<Resource>) -> bool {
        let mut children = self.nodes.at(node).open.in_order(None, |_| false);
        self.line_is_behind(node, rates) && children.all(|child| self.is_behind(child, rates))
    }

    fn line_is_behind(&self, node: u32, rates: &mut Vec<Resource>) -> bool {
        let mut offered = self.nodes.at(node).line.offered();
        offered.all(|waiter| {
            let cost = &self.waiters.at(waiter).cost;
            let mut waits = false;
            for rate in self.turns(node).filter(|&rate| !cost.get(rate).is_zero()) {
                waits = true;
                if !rates.contains(&rate) {
                    rates.push(rate);
                }
            }
            waits
        })
    }
}
