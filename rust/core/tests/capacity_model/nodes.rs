//! The operations on nodes.

use crate::model::DEPTH;
use crate::op::{Limits, Op};
use crate::run::Run;
use headrace_core::capacity::{Amount, Limit, NodeOptions, ResourceId, Weight};
use std::time::Duration;

impl Run {
    pub fn add(&mut self, parent: usize, limits: Limits, weight: u32) {
        let options = NodeOptions::new(self.limits(limits))
            .weight(Weight::from_f64(f64::from(weight)).unwrap());
        if self.model.nodes.is_empty() {
            let id = self.tree.root(options).unwrap();
            self.model.add(id, None, limits);
            return;
        }
        let parent = parent % self.model.nodes.len();
        if self.model.path(parent).count() >= DEPTH || self.model.nodes[parent].removed {
            return;
        }
        let id = self.tree.add(self.model.nodes[parent].id, options);
        assert_eq!(id.is_err(), self.model.is_closed(parent));
        if let Ok(id) = id {
            self.model.add(id, Some(parent), limits);
        }
    }

    pub fn change(&mut self, node: usize, op: Op) {
        let id = self.model.nodes[node].id;
        let closed = self.model.is_closed(node);
        if closed && !matches!(op, Op::Close(_) | Op::Remove(_)) {
            return;
        }
        let now = self.model.now;
        let at = &mut self.model.nodes[node];
        match op {
            // A tree without a root has nothing left to check.
            Op::Remove(_) if node > 0 => {
                at.removed = true;
                self.drop_leaf_floor(node);
                self.tree.remove(id);
            }
            Op::Close(_) if node > 0 => {
                at.closed = true;
                self.tree.close(id);
            }
            Op::Resize(_, limits, same) => {
                let limits = if same { at.within(limits) } else { limits };
                let ceiling = match limits.slots {
                    Some(0) => at.ceilings[0],
                    slots => slots.unwrap_or(0),
                };
                let allowed = self.model.allows_bound(node, ceiling);
                let done = self.tree.resize(id, &self.limits(limits));
                assert_eq!(done.is_ok(), allowed, "{done:?} for {limits:?}");
                if allowed {
                    self.model.nodes[node].resize(limits, now);
                }
            }
            Op::Floor(_, floor) => self.set_floor(node, floor),
            Op::Reweigh(_, weight) => {
                let weight = Weight::from_f64(f64::from(weight)).unwrap();
                self.tree.reweigh(id, weight).unwrap();
            }
            Op::Pause(_) => {
                at.paused = true;
                self.tree.pause(id).unwrap();
            }
            Op::Unpause(_) => {
                at.paused = false;
                self.tree.resume(id).unwrap();
            }
            Op::CoolDown(_, millis) => {
                let which = usize::try_from(millis % 5).unwrap();
                let limited = [
                    true,
                    at.slots.is_some(),
                    at.memory.is_some(),
                    at.calls.is_some(),
                    at.money.is_some(),
                ];
                let resource = which.checked_sub(1).map(|which| self.resources[which]);
                let delay = (millis > 0).then(|| Duration::from_millis(millis));
                let done = self.tree.cool_down(id, resource, delay);
                assert_eq!(done.is_ok(), limited[which]);
                if let Ok(left) = done {
                    // The delay of the tree is known from its answer.
                    let delay = delay.unwrap_or(left);
                    let until = now + u64::try_from(delay.as_nanos()).unwrap();
                    assert!(left >= delay && until > now);
                    let not_before = &mut at.not_before[which];
                    *not_before = (*not_before).max(until);
                }
            }
            _ => {}
        }
    }

    fn limits(&self, limits: Limits) -> Vec<(ResourceId, Limit)> {
        let [slots, memory, calls, money] = self.resources;
        let mut out = Vec::new();
        if let Some(units) = limits.slots {
            out.push((slots, Limit::Slots(Amount::units(units))));
        }
        if let Some(units) = limits.memory {
            out.push((memory, Limit::Slots(Amount::units(units))));
        }
        if let Some(quota) = limits.calls {
            let rate = Limit::Rate {
                amount: Amount::units(quota.calls),
                per: Duration::from_millis(quota.millis),
                burst: quota.burst.map(Amount::units),
            };
            out.push((calls, rate));
        }
        if let Some(units) = limits.money {
            out.push((money, Limit::Budget(Amount::units(units))));
        }
        out
    }
}
