//! [`Cell`]: the memory that a driver shares with one worker.

use crate::sync::atomic::{AtomicU64, Ordering::SeqCst, fence};

const BEGUN: usize = 0;
const BLOCKING: usize = 1;
const GROUP: usize = 2;
const STARTED: usize = 3;
const RING: usize = 4;

/// The least number of words of a cell.
pub const MIN_WORDS: usize = RING + 1;

/// The memory that a driver shares with one worker; the module's essay has the protocol.
///
/// All words are 0 at first. Positions start at 1.
#[derive(Clone, Copy, Debug)]
pub struct Cell<'a> {
    words: &'a [AtomicU64],
}

impl<'a> Cell<'a> {
    /// Return the cell in these words.
    ///
    /// # Panics
    ///
    /// There are fewer than [`MIN_WORDS`].
    pub fn new(words: &'a [AtomicU64]) -> Self {
        assert!(
            words.len() >= MIN_WORDS,
            "a cell needs {MIN_WORDS} words, not {}",
            words.len()
        );
        Self { words }
    }

    /// Return the number of unanswered positions for which the ring has slots.
    pub fn ring(self) -> usize {
        self.words.len() - RING
    }

    /// Clear the cell for a new worker. No other process may use it meanwhile.
    pub fn clear(self) {
        for word in self.words {
            word.store(0, SeqCst);
        }
    }

    /// Return the last position that has begun; 0 if there is none. When the worker is dead, this is final.
    pub fn begun(self) -> u64 {
        self.words[BEGUN].load(SeqCst)
    }

    /// Return the position whose task is blocking the worker, or 0.
    ///
    /// Such a task cannot be asked to stop. It is a hint: the task may have returned since.
    pub fn blocking(self) -> u64 {
        self.words[BLOCKING].load(SeqCst)
    }

    /// Driver: note the process group of the worker, and the start time of its leader, before the first task.
    pub fn set_group(self, group: u64, started: u64) {
        // In this order: a reader that sees the group sees its start time, too.
        self.words[STARTED].store(started, SeqCst);
        self.words[GROUP].store(group, SeqCst);
    }

    /// Driver: note that no process of the group runs any more.
    pub fn clear_group(self) {
        self.words[GROUP].store(0, SeqCst);
        self.words[STARTED].store(0, SeqCst);
    }

    /// Return the process group of the worker and the start time of its leader, or `None`. Any process may read it at any time.
    pub fn group(self) -> Option<(u64, u64)> {
        let group = self.words[GROUP].load(SeqCst);
        let started = self.words[STARTED].load(SeqCst);
        // Otherwise the cell has changed between the two.
        let is_whole = group != 0 && group == self.words[GROUP].load(SeqCst);
        is_whole.then_some((group, started))
    }

    /// Worker: begin a position. Return false if the driver has vetoed it; it must not be called then.
    pub fn begin(self, position: u64) -> bool {
        debug_assert_eq!(
            position,
            self.begun() + 1,
            "positions begin in their order, without gaps"
        );
        self.words[BEGUN].store(position, SeqCst);
        fence(SeqCst);
        self.slot(position).load(SeqCst) != position
    }

    /// Worker: store the position whose task is blocking the worker; 0 if there is none.
    pub fn set_blocking(self, position: u64) {
        self.words[BLOCKING].store(position, SeqCst);
    }

    /// Driver: veto a position. Return true if its task was taken back: it has not begun and will not.
    ///
    /// Otherwise it may have begun; if it has not, the worker answers that it was vetoed.
    pub fn veto(self, position: u64) -> bool {
        self.slot(position).store(position, SeqCst);
        fence(SeqCst);
        self.begun() < position
    }

    fn slot(self, position: u64) -> &'a AtomicU64 {
        let ring = &self.words[RING..];
        // The remainder is less than a length, so it fits.
        #[allow(clippy::cast_possible_truncation)]
        &ring[(position % ring.len() as u64) as usize]
    }
}
