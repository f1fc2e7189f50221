use std::error::Error;
use std::fmt;

/// Which item comes out next.
#[derive(Default)]
pub enum Order<T> {
    /// The oldest.
    #[default]
    Fifo,
    /// The newest.
    Lifo,
    /// The least by this rank; of equals the oldest.
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

/// What becomes of an item that finds a buffer full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// It waits.
    #[default]
    Block,
    /// It takes the place of the item that has been here longest.
    DropOldest,
    /// It is dropped.
    DropNewest,
    /// It is refused, by [`Put`](super::Put) too.
    Error,
}

/// Compares the items of a sorted buffer.
///
/// It need not be a proper order: whatever it answers, every item is kept, and each search for a place ends.
pub trait Rank<T>: Send + Sync {
    /// Another handle on the item, for a comparison that runs while the item may already be gone.
    ///
    /// Runs under the lock: it must neither call back nor panic. What it gives is dropped outside.
    fn share(&self, item: &T) -> T;

    /// Whether `item` comes out before `other`, which is here already.
    ///
    /// Runs under no lock, so it may do anything; what it does to the buffer meanwhile is taken into account.
    ///
    /// # Errors
    ///
    /// If they cannot be compared: the item is then refused.
    fn before(&self, item: &T, other: &T) -> Result<bool, Fault>;
}

/// Why two items could not be compared.
pub type Fault = Box<dyn Error + Send + Sync>;
