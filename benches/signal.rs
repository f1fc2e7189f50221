//! The cost of a signal: without waiters, with one and with many.
#![allow(missing_docs)] // criterion_group! makes public items

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use headrace_core::Signal;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Waker};

fn ready(c: &mut Criterion) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut group = c.benchmark_group("signal/ready");
    let signal = Signal::new();
    group.bench_function("publish", |b| {
        b.iter(|| signal.publish(black_box(1_u64), false));
    });
    group.bench_function("publish+wait", |b| {
        b.iter(|| {
            signal.publish(black_box(1), false);
            pin!(signal.wait()).poll(&mut cx)
        });
    });
    signal.publish(1, true);
    group.bench_function("wait, sticky", |b| {
        b.iter(|| pin!(signal.wait()).poll(&mut cx));
    });
    group.finish();
}

fn waiting(c: &mut Criterion) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut group = c.benchmark_group("signal/wait, publish, delivered");
    for waiters in [1, 100] {
        let signal = Signal::new();
        group.bench_function(BenchmarkId::from_parameter(waiters), |b| {
            b.iter(|| {
                let mut waits: Vec<_> = (0..waiters).map(|_| Box::pin(signal.wait())).collect();
                for wait in &mut waits {
                    assert!(wait.as_mut().poll(&mut cx).is_pending());
                }
                signal.publish(black_box(1_u64), false);
                for wait in &mut waits {
                    assert!(wait.as_mut().poll(&mut cx).is_ready());
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, ready, waiting);
criterion_main!(benches);
