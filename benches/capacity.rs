//! The cost of a capacity: uncontended by depth, contended, by the number of waiters and queues, and with cancelled waiters.
#![allow(missing_docs)] // criterion_group! makes public items

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use headrace_core::Tree;
use headrace_core::capacity::{Acquire, AcquireRequest, NodeId, NodeOptions, Settings};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
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

/// Add a path of `depth` nodes, the root included, and return its last node.
fn path(tree: &Tree, root: NodeId, depth: usize, slots: u64) -> NodeId {
    (1..depth).fold(root, |parent, _| {
        tree.add(parent, NodeOptions::slots(slots)).unwrap()
    })
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn waiting(tree: &Arc<Tree>, node: NodeId) -> Acquire {
    let mut acquire = tree.acquire(AcquireRequest::slots(node, 1));
    assert!(Pin::new(&mut acquire).poll(&mut cx()).is_pending());
    acquire
}

fn alone(c: &mut Criterion) {
    let mut cx = cx();
    let mut group = c.benchmark_group("capacity/alone, taken and given back");
    for depth in [1, 2, 3, 5, 8] {
        let (tree, root) = tree(8);
        let leaf = path(&tree, root, depth, 8);
        group.bench_function(BenchmarkId::new("try_acquire, depth", depth), |b| {
            b.iter(|| tree.try_acquire(AcquireRequest::slots(leaf, black_box(1))));
        });
        group.bench_function(BenchmarkId::new("acquire, depth", depth), |b| {
            b.iter(|| pin!(tree.acquire(AcquireRequest::slots(leaf, black_box(1)))).poll(&mut cx));
        });
    }
    group.finish();
}

/// A waker that stores its name as the last one woken.
struct Woken {
    name: usize,
    last: Arc<AtomicUsize>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.last.store(self.name, Ordering::Relaxed);
    }
}

/// Return `count` wakers and the name of the last one woken.
fn wakers(count: usize) -> (Vec<Waker>, Arc<AtomicUsize>) {
    let last = Arc::new(AtomicUsize::new(0));
    let waker = |name| {
        let last = Arc::clone(&last);
        Waker::from(Arc::new(Woken { name, last }))
    };
    ((0..count).map(waker).collect(), last)
}

/// The caller's data of one waiter, stored together: the tree is to be measured, not the caller.
struct Waiter {
    acquire: Acquire,
    waker: Waker,
}

/// Each granted waiter releases immediately and queues again: a release, a grant, a collection and an enqueue.
fn hand_on(b: &mut criterion::Bencher<'_>, tree: &Arc<Tree>, leaves: &[NodeId], waiters: usize) {
    let join = |node: NodeId, waker: &Waker| {
        let mut acquire = tree.acquire(AcquireRequest::slots(node, 1));
        let poll = Pin::new(&mut acquire).poll(&mut Context::from_waker(waker));
        assert!(poll.is_pending());
        acquire
    };
    let mut held = tree
        .try_acquire(AcquireRequest::slots(leaves[0], 1))
        .unwrap();
    let (wakers, last) = wakers(waiters);
    let queues = leaves.iter().cycle();
    let waiting = wakers
        .into_iter()
        .zip(queues)
        .map(|(waker, &queue)| Waiter {
            acquire: join(queue, &waker),
            waker,
        });
    let mut waiting: Vec<_> = waiting.collect();
    b.iter(|| {
        drop(held.take());
        let Waiter { acquire, waker } = &mut waiting[last.load(Ordering::Relaxed)];
        let Poll::Ready(permit) = Pin::new(&mut *acquire).poll(&mut cx()) else {
            unreachable!("it was granted")
        };
        held = Some(permit.unwrap());
        *acquire = join(acquire.request().node, waker);
    });
}

/// A record of about the size of a node or waiter of the tree, with a link to the next record.
#[repr(align(64))]
struct Record<const CACHE_LINES: usize> {
    next: u32,
    lines: [[u64; 4]; CACHE_LINES],
}

/// Return `count` records, each of which links to another.
fn records<const CACHE_LINES: usize>(
    count: u32,
    dice: &mut impl FnMut() -> u32,
) -> Vec<Record<CACHE_LINES>> {
    let mut names: Vec<_> = (0..count).collect();
    for last in (1..count).rev() {
        names.swap(last as usize, (dice() % (last + 1)) as usize);
    }
    let lines = [[0; 4]; CACHE_LINES];
    let record = |next| Record { next, lines };
    names.into_iter().map(record).collect()
}

