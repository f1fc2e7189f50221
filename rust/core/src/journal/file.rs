//! `Journal`: an open journal, with the calls that it knows. The bindings call it. `claim.rs` and `write.rs` have more of its methods.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use super::error::OpenError;
use super::frame::{self, Header};
use super::index::{Entry, Index};
use super::opening::{lock, same_file, start_file};
use super::record::{Identity, Record, spends};
use super::scan::{Damage, Scan, Step};
use super::{read_at, read_some_at};

/// How a journal is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Whether damaged bytes are skipped also where a crash cannot have left them.
    pub skips_damage: bool,
    /// Whether the start of a new file is put on disk, so that a power cut can damage only what follows.
    pub syncs_start: bool,
}

/// An open journal: see the [module](super).
#[derive(Debug)]
pub struct Journal {
    pub(super) file: File,
    /// Held for its lock; `None` between two runs.
    lock: Option<File>,
    /// The number of bytes that were written.
    pub(super) length: u64,
    /// The number of bytes that were on disk at the last report of a sync.
    pub(super) synced: u64,
    /// Whether `synced` must be recorded with the next write.
    pub(super) is_mark_due: bool,
    /// Whether a record was written since the file was opened.
    pub(super) has_written: bool,
    pub(super) index: Index,
    /// For the keys with several calls in this pass, the occurrence from which on one may be unclaimed.
    pub(super) repeats: HashMap<u64, u32>,
    /// The buffer of the next write.
    pub(super) frames: Vec<u8>,
    /// The error of an earlier write, after which nothing more is written.
    pub(super) failure: Option<(io::ErrorKind, Option<i32>)>,
    /// The version of the last run, and whether the user has stated it.
    pub(super) version: Option<(bool, String)>,
    spend: BTreeMap<String, f64>,
    damage: Vec<Damage>,
    /// The offsets of the ends with spend of calls that have a later end.
    superseded: Vec<u64>,
    /// The number of calls that have ended.
    pub(super) ended: usize,
}

