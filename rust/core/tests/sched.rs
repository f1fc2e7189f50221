//! What a tree of capacities promises, one poll at a time.
#![cfg(not(loom))]

mod common;

use common::{Named, Reentrant, Task, panics};
use headrace_core::Tree;
use headrace_core::sched::{AboveLimit, NodeId, Permit};
use std::sync::{Arc, Mutex};
use std::task::Waker;

#[track_caller]
fn take(tree: &Arc<Tree>, node: NodeId, cost: u64) -> Permit {
    tree.try_acquire(node, cost)
        .unwrap()
        .expect("expected to fit")
}

#[track_caller]
fn refused(tree: &Arc<Tree>, node: NodeId, cost: u64) -> bool {
    tree.try_acquire(node, cost).unwrap().is_none()
}

macro_rules! waiting {
    ($tree:expr, $node:expr, $cost:expr) => {
        Task::waiting($tree.acquire($node, $cost).unwrap())
    };
}

#[test]
fn a_cost_is_held_at_the_node_and_at_every_ancestor() {
    let (tree, root) = Tree::new(10);
    let left = tree.add(root, 6);
    let right = tree.add(root, 6);
    let leaf = tree.add(left, 4);
    let permit = take(&tree, leaf, 3);
    assert_eq!(
        [root, left, right, leaf].map(|node| tree.held(node)),
        [3, 3, 0, 3]
    );
    assert_eq!(
        [root, left, right, leaf].map(|node| tree.available(node)),
        [7, 3, 6, 1]
    );
    assert_eq!(
        [root, left, right, leaf].map(|node| tree.limit(node)),
        [10, 6, 6, 4]
    );
    assert_eq!((permit.cost(), permit.node()), (3, leaf));
    drop(permit);
    assert_eq!(
        [root, left, right, leaf].map(|node| tree.held(node)),
        [0; 4]
    );
}

#[test]
fn all_or_nothing() {
    let (tree, root) = Tree::new(2);
    let leaf = tree.add(root, 5);
    // The root cannot ever give 3, so this is an error and not a wait.
    assert_eq!(
        tree.try_acquire(leaf, 3).unwrap_err(),
        AboveLimit {
            node: root,
            limit: 2
        }
    );
    let permit = take(&tree, root, 1);
    assert!(refused(&tree, leaf, 2));
    assert_eq!((tree.held(root), tree.held(leaf)), (1, 0));
    drop(permit);
    drop(take(&tree, leaf, 2));
}

#[test]
fn a_cost_above_a_limit_fails_at_once_and_names_the_nearest() {
    let (tree, root) = Tree::new(4);
    let middle = tree.add(root, 2);
    let leaf = tree.add(middle, 3);
    let error = tree.acquire(leaf, 5).unwrap_err();
    assert_eq!(
        error,
        AboveLimit {
            node: leaf,
            limit: 3
        }
    );
    assert_eq!(
        error.to_string(),
        "the cost is above a limit of 3 on its path"
    );
    assert_eq!(
        tree.acquire(leaf, 3).unwrap_err(),
        AboveLimit {
            node: middle,
            limit: 2
        }
    );
    assert!(tree.acquire(leaf, 2).is_ok());
}

#[test]
fn a_release_is_idempotent() {
    let (tree, root) = Tree::new(2);
    let one = take(&tree, root, 1);
    let other = take(&tree, root, 1);
    assert!(!one.is_released());
    one.release();
    one.release();
    assert!(one.is_released());
    drop(one);
    assert_eq!(tree.held(root), 1);
    drop(other);
    assert_eq!(tree.held(root), 0);
}

#[test]
fn a_waiter_is_granted_under_the_release_that_makes_room() {
    let (tree, root) = Tree::new(1);
    let permit = take(&tree, root, 1);
    let mut task = waiting!(tree, root, 1);
    assert_eq!(tree.waiting(root), 1);
    permit.release();
    assert_eq!((task.wakes(), tree.waiting(root)), (1, 0));
    assert_eq!(
        tree.held(root),
        1,
        "handed off, so a newcomer finds nothing"
    );
    assert!(refused(&tree, root, 1));
    let permit = task.ready();
    assert_eq!(permit.cost(), 1);
    drop(permit);
    assert_eq!(tree.held(root), 0);
}

