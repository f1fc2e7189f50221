//! The cost of a buffer: ready on both sides, and through a waiter.
#![allow(missing_docs)] // criterion_group! makes public items

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use headrace_core::Buffer;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::pin::{Pin, pin};
use std::task::{Context, Waker};

fn ready(c: &mut Criterion) {
    let mut cx = Context::from_waker(Waker::noop());
    let buffer = Buffer::new(NonZeroUsize::new(1024));
    // Half full, as in a running pipeline.
    for item in 0..512_u64 {
        buffer.try_put(item).unwrap();
    }
    let mut group = c.benchmark_group("buffer/ready");
    group.bench_function("try_put+try_get", |b| {
        b.iter(|| {
            buffer.try_put(black_box(1)).unwrap();
            buffer.try_get().unwrap()
        });
    });
    group.bench_function("put+get", |b| {
        b.iter(|| {
            let _ = black_box(pin!(buffer.put(black_box(1))).poll(&mut cx));
            pin!(buffer.get()).poll(&mut cx)
        });
    });
    group.bench_function("len", |b| b.iter(|| buffer.len()));
    group.finish();
}

fn waiting(c: &mut Criterion) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut group = c.benchmark_group("buffer/waiting");
    let buffer = Buffer::new(None);
    group.bench_function("get, try_put, delivered", |b| {
        b.iter(|| {
            let mut get = pin!(buffer.get());
            assert!(get.as_mut().poll(&mut cx).is_pending());
            buffer.try_put(black_box(1_u64)).unwrap();
            get.poll(&mut cx)
        });
    });
    for others in [0, 10_000] {
        let mut getters: Vec<_> = (0..others).map(|_| buffer.get()).collect();
        for get in &mut getters {
            assert!(Pin::new(get).poll(&mut cx).is_pending());
        }
        group.bench_function(BenchmarkId::new("get, dropped, behind", others), |b| {
            b.iter(|| black_box(pin!(buffer.get()).poll(&mut cx)));
        });
    }
    group.finish();
}

criterion_group!(benches, ready, waiting);
criterion_main!(benches);
