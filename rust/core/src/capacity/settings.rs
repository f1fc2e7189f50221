use super::{Clock, Monotonic};
use std::sync::Arc;
use std::time::Duration;

/// What a [`Tree`](super::Tree) goes by, fixed when it is made.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The one clock of the tree.
    pub clock: Arc<dyn Clock>,
    /// One step of priority counts as having come so much earlier. 10 s.
    pub ageing: Duration,
    /// So often may smaller work pass a waiter that does not fit; then what frees is kept for it. 8.
    pub passes: u32,
    /// So late may [`Tree::tick`](super::Tree::tick) come without loss of quota: what is granted is charged as of when its
    /// quota was ready, if that was no longer ago, at a rate that somebody has to wait for. What such a rate admits in a window may be more by what it brings in this time. Zero, which is exact.
    pub lateness: Duration,
    /// How long a permit is expected to be held where nothing was held before. 1 s.
    pub estimate: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            clock: Arc::new(Monotonic),
            ageing: Duration::from_secs(10),
            passes: 8,
            lateness: Duration::ZERO,
            estimate: Duration::from_secs(1),
        }
    }
}

impl Settings {
    /// The defaults on another clock.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            ..Self::default()
        }
    }
}