#[test]
fn an_acquire_that_fits_completes_at_the_first_poll() {
    let (tree, root) = Tree::new(1);
    let mut task = Task::new(tree.acquire(root, 1).unwrap());
    assert_eq!(tree.held(root), 0, "nothing is taken before the first poll");
    drop(task.ready());
}

#[test]
fn within_a_node_small_costs_do_not_pass_a_large_one() {
    let (tree, root) = Tree::new(4);
    let permits: Vec<_> = (0..4).map(|_| take(&tree, root, 1)).collect();
    let mut large = waiting!(tree, root, 3);
    let mut small = waiting!(tree, root, 1);
    permits[0].release();
    permits[1].release();
    assert_eq!((large.wakes(), small.wakes()), (0, 0));
    assert!(refused(&tree, root, 1), "nor does a newcomer");
    permits[2].release();
    assert_eq!((large.wakes(), small.wakes()), (1, 0));
    permits[3].release();
    assert_eq!(small.wakes(), 1);
    drop((large.ready(), small.ready()));
    assert_eq!(tree.held(root), 0);
}

#[test]
fn a_large_cost_is_passed_by_other_nodes_while_they_fit() {
    let (tree, root) = Tree::new(2);
    let left = tree.add(root, 2);
    let right = tree.add(root, 2);
    let permits = [take(&tree, left, 1), take(&tree, left, 1)];
    let mut large = waiting!(tree, left, 2);
    let mut small = waiting!(tree, right, 1);
    permits[0].release();
    assert_eq!((large.wakes(), small.wakes()), (0, 1));
    drop(small.ready());
    permits[1].release();
    assert_eq!(large.ready().cost(), 2);
}

#[test]
fn across_nodes_the_oldest_is_granted_first() {
    let (tree, root) = Tree::new(1);
    let nodes: Vec<_> = (0..4).map(|_| tree.add(root, 1)).collect();
    let permit = take(&tree, root, 1);
    let order = [2, 0, 3, 0, 1, 2];
    let mut tasks: Vec<_> = order
        .iter()
        .map(|&at| waiting!(tree, nodes[at], 1))
        .collect();
    assert_eq!(tree.waiting(root), 6);
    assert_eq!(tree.waiting(nodes[0]), 2);
    permit.release();
    for turn in 0..tasks.len() {
        let wakes: Vec<_> = tasks.iter().map(Task::wakes).collect();
        assert_eq!(wakes.iter().sum::<usize>(), turn + 1);
        drop(tasks[turn].ready());
    }
    assert_eq!((tree.held(root), tree.waiting(root)), (0, 0));
}

#[test]
fn one_release_grants_as_many_as_fit_in_order() {
    let (tree, root) = Tree::new(6);
    let left = tree.add(root, 6);
    let right = tree.add(root, 1);
    let permit = take(&tree, root, 6);
    let log = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for (name, (node, cost)) in [
        (left, 2),
        (right, 1),
        (right, 1),
        (left, 2),
        (left, 2),
        (root, 1),
    ]
    .into_iter()
    .enumerate()
    {
        let mut task = Task::new(tree.acquire(node, cost).unwrap());
        let waker = Waker::from(Arc::new(Named {
            name,
            log: Arc::clone(&log),
        }));
        assert!(task.poll_with(&waker).is_pending());
        tasks.push(task);
    }
    permit.release();
    // 2 waits for its node, 4 for the root, and 5 takes what 4 cannot use.
    assert_eq!(*log.lock().unwrap(), [0, 1, 3, 5]);
    assert_eq!(
        (tree.held(root), tree.held(left), tree.held(right)),
        (6, 4, 1)
    );
    assert_eq!(
        (tree.waiting(root), tree.waiting(left), tree.waiting(right)),
        (2, 1, 1)
    );
}

#[test]
fn a_waiter_dropped_before_its_grant_lets_the_next_one_up() {
    let (tree, root) = Tree::new(2);
    let permit = take(&tree, root, 1);
    let large = waiting!(tree, root, 2);
    let mut small = waiting!(tree, root, 1);
    drop(large);
    assert_eq!(small.wakes(), 1, "it had only waited for its turn");
    assert_eq!(tree.waiting(root), 0);
    drop(small.ready());
    drop(permit);
    assert_eq!(tree.held(root), 0);
}

