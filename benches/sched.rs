//! What a capacity costs: alone by depth, contended, by the number of waiters and of lines, and when waiters give up.
#![allow(missing_docs)] // criterion_group! makes public items

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use headrace_core::Tree;
use headrace_core::sched::{Acquire, Ask, NodeId, NodeOptions, Settings};
use std::collections::VecDeque;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

fn tree(slots: u64) -> (Arc<Tree>, NodeId) {
    let tree = Tree::new(Settings::default());
    let root = tree.root(NodeOptions::slots(slots)).unwrap();
    (tree, root)
}

/// A path of so many nodes, the root included; its last node.
fn path(tree: &Tree, root: NodeId, depth: usize, slots: u64) -> NodeId {
    (1..depth).fold(root, |parent, _| {
        tree.add(parent, NodeOptions::slots(slots)).unwrap()
    })
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn waiting(tree: &Arc<Tree>, node: NodeId) -> Acquire {
    let mut acquire = tree.acquire(Ask::slots(node, 1));
    assert!(Pin::new(&mut acquire).poll(&mut cx()).is_pending());
    acquire
}

fn alone(c: &mut Criterion) {
    let mut cx = cx();
    let mut group = c.benchmark_group("sched/alone, taken and given back");
    for depth in [1, 2, 3, 5, 8] {
        let (tree, root) = tree(8);
        let leaf = path(&tree, root, depth, 8);
        group.bench_function(BenchmarkId::new("try_acquire, depth", depth), |b| {
            b.iter(|| tree.try_acquire(Ask::slots(leaf, black_box(1))));
        });
        group.bench_function(BenchmarkId::new("acquire, depth", depth), |b| {
            b.iter(|| pin!(tree.acquire(Ask::slots(leaf, black_box(1)))).poll(&mut cx));
        });
    }
    group.finish();
}

/// Tells who was woken last.
struct Woken {
    line: usize,
    last: Arc<AtomicUsize>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.last.store(self.line, Ordering::Relaxed);
    }
}

/// Whoever is granted gives back at once and comes again: a release, a grant, a collection and a place in the line.
fn hand_on(b: &mut criterion::Bencher<'_>, tree: &Arc<Tree>, leaves: &[NodeId], waiters: usize) {
    let last = Arc::new(AtomicUsize::new(0));
    let wakers: Vec<_> = (0..leaves.len())
        .map(|line| {
            Waker::from(Arc::new(Woken {
                line,
                last: Arc::clone(&last),
            }))
        })
        .collect();
    let join = |line: usize| {
        let mut acquire = tree.acquire(Ask::slots(leaves[line], 1));
        let poll = Pin::new(&mut acquire).poll(&mut Context::from_waker(&wakers[line]));
        assert!(poll.is_pending());
        acquire
    };
    let mut held = tree.try_acquire(Ask::slots(leaves[0], 1)).unwrap();
    let mut lines: Vec<VecDeque<Acquire>> = leaves.iter().map(|_| VecDeque::new()).collect();
    for turn in 0..waiters {
        let line = turn % leaves.len();
        lines[line].push_back(join(line));
    }
    b.iter(|| {
        drop(held.take());
        let line = last.load(Ordering::Relaxed);
        let mut first = lines[line].pop_front().expect("it was woken");
        let Poll::Ready(permit) = Pin::new(&mut first).poll(&mut cx()) else {
            unreachable!("it was granted")
        };
        held = Some(permit.unwrap());
        lines[line].push_back(join(line));
    });
}

fn contended(c: &mut Criterion) {
    let mut group = c.benchmark_group("sched/handed on, by depth with 8 waiters");
    for depth in [1, 2, 3, 5, 8] {
        let (tree, root) = tree(1);
        let leaf = path(&tree, root, depth, 1);
        group.bench_function(BenchmarkId::from_parameter(depth), |b| {
            hand_on(b, &tree, &[leaf], 8);
        });
    }
    group.finish();
    let mut group = c.benchmark_group("sched/handed on, by waiters in one line");
    for waiters in [1, 10, 1000, 100_000] {
        let (tree, root) = tree(1);
        group.bench_function(BenchmarkId::from_parameter(waiters), |b| {
            hand_on(b, &tree, &[root], waiters);
        });
    }
    group.finish();
    let mut group = c.benchmark_group("sched/handed on, by lines of one waiter");
    for lines in [1, 10, 1000, 100_000] {
        let (tree, root) = tree(1);
        let leaves: Vec<_> = (0..lines).map(|_| path(&tree, root, 2, 1)).collect();
        group.bench_function(BenchmarkId::from_parameter(lines), |b| {
            hand_on(b, &tree, &leaves, lines);
        });
    }
    group.finish();
}

/// Waiters that come and give up, from the end of a line, its front, and after they were granted.
fn cancelled(c: &mut Criterion) {
    let mut group = c.benchmark_group("sched/cancelled, with 1000 waiters");
    let (tree, root) = tree(1);
    let held = tree.try_acquire(Ask::slots(root, 1)).unwrap().unwrap();
    let mut line: VecDeque<_> = (0..1000).map(|_| waiting(&tree, root)).collect();
    group.bench_function("the last", |b| b.iter(|| drop(waiting(&tree, root))));
    group.bench_function("the first", |b| {
        b.iter(|| {
            line.pop_front();
            line.push_back(waiting(&tree, root));
        });
    });
    held.release();
    group.bench_function("the granted", |b| {
        b.iter(|| {
            line.pop_front();
            line.push_back(waiting(&tree, root));
        });
    });
    group.finish();
}

criterion_group!(benches, alone, contended, cancelled);
criterion_main!(benches);
