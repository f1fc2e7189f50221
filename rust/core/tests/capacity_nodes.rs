//! The cost of a node in a tree with tens of thousands of short-lived nodes, one for each tenant.
#![cfg(not(loom))]

mod common;

use common::counting::{Counting, count, live};
use headrace_core::Tree;
use headrace_core::capacity::{AcquireRequest, ManualClock, NodeId, NodeOptions, Settings};
use std::sync::Arc;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Add a tenant's node, acquires and release a permit, and remove the node.
fn visit(tree: &Arc<Tree>, root: NodeId) {
    let node = tree.add(root, NodeOptions::slots(2)).unwrap();
    drop(
        tree.try_acquire(AcquireRequest::slots(node, 1))
            .unwrap()
            .unwrap(),
    );
    tree.remove(node);
}

/// A single test in this binary: no other test may allocate meanwhile.
#[test]
fn node_cost_is_independent_of_sibling_count() {
    const VISITS: usize = 2_000;
    let tree = Tree::new(Settings::with_clock(Arc::new(ManualClock::new())));
    let root = tree.root(NodeOptions::slots(64)).unwrap();
    visit(&tree, root);
    let empty = live();
    let mut costs = Vec::new();
    let mut retained = Vec::new();
    for siblings in [10, 30_000, 30_000] {
        let nodes: Vec<_> = (0..siblings)
            .map(|_| tree.add(root, NodeOptions::slots(2)).unwrap())
            .collect();
        for &node in &nodes {
            drop(
                tree.try_acquire(AcquireRequest::slots(node, 1))
                    .unwrap()
                    .unwrap(),
            );
        }
        let each = (live() - empty) / siblings;
        visit(&tree, root);
        let before = count();
        // The best of five, since other processes use the machine: a regression would be a factor of thousands.
        let times = (0..5).map(|_| {
            let began = Instant::now();
            for _ in 0..VISITS {
                visit(&tree, root);
            }
            began.elapsed()
        });
        let time = times.min().unwrap();
        let allocations = (count() - before) / (5 * VISITS);
        println!(
            "{siblings} siblings: {each} bytes each; a visit takes {} ns and {allocations} allocations",
            time.as_nanos() / VISITS as u128
        );
        if siblings > 10 {
            assert!(each <= 2_560, "{each} bytes each");
        }
        costs.push((time, allocations));
        for node in nodes {
            tree.remove(node);
        }
        // Only the table of nodes keeps its memory, at most twice as many slots as it needed.
        let left = live().saturating_sub(empty);
        println!("{left} bytes are retained");
        assert!(
            left <= 4_096 + 32 * siblings,
            "{left} bytes are left of {siblings}"
        );
        retained.push(left);
    }
    assert!(retained[2] <= retained[1] + 256, "{retained:?}");
    assert_eq!(costs[0].1, costs[1].1, "allocations");
    assert!(costs[1].0 <= 10 * costs[0].0, "{costs:?}");
}