impl Journal {
    /// Open or create a journal, and read its records.
    ///
    /// A torn tail is cut off. Damage that a power cut can leave, behind the last bytes known to be on disk, is skipped.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]. The file is left as it was.
    pub fn open(path: &Path, options: Options) -> Result<Self, OpenError> {
        let lock = lock(path)?;
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)?;
        start_file(&mut file, path, options.syncs_start)?;
        let mut journal = Self {
            length: file.metadata()?.len(),
            file,
            lock: Some(lock),
            synced: 0,
            is_mark_due: false,
            has_written: false,
            index: Index::default(),
            repeats: HashMap::new(),
            frames: Vec::new(),
            failure: None,
            version: None,
            spend: BTreeMap::new(),
            damage: Vec::new(),
            superseded: Vec::new(),
            ended: 0,
        };
        journal.read(options)?;
        Ok(journal)
    }

    fn read(&mut self, options: Options) -> Result<(), OpenError> {
        let mut scan = Scan::new(&self.file)?;
        let mut damaged = Vec::new();
        loop {
            match scan.step()? {
                Step::Frame { offset, payload } => {
                    if let Some(record) = Record::decode(payload) {
                        self.note(offset, &record)?;
                    }
                }
                Step::Damage(damage) => damaged.push(damage),
                Step::End => break,
            }
        }
        for damage in damaged {
            // A torn tail can only be the last.
            if damage.is_torn_tail {
                self.file.set_len(damage.start)?;
                self.length = damage.start;
            } else if options.skips_damage || (self.synced > 0 && damage.start >= self.synced) {
                self.damage.push(damage);
            } else {
                return Err(OpenError::Damaged(damage));
            }
        }
        Ok(())
    }

    /// Note a record that was read.
    fn note(&mut self, offset: u64, record: &Record<'_>) -> io::Result<()> {
        match record {
            Record::Run {
                is_explicit,
                version,
                ..
            } => self.version = Some((*is_explicit, (*version).to_owned())),
            Record::Synced(length) => self.synced = self.synced.max(*length),
            Record::Start { identity, .. } => {
                let hash = self.index.hash(*identity);
                match self.find(hash, *identity)? {
                    Some(entry) => *entry = entry.begun_again(),
                    None => self.index.insert(hash, Entry::at(offset, false)),
                }
            }
            Record::End(end) => {
                for (resource, amount) in spends(end.spend) {
                    *self.spend.entry(resource.to_owned()).or_default() += amount;
                }
                let hash = self.index.hash(end.identity);
                let ended = Entry::at(offset, true);
                let old =
                    (self.find(hash, end.identity)?).map(|entry| std::mem::replace(entry, ended));
                if old.is_none() {
                    self.index.insert(hash, ended);
                }
                match old.filter(|old| old.has_ended()).and_then(Entry::offset) {
                    None => self.ended += 1,
                    Some(earlier) => self.supersede(earlier)?,
                }
            }
        }
        Ok(())
    }

    /// Note that the end at this offset has a later one. A compacted journal needs it for its spend.
    fn supersede(&mut self, offset: u64) -> io::Result<()> {
        let payload = payload_at(&self.file, offset)?;
        if let Some(Record::End(end)) = Record::decode(&payload)
            && !end.spend.is_empty()
        {
            self.superseded.push(offset);
        }
        Ok(())
    }

    pub(super) fn find(
        &mut self,
        hash: u64,
        identity: Identity<'_>,
    ) -> io::Result<Option<&mut Entry>> {
        let Self { file, index, .. } = self;
        index.find(hash, |entry| match entry.offset() {
            Some(offset) => {
                let payload = payload_at(file, offset)?;
                let record = Record::decode(&payload);
                Ok(record.and_then(|record| record.identity()) == Some(identity))
            }
            // Claimed and not written: 2^-64 is the chance that another key has the hash.
            None => Ok(true),
        })
    }

    /// Free the lock until [`relock`](Self::relock): the pass is interrupted. Nothing may be written meanwhile.
    ///
    /// Do not only drop the journal, if the process may have forked: its children share the lock until they end.
    pub fn unlock(&mut self) {
        if let Some(lock) = self.lock.take() {
            // Closing the file frees it too, unless a child has it.
            let _ = lock.unlock();
        }
    }

    /// Take the lock again, to continue the pass. Idempotent.
    ///
    /// # Errors
    ///
    /// Another driver has the lock, or has changed the file meanwhile: its calls are not in the index.
    pub fn relock(&mut self, path: &Path) -> Result<(), OpenError> {
        if self.lock.is_some() {
            return Ok(());
        }
        let lock = lock(path)?;
        if !same_file(&File::open(path)?, &self.file)? || self.file.metadata()?.len() != self.length
        {
            return Err(OpenError::Changed);
        }
        self.lock = Some(lock);
        Ok(())
    }

    /// Return a handle with which another thread can sync the file.
    ///
    /// # Errors
    ///
    /// The handle cannot be made.
    pub fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Note that the file is on disk up to this length.
    pub fn note_synced(&mut self, length: u64) {
        if length > self.synced {
            self.synced = length;
            self.is_mark_due = true;
        }
    }

    /// The number of bytes known to be on disk.
    pub fn synced(&self) -> u64 {
        self.synced
    }

    /// The number of bytes that were written.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The number of calls that have ended.
    pub fn ended(&self) -> usize {
        self.ended
    }

    /// The memory of the index in bytes.
    pub fn memory(&self) -> usize {
        self.index.memory()
    }

    /// The version of the last run, and whether the user has stated it.
    pub fn version(&self) -> Option<(bool, &str)> {
        let version = self.version.as_ref();
        version.map(|(is_explicit, version)| (*is_explicit, version.as_str()))
    }

    /// The sums of what the ended calls were charged, by the resource.
    pub fn spend(&self) -> &BTreeMap<String, f64> {
        &self.spend
    }

    /// The bytes that were skipped when the journal was opened.
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// Return the payloads of the last records of calls that have begun and not ended since, in the order of the file.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn in_flight(&self) -> io::Result<Vec<Vec<u8>>> {
        let begun = self.index.entries().filter(|entry| entry.is_in_flight());
        let mut offsets: Vec<_> = begun.filter_map(Entry::offset).collect();
        offsets.sort_unstable();
        let read = offsets.into_iter();
        read.map(|offset| payload_at(&self.file, offset)).collect()
    }

    /// Return the offsets of the records that a compacted journal needs, in the order of the file.
    pub(super) fn live(&self) -> Vec<u64> {
        let mut offsets: Vec<_> = self.index.entries().filter_map(Entry::offset).collect();
        offsets.extend(&self.superseded);
        offsets.sort_unstable();
        offsets
    }

    /// Return the payload of the record at an offset.
    pub(super) fn payload(&self, offset: u64) -> io::Result<Vec<u8>> {
        payload_at(&self.file, offset)
    }

    pub(super) fn permissions(&self) -> io::Result<std::fs::Permissions> {
        Ok(self.file.metadata()?.permissions())
    }

    /// The number of calls in the index.
    pub fn calls(&self) -> usize {
        self.index.len()
    }
}

/// Read and check the payload of the frame at an offset.
pub(super) fn payload_at(file: &File, offset: u64) -> io::Result<Vec<u8>> {
    // Most records are read by one call.
    let mut bytes = [0; 512];
    let read = read_some_at(file, &mut bytes, offset)?;
    let damaged = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the record at byte {offset} is damaged"),
        )
    };
    let header = Header::decode(&bytes[..read]).ok_or_else(damaged)?;
    let mut payload = bytes[frame::HEADER..read].to_vec();
    let read = payload.len().min(header.length());
    payload.resize(header.length(), 0);
    read_at(
        file,
        &mut payload[read..],
        offset + (frame::HEADER + read) as u64,
    )?;
    if header.matches(&payload) {
        Ok(payload)
    } else {
        Err(damaged())
    }
}
