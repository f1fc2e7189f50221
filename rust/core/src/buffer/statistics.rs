//! `Statistics`, the numbers that `Buffer::statistics` returns. The Python classes `Buffer` and `Queue` return them.

/// The state of a buffer at one moment; see [`Buffer::statistics`](super::Buffer::statistics).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// The number of items in the buffer, promised or not.
    pub len: usize,
    /// The largest number of items so far.
    pub high_water: usize,
    /// The number of items that were dropped by the overflow mode.
    pub dropped: u64,
    /// The number of getters waiting for an item.
    pub waiting_getters: usize,
    /// The number of putters waiting for space.
    pub waiting_putters: usize,
}
