//! The settings of a buffer: its `Order`, with the `Rank` of a sorted one, and its `Overflow`. `Buffer::with` takes
//! them.

use std::error::Error;
use std::fmt;

/// The order in which items are delivered.
#[derive(Default)]
pub enum Order<T> {
    /// The oldest item first.
    #[default]
    Fifo,
    /// The newest item first.
    Lifo,
    /// The least item by this rank first; of equal items the oldest.
    Sorted(Box<dyn Rank<T>>),
}

impl<T> fmt::Debug for Order<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fifo => "Fifo",
            Self::Lifo => "Lifo",
            Self::Sorted(_) => "Sorted(..)",
        })
    }
}

/// The handling of an item that is put into a full buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The put waits for space.
    #[default]
    Block,
    /// The item replaces the oldest one, which is dropped.
    DropOldest,
    /// The item is dropped.
    DropNewest,
    /// The item is refused, also by [`Put`](super::Put).
    Error,
}

/// Compares the items of a sorted buffer.
///
/// It need not be a consistent order: whatever it returns, no item is lost, and each search for a position ends.
pub trait Rank<T>: Send + Sync {
    /// Another handle on the item, for a comparison that may run after the item was delivered.
    ///
    /// Runs under the lock: it must neither call back nor panic. The handle is dropped after unlocking.
    fn share(&self, item: &T) -> T;

    /// Return whether `item` is delivered before `other`, which is in the buffer.
    ///
    /// Runs without the lock, so it may do anything, including changes to the buffer.
    ///
    /// # Errors
    ///
    /// If the items cannot be compared. The new item is then refused.
    fn before(&self, item: &T, other: &T) -> Result<bool, Fault>;
}

/// The reason why two items could not be compared.
pub type Fault = Box<dyn Error + Send + Sync>;
