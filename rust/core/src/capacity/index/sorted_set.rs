//! A sorted set that is cheap while it is small, as it nearly always is. `model/state.rs` uses it for timers and
//! charges, `model/resource.rs` for the waiters at a budget, and `run_list.rs` for the ends of its runs.

use std::collections::BTreeSet;

/// From this many entries on they live in a tree; below a quarter of it, in a vector again.
const MANY: usize = 64;

/// Entries in order. O(log n) each; a small set is one block of memory, so that changes allocate nothing.
#[derive(Debug)]
pub(in crate::capacity) struct SortedSet<T> {
    few: Vec<T>,
    /// All entries of a large set; then `few` is empty.
    many: BTreeSet<T>,
}

impl<T> Default for SortedSet<T> {
    fn default() -> Self {
        Self {
            few: Vec::new(),
            many: BTreeSet::new(),
        }
    }
}

impl<T: Copy + Ord> SortedSet<T> {
    #[cfg(debug_assertions)]
    #[inline]
    pub(in crate::capacity) fn is_empty(&self) -> bool {
        self.few.is_empty() && self.many.is_empty()
    }

    #[cfg(any(test, debug_assertions))]
    pub(in crate::capacity) fn len(&self) -> usize {
        self.few.len() + self.many.len()
    }

    #[cfg(any(test, debug_assertions))]
    pub(in crate::capacity) fn contains(&self, entry: &T) -> bool {
        self.few.binary_search(entry).is_ok() || self.many.contains(entry)
    }

    #[inline]
    pub(in crate::capacity) fn first(&self) -> Option<T> {
        self.few.first().or_else(|| self.many.first()).copied()
    }

    #[inline]
    pub(in crate::capacity) fn last(&self) -> Option<T> {
        self.few.last().or_else(|| self.many.last()).copied()
    }

    /// Return the last entry before `entry`.
    pub(in crate::capacity) fn last_below(&self, entry: &T) -> Option<T> {
        let place = self.few.partition_point(|other| other < entry);
        let few = place.checked_sub(1).map(|place| &self.few[place]);
        few.or_else(|| self.many.range(..entry).next_back())
            .copied()
    }

    pub(in crate::capacity) fn insert(&mut self, entry: T) {
        if !self.many.is_empty() {
            self.many.insert(entry);
            return;
        }
        if let Err(place) = self.few.binary_search(&entry) {
            self.few.insert(place, entry);
            if self.few.len() >= MANY {
                self.many.extend(std::mem::take(&mut self.few));
            }
        }
    }

    pub(in crate::capacity) fn remove(&mut self, entry: &T) {
        if !self.many.is_empty() {
            self.many.remove(entry);
            if self.many.len() <= MANY / 4 {
                self.few.extend(std::mem::take(&mut self.many));
            }
        } else if let Ok(place) = self.few.binary_search(entry) {
            self.few.remove(place);
        }
    }

    pub(in crate::capacity) fn iter(&self) -> impl Iterator<Item = T> + '_ {
        // One of the two is empty.
        self.few.iter().chain(&self.many).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::{MANY, SortedSet};

    #[test]
    fn small_and_large_sets_are_sorted() {
        let mut set = SortedSet::default();
        let count = 4 * MANY;
        // Each once, in a mixed order: 37 and the count have no common factor.
        for step in 0..count {
            set.insert(step * 37 % count);
            set.insert(step * 37 % count);
            let below = (0..=step).map(|s| s * 37 % count).filter(|&e| e < 100);
            assert_eq!(set.last_below(&100), below.max());
            assert_eq!(set.len(), step + 1);
        }
        assert!(set.iter().eq(0..count));
        for entry in 0..count {
            assert_eq!((set.first(), set.last()), (Some(entry), Some(count - 1)));
            set.remove(&entry);
            set.remove(&entry);
            assert!(!set.contains(&entry));
        }
        assert!(set.is_empty());
        assert_eq!((set.first(), set.last()), (None, None));
    }
}
