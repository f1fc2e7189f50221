//! The steps of opening a journal that concern its file: the lock, the header of a new file, and its name. `file.rs` and `compact.rs` call them.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::error::OpenError;
use super::frame;
use super::read_at;
use super::record::Record;
use super::scan::{FILE_HEADER, file_header};

/// The path of the lock file: it is another file, so that a compaction, which replaces the journal, does not free the lock.
pub fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// Return the path of the file itself, if a path is a symbolic link to it.
pub(super) fn target(path: &Path) -> PathBuf {
    // A new file has no other name.
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// Lock a journal. It has one lock, also if it has several names.
pub(super) fn lock(path: &Path) -> Result<File, OpenError> {
    let lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(lock_path(&target(path)))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Return whether two handles are of one file; a compaction replaces it.
pub(super) fn same_file(one: &File, other: &File) -> io::Result<bool> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        Ok(one.metadata()?.ino() == other.metadata()?.ino())
    }
    #[cfg(not(unix))]
    Ok(one.metadata()?.created()? == other.metadata()?.created()?)
}

/// Write the header of a new file. A crash may have left a part of it, or zeros.
///
/// If `syncs`, put it on disk, with its name and a first mark. So a power cut can damage only what was written later.
pub(super) fn start_file(file: &mut File, path: &Path, syncs: bool) -> Result<(), OpenError> {
    let mut start = file_header().to_vec();
    if syncs {
        // The header is on disk if the mark is: they are in one sector.
        let mark = Record::Synced(MOST_OF_A_START);
        frame::append(&mut start, |out| mark.encode(out));
    }
    let length = file.metadata()?.len();
    if length > MOST_OF_A_START {
        return Ok(());
    }
    let mut part = vec![0; usize::try_from(length).unwrap_or(0)];
    read_at(file, &mut part, 0)?;
    if part.iter().any(|byte| *byte != 0) {
        if part.len() >= FILE_HEADER {
            return Ok(());
        }
        if !start.starts_with(&part) {
            return Err(OpenError::NotAJournal);
        }
    }
    file.set_len(0)?;
    if let Err(error) = file.write_all(&start) {
        let _ = file.set_len(0);
        return Err(error.into());
    }
    if syncs {
        file.sync_data()?;
        sync_directory(path)?;
    }
    Ok(())
}

/// The length of a header with its mark: a crash can leave as many zeros.
const MOST_OF_A_START: u64 = (FILE_HEADER + frame::HEADER + 9) as u64;

/// Put the new name on disk. Other systems than Unix cannot sync a directory.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let parent = path.parent().filter(|parent| *parent != Path::new(""));
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}
