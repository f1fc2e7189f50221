//! `Rate`: the quota of a rate limit, by the generic cell rate algorithm in whole numbers.
//!
//! A [`Resource`](super::resource::Resource) with a rate limit holds one. A grant takes quota, and a downward settlement or an
//! annulled grant returns some.

use super::low_water_marks::LowWaterMarks;
use crate::capacity::Time;
use std::time::Duration;

/// A rate of `amount` per `per`, and its debt: the quota that was taken and has not been refilled yet.
///
/// The debt is in micro-units x nanoseconds. Taking `n` adds `n x per`; each nanosecond subtracts `amount`. Only future times
/// are rounded, upward.
#[derive(Clone, Debug)]
pub(in crate::capacity) struct Rate {
    /// The quota of each `per`, in micro-units.
    pub(in crate::capacity) amount: u64,
    /// In nanoseconds.
    pub(in crate::capacity) per: u64,
    /// The most quota that can be ready at once. `None`: a grant waits until the debt is 0, and may then take up to `amount`.
    pub(in crate::capacity) burst: Option<u64>,
    /// Whether a cost above the burst, or the amount, is granted as soon as the debt is 0.
    takes_any_cost: bool,
    /// The debt at the time `at`.
    debt: u128,
    at: Time,
    /// Whether a waiter set a timer for it, and every grant since was at most `lateness` late.
    is_awaited: bool,
    /// The least debt since each live permit took quota.
    low: LowWaterMarks,
}

impl Rate {
    pub(in crate::capacity) fn new(amount: u64, per: u64, burst: Option<u64>) -> Self {
        Self {
            amount,
            per,
            burst,
            takes_any_cost: false,
            debt: 0,
            at: Time::ZERO,
            is_awaited: false,
            low: LowWaterMarks::default(),
        }
    }

    /// Accept costs above the burst, or above the amount.
    pub(in crate::capacity) fn of_any_cost(mut self) -> Self {
        self.takes_any_cost = true;
        self
    }

    /// Change the amount of each `per`; the debt stays.
    pub(in crate::capacity) fn set_amount(&mut self, amount: u64, now: Time) {
        self.debt = self.debt_at(now);
        self.at = self.at.max(now);
        self.amount = amount;
    }

    /// Return the largest amount that one request can have.
    #[inline]
    pub(in crate::capacity) fn largest(&self) -> u64 {
        match self.burst {
            _ if self.amount == 0 => 0,
            _ if self.takes_any_cost => u64::MAX,
            Some(burst) => burst,
            None => self.amount,
        }
    }

    /// Take over the debt of `old`, whose limit this one replaces.
    pub(in crate::capacity) fn inherit(&mut self, old: &mut Self, now: Time) {
        let (debt, from, to) = (old.debt_at(now), u128::from(old.per), u128::from(self.per));
        self.debt = match debt.checked_mul(to) {
            _ if from == to => debt,
            Some(scaled) => scaled.div_ceil(from),
            None => debt.div_ceil(from) * to,
        };
        self.at = now;
        self.is_awaited = old.is_awaited;
        self.low = std::mem::take(&mut old.low);
        if from != to {
            self.low.sink(debt);
            // Round down: a lower mark means a smaller refund.
            self.low.rescale(|low| match low.checked_mul(to) {
                Some(scaled) => scaled / from,
                None => low / from * to,
            });
        }
    }

    fn refilled(&self, from: Time, to: Time) -> u128 {
        let nanos = to.as_nanos().saturating_sub(from.as_nanos());
        u128::from(self.amount) * u128::from(nanos)
    }

    #[inline]
    fn debt_at(&self, now: Time) -> u128 {
        self.debt.saturating_sub(self.refilled(self.at, now))
    }

    fn cost(&self, amount: u64) -> u128 {
        u128::from(amount) * u128::from(self.per)
    }

