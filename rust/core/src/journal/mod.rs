//! The journal of a run: an append-only file that says which calls have begun and how they ended.
//!
//! # The problem
//!
//! A run of paid calls dies in the middle: the process is killed, or the machine loses power. The next run must deliver the results that
//! were paid for, call what is left, and name the calls that were under way, which may be paid twice.
//!
//! # Approach
//!
//! The file has a header and *frames* ([`frame`]), each a record ([`record`]) with its length and checksums. Before a call begins, a
//! [`Record::Start`] is written; when it has ended, a [`Record::End`] with its result. A call is identified by its key and its *occurrence*,
//! the number of earlier calls with that key, so calls with equal keys differ by their place in the source.
//!
//! One thread writes. Each record is one `write`, whole, at the end of the file: 1 us, and after it the record survives the process. A
//! sync on another thread makes it survive a power cut; the caller delivers a result after that.
//!
//! At an open, one pass ([`scan`]) reads all records into the [`index`](Journal), which holds about 22 bytes a call, and at most 25. Results stay on disk.
//!
//! # Invariants
//!
//! 1. Bytes that were written are never changed, except that a torn tail is cut off.
//! 2. A failed write leaves the file as it was, and no later write is tried: a record never follows a gap.
//! 3. Each intact record is used on its own, so damage costs only the records that it hits.
//! 4. At most one driver has the file. The lock is a file of its own, which outlives a compaction.
//!
//! # Crashes
//!
//! - The process is killed in a `write`: a part of a frame is at the end. No intact frame follows, so the open cuts it off.
//! - The machine loses power: bytes behind the last sync may be missing, also in the middle. The first write after a sync, or the close, says how
//!   much was on disk ([`Record::Synced`]). Damage behind that is skipped; those results were not delivered, unless the journal was to
//!   survive only the process. A journal whose results survive a power cut has a first mark before its first call.
//! - A disk flips a bit in front of that, or in a journal that was never synced: the open fails and names the place. With
//!   [`Options::skips_damage`] the calls of the damaged records are called again.
//! - A file system has no room: the write fails, the part that was written is cut off, and the run stops.
//!
//! # Cost
//!
//! A claim is one probe of the index, and one read if the call has a record. A start and an end are one write each.

mod claim;
pub mod compact;
mod error;
mod file;
pub mod frame;
mod index;
mod opening;
pub mod record;
pub mod scan;
mod write;

pub use claim::Claim;
pub use error::OpenError;
pub use file::{Journal, Options};
pub use opening::lock_path;
pub use record::{End, Identity, Record, Status};
pub use write::Outcome;

use std::fs::File;
use std::io;

/// Read bytes at an offset, until the file ends or all are read. All writes append, so the position of the file does not matter.
fn read_some_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    #[cfg(unix)]
    use std::os::unix::fs::FileExt;
    #[cfg(windows)]
    use std::os::windows::fs::FileExt;

    let mut read = 0;
    while read < bytes.len() {
        let (rest, place) = (&mut bytes[read..], offset + read as u64);
        #[cfg(unix)]
        let result = file.read_at(rest, place);
        #[cfg(windows)]
        let result = file.seek_read(rest, place);
        match result {
            Ok(0) => break,
            Ok(number) => read += number,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// Read exactly these bytes at an offset.
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    if read_some_at(file, bytes, offset)? == bytes.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
