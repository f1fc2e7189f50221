//! `OpenError`: the reasons why a journal cannot be opened. `scan.rs` and `file.rs` return it.

use std::error::Error;
use std::{fmt, io};

use super::scan::{Damage, VERSION};

/// The reason why a file cannot be opened as a journal.
#[derive(Debug)]
pub enum OpenError {
    /// The operating system refuses it.
    Io(io::Error),
    /// Another driver has locked it.
    Locked,
    /// Another driver has used it since the last run of this pass.
    Changed,
    /// It does not begin as a journal does.
    NotAJournal,
    /// Its header is damaged.
    DamagedHeader,
    /// A later version of the format wrote it.
    Version(u32),
    /// Bytes in front of intact records are damaged.
    Damaged(Damage),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Locked => f.write_str("another driver uses it"),
            Self::Changed => f.write_str("another driver has used it since"),
            Self::NotAJournal => f.write_str("it is not a journal"),
            Self::DamagedHeader => f.write_str("its header is damaged"),
            Self::Version(version) => write!(
                f,
                "it has version {version} of the format, and this program reads version {VERSION}"
            ),
            Self::Damaged(damage) => write!(
                f,
                "{} bytes at byte {} are damaged, and intact records follow",
                damage.end - damage.start,
                damage.start
            ),
        }
    }
}

impl Error for OpenError {}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
