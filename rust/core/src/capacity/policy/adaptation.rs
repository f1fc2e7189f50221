//! Adaptive limits of nodes: what their controllers learn from reports, and how a new limit is applied. `permit.rs` reports outcomes,
//! `reconfigure.rs` sets ranges, and `enqueue.rs` raises a limit for a large cost.

use super::adaptive::{AdaptiveRange, Controller, Outcome, Sample};
use crate::capacity::index::NIL;
use crate::capacity::model::resource::{LimitState, Resource};
use crate::capacity::model::state::State;
use crate::capacity::{Amount, Limit, ResourceId, Time};
use crate::sync::{Key, WakeList};

impl Controller {
    /// Return the limit in micro-units.
    pub(super) fn micros(&self) -> u64 {
        amount(self.limit()).as_micros()
    }

    /// Return the range, with the current limit as its start.
    pub(in crate::capacity) fn as_limit(&self) -> Limit {
        let range = self.range();
        Limit::Adaptive {
            start: amount(self.limit()),
            minimum: amount(range.minimum),
            maximum: amount(range.maximum),
        }
    }
}

/// Convert a limit of a controller, which is within the range of amounts.
fn amount(slots: f64) -> Amount {
    Amount::from_f64(slots).unwrap_or(Amount::MAX)
}

impl Resource {
    /// Replace the limit. An adaptive limit keeps what it has learned: slots set its maximum, and an adaptive limit its range.
    pub(in crate::capacity) fn set_limit(&mut self, limit: Limit, now: Time) {
        let learned = self.controller().map(Controller::range);
        let range = match (limit, learned) {
            (Limit::Slots(maximum), Some(range)) => AdaptiveRange {
                maximum: maximum.as_f64(),
                ..range
            },
            (
                Limit::Adaptive {
                    start,
                    minimum,
                    maximum,
                },
                _,
            ) => AdaptiveRange {
                start: start.as_f64(),
                minimum: minimum.as_f64(),
                maximum: maximum.as_f64(),
            },
            (Limit::AutoRate { .. }, _) => return self.set_auto_rate(limit, now),
            (Limit::Rate { .. }, _) if self.rate_controller().is_some() => {
                return self.set_auto_rate(limit, now);
            }
            _ => return self.set_limit_state(limit.into(), now),
        };
        match self.controller_mut() {
            Some(controller) => controller.set_range(range),
            None => self.set_controller(Some(Controller::new(range))),
        }
        self.apply_controller(now);
    }

    /// Set the limit to that of the controller. Costs up to the maximum are accepted.
    fn apply_controller(&mut self, now: Time) {
        let Some(controller) = self.controller() else {
            return;
        };
        let (limit, maximum) = (controller.micros(), amount(controller.range().maximum));
        self.set_limit_state(LimitState::Slots(limit), now);
        if !maximum.is_zero() {
            self.ceiling = Some(maximum.as_micros());
        }
    }
}

impl State {
    pub(in crate::capacity) fn has_adaptive_limit(&self, node: u32) -> bool {
        let mut path = self.path(node);
        path.any(|at| {
            let mut resources = self.nodes.at(at).resources.iter();
            resources.any(|resource| {
                resource.controller().is_some() || resource.rate_controller().is_some()
            })
        })
    }

    /// Report an outcome to the adaptive limits of a permit's path, and apply the limits that change.
    pub(in crate::capacity) fn report(&mut self, key: Key, outcome: Outcome, wakes: &mut WakeList) {
        let Some(record) = self.permits.get_mut(key) else {
            return;
        };
        let is_first = !record.is_reported;
        if outcome == Outcome::Done {
            if !is_first {
                return;
            }
            record.is_reported = true;
        }
        let (node, since, cost) = (record.node, record.since, record.cost.clone());
        // Not stored: the grants that are due at a time that is stored would have to be made.
        let now = self.time();
        let mut at = node;
        while at != NIL {
            for &(id, _) in cost.parts() {
                if outcome != Outcome::Failed && self.is_auto_rate(at, id) {
                    self.learn_rate(at, id, key, outcome, now, wakes);
                    continue;
                }
                let is_adaptive = |resource: &Resource| resource.controller().is_some();
                if !self.nodes.at(at).resource(id).is_some_and(is_adaptive) {
                    continue;
                }
                let sample = Sample {
                    begun: key.ticket().get(),
                    next: self.permits.next_ticket().get(),
                    latency: since.filter(|_| is_first).map(|since| now.since(since)),
                    outcome,
                    is_held_back: self.is_held_back(at, id),
                };
                self.learn(at, id, sample, wakes);
            }
            at = self.nodes.at(at).parent;
        }
    }

