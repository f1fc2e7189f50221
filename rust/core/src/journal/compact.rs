//! `compact`: rewrites a journal without the records that a resume does not need. The bindings call it.
//!
//! 1. The records are copied to a new file beside the journal, which is synced.
//! 2. The new file is renamed to the journal.
//! 3. The directory is synced.
//!
//! A crash before step 2 leaves the journal as it was, and a file that the next compaction overwrites. The lock is in a file of its own,
//! so it is held throughout.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::error::OpenError;
use super::file::{Journal, Options};
use super::frame;
use super::opening::{sync_directory, target};
use super::record::Record;
use super::scan::file_header;

/// Remove the records of calls that have a later record, unless they have spend, and damaged bytes. Return the lengths before and after in bytes.
///
/// # Errors
///
/// See [`OpenError`]. The journal is left as it was, unless only the sync of the directory has failed.
pub fn compact(path: &Path, options: Options, time: f64) -> Result<(u64, u64), OpenError> {
    let journal = Journal::open(path, options)?;
    // The rename would replace a symbolic link.
    let path = target(path);
    let mut name: OsString = path.clone().into();
    name.push(".compact");
    let new = Path::new(&name);
    let copied = copy(&journal, new, time).and_then(|length| {
        fs::rename(new, &path)?;
        Ok(length)
    });
    let length = match copied {
        Ok(length) => length,
        Err(error) => {
            let _ = fs::remove_file(new);
            return Err(error.into());
        }
    };
    sync_directory(&path)?;
    Ok((journal.length(), length))
}

fn copy(journal: &Journal, new: &Path, time: f64) -> io::Result<u64> {
    let file = File::create(new)?;
    file.set_permissions(journal.permissions()?)?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    out.write_all(&file_header())?;
    let mut length = file_header().len() as u64;
    let (mut frame, mut end) = (Vec::new(), Vec::new());
    let mut put = |payload: &dyn Fn(&mut Vec<u8>)| {
        frame.clear();
        frame::append(&mut frame, payload);
        length += frame.len() as u64;
        out.write_all(&frame)
    };
    if let Some((is_explicit, version)) = journal.version() {
        let run = Record::Run {
            time,
            is_explicit,
            version,
        };
        put(&|out| run.encode(out))?;
    }
    for offset in journal.live() {
        let payload = journal.payload(offset)?;
        put(&|out| out.extend_from_slice(&payload))?;
    }
    // It is on disk before it has its name.
    frame::append(&mut end, |out| Record::Synced(length).encode(out));
    out.write_all(&end)?;
    length += end.len() as u64;
    out.into_inner()?.sync_all()?;
    Ok(length)
}
