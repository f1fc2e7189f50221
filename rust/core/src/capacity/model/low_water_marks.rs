//! The least debt of a rate since each permit that took of it: the part of a late refund that is still missing.
//! Each `Rate` (`rate.rs`) keeps one `LowWaterMarks`.
//!
//! Let `D` be the debt. Had a permit taken `a` less, `D` would be lower by `a` from then on, except that a debt is never below
//! zero. Whenever the debt was less than `a`, time would have brought quota for which there was no debt, and that quota is lost.
//! So the current debt would be lower by exactly `min(a, least D since)`. A refund of this amount makes the past as it would have
//! been, and with it every window; a larger refund would admit twice what time has brought once.
//!
//! The least debts are kept in a stack. Of two permits, the later one has seen no lower debt than the earlier. So permits that have
//! seen the same least debt share one mark, and marks rise strictly from the oldest to the newest:
//!
//! ```text
//! debt     |\            least since:  a b: 2,  c d e: 5,  f: not sunk yet
//!        a | \  |\   |\ e f
//!         \|  b | c\ d \|
//!   2 ......\..\|           marks: (a, 2 permits, 2) (c, 3 permits, 5) (f, 1 permit, -)
//! ```
//!
//! A debt that sinks to `d` joins all marks that are not below `d` into one. The amortized cost is O(1) per permit, and O(log marks)
//! to find the mark of a permit. There are never more marks than live permits.

/// The marks of one rate.
#[derive(Clone, Debug, Default)]
pub(in crate::capacity) struct LowWaterMarks {
    marks: Vec<Mark>,
}

#[derive(Clone, Debug)]
struct Mark {
    /// The stamp of its oldest permit.
    first: u64,
    /// The number of live permits that share it.
    permits: u32,
    /// The least debt since any of them took quota; [`UNTOUCHED`] while the debt has not sunk.
    least: u128,
}

/// The debt has not sunk since.
const UNTOUCHED: u128 = u128::MAX;

impl LowWaterMarks {
    /// Record the current debt, before anything is added to it.
    #[inline]
    pub(in crate::capacity) fn sink(&mut self, debt: u128) {
        let Some(position) = self.marks.len().checked_sub(1) else {
            return;
        };
        if self.marks[position].least > debt {
            self.marks[position].least = debt;
            self.join(position);
        }
    }

    /// Add the permit with this stamp, greater than any before, which has just taken quota.
    #[inline]
    pub(in crate::capacity) fn begin(&mut self, stamp: u64) {
        self.marks.push(Mark {
            first: stamp,
            permits: 1,
            least: UNTOUCHED,
        });
    }

    /// Remove a permit. Ignores a permit that never took of this rate.
    #[inline]
    pub(in crate::capacity) fn end(&mut self, stamp: u64) {
        if let Some(position) = self.find(stamp) {
            self.marks[position].permits -= 1;
            if self.marks[position].permits == 0 {
                self.marks.remove(position);
            }
        }
    }

    /// Return the least recorded debt since a permit took quota; 0 for one that never did.
    pub(in crate::capacity) fn since(&self, stamp: u64) -> u128 {
        self.find(stamp)
            .map_or(0, |position| self.marks[position].least)
    }

    /// Lower the marks by a refund of `back` to a permit, at most the least debt since, which must be recorded up to now.
    pub(in crate::capacity) fn lower(&mut self, stamp: u64, back: u128) {
        let Some(position) = self.find(stamp) else {
            return;
        };
        for mark in &mut self.marks[position..] {
            debug_assert!(
                mark.least != UNTOUCHED,
                "the current debt is recorded first"
            );
            mark.least -= back;
        }
        self.join(position);
    }

    /// Convert the marks to other units.
    pub(in crate::capacity) fn rescale(&mut self, scale: impl Fn(u128) -> u128) {
        for mark in &mut self.marks {
            mark.least = scale(mark.least);
        }
    }

    /// Panic unless the marks match the live permits with these stamps, which rise; older stamps may not be here.
    #[cfg(any(test, debug_assertions))]
    pub(in crate::capacity) fn check(&self, stamps: &[u64]) {
        for (position, mark) in self.marks.iter().enumerate() {
            let later = self.marks.get(position + 1);
            let end = later.map_or(u64::MAX, |later| later.first);
            let live = stamps
                .iter()
                .filter(|&&stamp| (mark.first..end).contains(&stamp));
            assert!(mark.permits > 0, "a mark has a permit");
            assert_eq!(
                mark.permits as usize,
                live.count(),
                "permits that share a mark"
            );
            assert!(
                later.is_none_or(|later| mark.least < later.least),
                "marks rise"
            );
        }
    }

    /// Join a mark with all earlier marks that are not below it.
    fn join(&mut self, position: usize) {
        let least = self.marks[position].least;
        let first = self.marks[..position].partition_point(|mark| mark.least < least);
        if first < position {
            let joined = self.marks.drain(first + 1..=position);
            let permits: u32 = joined.map(|mark| mark.permits).sum();
            self.marks[first].permits += permits;
            self.marks[first].least = least;
        }
    }

    #[inline]
    fn find(&self, stamp: u64) -> Option<usize> {
        let later = self.marks.partition_point(|mark| mark.first <= stamp);
        later.checked_sub(1)
    }
}