    /// Return when `amount` is ready if no more is taken meanwhile: `now`, later, or [`Time::MAX`] while the rate is 0.
    #[inline]
    pub(in crate::capacity) fn ready_at(&self, amount: u64, now: Time) -> Time {
        let now = now.max(self.at);
        let allowed = self.burst.map_or(0, |burst| {
            self.cost(burst).saturating_sub(self.cost(amount))
        });
        let missing = self.debt_at(now).saturating_sub(allowed);
        if missing == 0 {
            return now;
        }
        if self.amount == 0 {
            return Time::MAX;
        }
        let nanos = missing.div_ceil(u128::from(self.amount));
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        Time::from_nanos(now.as_nanos().saturating_add(nanos))
    }

    /// Take `amount`, whether or not it is ready.
    #[inline]
    pub(in crate::capacity) fn take(&mut self, amount: u64, now: Time) {
        let debt = self.debt_at(now);
        self.low.sink(debt);
        self.debt = debt + self.cost(amount);
        self.at = now;
    }

    /// Take `amount`, which is ready, for a new permit with this stamp.
    ///
    /// A timer is always a little late, and a rate without a burst would lose each delay for good. So if a waiter waited and
    /// the quota was ready at most `lateness` ago, it is taken as of that time. Otherwise it is taken as of the current time.
    #[inline]
    pub(in crate::capacity) fn lend(
        &mut self,
        amount: u64,
        stamp: u64,
        lateness: Duration,
        now: Time,
    ) {
        let ready = self.ready_at(amount, self.at);
        self.is_awaited &= now <= ready.after(lateness);
        let is_late = self.is_awaited && ready < now;
        self.take(amount, if is_late { ready } else { now });
        self.low.begin(stamp);
    }

    /// Record that a waiter waits for this rate, with a timer.
    #[inline]
    pub(in crate::capacity) fn wait(&mut self) {
        self.is_awaited = true;
    }

    /// Give back `amount` of the quota that the permit with this stamp took, but at most the least debt since.
    ///
    /// A larger refund would return quota that has been refilled, and perhaps taken again, already. With this bound the debt
    /// is as if `amount` less had been taken in the first place; see [`LowWaterMarks`].
    pub(in crate::capacity) fn refund(&mut self, amount: u64, stamp: u64, now: Time) {
        let debt = self.debt_at(now);
        self.low.sink(debt);
        let back = self.cost(amount).min(self.low.since(stamp));
        self.low.lower(stamp, back);
        self.debt = debt - back;
        self.at = now;
    }

    /// Forget the permit with this stamp, which was released.
    #[inline]
    pub(in crate::capacity) fn end(&mut self, stamp: u64) {
        self.low.end(stamp);
    }

    /// Panic unless the marks match the live permits with these stamps.
    #[cfg(any(test, debug_assertions))]
    pub(in crate::capacity) fn check(&self, stamps: &[u64]) {
        self.low.check(stamps);
    }

    /// Return the quota that was taken and has not been refilled, in micro-units.
    pub(in crate::capacity) fn taken(&self, now: Time) -> u64 {
        let units = self.debt_at(now).div_ceil(u128::from(self.per));
        u64::try_from(units).unwrap_or(u64::MAX)
    }

    /// Return the largest amount that is ready now.
    pub(in crate::capacity) fn available(&self, now: Time) -> u64 {
        match self.burst {
            _ if self.amount == 0 => 0,
            Some(burst) => burst.saturating_sub(self.taken(now)),
            None if self.taken(now) == 0 => self.amount,
            None => 0,
        }
    }

