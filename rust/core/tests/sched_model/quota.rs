//! A rate, told from the log of what it let through: slow, and plain to see.

use crate::common::dice::Dice;
use crate::op::Quota;

const MILLI: u64 = 1_000_000;

/// What is in a bucket, in calls times the nanoseconds of the rate's period: whole numbers, so nothing is rounded.
type Level = i128;

/// One admission. Times are in nanoseconds.
#[derive(Clone, Debug)]
struct Entry {
    name: u64,
    time: u64,
    /// What was let through then, by the estimate, and what of it proved true.
    estimate: u64,
    actual: u64,
    /// What it proved to be beyond the estimate, and when.
    debts: Vec<(u64, u64)>,
    /// Whatever was added at any time, corrected since or not.
    added: Vec<(u64, u64)>,
}

/// Everything that a rate of one node let through.
///
/// A bucket of `burst` that refills at the rate says what may be let through. How much of an estimate comes back when it
/// proves too high is for the scheduler to choose, within bounds: nothing at the least, and at the most what makes up a
/// past in which the truth was known from the start. So there are two buckets, and the real one is in between.
#[derive(Clone, Debug)]
pub struct Log {
    pub quota: Quota,
    /// When the buckets were full.
    start: u64,
    entries: Vec<Entry>,
    /// How often its terms were set anew.
    resizes: u64,
}

impl Log {
    pub fn new(quota: Quota, now: u64) -> Self {
        Self {
            quota,
            start: now,
            entries: Vec::new(),
            resizes: 0,
        }
    }

    /// Its terms are set anew, the same as before.
    pub fn resize(&mut self) {
        self.resizes += 1;
    }

    pub fn admit(&mut self, name: u64, time: u64, calls: u64) {
        self.entries.push(Entry {
            name,
            time,
            estimate: calls,
            actual: calls,
            debts: Vec::new(),
            added: Vec::new(),
        });
    }

    /// What was admitted under this name proved to be so much: nothing, if it was a grant that was never delivered.
    pub fn settle(&mut self, name: u64, now: u64, actual: u64) {
        let entry = self.entries.iter_mut().find(|entry| entry.name == name);
        let entry = entry.expect("it was admitted");
        let debts: u64 = entry.debts.iter().map(|&(_, calls)| calls).sum();
        let before = entry.actual + debts;
        if actual > before {
            entry.added.push((now, actual - before));
        }
        // What is beyond the estimate comes last and goes first.
        let grown = actual.saturating_sub(before);
        let back = grown.min(entry.estimate - entry.actual);
        entry.actual += back;
        if grown > back {
            entry.debts.push((now, grown - back));
        }
        let mut less = before.saturating_sub(actual);
        while let Some((_, calls)) = entry.debts.last_mut() {
            let part = less.min(*calls);
            *calls -= part;
            less -= part;
            if *calls > 0 {
                break;
            }
            entry.debts.pop();
        }
        entry.actual -= less;
        if now == entry.time {
            // No time has passed that could have brought any of it back.
            entry.estimate = entry.actual;
            entry.added.clone_from(&entry.debts);
        }
    }

    /// Whether so much may be let through now: in no window of time more than `burst + rate * t`.
    pub fn allows(&self, now: u64, calls: u64) -> bool {
        self.level(now, 0, |entry| entry.actual, |entry| &entry.debts) >= self.needs(calls)
    }

    /// Whether so much must be let through now.
    pub fn owes(&self, now: u64, calls: u64) -> bool {
        // The real one counts in whole nanoseconds, where each admission may round up once, and takes what is owed over to new
        // terms in whole millionths of a call.
        let steps = |entry: &Entry| 1 + entry.added.len() as u64;
        let late = self.entries.iter().map(steps).sum::<u64>()
            + self.resizes * (self.quota.millis / self.quota.calls + 1);
        self.level(now, late, |entry| entry.estimate, |entry| &entry.added) >= self.needs(calls)
    }

    fn price(&self, calls: u64) -> Level {
        Level::from(calls) * Level::from(self.quota.millis * MILLI)
    }

    /// How full the bucket must be.
    fn needs(&self, calls: u64) -> Level {
        match self.quota.burst {
            Some(_) => self.price(calls),
            None => 0,
        }
    }

    fn level<'log>(
        &'log self,
        now: u64,
        late: u64,
        taken: impl Fn(&Entry) -> u64,
        more: impl Fn(&'log Entry) -> &'log Vec<(u64, u64)>,
    ) -> Level {
        let takings = self.entries.iter().map(|entry| (entry.time, taken(entry)));
        let more = self.entries.iter().flat_map(more).copied();
        let mut events: Vec<_> = takings.chain(more).collect();
        events.sort_by_key(|&(time, _)| time);
        let full = self.price(self.quota.burst.unwrap_or(0));
        let (mut level, mut last) = (full, self.start);
        for (time, calls) in events {
            let refill = Level::from(self.quota.calls) * Level::from(time - last);
            level = (level + refill).min(full) - self.price(calls);
            last = time;
        }
        let refill = Level::from(self.quota.calls) * Level::from((now - last).saturating_sub(late));
        (level + refill).min(full)
    }
}

/// The log against the definition itself: every window that ends now, summed.
#[test]
fn the_log_allows_what_every_window_allows() {
    for seed in 0..200 {
        let mut dice = Dice::new(seed);
        let burst = 1 + dice.below(6) as u64;
        let quota = Quota {
            calls: 1 + dice.below(7) as u64,
            millis: 7,
            burst: Some(burst),
        };
        let mut log = Log::new(quota, 0);
        let mut admitted: Vec<(u64, u64)> = Vec::new();
        let mut now = 0;
        for name in 0..60 {
            now += dice.below(6_000_000) as u64;
            let calls = 1 + dice.below(usize::try_from(burst).unwrap()) as u64;
            let mut starts = admitted.iter().map(|&(time, _)| time).chain([now]);
            let allowed = starts.all(|start| {
                let window = admitted.iter().filter(|&&(time, _)| time >= start);
                let sum: u64 = window.map(|&(_, calls)| calls).sum();
                (sum + calls) * 7_000_000 <= burst * 7_000_000 + quota.calls * (now - start)
            });
            assert_eq!(log.allows(now, calls), allowed, "seed {seed}");
            assert!(allowed || !log.owes(now, calls), "seed {seed}");
            if allowed {
                log.admit(name, now, calls);
                admitted.push((now, calls));
            }
        }
    }
}
