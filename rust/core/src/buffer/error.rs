//! The errors of a buffer: `Put` and `Buffer::try_put` return `PutError`, `Get` returns `Ended`, and `Buffer::try_get`
//! returns `TryGetError`.

use super::Fault;
use std::error::Error;
use std::fmt;

/// A [`Buffer`](super::Buffer) did not accept the item, which the error returns.
pub enum PutError<T> {
    /// There is no space, or all free slots are promised to waiting putters.
    Full(T),
    /// The buffer accepts no more items.
    Closed(T),
    /// The item cannot be compared with one in the buffer.
    Unranked(T, Fault),
}

impl<T> PutError<T> {
    /// Return the item that was not accepted.
    pub fn into_item(self) -> T {
        match self {
            Self::Full(item) | Self::Closed(item) | Self::Unranked(item, _) => item,
        }
    }
}

/// Two of them are never equal, because a [`Fault`] cannot be compared.
impl<T: PartialEq> PartialEq for PutError<T> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Full(one), Self::Full(two)) | (Self::Closed(one), Self::Closed(two)) => {
                one == two
            }
            _ => false,
        }
    }
}

// By hand: the item need not be `Debug` for this to be an `Error`.
impl<T> fmt::Debug for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("Full(..)"),
            Self::Closed(_) => f.write_str("Closed(..)"),
            Self::Unranked(_, fault) => write!(f, "Unranked(.., {fault:?})"),
        }
    }
}

impl<T> fmt::Display for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the buffer is full",
            Self::Closed(_) => "the buffer accepts no more items",
            Self::Unranked(..) => "the item cannot be compared with those in the buffer",
        })
    }
}

impl<T> Error for PutError<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unranked(_, fault) => Some(fault.as_ref()),
            Self::Full(_) | Self::Closed(_) => None,
        }
    }
}

/// [`try_get`](super::Buffer::try_get) returned no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryGetError {
    /// There is no item, or all items are promised to waiting getters.
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
