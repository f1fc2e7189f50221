//! Futures polled by hand, with a counting waker: no runtime schedules them.

// Each test binary uses a part of this module.
#![allow(dead_code, unreachable_pub)]

pub mod clocked;
pub mod counting;
pub mod dice;
pub mod random_tree;
pub mod rig;
pub mod timer;
pub mod world;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

/// Counts its wake-ups.
#[derive(Debug, Default)]
pub struct Count(AtomicUsize);

impl Count {
    pub fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A future and its wake-ups.
#[derive(Debug)]
pub struct Task<F> {
    pub future: F,
    count: Arc<Count>,
}

impl<F: Future + Unpin> Task<F> {
    pub fn new(future: F) -> Self {
        Self {
            future,
            count: Arc::default(),
        }
    }

    /// Return a task that was polled once and is pending.
    #[track_caller]
    pub fn waiting(future: F) -> Self {
        let mut task = Self::new(future);
        assert!(task.poll().is_pending(), "expected to wait");
        assert_eq!(task.wakes(), 0);
        task
    }

    pub fn poll(&mut self) -> Poll<F::Output> {
        let waker = Waker::from(Arc::clone(&self.count));
        self.poll_with(&waker)
    }

    pub fn poll_with(&mut self, waker: &Waker) -> Poll<F::Output> {
        Pin::new(&mut self.future).poll(&mut Context::from_waker(waker))
    }

    /// Poll, and panic unless the output is ready.
    #[track_caller]
    pub fn ready(&mut self) -> F::Output {
        match self.poll() {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("expected to be ready"),
        }
    }

    /// Return the number of wake-ups so far.
    pub fn wakes(&self) -> usize {
        self.count.get()
    }
}

/// Runs a closure when it is woken, and another when its last clone is dropped. Both may call back.
pub struct Reentrant {
    pub on_wake: Box<dyn Fn() + Send + Sync>,
    pub on_drop: Box<dyn Fn() + Send + Sync>,
}

impl Reentrant {
    pub fn waker(act: impl Fn() + Send + Sync + Clone + 'static) -> Waker {
        Waker::from(Arc::new(Self {
            on_wake: Box::new(act.clone()),
            on_drop: Box::new(act),
        }))
    }
}

impl Wake for Reentrant {
    fn wake(self: Arc<Self>) {
        (self.on_wake)();
    }
}

impl Drop for Reentrant {
    fn drop(&mut self) {
        (self.on_drop)();
    }
}

/// A value that runs a closure when it is dropped.
pub struct Acting(Box<dyn Fn() + Send + Sync>);

impl Acting {
    pub fn new(act: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Box::new(act))
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Logs its name when it is woken.
pub struct Named {
    pub name: usize,
    pub log: Arc<Mutex<Vec<usize>>>,
}

impl Wake for Named {
    fn wake(self: Arc<Self>) {
        self.log.lock().unwrap().push(self.name);
    }
}

/// Return the message with which `f` panics.
#[track_caller]
pub fn panics<R>(f: impl FnOnce() -> R) -> String {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    let payload = outcome.err().expect("expected a panic");
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_default()
}
