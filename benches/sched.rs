//! What a capacity costs: uncontended by depth, and with waiters in the way.
#![allow(missing_docs)] // criterion_group! makes public items

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use headrace_core::Tree;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

fn ready(c: &mut Criterion) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut group = c.benchmark_group("sched/ready, taken and given back");
    for depth in [1, 3, 10] {
        let (tree, root) = Tree::new(8);
        let leaf = (1..depth).fold(root, |parent, _| tree.add(parent, 8));
        group.bench_function(BenchmarkId::new("try_acquire, depth", depth), |b| {
            b.iter(|| tree.try_acquire(leaf, black_box(1)));
        });
        group.bench_function(BenchmarkId::new("acquire, depth", depth), |b| {
            b.iter(|| pin!(tree.acquire(leaf, black_box(1)).unwrap()).poll(&mut cx));
        });
    }
    group.finish();
}

fn waiting(c: &mut Criterion) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut group = c.benchmark_group("sched/release hands on, nodes with waiters");
    for nodes in [1, 100, 10_000] {
        let (tree, root) = Tree::new(1);
        let leaves: Vec<_> = (0..nodes).map(|_| tree.add(root, 1)).collect();
        let mut held = tree.try_acquire(root, 1).unwrap().unwrap();
        let mut turn = 0;
        let mut line: Vec<_> = leaves
            .iter()
            .map(|&leaf| tree.acquire(leaf, 1).unwrap())
            .collect();
        for acquire in &mut line {
            assert!(Pin::new(acquire).poll(&mut cx).is_pending());
        }
        group.bench_function(BenchmarkId::from_parameter(nodes), |b| {
            b.iter(|| {
                held.release();
                // The oldest was granted; it goes to the end of the line again.
                let next = &mut line[turn];
                let Poll::Ready(permit) = Pin::new(&mut *next).poll(&mut cx) else {
                    unreachable!()
                };
                held = permit;
                *next = tree.acquire(leaves[turn], 1).unwrap();
                assert!(Pin::new(next).poll(&mut cx).is_pending());
                turn = (turn + 1) % nodes;
            });
        });
    }
    group.finish();
}

criterion_group!(benches, ready, waiting);
criterion_main!(benches);
