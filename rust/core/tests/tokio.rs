//! The futures under a foreign executor and its wakers.
#![cfg(not(loom))]

use headrace_core::capacity::{AcquireRequest, NodeOptions, ResourceId, Settings};
use headrace_core::{Buffer, Signal, Tree};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_item_arrives_exactly_once() {
    const EACH: u64 = 500;
    let buffer = Buffer::new(NonZeroUsize::new(2));
    let producers: Vec<_> = (0..4)
        .map(|producer| {
            let buffer = Arc::clone(&buffer);
            tokio::spawn(async move {
                for item in 0..EACH {
                    buffer.put(producer * EACH + item).await.unwrap();
                }
            })
        })
        .collect();
    let consumers: Vec<_> = (0..3)
        .map(|_| {
            let buffer = Arc::clone(&buffer);
            tokio::spawn(async move {
                let mut got = Vec::new();
                while let Ok(item) = buffer.get().await {
                    got.push(item);
                }
                got
            })
        })
        .collect();
    for producer in producers {
        producer.await.unwrap();
    }
    buffer.finish();
    let mut all = Vec::new();
    for consumer in consumers {
        all.extend(consumer.await.unwrap());
    }
    all.sort_unstable();
    assert!(all.into_iter().eq(0..4 * EACH));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborted_getters_lose_no_item() {
    let buffer = Buffer::new(None);
    let mut received = 0;
    for item in 0..300 {
        let getter = tokio::spawn({
            let buffer = Arc::clone(&buffer);
            async move { buffer.get().await }
        });
        tokio::task::yield_now().await;
        buffer.try_put(item).unwrap();
        getter.abort();
        received += usize::from(getter.await.is_ok());
    }
    assert_eq!(received + buffer.close().len(), 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_publish_reaches_all_waiters() {
    let signal = Signal::new();
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let signal = Arc::clone(&signal);
            tokio::spawn(async move { *signal.wait().await.unwrap() })
        })
        .collect();
    signal.publish(7, true);
    for task in tasks {
        assert_eq!(task.await.unwrap(), 7);
    }
}

/// Counts the running cost under a tree of 5 slots, and asserts that it never exceeds them.
struct Running(Arc<AtomicU64>, u64);

impl Running {
    fn new(count: Arc<AtomicU64>, cost: u64) -> Self {
        let before = count.fetch_add(cost, Ordering::SeqCst);
        assert!(before + cost <= 5, "{before} held, and {cost} more");
        Self(count, cost)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn capacity_is_never_exceeded_or_leaked() {
    let tree = Tree::new(Settings::default());
    let root = tree.root(NodeOptions::slots(5)).unwrap();
    let nodes = [2, 4].map(|slots| tree.add(root, NodeOptions::slots(slots)).unwrap());
    let running = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..200_u64)
        .map(|round| {
            let (tree, running) = (Arc::clone(&tree), Arc::clone(&running));
            let (node, cost) = (nodes[usize::from(round % 2 == 0)], 1 + round % 2);
            tokio::spawn(async move {
                let _permit = tree
                    .acquire(AcquireRequest::slots(node, cost))
                    .await
                    .unwrap();
                // Dropped before the permit, also if the task is aborted while it runs.
                let _running = Running::new(running, cost);
                tokio::task::yield_now().await;
            })
        })
        .collect();
    for (round, task) in tasks.into_iter().enumerate() {
        if round % 7 == 0 {
            // In any state: before its first poll, waiting, granted, running or done.
            task.abort();
        }
        match task.await {
            Ok(()) => {}
            Err(error) => assert!(error.is_cancelled()),
        }
    }
    assert!(tree.held(root, ResourceId::SLOTS).is_zero());
    assert_eq!(tree.waiting(root), 0);
}
