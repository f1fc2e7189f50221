//! How low the debt of a rate has been since each of the leases that took of it: what of a late refund is still missing.
//!
//! Let `D` be the debt. Had a lease taken `a` less, `D` would be lower by `a` from then on, except that a debt is never below
//! zero: whenever there was less than `a` of it, time would have brought what nothing had been taken for, and that is lost. So the debt now
//! would be lower by exactly `min(a, least D since)`. Giving back so much makes the past what it would have been, and with it every window;
//! giving back more would let through twice what time has brought once.
//!
//! The least since each of the leases is kept in a stack. Of two that took one after the other the later has seen no lower debt
//! than the earlier, so leases that have seen the same least share one mark, and marks rise strictly from the oldest to the newest:
//!
//! ```text
//! debt     |\            least since:  a b: 2,  c d e: 5,  f: not sunk yet
//!        a | \  |\   |\ e f
//!         \|  b | c\ d \|
//!   2 ......\..\|           marks: (a, 2 leases, 2) (c, 3 leases, 5) (f, 1 lease, -)
//! ```
//!
//! A debt that sinks to `d` joins all marks that are not below `d` into one. Amortised, that costs O(1) for each lease; to find the
//! mark of a lease O(log marks). There are never more marks than live leases.

/// The marks of one rate.
#[derive(Clone, Debug, Default)]
pub(in crate::capacity) struct LowWater {
    marks: Vec<Mark>,
}

#[derive(Clone, Debug)]
struct Mark {
    /// The stamp of the oldest of its leases.
    first: u64,
    /// How many leases share it, which all live.
    leases: u32,
    /// The least debt since any of them took; [`UNTOUCHED`] while the debt has not sunk.
    least: u128,
}

/// Nothing has sunk since.
const UNTOUCHED: u128 = u128::MAX;

impl LowWater {
    /// The debt is `debt` now, before anything is added to it.
    #[inline]
    pub(in crate::capacity) fn sink(&mut self, debt: u128) {
        let Some(place) = self.marks.len().checked_sub(1) else {
            return;
        };
        if self.marks[place].least > debt {
            self.marks[place].least = debt;
            self.join(place);
        }
    }

    /// The lease of this stamp, greater than any before, has just taken.
    #[inline]
    pub(in crate::capacity) fn begin(&mut self, stamp: u64) {
        self.marks.push(Mark {
            first: stamp,
            leases: 1,
            least: UNTOUCHED,
        });
    }

    /// A lease is no more. One that never took of this rate is ignored.
    #[inline]
    pub(in crate::capacity) fn end(&mut self, stamp: u64) {
        if let Some(place) = self.find(stamp) {
            self.marks[place].leases -= 1;
            if self.marks[place].leases == 0 {
                self.marks.remove(place);
            }
        }
    }

    /// The least debt since a lease took, as far as it was told to [`sink`](Self::sink): 0 for one that never did.
    pub(in crate::capacity) fn since(&self, stamp: u64) -> u128 {
        self.find(stamp).map_or(0, |place| self.marks[place].least)
    }

    /// `back` of what a lease took is given back: no more than the least since, which is known up to now.
    pub(in crate::capacity) fn lower(&mut self, stamp: u64, back: u128) {
        let Some(place) = self.find(stamp) else {
            return;
        };
        for mark in &mut self.marks[place..] {
            debug_assert!(mark.least != UNTOUCHED, "the debt of now was told first");
            mark.least -= back;
        }
        self.join(place);
    }

    /// Other units, of which a debt of this size is so many.
    pub(in crate::capacity) fn rescale(&mut self, scale: impl Fn(u128) -> u128) {
        for mark in &mut self.marks {
            mark.least = scale(mark.least);
        }
    }

    /// Panics unless the marks are those of live leases of these stamps, which rise; older ones may be others'.
    #[cfg(any(test, debug_assertions))]
    pub(in crate::capacity) fn check(&self, stamps: &[u64]) {
        for (place, mark) in self.marks.iter().enumerate() {
            let later = self.marks.get(place + 1);
            let end = later.map_or(u64::MAX, |later| later.first);
            let live = stamps
                .iter()
                .filter(|&&stamp| (mark.first..end).contains(&stamp));
            assert!(mark.leases > 0, "a mark is somebody's");
            assert_eq!(mark.leases as usize, live.count(), "who shares a mark");
            assert!(
                later.is_none_or(|later| mark.least < later.least),
                "marks rise"
            );
        }
    }

    /// Joins a mark with all before it that are not below it.
    fn join(&mut self, place: usize) {
        let least = self.marks[place].least;
        let first = self.marks[..place].partition_point(|mark| mark.least < least);
        if first < place {
            let joined = self.marks.drain(first + 1..=place);
            let leases: u32 = joined.map(|mark| mark.leases).sum();
            self.marks[first].leases += leases;
            self.marks[first].least = least;
        }
    }

    #[inline]
    fn find(&self, stamp: u64) -> Option<usize> {
        let later = self.marks.partition_point(|mark| mark.first <= stamp);
        later.checked_sub(1)
    }
}
