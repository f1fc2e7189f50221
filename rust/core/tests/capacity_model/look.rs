//! The checks after every operation: the state of each waiter, and whether tree and model report the same totals.

use crate::model::WaiterState;
use crate::op::Op;
use crate::run::{Run, poll_request};
use headrace_core::capacity::{AcquireError, Amount, Time};
use std::task::Poll;

impl Run {
    /// Record the effect of the operation on the waiters, and check everything.
    pub fn check(&mut self) {
        // An operation may move a window before any of its grants or after it, so the lower one counts for the waiters it passes.
        let windows = self.windows();
        for (node, windows) in self.model.nodes.iter_mut().zip(&windows) {
            for (old, &new) in node.windows.iter_mut().zip(windows) {
                *old = new.min(*old);
            }
        }
        let woken = std::mem::take(&mut *self.log.lock().unwrap());
        for name in woken {
            let index = self
                .model
                .waiters
                .iter()
                .position(|waiter| waiter.claim.name == name);
            let index = index.unwrap_or_else(|| panic!("{name} was woken, but does not exist"));
            let waiter = &mut self.model.waiters[index];
            assert_eq!(waiter.state, WaiterState::Waits, "{name} was woken twice");
            let claim = waiter.claim;
            if self.model.is_closed(claim.node) {
                self.model.waiters[index].state = WaiterState::Refused;
                continue;
            }
            // The model cannot decide this case, so it polls immediately.
            let refused = self.model.exhaustion(&claim).0 && {
                let waiter = &mut self.model.waiters[index];
                match poll_request(&mut waiter.request, name, &self.log) {
                    Poll::Ready(Err(AcquireError::BudgetExhausted { .. })) => true,
                    Poll::Ready(Ok(Some(permit))) => {
                        self.model.waiters.remove(index);
                        self.granted(claim, false);
                        self.lease(claim, permit);
                        continue;
                    }
                    polled => panic!("{claim:?} was woken for {polled:?}"),
                }
            };
            if refused {
                self.model.waiters.remove(index);
            } else {
                self.granted(claim, false);
                self.model.waiters[index].state = WaiterState::Granted;
            }
        }
        for (node, windows) in self.model.nodes.iter_mut().zip(windows) {
            node.windows = windows;
        }
        self.compare();
    }

    /// Return the permits at which the ramp of each node rejects the costs of each kind.
    fn windows(&self) -> Vec<[usize; 5]> {
        let nodes = self.model.nodes.iter();
        let windows = nodes.map(|node| {
            let mut windows = [usize::MAX; 5];
            let ramp = self.tree.usage(node.id).and_then(|usage| usage.cooldown);
            if let Some(ramp) = ramp
                && let Some(window) = ramp.window
            {
                let number = |id| self.resources.iter().position(|known| *known == id);
                let number = ramp.resource.map_or(0, |id| number(id).unwrap() + 1);
                windows[number] = window + ramp.before;
            }
            windows
        });
        windows.collect()
    }

    fn compare(&mut self) {
        self.tree.check();
        self.compare_floors();
        let totals = self.model.totals();
        self.model.count_full(&totals);
        let [slots, memory, _, money] = self.resources;
        for (node, totals) in self.model.nodes.iter_mut().zip(&totals) {
            let Some(usage) = self.tree.usage(node.id) else {
                assert!(node.removed && totals.permits == 0 && totals.waiting == 0);
                continue;
            };
            assert_eq!(self.tree.held(node.id, slots), Amount::units(totals.slots));
            assert_eq!(
                self.tree.held(node.id, memory),
                Amount::units(totals.memory)
            );
            assert_eq!(self.tree.waiting(node.id), totals.waiting);
            assert_eq!(
                (usage.waiting, usage.permits),
                (totals.waiting, totals.permits)
            );
            for here in &usage.resources {
                if here.resource == money {
                    assert_eq!(here.held, Amount::units(totals.money));
                }
            }
        }
        let next_ready = self.tree.next_ready();
        self.model
            .watch_waiters(&totals, next_ready.map(Time::as_nanos));
        for (index, timer) in self.timers.iter_mut().enumerate() {
            timer.on_wake();
            let waiting =
                self.model.waiters.iter().filter(|waiter| {
                    waiter.state == WaiterState::Waits && waiter.alarm == Some(index)
                });
            let waiting = waiting.count();
            assert_eq!(timer.alarm.waiting(), waiting);
            if let (Some(next), true) = (next_ready, waiting > 0) {
                assert!(
                    timer.armed.is_some_and(|armed| armed <= next),
                    "a timer is armed for {:?}, but the next deadline is {next:?}",
                    timer.armed,
                );
            }
        }
    }

    /// Release everything and wait for all quotas: every waiter that fits is granted, and nothing stays held.
    pub fn drain(&mut self) {
        for node in 0..self.model.nodes.len() {
            self.apply(Op::Unpause(node));
            self.check();
        }
        let mut idle = 0;
        while idle < 2 {
            let before = self.model.waiters.len() + self.model.leases.len();
            while let Some(index) = self.model.leases.len().checked_sub(1) {
                self.apply(Op::Release(index));
                self.check();
            }
            for index in (0..self.model.waiters.len()).rev() {
                if self.model.waiters[index].state != WaiterState::Waits {
                    self.poll(index);
                    self.check();
                }
            }
            let after = self.model.waiters.len() + self.model.leases.len();
            idle = if before == after && self.model.leases.is_empty() {
                idle + 1
            } else {
                0
            };
            // Long enough for any debt.
            self.apply(Op::Pass(1_000_000));
            self.check();
        }
        for waiter in &self.model.waiters {
            // A node that was removed while paused stays paused.
            let waits =
                self.model.is_parked(&waiter.claim) || self.model.is_paused(waiter.claim.node);
            assert!(waits, "{waiter:?} waits without a reason");
        }
        self.model.waiters.clear();
        for node in &self.model.nodes {
            assert_eq!(self.tree.held(node.id, self.resources[0]), Amount::ZERO);
            assert_eq!(self.tree.held(node.id, self.resources[1]), Amount::ZERO);
            assert_eq!(self.tree.waiting(node.id), 0);
        }
        self.tree.check();
        assert!(
            self.log.lock().unwrap().is_empty(),
            "only existing waiters are woken"
        );
        assert_eq!(self.tree.next_ready(), None);
    }
}
