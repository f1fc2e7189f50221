//! A tree of capacities against a plain model of it, under arbitrary operations.
#![cfg(not(loom))]

mod common;

use common::Task;
use headrace_core::Tree;
use headrace_core::sched::{AboveLimit, Acquire, NodeId, Permit};
use proptest::prelude::*;
use std::sync::Arc;
use std::task::Poll;

/// One operation. An index picks a node, a future or a permit, modulo their number.
#[derive(Clone, Copy, Debug)]
enum Op {
    Add(usize, u64),
    TryAcquire(usize, u64),
    Acquire(usize, u64),
    Poll(usize),
    Drop(usize),
    Release(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let (pick, cost, limit) = (0..16_usize, 0..5_u64, 1..7_u64);
    prop_oneof![
        2 => (pick.clone(), limit).prop_map(|(parent, limit)| Op::Add(parent, limit)),
        4 => (pick.clone(), cost.clone()).prop_map(|(node, cost)| Op::TryAcquire(node, cost)),
        8 => (pick.clone(), cost).prop_map(|(node, cost)| Op::Acquire(node, cost)),
        4 => pick.clone().prop_map(Op::Poll),
        3 => pick.clone().prop_map(Op::Drop),
        6 => pick.prop_map(Op::Release),
    ]
}

struct Node {
    id: NodeId,
    parent: Option<usize>,
    limit: u64,
}

struct Waiter {
    node: usize,
    cost: u64,
    granted: bool,
    task: Task<Acquire>,
}

/// The tree as one would explain it, every sum taken anew at every step; and beside it the real one.
struct Pair {
    real: Arc<Tree>,
    nodes: Vec<Node>,
    /// In the order of their first polls.
    waiters: Vec<Waiter>,
    permits: Vec<(usize, Permit)>,
}

impl Pair {
    fn new(limit: u64) -> Self {
        let (real, id) = Tree::new(limit);
        Self {
            real,
            nodes: vec![Node {
                id,
                parent: None,
                limit,
            }],
            waiters: Vec::new(),
            permits: Vec::new(),
        }
    }

    fn path(&self, node: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(node), |&node| self.nodes[node].parent)
    }

    fn held(&self, node: usize) -> u64 {
        let permits = self.permits.iter().map(|(at, permit)| (*at, permit.cost()));
        let granted = self.waiters.iter().filter(|waiter| waiter.granted);
        permits
            .chain(granted.map(|waiter| (waiter.node, waiter.cost)))
            .filter(|&(at, _)| self.path(at).any(|above| above == node))
            .map(|(_, cost)| cost)
            .sum()
    }

    fn available(&self, node: usize) -> u64 {
        let free = self
            .path(node)
            .map(|node| self.nodes[node].limit - self.held(node));
        free.min().unwrap()
    }

    fn first_waiter(&self, node: usize) -> Option<&Waiter> {
        self.waiters
            .iter()
            .find(|waiter| waiter.node == node && !waiter.granted)
    }

    /// What a newcomer finds: an error, a grant, or nothing.
    fn expected(&self, node: usize, cost: u64) -> Result<bool, AboveLimit> {
        if let Some(above) = self.path(node).find(|&node| self.nodes[node].limit < cost) {
            let Node { id, limit, .. } = self.nodes[above];
            return Err(AboveLimit { node: id, limit });
        }
        Ok(cost == 0 || (self.first_waiter(node).is_none() && cost <= self.available(node)))
    }

