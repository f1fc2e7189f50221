//! A loop's timer, as it serves a tree.

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
    rung: Arc<Flag>,
    /// What it is set to.
    pub armed: Option<Time>,
}

impl Timer {
    pub fn new(tree: &Arc<Tree>) -> Self {
        let mut timer = Self {
            alarm: tree.alarm(),
            rung: Arc::default(),
            armed: None,
        };
        timer.arm();
        timer
    }

    pub fn id(&self) -> AlarmId {
        self.alarm.id()
    }

    pub fn arm(&mut self) {
        self.rung.0.store(false, Ordering::SeqCst);
        self.armed = self.alarm.deadline(&Waker::from(Arc::clone(&self.rung)));
    }

    /// What a loop does when it is woken: sets its timer anew, if that is what it was woken for.
    pub fn hear(&mut self) {
        if self.rung.0.load(Ordering::SeqCst) {
            self.arm();
        }
    }
}
