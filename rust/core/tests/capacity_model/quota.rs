//! A rate computed from the log of its admissions: slow and simple.

use crate::common::dice::Dice;
use crate::op::Quota;
use std::cell::RefCell;

const MILLI: u64 = 1_000_000;

/// Debts are counted in calls times this, a common multiple of the periods in milliseconds: then the refill of each rate in
/// a nanosecond is an integer, and nothing is rounded.
const WHOLE: u64 = 7_000;

/// One admission. Times are in nanoseconds.
#[derive(Clone, Debug)]
struct Entry {
    name: u64,
    time: u64,
    /// The actual amount, as of the admission.
    actual: u64,
    /// The amounts beyond the estimate, each with the time of its settlement.
    debts: Vec<(u64, u64)>,
    /// The same two for the upper bound of the debt: added amounts stay, and after one nothing is returned.
    bound: u64,
    added: Vec<(u64, u64)>,
}

/// All admissions of the rate of one node.
///
/// An admission creates debt by its amount as known now, and time reduces the debt: it is the missing part of a bucket of
/// `burst`. An estimate that proved too high is returned as if it had been known from the start. Only if a settlement first
/// raises the amount and a later one lowers it may the scheduler choose, within bounds. So there are two debts, and the real
/// one is in between.
#[derive(Clone, Debug)]
pub struct Log {
    pub quota: Quota,
    /// All terms so far, each with its start.
    terms: Vec<(u64, Quota)>,
    /// The largest single cost under the last terms that admit anything.
    pub ceiling: u64,
    entries: Vec<Entry>,
    /// The time of the last change.
    changed: u64,
    /// A cache of the upper debt bounds computed since the last change, by time.
    known: RefCell<Vec<(u64, i128)>>,
}

impl Log {
    pub fn new(quota: Quota, now: u64) -> Self {
        Self {
            quota,
            terms: vec![(now, quota)],
            ceiling: quota.largest(),
            entries: Vec::new(),
            changed: now,
            known: RefCell::default(),
        }
    }

    /// Change the terms.
    pub fn resize(&mut self, quota: Quota, now: u64) {
        self.known.take();
        self.changed = now;
        self.quota = quota;
        self.terms.push((now, quota));
        if quota.largest() > 0 {
            self.ceiling = quota.largest();
        }
    }

    pub fn admit(&mut self, name: u64, time: u64, calls: u64) {
        self.known.take();
        self.changed = time;
        self.entries.push(Entry {
            name,
            time,
            actual: calls,
            debts: Vec::new(),
            bound: calls,
            added: Vec::new(),
        });
    }

    /// Settle the admission of this name from `before` to `actual`; 0 for a grant that was never collected.
    pub fn settle(&mut self, name: u64, now: u64, before: u64, actual: u64) {
        self.known.take();
        self.changed = now;
        let index = self.entries.iter().position(|entry| entry.name == name);
        let index = index.unwrap_or_else(|| {
            // The rate did not exist at the admission. It still counts the amount beyond the estimate.
            self.admit(name, now, 0);
            self.entries.len() - 1
        });
        let entry = &mut self.entries[index];
        if actual > before {
            entry.debts.push((now, actual - before));
            entry.added.push((now, actual - before));
        }
        // The latest debts are reduced first.
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
        entry.actual -= less.min(entry.actual);
        if entry.added.is_empty() {
            entry.bound = entry.actual;
        }
    }

    /// Return whether `calls` may be admitted now: no window exceeds `burst + rate * t`, plus the refill in `lateness`
    /// nanoseconds.
    pub fn allows(&self, now: u64, calls: u64, lateness: u64) -> bool {
        let debt = self.debt(now, 0, |entry| (entry.actual, &entry.debts));
        let fastest = self.terms.iter().map(|(_, quota)| quota.brings()).max();
        let late = i128::from(fastest.unwrap_or(0)) * i128::from(lateness);
        self.quota.calls > 0 && debt <= self.allowed(calls) + late
    }

    /// Return whether `calls` must be admitted now.
    pub fn owes(&self, now: u64, calls: u64) -> bool {
        // By then the rounding of the real scheduler is paid off.
        let is_settled = now >= self.changed + self.late();
        self.quota.calls > 0 && is_settled && self.owed(now) <= self.allowed(calls)
    }

    /// Return the nanoseconds by which the real scheduler may be late: it rounds the debt at each change of the period,
    /// each time by less than the refill of a nanosecond.
    fn late(&self) -> u64 {
        let periods = self.terms.windows(2);
        periods
            .filter(|pair| pair[0].1.millis != pair[1].1.millis)
            .count() as u64
    }

    /// Return the upper bound of the debt.
    fn owed(&self, now: u64) -> i128 {
        let mut known = self.known.borrow_mut();
        if let Some(&(_, debt)) = known.iter().find(|(time, _)| *time == now) {
            return debt;
        }
        let debt = self.debt(now, self.late(), |entry| (entry.bound, &entry.added));
        known.push((now, debt));
        debt
    }

    /// Return the largest debt with which `calls` may be admitted.
    fn allowed(&self, calls: u64) -> i128 {
        let burst = self.quota.burst.unwrap_or(calls);
        price(burst) - price(calls)
    }

    fn debt<'log>(
        &'log self,
        now: u64,
        late: u64,
        taken: impl Fn(&'log Entry) -> (u64, &'log Vec<(u64, u64)>),
    ) -> i128 {
        let mut events: Vec<(u64, i128, Option<Quota>)> = Vec::new();
        for entry in &self.entries {
            let (calls, more) = taken(entry);
            events.push((entry.time, price(calls), None));
            events.extend(more.iter().map(|&(time, calls)| (time, price(calls), None)));
        }
        let terms = self.terms.iter();
        events.extend(terms.map(|&(time, quota)| (time, 0, Some(quota))));
        events.sort_by_key(|&(time, ..)| time);
        let (mut debt, mut last, mut brings) = (0, 0, 0);
        for (time, cost, quota) in events {
            let brought = i128::from(brings) * i128::from(time - last);
            debt = (debt - brought).max(0) + cost;
            last = time;
            brings = quota.map_or(brings, Quota::brings);
        }
        let left = (now - last).saturating_sub(late);
        (debt - i128::from(brings) * i128::from(left)).max(0)
    }
}

fn price(calls: u64) -> i128 {
    i128::from(calls) * i128::from(WHOLE * MILLI)
}

impl Quota {
    /// Return the refill of a nanosecond.
    fn brings(self) -> u64 {
        self.calls * (WHOLE / self.millis)
    }

    /// Return the largest cost of one acquire.
    pub fn largest(self) -> u64 {
        if self.calls == 0 {
            return 0;
        }
        self.burst.unwrap_or(self.calls)
    }
}

/// Compare the log with the definition: the sum of every window that ends now.
#[test]
fn log_matches_the_window_definition() {
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
            assert_eq!(log.allows(now, calls, 0), allowed, "seed {seed}");
            assert!(allowed == log.owes(now, calls), "seed {seed}");
            if allowed {
                log.admit(name, now, calls);
                admitted.push((now, calls));
            }
        }
    }
}
