use std::error::Error;
use std::fmt;

/// Why [`try_put`](super::Buffer::try_put) did not accept the item, which comes back in it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TryPutError<T> {
    /// There is no room, or what room there is was promised to those who wait.
    Full(T),
    /// The buffer accepts nothing any more.
    Closed(T),
}

impl<T> TryPutError<T> {
    /// The item that was not accepted.
    pub fn into_item(self) -> T {
        match self {
            Self::Full(item) | Self::Closed(item) => item,
        }
    }
}

// By hand, so that an item needs no `Debug` for the error to be one.
impl<T> fmt::Debug for TryPutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Closed(_) => "Closed(..)",
        })
    }
}

impl<T> fmt::Display for TryPutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the buffer is full",
            Self::Closed(_) => "the buffer accepts nothing any more",
        })
    }
}

impl<T> Error for TryPutError<T> {}

/// The buffer accepts nothing any more; the item comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Closed<T>(pub T);

impl<T> fmt::Debug for Closed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Closed(..)")
    }
}

impl<T> fmt::Display for Closed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the buffer accepts nothing any more")
    }
}

impl<T> Error for Closed<T> {}

/// Why [`try_get`](super::Buffer::try_get) gave no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryGetError {
    /// There is no item, or what items there are were promised to those who wait.
    Empty,
    /// There is no item and there will be none.
    Ended,
}

impl fmt::Display for TryGetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the buffer is empty",
            Self::Ended => "the buffer has ended",
        })
    }
}

impl Error for TryGetError {}

/// There is no item and there will be none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended;

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the buffer has ended")
    }
}

impl Error for Ended {}