    /// Return the time that it takes to refill an amount, in nanoseconds.
    pub(in crate::capacity) fn worth(&self, amount: u64) -> u64 {
        let nanos = self.cost(amount) / u128::from(self.amount.max(1));
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::{Rate, Time};
    use std::time::Duration;

    const SECOND: u64 = 1_000_000_000;

    fn at(nanos: u64) -> Time {
        Time::from_nanos(nanos)
    }

    /// Random numbers from a seed (`SplitMix64`).
    struct Random(u64);

    impl Random {
        fn new(seed: u64) -> Self {
            Self(seed)
        }

        fn below(&mut self, n: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut bits = self.0;
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (bits ^ (bits >> 31)) % n
        }

        /// Return an index below `len`.
        fn index(&mut self, len: usize) -> usize {
            usize::try_from(self.below(len as u64)).expect("it is below a usize")
        }
    }

    #[test]
    fn ready_times_of_odd_rates_are_exact() {
        // A third of a nanosecond never adds up to an error, except while the rate is full.
        let mut rate = Rate::new(3, SECOND, Some(2));
        let mut now = at(0);
        for step in 0..3_000_u64 {
            assert_eq!(rate.ready_at(1, now), now);
            rate.take(1, now);
            now = rate.ready_at(1, now);
            assert_eq!(now.as_nanos(), (step * SECOND).div_ceil(3));
        }
    }

    #[test]
    fn smooth_rate_admits_any_cost_once_the_debt_is_paid() {
        let mut rate = Rate::new(10, SECOND, None);
        assert_eq!((rate.largest(), rate.available(at(0))), (10, 10));
        rate.take(7, at(0));
        assert_eq!(rate.ready_at(1, at(0)), at(700_000_000));
        assert_eq!((rate.available(at(1)), rate.available(at(SECOND))), (0, 10));
    }

    #[test]
    fn refund_equals_taking_less_at_first() {
        for (taken, really, seconds) in [(90, 0, 30), (90, 30, 20), (90, 30, 50), (60, 10, 80)] {
            let [mut one, mut other] = [(); 2].map(|()| Rate::new(90, 60 * SECOND, Some(90)));
            one.lend(taken, 1, Duration::ZERO, at(0));
            other.take(really, at(0));
            let now = at(seconds * SECOND);
            one.refund(taken - really, 1, now);
            assert_eq!(
                one.available(now),
                other.available(now),
                "{taken} {really} {seconds}"
            );
        }
    }

    /// One permit of a random history: the time and the amount as settled so far, and later additions.
    struct Taking {
        stamp: u64,
        time: u64,
        amount: u64,
        more: Vec<(u64, u64)>,
    }

    /// Return the debt if all amounts had been known from the start, of a rate of 3 a second: in units x seconds / 3.
    fn debt_of(takings: &[Taking], now: u64) -> u64 {
        let first = takings.iter().map(|taking| (taking.time, taking.amount));
        let more = takings.iter().flat_map(|taking| taking.more.clone());
        let mut events: Vec<_> = first.chain(more).collect();
        events.sort_by_key(|&(time, _)| time);
        let (mut debt, mut last) = (0_u64, 0);
        for (time, amount) in events.into_iter().chain([(now, 0)]) {
            debt = debt.saturating_sub(3 * (time - last)) + amount;
            last = time;
        }
        debt
    }

    /// After any sequence of grants, downward settlements and releases, the debt is as if all amounts had been known from the start.
    #[test]
    fn late_refunds_equal_taking_less_at_first() {
        for seed in 0..500 {
            let mut random = Random::new(seed);
            let mut rate = Rate::new(3, SECOND, Some(20));
            let mut takings: Vec<Taking> = Vec::new();
            let mut live: Vec<usize> = Vec::new();
            let mut now = 0;
            for stamp in 1..200 {
                now += random.below(4);
                match random.below(5) {
                    0 | 1 => {
                        let amount = 1 + random.below(12);
                        rate.lend(amount, stamp, Duration::ZERO, at(now * SECOND));
                        live.push(takings.len());
                        takings.push(Taking {
                            stamp,
                            time: now,
                            amount,
                            more: Vec::new(),
                        });
                    }
                    2 | 3 if !live.is_empty() => {
                        let taking = &mut takings[live[random.index(live.len())]];
                        let back = random.below(taking.amount + 1);
                        taking.amount -= back;
                        rate.refund(back, taking.stamp, at(now * SECOND));
                    }
                    4 if !live.is_empty() => {
                        let ended = live.swap_remove(random.index(live.len()));
                        rate.end(takings[ended].stamp);
                    }
                    _ => {}
                }
                let debt = u128::from(debt_of(&takings, now)) * u128::from(SECOND);
                assert_eq!(rate.debt_at(at(now * SECOND)), debt, "seed {seed}, {stamp}");
            }
        }
    }

    /// With upward settlements in between, the debt is never below that.
    #[test]
    fn refund_after_overdraft_never_gives_back_too_much() {
        for seed in 0..500 {
            let mut random = Random::new(seed);
            let mut rate = Rate::new(3, SECOND, Some(20));
            let mut takings: Vec<Taking> = Vec::new();
            let mut now = 0;
            for stamp in 1..120 {
                now += random.below(4);
                let picked = random.index(takings.len().max(1));
                let taking = takings.get_mut(picked);
                match (random.below(3), taking) {
                    (0, _) | (_, None) => {
                        let amount = 1 + random.below(12);
                        rate.lend(amount, stamp, Duration::ZERO, at(now * SECOND));
                        takings.push(Taking {
                            stamp,
                            time: now,
                            amount,
                            more: Vec::new(),
                        });
                    }
                    (1, Some(taking)) => {
                        let amount = random.below(8);
                        rate.take(amount, at(now * SECOND));
                        taking.more.push((now, amount));
                    }
                    (_, Some(taking)) => {
                        // The last addition is given back first.
                        let all: u64 = taking.more.iter().map(|&(_, amount)| amount).sum();
                        let mut back = random.below(taking.amount + all + 1);
                        rate.refund(back, taking.stamp, at(now * SECOND));
                        for (_, amount) in taking.more.iter_mut().rev() {
                            let part = back.min(*amount);
                            *amount -= part;
                            back -= part;
                        }
                        taking.amount -= back;
                    }
                }
                let debt = u128::from(debt_of(&takings, now)) * u128::from(SECOND);
                let real = rate.debt_at(at(now * SECOND));
                assert!(real >= debt, "seed {seed}, {stamp}: {real} of {debt}");
            }
        }
    }

    #[test]
    fn new_terms_keep_the_debt() {
        let mut rate = Rate::new(10, SECOND, Some(10));
        rate.lend(10, 1, Duration::ZERO, at(0));
        let mut other = Rate::new(20, 2 * SECOND, Some(30));
        let half = at(SECOND / 2);
        other.inherit(&mut rate, half);
        assert_eq!((other.taken(half), other.available(half)), (5, 25));
        // 5 of the 10 have been refilled.
        other.refund(9, 1, half);
        assert_eq!((other.taken(half), other.available(half)), (0, 30));
    }

    /// A permit that took nothing of this rate gets no refund of it.
    #[test]
    fn refund_needs_a_permit_of_this_rate() {
        let mut rate = Rate::new(10, SECOND, Some(10));
        rate.lend(5, 8, Duration::ZERO, at(0));
        rate.refund(5, 7, at(0));
        rate.end(7);
        assert_eq!(rate.taken(at(0)), 5);
        rate.refund(5, 8, at(0));
        assert_eq!(rate.taken(at(0)), 0);
    }

    /// The marks of released permits are removed.
    #[test]
    fn no_more_marks_than_live_permits() {
        let mut rate = Rate::new(1, SECOND, Some(1_000_000));
        let mut live = Vec::new();
        for stamp in 1..3_000 {
            rate.lend(2, stamp, Duration::ZERO, at(stamp * SECOND));
            live.push(stamp);
            if live.len() > 10 {
                rate.end(live.remove(usize::try_from(stamp % 10).unwrap()));
            }
            // Each mark has at least one permit.
            rate.check(&live);
        }
    }

    #[test]
    fn the_largest_numbers_fit() {
        let (most, year) = (1_000_000_000_000_000_000, 366 * 24 * 3600 * SECOND);
        let mut rate = Rate::new(1, year, Some(most));
        rate.take(most, at(0));
        rate.take(most, at(0));
        assert_eq!(rate.ready_at(most, at(0)), Time::MAX);
        let mut rate = Rate::new(most, 1000, Some(most));
        rate.take(most, Time::MAX);
        assert_eq!(rate.available(Time::MAX), 0);
    }
}
