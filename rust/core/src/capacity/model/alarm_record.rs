//! The record of an alarm.

use crate::capacity::Time;
use std::task::Waker;

/// The state of an [`Alarm`](crate::capacity::Alarm).
#[derive(Debug, Default)]
pub(in crate::capacity) struct AlarmRecord {
    /// Woken when the deadline becomes earlier than `armed`.
    pub(in crate::capacity) waker: Option<Waker>,
    pub(in crate::capacity) armed: Option<Time>,
    pub(in crate::capacity) waiting: usize,
}
