//! `Journal`: an open journal, with the calls that it knows. The bindings call it.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use super::error::OpenError;
use super::frame::{self, Header};
use super::index::{Entry, Index};
use super::opening::{lock, same_file, start_file};
use super::record::{End, Identity, Record, Status, spends};
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

/// A call that was claimed from a journal: no other call of this pass has its identity.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claim {
    key: Box<[u8]>,
    occurrence: u32,
    hash: u64,
    /// The offset of its last record; 0 if it has none.
    offset: u64,
}

impl Claim {
    /// The identity of the call.
    pub fn identity(&self) -> Identity<'_> {
        Identity {
            key: &self.key,
            occurrence: self.occurrence,
        }
    }
}

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

/// An open journal: see the [module](super).
#[derive(Debug)]
pub struct Journal {
    file: File,
    /// Held for its lock; `None` between two runs.
    lock: Option<File>,
    /// The number of bytes that were written.
    length: u64,
    /// The number of bytes that were on disk at the last report of a sync.
    synced: u64,
    /// Whether that number must be written.
    is_mark_due: bool,
    index: Index,
    /// For the keys with several calls in this pass, the occurrence from which on one may be unclaimed.
    repeats: HashMap<u64, u32>,
    frames: Vec<u8>,
    /// The error of an earlier write, after which nothing more is written.
    failure: Option<(io::ErrorKind, Option<i32>)>,
    version: Option<(bool, String)>,
    spend: BTreeMap<String, f64>,
    damage: Vec<Damage>,
    /// The offsets of the ends with spend of calls that have a later end.
    superseded: Vec<u64>,
    ended: usize,
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

    /// Store the record of a claimed call in the index.
    fn set_record(&mut self, claim: &mut Claim, offset: u64, has_ended: bool) {
        let known = std::mem::replace(&mut claim.offset, offset);
        let is_same = |entry: Entry| Ok::<_, Infallible>(entry.offset().unwrap_or(0) == known);
        if let Ok(Some(entry)) = self.index.find(claim.hash, is_same) {
            self.ended += usize::from(has_ended && !entry.has_ended());
            *entry = Entry::at(offset, has_ended || entry.has_ended()).with_claim(true);
        }
    }

    fn find(&mut self, hash: u64, identity: Identity<'_>) -> io::Result<Option<&mut Entry>> {
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

    /// Claim the next call with a key, in the order of the source. Return it with the payload of its [`End`], if it has ended.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn claim(&mut self, key: &[u8]) -> io::Result<(Claim, Option<Vec<u8>>)> {
        let first = self.index.hash(Identity { key, occurrence: 0 });
        let mut occurrence = self.repeats.get(&first).copied().unwrap_or(0);
        loop {
            let identity = Identity { key, occurrence };
            let hash = self.index.hash(identity);
            let Self { file, index, .. } = self;
            let mut read = None;
            let found = index.find(hash, |entry| match entry.offset() {
                Some(offset) => {
                    let payload = payload_at(file, offset)?;
                    let record = Record::decode(&payload);
                    let is_same = record.and_then(|record| record.identity()) == Some(identity);
                    if is_same && entry.has_ended() {
                        read = Some(payload);
                    }
                    Ok::<_, io::Error>(is_same)
                }
                None => Ok(true),
            })?;
            let offset = match found {
                None => {
                    index.insert(hash, Entry::claimed());
                    0
                }
                Some(entry) if entry.is_claimed() => {
                    occurrence += 1;
                    continue;
                }
                Some(entry) => {
                    *entry = entry.with_claim(true);
                    entry.offset().unwrap_or(0)
                }
            };
            if occurrence > 0 {
                self.repeats.insert(first, occurrence + 1);
            }
            let claim = Claim {
                key: key.into(),
                occurrence,
                hash,
                offset,
            };
            return Ok((claim, read));
        }
    }

    /// Return whether the first call with a key has ended.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn has_ended(&mut self, key: &[u8]) -> io::Result<bool> {
        let identity = Identity { key, occurrence: 0 };
        let hash = self.index.hash(identity);
        Ok((self.find(hash, identity)?).is_some_and(|entry| entry.has_ended()))
    }

    /// Give a claim back: the next claim of its key may get it again.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn unclaim(&mut self, claim: &Claim) -> io::Result<()> {
        let identity = claim.identity();
        if let Some(entry) = self.find(claim.hash, identity)? {
            *entry = entry.with_claim(false);
        }
        let first = self.index.hash(Identity {
            occurrence: 0,
            ..identity
        });
        if let Some(next) = self.repeats.get_mut(&first) {
            *next = (*next).min(claim.occurrence);
        }
        Ok(())
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

    /// Append a record. Return its offset.
    fn write(&mut self, record: &Record<'_>) -> io::Result<u64> {
        self.check()?;
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

/// The largest buffer that is kept between two writes.
const KEPT_BUFFER: usize = 1 << 20;

/// The number of bytes of a frame in front of a place in its payload.
fn bytes_before(place: usize) -> u64 {
    (frame::HEADER + place) as u64
}

/// Read and check the payload of the frame at an offset.
fn payload_at(file: &File, offset: u64) -> io::Result<Vec<u8>> {
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
    read_at(file, &mut payload[read..], offset + bytes_before(read))?;
    if header.matches(&payload) {
        Ok(payload)
    } else {
        Err(damaged())
    }
}
