//! A tree of capacities on a manual clock, verified after every step.

use super::Task;
use headrace_core::Tree;
use headrace_core::capacity::{
    Acquire, AcquireError, AcquireRequest, Amount, ManualClock, NodeId, NodeOptions, Permit,
    ResourceId, Settings,
};
use std::sync::Arc;
use std::time::Duration;

pub const SLOTS: ResourceId = ResourceId::SLOTS;

/// A tree on a manual clock, verified after every step.
pub struct World {
    pub tree: Arc<Tree>,
    pub clock: Arc<ManualClock>,
}

impl World {
    pub fn new() -> Self {
        let clock = Arc::new(ManualClock::new());
        let settings = Settings::with_clock(Arc::clone(&clock) as _);
        Self {
            tree: Tree::new(settings),
            clock,
        }
    }

    pub fn slots(slots: u64) -> (Self, NodeId) {
        let world = Self::new();
        let root = world.tree.root(NodeOptions::slots(slots)).unwrap();
        (world, root)
    }

    pub fn add(&self, parent: NodeId, slots: u64) -> NodeId {
        self.tree.add(parent, NodeOptions::slots(slots)).unwrap()
    }

    pub fn pass(&self, seconds: f64) {
        self.clock.advance(Duration::from_secs_f64(seconds));
        self.tree.tick();
        self.tree.check();
    }

    #[track_caller]
    pub fn take(&self, node: NodeId, slots: u64) -> Permit {
        self.take_ask(AcquireRequest::slots(node, slots))
    }

    #[track_caller]
    pub fn take_ask(&self, ask: AcquireRequest) -> Permit {
        let permit = self.tree.try_acquire(ask).unwrap();
        self.tree.check();
        permit.expect("expected to fit")
    }

    #[track_caller]
    pub fn refused(&self, ask: AcquireRequest) -> bool {
        let permit = self.tree.try_acquire(ask).unwrap();
        self.tree.check();
        permit.is_none()
    }

    #[track_caller]
    pub fn waits(&self, node: NodeId, slots: u64) -> Task<Acquire> {
        self.waits_ask(AcquireRequest::slots(node, slots))
    }

    #[track_caller]
    pub fn waits_ask(&self, ask: AcquireRequest) -> Task<Acquire> {
        let task = Task::waiting(self.tree.acquire(ask));
        self.tree.check();
        task
    }

    pub fn held(&self, node: NodeId) -> u64 {
        self.tree.held(node, SLOTS).as_micros() / 1_000_000
    }

    pub fn release(&self, permit: Permit) {
        drop(permit);
        self.tree.check();
    }
}

pub fn units(units: u64) -> Amount {
    Amount::units(units)
}

#[track_caller]
pub fn granted(task: &mut Task<Acquire>) -> Permit {
    task.ready().expect("expected a permit")
}

#[track_caller]
pub fn failed(task: &mut Task<Acquire>) -> AcquireError {
    task.ready().expect_err("expected an error")
}
