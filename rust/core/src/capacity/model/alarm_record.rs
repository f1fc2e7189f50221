//! `AlarmRecord`: the tree's part of an [`Alarm`](crate::capacity::Alarm), which is one event loop's timer (`timer.rs`).

use crate::capacity::Time;
use std::task::Waker;

/// The deadline, the waker and the number of waiters of an alarm.
#[derive(Debug, Default)]
pub(in crate::capacity) struct AlarmRecord {
    /// Woken when the tree's deadline becomes earlier than `armed`.
    pub(in crate::capacity) waker: Option<Waker>,
    /// The deadline that the alarm read last, to which its timer is set.
    pub(in crate::capacity) armed: Option<Time>,
    /// The number of waiters whose request names the alarm. Without one, the alarm has no deadline.
    pub(in crate::capacity) waiting: usize,
}
