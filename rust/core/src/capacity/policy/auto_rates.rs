//! Auto rates of nodes: what their controllers learn from reports, and how a new rate is applied. `permit.rs` reports outcomes and
//! stated limits, and `adaptation.rs` sets ranges.

use super::adaptive::Outcome;
use super::auto_rate::{RateController, RateRange, RateSample, StatedLimit};
use crate::capacity::model::rate::Rate;
use crate::capacity::model::resource::{LimitState, Resource};
use crate::capacity::model::state::State;
use crate::capacity::{Amount, Limit, ResourceId, Time};
use crate::sync::{Key, WakeList};
use std::time::Duration;

/// Convert a rate in units a second to the amount of each `per`.
fn amount(rate: f64, per: Duration) -> Amount {
    Amount::from_f64(rate * per.as_secs_f64()).unwrap_or(Amount::MAX)
}

impl Resource {
    /// Set an auto rate, which keeps what it has learned: an auto rate sets its range, and a rate its maximum.
    pub(super) fn set_auto_rate(&mut self, limit: Limit, now: Time) {
        let learned = self.rate_controller().map(RateController::range);
        let (state, range) = match (limit, &self.limit, learned) {
            (
                Limit::Rate {
                    amount,
                    per: other,
                    burst,
                },
                LimitState::Rate(rate),
                Some(range),
            ) => {
                let maximum = amount.as_f64() / other.as_secs_f64();
                let burst = burst.map(Amount::as_micros).or(rate.burst);
                let rate = Rate::new(rate.amount, rate.per, burst).of_any_cost();
                let state = LimitState::Rate(Box::new(rate));
                (state, RateRange { maximum, ..range })
            }
            (
                Limit::AutoRate {
                    start,
                    per,
                    minimum,
                    maximum,
                    ..
                },
                ..,
            ) => {
                let [start, minimum, maximum] =
                    [start, minimum, maximum].map(|bound| bound.as_f64() / per.as_secs_f64());
                let range = RateRange {
                    start,
                    minimum,
                    maximum,
                };
                (limit.into(), range)
            }
            _ => return self.set_limit_state(limit.into(), now),
        };
        match self.rate_controller_mut() {
            Some(controller) => controller.set_range(range),
            None => self.set_rate_controller(Some(RateController::new(range))),
        }
        self.set_limit_state(state, now);
        self.apply_rate(now);
    }

    /// Set the rate to that of the controller.
    fn apply_rate(&mut self, now: Time) {
        let Some(learned) = self.rate_controller().map(RateController::rate) else {
            return;
        };
        if let LimitState::Rate(rate) = &mut self.limit {
            let amount = amount(learned, Duration::from_nanos(rate.per));
            rate.set_amount(amount.as_micros(), now);
        }
    }

    /// Return an auto rate, with the current amount as its start.
    pub(in crate::capacity) fn auto_rate(&self, rate: &Rate) -> Option<Limit> {
        let range = self.rate_controller()?.range();
        let per = Duration::from_nanos(rate.per);
        Some(Limit::AutoRate {
            start: Amount::raw(rate.amount),
            per,
            burst: rate.burst.map(Amount::raw),
            minimum: amount(range.minimum, per),
            maximum: amount(range.maximum, per),
        })
    }
}

impl State {
    pub(super) fn is_auto_rate(&self, node: u32, id: ResourceId) -> bool {
        let resource = self.nodes.at(node).resource(id);
        resource.is_some_and(|resource| resource.rate_controller().is_some())
    }

    /// Return the resources of the cost of a permit whose rate follows the server.
    pub(in crate::capacity) fn auto_rates(&self, key: Key) -> Vec<ResourceId> {
        let Some(record) = self.permits.get(key) else {
            return Vec::new();
        };
        let parts = record.cost.parts().iter().map(|&(id, _)| id);
        parts
            .filter(|&id| {
                let mut path = self.path(record.node);
                path.any(|at| self.is_auto_rate(at, id))
            })
            .collect()
    }

    /// Return the greatest number of decreases in a row that answered throttled calls, of the auto rates of a path.
    pub(super) fn rate_setbacks(&self, node: u32) -> u32 {
        let nodes = self.path(node).map(|at| &self.nodes.at(at).resources);
        let controllers =
            nodes.flat_map(|resources| resources.iter().filter_map(Resource::rate_controller));
        let setbacks = controllers.map(RateController::setbacks).max();
        setbacks.unwrap_or(0)
    }

    /// Report stated limits to the nearest auto rate of each resource.
    pub(in crate::capacity) fn report_stated(
        &mut self,
        key: Key,
        stated: &[(ResourceId, StatedLimit)],
        wakes: &mut WakeList,
    ) {
        let Some(record) = self.permits.get(key) else {
            return;
        };
        let (node, since) = (record.node, record.since);
        let delay = since.map(|since| self.time().since(since));
        for &(id, stated) in stated {
            let nearest = self.path(node).find(|&at| self.is_auto_rate(at, id));
            if let Some(at) = nearest {
                let learn = |controller: &mut RateController| {
                    controller.stated(key.ticket().get(), delay, stated);
                };
                self.change_rate(at, id, learn, wakes);
            }
        }
    }

    pub(super) fn learn_rate(
        &mut self,
        node: u32,
        id: ResourceId,
        key: Key,
        outcome: Outcome,
        now: Time,
        wakes: &mut WakeList,
    ) {
        let sample = RateSample {
            begun: key.ticket().get(),
            next: self.permits.next_ticket().get(),
            now,
            outcome,
            is_held_back: self.is_held_back(node, id),
        };
        self.change_rate(node, id, |controller| controller.sample(sample), wakes);
    }

    /// Change what a controller knows, and apply its rate if that has changed. The head of the rate stays the head.
    fn change_rate(
        &mut self,
        node: u32,
        id: ResourceId,
        change: impl FnOnce(&mut RateController),
        wakes: &mut WakeList,
    ) {
        let resource = self.nodes.at_mut(node).resource_mut(id);
        let Some(controller) = resource.and_then(Resource::rate_controller_mut) else {
            return;
        };
        let before = controller.rate();
        change(controller);
        if controller.rate().to_bits() == before.to_bits() {
            return;
        }
        let now = self.read_clock();
        if let Some(resource) = self.nodes.at_mut(node).resource_mut(id) {
            resource.apply_rate(now);
        }
        self.check_rate_heads();
        self.dispatch(wakes);
    }
}

#[cfg(test)]
mod tests {
    use super::{Amount, Duration, amount};

    #[test]
    fn a_rate_is_never_rounded_to_zero() {
        assert_eq!(amount(1e-9, Duration::from_secs(1)), Amount::raw(1));
        assert_eq!(amount(0.0, Duration::from_secs(1)), Amount::ZERO);
        assert_eq!(amount(f64::MAX, Duration::from_secs(60)), Amount::MAX);
    }
}
