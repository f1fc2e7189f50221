use super::model::alarm_record::AlarmRecord;
use super::model::state::State;
use super::{AlarmId, Time, Tree};
use crate::sync::{Arc, Key, WakeList};
use std::task::Waker;

/// How a tree is served in time without polling: one for each loop or thread that has waiters and can set a timer.
///
/// Its owner asks for the [`deadline`](Self::deadline), arms its timer for then, calls [`Tree::tick`] when it fires, and
/// asks again. While any of its waiters (those whose ask [names](super::Ask::alarm) it) waits, its deadline is the
/// earliest of the whole tree; so whichever owner comes first serves everybody, and if one dies the others still do.
/// Dropping it ends that.
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

    /// What its waiters' asks have to say.
    pub fn id(&self) -> AlarmId {
        AlarmId(self.key)
    }

    /// When to call [`Tree::tick`]; `None` if there is no need to.
    ///
    /// `waker` is woken once when this becomes earlier, or there is one where there was none; then ask again. It is called
    /// with no lock held, and replaces the waker of the last call. A deadline that becomes later wakes nobody: a timer
    /// that fires for nothing asks again.
    pub fn deadline(&self, waker: &Waker) -> Option<Time> {
        // Cloned, and the old one dropped, outside the lock: both are foreign code.
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

    /// How many of its waiters wait.
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
    /// When something becomes ready for those who wait.
    pub(super) fn next_ready(&self) -> Option<Time> {
        let (next, _, _) = self.timers.first()?;
        (self.waiting > 0).then_some(next)
    }

    /// Tells alarms whose deadline has become earlier.
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
