//! A rate, told from the log of what it let through: slow, and plain to see.

use crate::common::dice::Dice;
use crate::op::Quota;
use std::cell::RefCell;

const MILLI: u64 = 1_000_000;

/// Debts are counted in calls times this, so that what each of the rates brings in a nanosecond is a whole number, and nothing
/// is rounded: a common multiple of their periods, in milliseconds.
const WHOLE: u64 = 7_000;

/// One admission. Times are in nanoseconds.
#[derive(Clone, Debug)]
struct Entry {
    name: u64,
    time: u64,
    /// What of it proved true, as of when it was let through.
    actual: u64,
    /// What it proved to be beyond the estimate, and when.
    debts: Vec<(u64, u64)>,
    /// The same two as they count for what is owed: what was added once stays, and from then on nothing comes back.
    kept: u64,
    added: Vec<(u64, u64)>,
}

/// Everything that a rate of one node let through.
///
/// What was let through, as the truth is known by now, makes debt when it was let through, and time takes debt off: so much as is
/// missing in a bucket of `burst`. An estimate that proved too high comes back as if it had been known from the start. Only where more than the estimate was found first, and then
/// less, may the scheduler choose, within bounds: so there are two debts, and the real one is in between.
#[derive(Clone, Debug)]
pub struct Log {
    pub quota: Quota,
    /// All terms there ever were, and since when.
    terms: Vec<(u64, Quota)>,
    /// The most that was ever allowed at once, by the last terms that allow anything.
    pub ceiling: u64,
    entries: Vec<Entry>,
    /// When anything was changed last.
    changed: u64,
    /// What was worked out of what is owed since anything changed, by time: many ask.
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

    /// Other terms from now on.
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
            kept: calls,
            added: Vec::new(),
        });
    }

    /// What was admitted under this name as `before` proved to be so much: nothing, if it was a grant that was never delivered.
    pub fn settle(&mut self, name: u64, now: u64, before: u64, actual: u64) {
        self.known.take();
        self.changed = now;
        let place = self.entries.iter().position(|entry| entry.name == name);
        let place = place.unwrap_or_else(|| {
            // This rate was not there. What is beyond that is its business all the same.
            self.admit(name, now, 0);
            self.entries.len() - 1
        });
        let entry = &mut self.entries[place];
        if actual > before {
            entry.debts.push((now, actual - before));
            entry.added.push((now, actual - before));
        }
        // What came last goes first.
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
            entry.kept = entry.actual;
        }
    }

    /// Whether so much may be let through now: in no window of time more than `burst + rate * t`, and what the rate brings
    /// in so many nanoseconds.
    pub fn allows(&self, now: u64, calls: u64, lateness: u64) -> bool {
        let debt = self.debt(now, 0, |entry| (entry.actual, &entry.debts));
        let fastest = self.terms.iter().map(|(_, quota)| quota.brings()).max();
        let late = i128::from(fastest.unwrap_or(0)) * i128::from(lateness);
        self.quota.calls > 0 && debt <= self.allowed(calls) + late
    }

    /// Whether so much must be let through now.
    pub fn owes(&self, now: u64, calls: u64) -> bool {
        // Whatever the real one rounded is paid off by then.
        let is_settled = now >= self.changed + self.late();
        self.quota.calls > 0 && is_settled && self.owed(now) <= self.allowed(calls)
    }

    /// By how many nanoseconds the real one may be late: it rounds what is owed whenever its period changes, each time by less than
    /// what a nanosecond brings.
    fn late(&self) -> u64 {
        let periods = self.terms.windows(2);
        periods
            .filter(|pair| pair[0].1.millis != pair[1].1.millis)
            .count() as u64
    }

    /// The most that the debt can be.
    fn owed(&self, now: u64) -> i128 {
        let mut known = self.known.borrow_mut();
        if let Some(&(_, debt)) = known.iter().find(|(time, _)| *time == now) {
            return debt;
        }
        let debt = self.debt(now, self.late(), |entry| (entry.kept, &entry.added));
        known.push((now, debt));
        debt
    }

    /// With how much debt so much may be let through.
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
    /// What a nanosecond takes off a debt.
    fn brings(self) -> u64 {
        self.calls * (WHOLE / self.millis)
    }

    /// The most that one ask can have.
    pub fn largest(self) -> u64 {
        if self.calls == 0 {
            return 0;
        }
        self.burst.unwrap_or(self.calls)
    }
}

/// The log against the definition itself: every window that ends now, summed.
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
