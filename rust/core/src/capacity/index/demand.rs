//! The demand for a resource: the amounts that the offered waiters of a node need, with the least at hand. Each
//! `Resource` has one, and `policy/eligibility.rs` updates it.

use std::collections::BTreeMap;

/// A multiset of amounts. It allocates nothing while all are equal, which is usual.
#[derive(Debug, Default)]
pub(in crate::capacity) struct Demand {
    /// One of the amounts, and its count; 0 only if `others` is empty.
    one: (u64, u32),
    others: BTreeMap<u64, u32>,
    len: u32,
}

impl Demand {
    #[inline]
    pub(in crate::capacity) fn len(&self) -> u32 {
        self.len
    }

    /// Return the least amount; `u64::MAX` if there is none.
    #[inline]
    pub(in crate::capacity) fn least(&self) -> u64 {
        if self.len == 0 {
            return u64::MAX;
        }
        match self.others.first_key_value() {
            Some((&other, _)) => other.min(self.one.0),
            None => self.one.0,
        }
    }

    #[inline]
    pub(in crate::capacity) fn add(&mut self, amount: u64) {
        self.len += 1;
        if self.one.1 == 0 {
            self.one = (amount, 1);
        } else if self.one.0 == amount {
            self.one.1 += 1;
        } else {
            *self.others.entry(amount).or_default() += 1;
        }
    }

    #[inline]
    pub(in crate::capacity) fn remove(&mut self, amount: u64) {
        self.len -= 1;
        if self.one.0 == amount {
            self.one.1 -= 1;
            if self.one.1 == 0
                && let Some(other) = self.others.pop_first()
            {
                self.one = other;
            }
            return;
        }
        let count = self.others.get_mut(&amount);
        let count = count.expect("only an added amount is removed");
        *count -= 1;
        if *count == 0 {
            self.others.remove(&amount);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Demand;

    #[test]
    fn least_is_known_after_each_change() {
        let mut demand = Demand::default();
        assert_eq!((demand.len(), demand.least()), (0, u64::MAX));
        let amounts = [5, 5, 3, 9, 3, 5];
        for (count, &amount) in (1..).zip(&amounts) {
            demand.add(amount);
            assert_eq!(demand.len(), count);
        }
        let mut left = amounts.to_vec();
        for amount in [5, 3, 5, 9, 5, 3] {
            assert_eq!(Some(demand.least()), left.iter().copied().min());
            demand.remove(amount);
            left.remove(left.iter().position(|&other| other == amount).unwrap());
        }
        assert_eq!((demand.len(), demand.least()), (0, u64::MAX));
    }
}
