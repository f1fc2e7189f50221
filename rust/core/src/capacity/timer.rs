//! `Alarm`: the deadline of a tree, for the timer of one event loop or thread. `Tree::alarm` returns one, the Python
//! bindings set their timers by it, and `Tree::finish` wakes the alarms whose deadline has become earlier.

use super::model::alarm_record::AlarmRecord;
use super::model::state::State;
use super::{AlarmId, Time, Tree};
use crate::sync::{Arc, Key, WakeList};
use std::task::Waker;

/// The deadline of a tree, for one event loop or thread that has waiters and can set a timer. It replaces polling.
///
/// Its user sets a timer to the [`deadline`](Self::deadline), calls [`Tree::tick`] when the timer fires, and then reads the
/// deadline again. An alarm has a deadline while any of its waiters waits, namely those whose request
/// [names](super::AcquireRequest::alarm) it. The deadline is the earliest of the whole tree. So the first timer to fire serves all
/// waiters, and if one loop dies the others still do. Dropping the alarm ends this.
#[derive(Debug)]
pub struct Alarm {
    tree: Arc<Tree>,
    key: Key,
}

impl Alarm {
    pub(super) fn new(tree: Arc<Tree>) -> Self {
        let key = tree.lock().alarms.insert(AlarmRecord::default());
        Self { tree, key }
    }

    /// Return the id that requests of its waiters name.
    pub fn id(&self) -> AlarmId {
        AlarmId(self.key)
    }

    /// Return when to call [`Tree::tick`]; `None` if there is no need to.
    ///
    /// `waker` is woken once when the deadline becomes earlier, or a first one exists; then call this again. It is called without a
    /// lock held, and replaces the waker of the last call. A deadline that becomes later wakes no one: a timer that fires early just
    /// reads the deadline again.
    pub fn deadline(&self, waker: &Waker) -> Option<Time> {
        // Cloned, and the old one dropped, outside the lock, as both are foreign code.
        let waker = waker.clone();
        let mut state = self.tree.lock();
        let next = state.next_ready();
        let record = state.alarms.get_mut(self.key)?;
        record.armed = next.filter(|_| record.waiting > 0);
        let armed = record.armed;
        let old = record.waker.replace(waker);
        drop(state);
        drop(old);
        armed
    }

    /// Return the number of its waiters.
    pub fn waiting(&self) -> usize {
        let state = self.tree.lock();
        state
            .alarms
            .get(self.key)
            .map_or(0, |record| record.waiting)
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let Some(mut state) = self.tree.lock_unless_broken() else {
            return;
        };
        let record = state.alarms.remove(self.key);
        drop(state);
        drop(record);
    }
}

impl State {
    /// Return when something becomes ready for a waiter.
    pub(super) fn next_ready(&self) -> Option<Time> {
        let (next, _, _) = self.timers.first()?;
        (self.waiting > 0).then_some(next)
    }

    /// Wake the alarms whose deadline has become earlier.
    #[inline]
    pub(super) fn notify_alarms(&mut self, wakes: &mut WakeList) {
        let next = self.next_ready();
        if next == self.last_deadline {
            return;
        }
        self.last_deadline = next;
        let Some(next) = next else {
            return;
        };
        for record in self.alarms.iter_mut() {
            let is_earlier = record.armed.is_none_or(|armed| next < armed);
            if record.waiting > 0
                && is_earlier
                && let Some(waker) = record.waker.take()
            {
                wakes.push(waker);
            }
        }
    }
}
