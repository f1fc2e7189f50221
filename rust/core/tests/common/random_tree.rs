//! Random acquires, reports and releases in a tree whose limits adapt.

use super::Task;
use super::clocked::World;
use super::dice::Dice;
use headrace_core::capacity::adaptive::Outcome;
use headrace_core::capacity::{Acquire, AcquireRequest, NodeId, Permit, Time};
use std::task::Poll;
use std::time::Duration;

/// A random outcome of a call: one in twelve each is throttled, timed out or failed.
pub fn outcome(dice: &mut Dice) -> Outcome {
    match dice.below(12) {
        0 => Outcome::Throttled,
        1 => Outcome::TimedOut,
        2 => Outcome::Failed,
        _ => Outcome::Done,
    }
}

/// A tree, its waiters and its permits. The tree is checked after each operation.
pub struct RandomTree {
    pub world: World,
    pub seed: u64,
    pub dice: Dice,
    waiting: Vec<Task<Acquire>>,
    permits: Vec<Permit>,
    /// In nanoseconds.
    now: u64,
}

impl RandomTree {
    pub fn new(seed: u64) -> Self {
        Self {
            world: World::new(),
            seed,
            dice: Dice::new(seed),
            waiting: Vec::new(),
            permits: Vec::new(),
            now: 0,
        }
    }

    /// Let a random time pass, below a number of milliseconds.
    pub fn pass_below(&mut self, millis: u64) {
        self.now += self.dice.bits() % (millis * 1_000_000);
        self.world.clock.set(Time::from_nanos(self.now));
    }

    pub fn acquire(&mut self, request: AcquireRequest) {
        self.waiting
            .push(Task::new(self.world.tree.acquire(request)));
    }

    /// Take a random permit, if there is one.
    pub fn pick(&mut self) -> Option<Permit> {
        let at = (!self.permits.is_empty()).then(|| self.dice.below(self.permits.len()))?;
        Some(self.permits.swap_remove(at))
    }

    /// Report a random outcome of a permit, and release it. A throttled call backs off the node that `cooled` chooses.
    pub fn end(&mut self, permit: &Permit, cooled: impl FnOnce(&mut Dice) -> NodeId) {
        let tree = &self.world.tree;
        let outcome = outcome(&mut self.dice);
        permit.report(outcome);
        tree.check();
        if outcome == Outcome::Throttled {
            let delay = tree
                .back_off(cooled(&mut self.dice), permit.node())
                .unwrap();
            assert!(delay > Duration::ZERO, "seed {}", self.seed);
            tree.check();
        }
        permit.release();
    }

    pub fn tick(&self) {
        self.world.tree.tick();
        self.world.tree.check();
    }

    /// Collect the grants.
    pub fn collect(&mut self) {
        let permits = &mut self.permits;
        self.waiting.retain_mut(|task| match task.poll() {
            Poll::Ready(granted) => {
                permits.push(granted.unwrap());
                false
            }
            Poll::Pending => true,
        });
    }

    /// Release everything until each waiter has been granted.
    pub fn drain(&mut self) {
        while !self.waiting.is_empty() {
            self.permits.clear();
            let before = self.waiting.len();
            // Beyond the longest cooldown and its ramp.
            self.world.clock.advance(Duration::from_secs(200));
            self.world.tree.tick();
            self.collect();
            assert!(
                self.waiting.len() < before,
                "seed {}: {before} waiters are stuck",
                self.seed
            );
        }
    }
}
