use super::model::alarm_record::Watch;
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
        let key = tree.lock().alarms.insert(Watch::default());
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
        let watch = state.alarms.get_mut(self.key)?;
        watch.armed = next.filter(|_| watch.waiting > 0);
        let armed = watch.armed;
        let old = watch.waker.replace(waker);
        drop(state);
        drop(old);
        armed
    }

    /// How many of its waiters wait.
    pub fn waiting(&self) -> usize {
        let state = self.tree.lock();
        state.alarms.get(self.key).map_or(0, |watch| watch.waiting)
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let Some(mut state) = self.tree.lock_unless_broken() else {
            return;
        };
        let watch = state.alarms.remove(self.key);
        drop(state);
        drop(watch);
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
    pub(super) fn announce(&mut self, wakes: &mut WakeList) {
        let next = self.next_ready();
        if next == self.announced {
            return;
        }
        self.announced = next;
        let Some(next) = next else {
            return;
        };
        for watch in self.alarms.iter_mut() {
            let is_earlier = watch.armed.is_none_or(|armed| next < armed);
            if watch.waiting > 0
                && is_earlier
                && let Some(waker) = watch.waker.take()
            {
                wakes.push(waker);
            }
        }
    }
}
