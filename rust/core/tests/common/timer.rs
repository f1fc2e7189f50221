//! The timer of an event loop that serves a tree.

use headrace_core::Tree;
use headrace_core::capacity::{Alarm, AlarmId, Time};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

#[derive(Debug, Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[derive(Debug)]
pub struct Timer {
    pub alarm: Alarm,
    woken: Arc<Flag>,
    /// The time that it is set to.
    pub armed: Option<Time>,
}

impl Timer {
    pub fn new(tree: &Arc<Tree>) -> Self {
        let mut timer = Self {
            alarm: tree.alarm(),
            woken: Arc::default(),
            armed: None,
        };
        timer.arm();
        timer
    }

    pub fn id(&self) -> AlarmId {
        self.alarm.id()
    }

    pub fn arm(&mut self) {
        self.woken.0.store(false, Ordering::SeqCst);
        self.armed = self.alarm.deadline(&Waker::from(Arc::clone(&self.woken)));
    }

    /// The event loop's reaction to a wake-up: sets its timer again if its alarm was woken.
    pub fn on_wake(&mut self) {
        if self.woken.0.load(Ordering::SeqCst) {
            self.arm();
        }
    }
}
