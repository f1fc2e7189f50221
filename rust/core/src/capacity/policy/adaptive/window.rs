//! `Window` and `Level`: the latencies of one limit, and their median with its error. `controller.rs` compares two levels.

/// The most samples that a window keeps.
pub(super) const MOST: usize = 256;

/// The latencies measured while a limit was in force, as natural logarithms of seconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    /// The samples of complete rounds, oldest first; at most [`MOST`].
    kept: Vec<f64>,
    /// The samples of the current round.
    round: Vec<f64>,
}

/// The median latency at one limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    pub(super) limit: f64,
    /// The logarithm of the median.
    pub(super) median: f64,
    /// The standard error of that logarithm.
    pub(super) error: f64,
    pub(super) count: usize,
}

impl Level {
    /// Return the mean of two measurements of one level.
    #[expect(clippy::cast_precision_loss, reason = "bounded by `MOST`")]
    pub(super) fn pooled(self, other: Self) -> Self {
        let (mine, others) = (self.count as f64, other.count as f64);
        let all = mine + others;
        let mean = |a: f64, b: f64| (a * mine + b * others) / all;
        Self {
            limit: mean(self.limit.ln(), other.limit.ln()).exp(),
            median: mean(self.median, other.median),
            error: (self.error * mine).hypot(other.error * others) / all,
            count: (self.count + other.count).min(MOST),
        }
    }
}

impl Window {
    /// Remove all samples.
    pub(super) fn clear(&mut self) {
        self.kept.clear();
        self.round.clear();
    }

    /// Add a latency to the current round.
    pub(super) fn push(&mut self, seconds: f64) {
        if self.round.len() < MOST {
            self.round.push(seconds.max(1e-9).ln());
        }
    }

    /// Drop the current round.
    pub(super) fn drop_round(&mut self) {
        self.round.clear();
    }

    /// Add the current round to the window, and return its median.
    pub(super) fn close_round(&mut self, limit: f64) -> Option<Level> {
        self.kept.append(&mut self.round);
        let excess = self.kept.len().saturating_sub(MOST);
        self.kept.drain(..excess);
        let count = self.kept.len();
        if count < 4 {
            return None;
        }
        let mut sorted = self.kept.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let (low, high) = (sorted[count / 4], sorted[count - 1 - count / 4]);
        // The quartiles of a normal distribution are 1.35 standard deviations apart. The median's error is 1.25 times the mean's.
        #[expect(clippy::cast_precision_loss, reason = "at most `MOST`")]
        let root = (count as f64).sqrt();
        // The quartiles of few samples are uncertain too.
        let error = 1.25 * (high - low) / 1.35 / root * (1.0 + 2.0 / root);
        Some(Level {
            limit,
            median: f64::midpoint(sorted[count / 2], sorted[(count - 1) / 2]),
            error,
            count,
        })
    }
}
