//! `Scan`: reads the records of a journal from its start to its end, and finds damage. `file.rs`, `compact.rs` and the readers of the
//! bindings use it.
//!
//! A frame that cannot be read is one of two things. If no intact frame follows, it is the torn tail of a write that a crash has cut
//! off. Otherwise it is damage, and the scan continues behind it.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use super::error::OpenError;
use super::frame::{self, Header};
use super::read_at;

/// The first bytes of each journal.
pub(super) const MAGIC: [u8; 8] = *b"headrace";

/// The version of the format that this module writes, and the highest that it reads.
pub const VERSION: u32 = 1;

/// The number of bytes in front of the first frame: the magic bytes, the version, and the checksum of both.
pub(super) const FILE_HEADER: usize = 16;

/// Return the header of a journal.
pub(super) fn file_header() -> [u8; FILE_HEADER] {
    let mut header = [0; FILE_HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    let checksum = crc32fast::hash(&header[..12]);
    header[12..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// Bytes of a journal that are not an intact frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Damage {
    /// The offset of the first byte.
    pub start: u64,
    /// The offset behind the last byte.
    pub end: u64,
    /// Whether the file ends there and the bytes look like a write that was cut off.
    pub is_torn_tail: bool,
}

/// A pass over the records: see the [module](self).
#[derive(Debug)]
pub struct Scan {
    reader: BufReader<File>,
    /// The offset behind the last byte that was read.
    offset: u64,
    /// The length of the file at the start of the scan.
    length: u64,
    payload: Vec<u8>,
}

/// A step of a [`Scan`].
#[derive(Debug)]
pub enum Step<'a> {
    /// A record.
    Frame {
        /// The offset of its frame.
        offset: u64,
        /// The encoded record.
        payload: &'a [u8],
    },
    /// Bytes that are skipped.
    Damage(Damage),
    /// The end of the file.
    End,
}

impl Scan {
    /// Begin a scan of a file that has a header.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or it is not a journal of a known version.
    pub fn new(file: &File) -> Result<Self, OpenError> {
        let length = file.metadata()?.len();
        let mut file = file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut header = [0; FILE_HEADER];
        if length < FILE_HEADER as u64 {
            return Err(OpenError::NotAJournal);
        }
        reader.read_exact(&mut header)?;
        check_header(&header)?;
        Ok(Self {
            reader,
            offset: FILE_HEADER as u64,
            length,
            payload: Vec::new(),
        })
    }

    /// Return the next record, or damage.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn step(&mut self) -> io::Result<Step<'_>> {
        let start = self.offset;
        let left = self.length - start;
        if left == 0 {
            return Ok(Step::End);
        }
        let Some(header) = self.header(left)? else {
            return self.skip(start, start + 1, false);
        };
        let end = start + (frame::HEADER + header.length()) as u64;
        if end > self.length {
            return self.skip(start, start + 1, false);
        }
        self.payload.resize(header.length(), 0);
        self.reader.read_exact(&mut self.payload)?;
        if !header.matches(&self.payload) {
            return self.skip(start, end, true);
        }
        self.offset = end;
        Ok(Step::Frame {
            offset: start,
            payload: &self.payload,
        })
    }

    fn header(&mut self, left: u64) -> io::Result<Option<Header>> {
        let mut bytes = [0; frame::HEADER];
        if left < bytes.len() as u64 {
            return Ok(None);
        }
        self.reader.read_exact(&mut bytes)?;
        Ok(Header::decode(&bytes))
    }

    /// Skip the bytes from `start` to the next intact frame that starts at `from` or behind it.
    fn skip(&mut self, start: u64, from: u64, is_whole: bool) -> io::Result<Step<'_>> {
        let next = next_frame(self.reader.get_ref(), from, self.length)?;
        let end = next.unwrap_or(self.length);
        self.reader.seek(SeekFrom::Start(end))?;
        self.offset = end;
        Ok(Step::Damage(Damage {
            start,
            end,
            // A write that was cut off leaves no frame of the full length.
            is_torn_tail: next.is_none() && !is_whole,
        }))
    }
}

fn check_header(header: &[u8; FILE_HEADER]) -> Result<(), OpenError> {
    let (head, checksum) = header.split_at(12);
    let (magic, version) = head.split_at(8);
    if magic != MAGIC {
        return Err(OpenError::NotAJournal);
    }
    if crc32fast::hash(head).to_le_bytes() != checksum {
        return Err(OpenError::DamagedHeader);
    }
    match u32::from_le_bytes([version[0], version[1], version[2], version[3]]) {
        VERSION => Ok(()),
        newer => Err(OpenError::Version(newer)),
    }
}

/// Return the offset of the first intact frame from `from` on. Read the file in blocks, and a payload for each header.
fn next_frame(file: &File, mut from: u64, length: u64) -> io::Result<Option<u64>> {
    const BLOCK: usize = 1 << 20;
    let mut block = vec![0; BLOCK];
    let mut payload = Vec::new();
    while length.saturating_sub(from) >= frame::HEADER as u64 {
        let size = usize::try_from(length - from).map_or(BLOCK, |left| left.min(BLOCK));
        let block = &mut block[..size];
        read_at(file, block, from)?;
        for (place, bytes) in block.windows(frame::HEADER).enumerate() {
            let Some(header) = Header::decode(bytes) else {
                continue;
            };
            let offset = from + place as u64;
            let body = offset + frame::HEADER as u64;
            if body + header.length() as u64 > length {
                continue;
            }
            payload.resize(header.length(), 0);
            read_at(file, &mut payload, body)?;
            if header.matches(&payload) {
                return Ok(Some(offset));
            }
        }
        // A header may begin in this block and end in the next.
        from += (size - (frame::HEADER - 1)) as u64;
    }
    Ok(None)
}
