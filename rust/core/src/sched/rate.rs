//! A rate as the generic cell rate algorithm has it, in whole numbers.

use super::Time;
use std::time::Duration;

/// What was taken of a rate and has not been brought by time yet.
///
/// The debt is counted in micro-units x nanoseconds: taking `n` adds `n x per`, each nanosecond takes `amount` off, and
/// nothing is ever rounded but a moment in the future, upward.
#[derive(Clone, Debug)]
pub(super) struct Rate {
    /// Comes in each `per`, in micro-units.
    pub(super) amount: u64,
    /// In nanoseconds.
    pub(super) per: u64,
    /// `None`: what was taken must be back before more is.
    pub(super) burst: Option<u64>,
    /// As of `at`.
    debt: u128,
    at: Time,
}

impl Rate {
    pub(super) fn new(amount: u64, per: u64, burst: Option<u64>) -> Self {
        Self {
            amount,
            per,
            burst,
            debt: 0,
            at: Time::ZERO,
        }
    }

    /// The most that one ask can have.
    #[inline]
    pub(super) fn largest(&self) -> u64 {
        match self.burst {
            _ if self.amount == 0 => 0,
            Some(burst) => burst,
            None => self.amount,
        }
    }

    /// Other terms for what is taken from now on; what was taken stays taken.
    pub(super) fn become_like(&mut self, other: &Self, now: Time) {
        let (debt, per) = (self.debt_at(now), u128::from(self.per));
        let debt = match debt.checked_mul(u128::from(other.per)) {
            _ if other.per == self.per => debt,
            Some(scaled) => scaled.div_ceil(per),
            None => debt.div_ceil(per) * u128::from(other.per),
        };
        *self = Self {
            debt,
            at: now,
            ..other.clone()
        };
    }

    fn brought(&self, from: Time, to: Time) -> u128 {
        let nanos = to.as_nanos().saturating_sub(from.as_nanos());
        u128::from(self.amount) * u128::from(nanos)
    }

    #[inline]
    fn debt_at(&self, now: Time) -> u128 {
        self.debt.saturating_sub(self.brought(self.at, now))
    }

    fn cost(&self, amount: u64) -> u128 {
        u128::from(amount) * u128::from(self.per)
    }

    /// When `amount` can be had if nobody takes anything meanwhile: `now`, later, or never while the rate is 0.
    #[inline]
    pub(super) fn ready_at(&self, amount: u64, now: Time) -> Time {
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

    /// Takes `amount`, whether or not it is there: more than there is makes debt.
    #[inline]
    pub(super) fn take(&mut self, amount: u64, now: Time) {
        self.debt = self.debt_at(now) + self.cost(amount);
        self.at = now;
    }

    /// Takes `amount` as of when it was there, if that was no longer ago than `lateness`; else as of now. A timer is always a
    /// little late, and at a smooth rate each delay would be lost for good.
    #[inline]
    pub(super) fn take_late(&mut self, amount: u64, lateness: Duration, now: Time) {
        let ready = self.ready_at(amount, self.at);
        let is_late = ready < now && now <= ready.after(lateness);
        self.take(amount, if is_late { ready } else { now });
    }

    /// Gives back `amount` of the `taken` that were taken at `since`: no more of it than time has not brought since.
    ///
    /// Without that bound a late refund would let through again what was brought and used already. With it, the debt is
    /// never less than if that much less had been taken in the first place.
    pub(super) fn refund(&mut self, amount: u64, taken: u64, since: Time, now: Time) {
        let missing = self.cost(taken).saturating_sub(self.brought(since, now));
        let back = self.cost(amount).min(missing);
        self.debt = self.debt_at(now).saturating_sub(back);
        self.at = now;
    }

    /// What was taken and has not come back, in micro-units.
    pub(super) fn taken(&self, now: Time) -> u64 {
        let units = self.debt_at(now).div_ceil(u128::from(self.per));
        u64::try_from(units).unwrap_or(u64::MAX)
    }

    /// The most that could be had at once.
    pub(super) fn available(&self, now: Time) -> u64 {
        match self.burst {
            _ if self.amount == 0 => 0,
            Some(burst) => burst.saturating_sub(self.taken(now)),
            None if self.taken(now) == 0 => self.amount,
            None => 0,
        }
    }

    /// How many nanoseconds of the whole rate an amount is worth.
    pub(super) fn worth(&self, amount: u64) -> u64 {
        let nanos = self.cost(amount) / u128::from(self.amount.max(1));
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::{Rate, Time};

    const SECOND: u64 = 1_000_000_000;

    fn at(nanos: u64) -> Time {
        Time::from_nanos(nanos)
    }

    #[test]
    fn a_moment_is_exact_however_odd_the_rate() {
        // A third of a nanosecond never adds up to an error, unless the rate is full and has no use for it.
        let mut rate = Rate::new(3, SECOND, Some(2));
        let mut now = at(0);
        for turn in 0..3_000_u64 {
            assert_eq!(rate.ready_at(1, now), now);
            rate.take(1, now);
            now = rate.ready_at(1, now);
            assert_eq!(now.as_nanos(), (turn * SECOND).div_ceil(3));
        }
    }

    #[test]
    fn a_smooth_rate_admits_any_cost_when_the_last_is_paid_off() {
        let mut rate = Rate::new(10, SECOND, None);
        assert_eq!((rate.largest(), rate.available(at(0))), (10, 10));
        rate.take(7, at(0));
        assert_eq!(rate.ready_at(1, at(0)), at(700_000_000));
        assert_eq!((rate.available(at(1)), rate.available(at(SECOND))), (0, 10));
    }

    #[test]
    fn a_refund_is_what_would_be_there_had_less_been_taken() {
        for (taken, really, seconds) in [(90, 0, 30), (90, 30, 20), (90, 30, 50), (60, 10, 80)] {
            let [mut one, mut other] = [(); 2].map(|()| Rate::new(90, 60 * SECOND, Some(90)));
            one.take(taken, at(0));
            other.take(really, at(0));
            let now = at(seconds * SECOND);
            one.refund(taken - really, taken, at(0), now);
            assert_eq!(
                one.available(now),
                other.available(now),
                "{taken} {really} {seconds}"
            );
        }
    }

    #[test]
    fn other_terms_keep_what_was_taken() {
        let mut rate = Rate::new(10, SECOND, Some(10));
        rate.take(10, at(0));
        rate.become_like(&Rate::new(20, 2 * SECOND, Some(30)), at(SECOND / 2));
        assert_eq!(
            (rate.taken(at(SECOND / 2)), rate.available(at(SECOND / 2))),
            (5, 25)
        );
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
