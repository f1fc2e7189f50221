//! The methods of [`Journal`] that append records.

use std::convert::Infallible;
use std::io::{self, Write};

use super::claim::Claim;
use super::file::Journal;
use super::frame;
use super::index::Entry;
use super::record::{End, Record, Status};

/// How a call has ended: the fields of an [`End`] besides its identity.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "they are described there")]
pub struct Outcome<'a> {
    pub time: f64,
    pub status: Status,
    pub attempts: u32,
    pub format: u8,
    pub value: &'a [u8],
    pub spend: &'a [u8],
}

/// The largest buffer that is kept between two writes.
const KEPT_BUFFER: usize = 1 << 20;

impl Journal {
    /// Store the record of a claimed call in the index.
    fn set_record(&mut self, claim: &mut Claim, offset: u64, has_ended: bool) {
        let known = std::mem::replace(&mut claim.offset, offset);
        let is_same = |entry: Entry| Ok::<_, Infallible>(entry.offset().unwrap_or(0) == known);
        if let Ok(Some(entry)) = self.index.find(claim.hash, is_same) {
            self.ended += usize::from(has_ended && !entry.has_ended());
            *entry = Entry::at(offset, has_ended || entry.has_ended()).with_claim(true);
        }
    }

    /// Record that a driver begins a pass with this version of its function.
    ///
    /// # Errors
    ///
    /// The record cannot be written.
    pub fn run(&mut self, time: f64, is_explicit: bool, version: &str) -> io::Result<()> {
        self.version = Some((is_explicit, version.to_owned()));
        self.write(&Record::Run {
            time,
            is_explicit,
            version,
        })
        .map(drop)
    }

    /// Record that a call is about to begin. It is written when this returns.
    ///
    /// # Errors
    ///
    /// The record cannot be written: the call must not begin.
    pub fn begin(&mut self, claim: &mut Claim, time: f64) -> io::Result<()> {
        let identity = claim.identity();
        let offset = self.write(&Record::Start { time, identity })?;
        self.set_record(claim, offset, false);
        Ok(())
    }

    /// Record the end of a call. Return the length of the file with the record. It survives the process from now on, and a power
    /// cut once that length was synced.
    ///
    /// # Errors
    ///
    /// The record cannot be written. The file is as before.
    pub fn end(&mut self, claim: &mut Claim, outcome: Outcome<'_>) -> io::Result<u64> {
        let Outcome {
            time,
            status,
            attempts,
            format,
            value,
            spend,
        } = outcome;
        let offset = self.write(&Record::End(End {
            time,
            identity: claim.identity(),
            status,
            attempts,
            format,
            value,
            spend,
        }))?;
        self.set_record(claim, offset, true);
        Ok(self.length)
    }

    /// Record the number of bytes on disk, after the last sync before the close. Otherwise a journal whose last record was written before
    /// that sync has no mark of it, and damage looks like a power cut. Writes nothing in a pass without a record.
    ///
    /// # Errors
    ///
    /// The mark cannot be written. All records are there.
    pub fn mark_synced(&mut self, length: u64) -> io::Result<()> {
        self.note_synced(length);
        if !(std::mem::take(&mut self.is_mark_due) && self.has_written) {
            return Ok(());
        }
        self.check()?;
        let mut mark = Vec::new();
        frame::append(&mut mark, |out| Record::Synced(self.synced).encode(out));
        self.append(&mark)
    }

    /// Append a record. Return its offset.
    fn write(&mut self, record: &Record<'_>) -> io::Result<u64> {
        self.check()?;
        self.has_written = true;
        let mut frames = std::mem::take(&mut self.frames);
        frames.clear();
        if std::mem::take(&mut self.is_mark_due) {
            let mark = Record::Synced(self.synced);
            frame::append(&mut frames, |out| mark.encode(out));
        }
        let offset = self.length + frames.len() as u64;
        let fits = frame::append(&mut frames, |out| record.encode(out));
        let written = if fits {
            self.append(&frames)
        } else {
            Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the record is larger than 4 GiB",
            ))
        };
        if frames.capacity() <= KEPT_BUFFER {
            self.frames = frames;
        }
        written.map(|()| offset)
    }

    /// Append frames. If that fails, cut off the part that was written, and refuse all later writes.
    fn append(&mut self, frames: &[u8]) -> io::Result<()> {
        match self.file.write_all(frames) {
            Ok(()) => {
                self.length += frames.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.refuse_writes(&error);
                // If this fails too, the next open finds a torn tail.
                let _ = self.file.set_len(self.length);
                Err(error)
            }
        }
    }

    /// Refuse all later writes with this error. After a failed sync too: what was not put on disk may be lost, and a later sync does
    /// not report it again.
    pub fn refuse_writes(&mut self, error: &io::Error) {
        self.failure
            .get_or_insert((error.kind(), error.raw_os_error()));
    }

    /// Return the error after which nothing more is written.
    fn check(&self) -> io::Result<()> {
        match self.failure {
            None => Ok(()),
            Some((_, Some(code))) => Err(io::Error::from_raw_os_error(code)),
            Some((kind, None)) => Err(kind.into()),
        }
    }
}