/// The lower bound for any such tree: a heap of tags gives the next waiter. Its node, entry, future and waker lie at random
/// addresses, and each is found through the one before.
fn look_up(b: &mut criterion::Bencher<'_>, count: usize) {
    let mut state = 1_u32;
    let mut dice = || {
        // A linear congruential generator; its high bits are good.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    let names = u32::try_from(count).unwrap();
    let mut nodes = records::<10>(names, &mut dice);
    let mut waiters = records::<2>(names, &mut dice);
    let (tree, root) = tree(1);
    let (wakers, last) = wakers(count);
    let futures = wakers.into_iter().map(|waker| Waiter {
        acquire: tree.acquire(AcquireRequest::slots(root, 1)),
        waker,
    });
    let mut futures: Vec<_> = futures.collect();
    let mut heap: BinaryHeap<_> = (0..names)
        .map(|name| Reverse((u128::from(dice()), name)))
        .collect();
    b.iter(|| {
        let Reverse((tag, name)) = heap.pop().expect("the heap keeps all names");
        let node = &mut nodes[name as usize];
        node.lines.iter_mut().for_each(|line| line[0] += 1);
        let waiter = &mut waiters[node.next as usize];
        waiter.lines.iter_mut().for_each(|line| line[0] += 1);
        let Waiter { acquire, waker } = &mut futures[waiter.next as usize];
        // The tree keeps a clone of the waker until then.
        let clone = Waker::clone(waker);
        clone.wake();
        assert_eq!(last.load(Ordering::Relaxed), waiter.next as usize);
        *acquire = tree.acquire(AcquireRequest::slots(root, 1));
        heap.push(Reverse((tag + (1 << 24) + u128::from(dice()), name)));
    });
}

fn contended(c: &mut Criterion) {
    let mut group = c.benchmark_group("capacity/handed on, by depth with 8 waiters");
    for depth in [1, 2, 3, 5, 8] {
        let (tree, root) = tree(1);
        let leaf = path(&tree, root, depth, 1);
        group.bench_function(BenchmarkId::from_parameter(depth), |b| {
            hand_on(b, &tree, &[leaf], 8);
        });
    }
    group.finish();
    let mut group = c.benchmark_group("capacity/handed on, by waiters in one queue");
    for waiters in [1, 10, 1000, 100_000] {
        let (tree, root) = tree(1);
        group.bench_function(BenchmarkId::from_parameter(waiters), |b| {
            hand_on(b, &tree, &[root], waiters);
        });
    }
    group.finish();
    let mut group = c.benchmark_group("capacity/handed on, by queues of one waiter");
    for queues in [1, 10, 1000, 100_000] {
        let (tree, root) = tree(1);
        let leaves: Vec<_> = (0..queues).map(|_| path(&tree, root, 2, 1)).collect();
        group.bench_function(BenchmarkId::from_parameter(queues), |b| {
            hand_on(b, &tree, &leaves, queues);
        });
    }
    group.finish();
    let mut group = c.benchmark_group("capacity/floor, by queues of one waiter");
    for queues in [10, 1000, 100_000] {
        group.bench_function(BenchmarkId::from_parameter(queues), |b| look_up(b, queues));
    }
    group.finish();
}

/// Measure waiters that queue and are dropped, at the end of a queue, at its front, and after their grant.
fn cancelled(c: &mut Criterion) {
    let mut group = c.benchmark_group("capacity/cancelled, with 1000 waiters");
    let (tree, root) = tree(1);
    let held = tree
        .try_acquire(AcquireRequest::slots(root, 1))
        .unwrap()
        .unwrap();
    let mut queue: VecDeque<_> = (0..1000).map(|_| waiting(&tree, root)).collect();
    group.bench_function("the last", |b| b.iter(|| drop(waiting(&tree, root))));
    group.bench_function("the first", |b| {
        b.iter(|| {
            queue.pop_front();
            queue.push_back(waiting(&tree, root));
        });
    });
    held.release();
    group.bench_function("the granted", |b| {
        b.iter(|| {
            queue.pop_front();
            queue.push_back(waiting(&tree, root));
        });
    });
    group.finish();
}

criterion_group!(benches, alone, contended, cancelled);
criterion_main!(benches);