#[test]
fn a_waiter_dropped_from_the_middle_changes_nothing_for_the_others() {
    let (tree, root) = Tree::new(1);
    let permit = take(&tree, root, 1);
    let mut first = waiting!(tree, root, 1);
    let middle = waiting!(tree, root, 1);
    let mut last = waiting!(tree, root, 1);
    drop(middle);
    assert_eq!(tree.waiting(root), 2);
    drop(permit);
    drop(first.ready());
    drop(last.ready());
    assert_eq!(tree.held(root), 0);
}

#[test]
fn a_grant_that_is_not_collected_is_annulled_and_handed_on() {
    let (tree, root) = Tree::new(2);
    let leaf = tree.add(root, 2);
    let permit = take(&tree, root, 2);
    let granted = waiting!(tree, leaf, 2);
    let mut next = waiting!(tree, root, 1);
    let mut last = waiting!(tree, leaf, 1);
    permit.release();
    assert_eq!((granted.wakes(), next.wakes(), last.wakes()), (1, 0, 0));
    drop(granted);
    assert_eq!((next.wakes(), last.wakes()), (1, 1));
    drop((next.ready(), last.ready()));
    assert_eq!((tree.held(root), tree.held(leaf)), (0, 0));
}

#[test]
fn a_cost_of_nothing_waits_for_nobody() {
    let (tree, root) = Tree::new(0);
    let (full, node) = Tree::new(1);
    drop(take(&tree, root, 0));
    let permit = take(&full, node, 1);
    let waiter = waiting!(full, node, 1);
    drop(take(&full, node, 0));
    drop(Task::new(full.acquire(node, 0).unwrap()).ready());
    assert_eq!((waiter.wakes(), full.held(node)), (0, 1));
    drop(permit);
    assert_eq!(waiter.wakes(), 1);
}

#[test]
fn costs_up_to_the_largest_number_are_summed_exactly() {
    let (tree, root) = Tree::new(u64::MAX);
    let leaf = tree.add(root, u64::MAX);
    let most = take(&tree, leaf, u64::MAX - 1);
    assert!(refused(&tree, leaf, 2));
    let one = take(&tree, leaf, 1);
    assert!(refused(&tree, root, u64::MAX));
    drop((most, one));
    drop(take(&tree, root, u64::MAX));
}

#[test]
fn a_deep_tree_costs_no_stack() {
    let (tree, root) = Tree::new(1);
    let leaf = (0..100_000).fold(root, |parent, _| tree.add(parent, 1));
    let permit = take(&tree, leaf, 1);
    let mut task = waiting!(tree, leaf, 1);
    drop(permit);
    drop(task.ready());
    assert_eq!(tree.held(root), 0);
}

#[test]
fn wakers_may_call_back() {
    let (tree, root) = Tree::new(1);
    let weak = Arc::downgrade(&tree);
    let act = move || {
        if let Some(tree) = weak.upgrade() {
            assert!(tree.held(root) <= 1);
        }
    };
    let permit = take(&tree, root, 1);
    let mut task = Task::new(tree.acquire(root, 1).unwrap());
    assert!(task.poll_with(&Reentrant::waker(act.clone())).is_pending());
    assert!(task.poll_with(&Reentrant::waker(act.clone())).is_pending());
    drop(permit);
    drop(task.ready());
    let permit = take(&tree, root, 1);
    let mut task = Task::new(tree.acquire(root, 1).unwrap());
    assert!(task.poll_with(&Reentrant::waker(act)).is_pending());
    drop(task);
    drop(permit);
}

#[test]
fn a_node_of_another_tree_is_refused_and_breaks_nothing() {
    let (one, _) = Tree::new(1);
    let (_other, stranger) = Tree::new(1);
    assert_eq!(
        panics(|| one.held(stranger)),
        "the node belongs to another tree"
    );
    assert!(!one.is_broken());
}

#[test]
fn polling_after_completion_panics_and_breaks_nothing() {
    let (tree, root) = Tree::new(1);
    let mut task = Task::new(tree.acquire(root, 1).unwrap());
    drop(task.ready());
    assert_eq!(panics(|| task.poll()), "`Acquire` polled after completion");
    assert!(!tree.is_broken());
    assert!(format!("{tree:?} {task:?}").contains("limit"));
}
