//! `Throughput`: the number of ended tasks of a runner, and their rate.
//! `headrace/pool/config.py` makes it, and `completion.rs` counts each end.

use pyo3::prelude::*;

use crate::object::gil_cell::GilCell;

/// The number of seconds over which the rate is measured.
const SECONDS: i64 = 10;

/// The number of buckets: one for each second, and one for the current, incomplete second.
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
const BUCKETS: usize = SECONDS as usize + 1;

/// The counters of ended tasks, in total and for each of the last seconds. Each end costs O(1), and the memory is constant.
#[pyclass(name = "Throughput", frozen, module = "headrace._core")]
#[derive(Debug, Default)]
pub(crate) struct PyThroughput {
    counts: GilCell<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    done: u64,
    failed: u64,
    /// The number of ends in each second of the event loop's clock, indexed by the second modulo `BUCKETS`.
    buckets: [u32; BUCKETS],
    /// The second of the newest bucket; `None` before the first end.
    second: Option<i64>,
    /// The time at which counting started on this event loop.
    first: f64,
}

#[pymethods]
impl PyThroughput {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// The number of tasks that ended with a value.
    #[getter]
    fn done(&self, py: Python<'_>) -> u64 {
        self.counts.borrow(py).done
    }

    /// The number of tasks that ended with an error.
    #[getter]
    fn failed(&self, py: Python<'_>) -> u64 {
        self.counts.borrow(py).failed
    }

    /// Count the end of one task.
    #[pyo3(signature = (now, *, failed))]
    pub(super) fn note(&self, py: Python<'_>, now: f64, failed: bool) {
        let mut counts = self.counts.borrow(py);
        if failed {
            counts.failed += 1;
        } else {
            counts.done += 1;
        }
        let bucket = counts.current_bucket(now);
        counts.buckets[bucket] = counts.buckets[bucket].saturating_add(1);
    }

    /// Return the number of ends per second, over the last 10 seconds or since the first end.
    fn rate(&self, py: Python<'_>, now: f64) -> f64 {
        let mut counts = self.counts.borrow(py);
        if counts.second.is_none() {
            return 0.0;
        }
        let newest = counts.current_bucket(now);
        let oldest = counts.buckets[(newest + 1) % BUCKETS];
        let all: u32 = counts.buckets.iter().sum();
        // Only part of the oldest second is within the last ten, so its ends are weighted by that part.
        let part = f64::from(oldest) * (1.0 - now.rem_euclid(1.0));
        let ended = part + f64::from(all - oldest);
        #[expect(clippy::cast_precision_loss, reason = "a small constant")]
        let most = SECONDS as f64;
        ended / (now - counts.first).clamp(1.0, most)
    }
}

impl Counts {
    /// Empty the buckets of the seconds that have passed since the last call, and return the index of the current one.
    #[inline]
    fn current_bucket(&mut self, now: f64) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "it saturates")]
        let second = now.floor() as i64;
        if self.second != Some(second) {
            self.advance(now, second);
        }
        bucket(second)
    }

    #[cold]
    fn advance(&mut self, now: f64, second: i64) {
        let length = SECONDS + 1;
        let last = match self.second {
            Some(last) if last <= second => last,
            // This is the first end, or the runner was moved to an event loop whose clock differs.
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
