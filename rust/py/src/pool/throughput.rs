//! The number of tasks that ended, and their rate.

use pyo3::prelude::*;

use crate::object::gil_cell::GilCell;

/// Over how many seconds the rate is taken.
const SECONDS: i64 = 10;

/// One bucket a second, and one more than are read, for the second that has only begun.
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
const BUCKETS: usize = SECONDS as usize + 1;

/// Counts ends, and keeps those of the last seconds apart: O(1) an end, and a bound on what it holds.
#[pyclass(frozen, module = "headrace._core")]
#[derive(Debug, Default)]
pub(crate) struct Throughput {
    counts: GilCell<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    done: u64,
    failed: u64,
    /// What ended in each second of the loop's clock, by the second modulo their number.
    buckets: [u32; BUCKETS],
    second: Option<i64>,
    first: f64,
}

#[pymethods]
impl Throughput {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// How many ended with a value.
    #[getter]
    fn done(&self, py: Python<'_>) -> u64 {
        self.counts.borrow(py).done
    }

    /// How many ended with an error.
    #[getter]
    fn failed(&self, py: Python<'_>) -> u64 {
        self.counts.borrow(py).failed
    }

    /// One more ended.
    #[pyo3(signature = (now, *, failed))]
    pub(super) fn note(&self, py: Python<'_>, now: f64, failed: bool) {
        let mut counts = self.counts.borrow(py);
        if failed {
            counts.failed += 1;
        } else {
            counts.done += 1;
        }
        let bucket = counts.turn(now);
        counts.buckets[bucket] = counts.buckets[bucket].saturating_add(1);
    }

    /// Ends a second of the last 10 seconds, or since the first.
    fn rate(&self, py: Python<'_>, now: f64) -> f64 {
        let mut counts = self.counts.borrow(py);
        if counts.second.is_none() {
            return 0.0;
        }
        let newest = counts.turn(now);
        let oldest = counts.buckets[(newest + 1) % BUCKETS];
        let all: u32 = counts.buckets.iter().sum();
        // The oldest second is counted by the part of it that is still among the last ten.
        let part = f64::from(oldest) * (1.0 - now.rem_euclid(1.0));
        let ended = part + f64::from(all - oldest);
        #[expect(clippy::cast_precision_loss, reason = "a small constant")]
        let most = SECONDS as f64;
        ended / (now - counts.first).clamp(1.0, most)
    }
}

impl Counts {
    /// Empties the buckets of the seconds that have gone by, and gives that of now.
    #[inline]
    fn turn(&mut self, now: f64) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "it saturates")]
        let second = now.floor() as i64;
        if self.second != Some(second) {
            self.go_on(now, second);
        }
        bucket(second)
    }

    #[cold]
    fn go_on(&mut self, now: f64, second: i64) {
        let length = SECONDS + 1;
        let last = match self.second {
            Some(last) if last <= second => last,
            // The first, or another loop with a clock of its own.
            _ => {
                self.first = now;
                second.saturating_sub(length)
            }
        };
        let begin = last
            .saturating_add(1)
            .max(second.saturating_sub(length - 1));
        for passed in begin..=second {
            self.buckets[bucket(passed)] = 0;
        }
        self.second = Some(second);
    }
}

fn bucket(second: i64) -> usize {
    usize::try_from(second.rem_euclid(SECONDS + 1)).unwrap_or(0)
}