    /// Grants the oldest that is first in its line and fits, and starts over, until there is none.
    fn dispatch(&mut self) {
        let next = |pair: &Self| {
            (0..pair.waiters.len()).find(|&index| {
                let waiter = &pair.waiters[index];
                let first = pair.first_waiter(waiter.node);
                !waiter.granted
                    && first.is_some_and(|first| std::ptr::eq(first, waiter))
                    && waiter.cost <= pair.available(waiter.node)
            })
        };
        while let Some(index) = next(self) {
            self.waiters[index].granted = true;
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Add(parent, limit) => {
                let parent = parent % self.nodes.len();
                let id = self.real.add(self.nodes[parent].id, limit);
                self.nodes.push(Node {
                    id,
                    parent: Some(parent),
                    limit,
                });
            }
            Op::TryAcquire(node, cost) => {
                let node = node % self.nodes.len();
                let expected = self.expected(node, cost);
                let found = self.real.try_acquire(self.nodes[node].id, cost);
                assert_eq!(
                    found.as_ref().map(Option::is_some).map_err(|error| *error),
                    expected
                );
                self.permits
                    .extend(found.ok().flatten().map(|permit| (node, permit)));
            }
            Op::Acquire(node, cost) => {
                let node = node % self.nodes.len();
                match (
                    self.real.acquire(self.nodes[node].id, cost),
                    self.expected(node, cost),
                ) {
                    (Err(error), expected) => assert_eq!(Err(error), expected),
                    (Ok(acquire), expected) => {
                        let mut task = Task::new(acquire);
                        match task.poll() {
                            Poll::Ready(permit) => {
                                assert_eq!(expected, Ok(true));
                                self.permits.push((node, permit));
                            }
                            Poll::Pending => {
                                assert_eq!(expected, Ok(false));
                                self.waiters.push(Waiter {
                                    node,
                                    cost,
                                    granted: false,
                                    task,
                                });
                            }
                        }
                    }
                }
            }
            Op::Poll(index) if !self.waiters.is_empty() => {
                let index = index % self.waiters.len();
                let waiter = &mut self.waiters[index];
                match waiter.task.poll() {
                    Poll::Pending => assert!(!waiter.granted),
                    Poll::Ready(permit) => {
                        assert!(waiter.granted);
                        assert_eq!(permit.cost(), waiter.cost);
                        let waiter = self.waiters.remove(index);
                        self.permits.push((waiter.node, permit));
                    }
                }
            }
            Op::Drop(index) if !self.waiters.is_empty() => {
                drop(self.waiters.remove(index % self.waiters.len()));
            }
            Op::Release(index) if !self.permits.is_empty() => {
                let (_, permit) = self.permits.swap_remove(index % self.permits.len());
                if index % 2 == 0 {
                    permit.release();
                }
                drop(permit);
            }
            // There is none to pick.
            _ => {}
        }
        self.dispatch();
        self.check();
    }

    fn check(&self) {
        for (index, node) in self.nodes.iter().enumerate() {
            let held = self.real.held(node.id);
            assert_eq!(held, self.held(index));
            assert!(held <= node.limit, "capacity is never exceeded");
            assert_eq!(self.real.available(node.id), self.available(index));
            let below = |waiter: &&Waiter| {
                !waiter.granted && self.path(waiter.node).any(|above| above == index)
            };
            assert_eq!(
                self.real.waiting(node.id),
                self.waiters.iter().filter(below).count()
            );
            let first = self.first_waiter(index);
            assert!(
                first.is_none_or(|first| first.cost > self.real.available(node.id)),
                "nothing is left unused that the first of a line could have",
            );
        }
        for waiter in &self.waiters {
            assert_eq!(
                waiter.task.wakes(),
                usize::from(waiter.granted),
                "whoever was granted was woken, once"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 384, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_is_its_model(
        limit in 1..10_u64,
        nodes in prop::collection::vec((0..16_usize, 1..7_u64), 0..6),
        ops in prop::collection::vec(op(), 1..100),
    ) {
        let mut pair = Pair::new(limit);
        for (parent, limit) in nodes {
            pair.apply(Op::Add(parent, limit));
        }
        for op in ops {
            pair.apply(op);
        }
        // With everything released, one by one, every waiter has its turn; in the end nothing is held.
        loop {
            while !pair.permits.is_empty() {
                pair.apply(Op::Release(0));
            }
            let Some(index) = pair.waiters.iter().position(|waiter| waiter.granted) else { break };
            pair.apply(Op::Poll(index));
        }
        prop_assert!(pair.waiters.is_empty(), "somebody waits though everything is free");
        for node in &pair.nodes {
            prop_assert_eq!(pair.real.held(node.id), 0);
            prop_assert_eq!(pair.real.waiting(node.id), 0);
        }
    }
}