    /// Return the greatest number of decreases in a row that answered throttled calls, of the adaptive limits of a path.
    pub(in crate::capacity) fn setbacks(&self, node: u32) -> u32 {
        let nodes = self.path(node).map(|at| &self.nodes.at(at).resources);
        let controllers =
            nodes.flat_map(|resources| resources.iter().filter_map(Resource::controller));
        let slots = controllers.map(Controller::setbacks).max();
        slots.unwrap_or(0).max(self.rate_setbacks(node))
    }

    fn learn(&mut self, node: u32, id: ResourceId, sample: Sample, wakes: &mut WakeList) {
        let resource = self.nodes.at_mut(node).resource_mut(id);
        let Some(controller) = resource.and_then(Resource::controller_mut) else {
            return;
        };
        let before = controller.micros();
        controller.sample(sample);
        if controller.micros() == before {
            return;
        }
        self.drop_heads_of(node);
        self.apply_limit(node, id);
        if self.waiting > 0 {
            self.repark(node);
            self.check_rate_heads();
            self.dispatch(wakes);
        }
    }

    fn apply_limit(&mut self, node: u32, id: ResourceId) {
        let now = self.now;
        if let Some(resource) = self.nodes.at_mut(node).resource_mut(id) {
            resource.apply_controller(now);
        }
        self.rescale_floors(node);
    }

    /// Return whether a waiter would be granted if the limit of this resource, which is adaptive, were higher.
    pub(super) fn is_held_back(&self, node: u32, id: ResourceId) -> bool {
        let here = self.nodes.at(node);
        let is_first = here.queue.has_offers() || !here.ready.is_empty();
        let now = self.now;
        let lacks = |resource: &Resource, permits| {
            resource.demand.len() > 0 && resource.is_blocked(resource.demand.least(), now, permits)
        };
        let lacks_here = |resource: &Resource| {
            lacks(resource, here.permits) && !resource.is_held_off(now, here.permits)
        };
        if !is_first || !here.resource(id).is_some_and(lacks_here) {
            return false;
        }
        // Nothing else of the path may hold all waiters back. An adaptive limit above does not count: each of two full ones would
        // otherwise wait for the other to rise.
        !self.path(node).any(|at| {
            let above = self.nodes.at(at);
            above.is_held_off(now)
                || above.resources.iter().any(|resource| {
                    let is_fixed =
                        resource.controller().is_none() && resource.rate_controller().is_none();
                    (is_fixed || resource.is_held_off(now, above.permits))
                        && resource.demand.len() == above.offered
                        && lacks(resource, above.permits)
                })
        })
    }

    /// Raise the adaptive limits of a path that are below the cost of a waiter, which would otherwise wait for ever. Return whether no
    /// limit is below the cost now.
    pub(in crate::capacity) fn raise_adaptive_limits(&mut self, node: u32, waiter: u32) -> bool {
        let cost = self.waiters.at(waiter).cost.clone();
        let mut at = node;
        while at != NIL {
            for &(id, part) in cost.parts() {
                let resource = self.nodes.at_mut(at).resource_mut(id);
                if let Some(controller) = resource.and_then(Resource::controller_mut)
                    && controller.micros() < part.as_micros()
                {
                    controller.require(part.as_f64());
                    self.apply_limit(at, id);
                }
            }
            at = self.nodes.at(at).parent;
        }
        !self.is_above_a_limit(node, &cost)
    }
}
