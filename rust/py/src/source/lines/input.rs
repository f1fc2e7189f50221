//! The bytes of a file, plain or gzipped. `reader.rs` reads from it.
//!
//! A read of a regular file ends by itself. A read of a pipe or a terminal may block forever, and its thread cannot be
//! interrupted. So for those the thread polls two descriptors: the file and a pipe of [`Stop`].

use std::fs::File;
use std::io::{self, BufRead, BufReader, Chain, Cursor, PipeReader, PipeWriter, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::bufread::GzDecoder;

/// The first bytes of a gzip file.
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A request to stop, for a thread that reads.
#[derive(Debug, Default)]
pub(super) struct Stop {
    is_requested: AtomicBool,
    /// Dropping the writer wakes the thread. The lock is held for a swap only.
    wake_writer: Mutex<Option<PipeWriter>>,
}

impl Stop {
    pub(super) fn request(&self) {
        self.is_requested.store(true, Ordering::Release);
        self.set_wake_writer(None);
    }

    pub(super) fn is_requested(&self) -> bool {
        self.is_requested.load(Ordering::Acquire)
    }

    fn set_wake_writer(&self, writer: Option<PipeWriter>) {
        let mut current = self
            .wake_writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let old = if self.is_requested() && writer.is_some() {
            writer
        } else {
            std::mem::replace(&mut *current, writer)
        };
        drop(current);
        drop(old);
    }
}

/// An open file, and the descriptor that interrupts a wait for it.
#[derive(Debug)]
pub(super) struct Raw {
    file: File,
    /// Reaches its end when the wait is to be interrupted. `None` for a regular file.
    wake_reader: Option<PipeReader>,
    stop: Arc<Stop>,
}

impl Raw {
    #[cfg(unix)]
    fn open(path: &Path, stop: &Arc<Stop>) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;

        // Opening a pipe would wait for its other end, and that wait cannot be interrupted.
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = File::options()
            .read(true)
            .custom_flags(nonblocking)
            .open(path)?;
        let kind = file.metadata()?.file_type();
        let wake_reader = if kind.is_file() || kind.is_dir() {
            None
        } else {
            let (reader, writer) = io::pipe()?;
            stop.set_wake_writer(Some(writer));
            Some(reader)
        };
        Ok(Self {
            file,
            wake_reader,
            stop: Arc::clone(stop),
        })
    }

    #[cfg(not(unix))]
    fn open(path: &Path, stop: &Arc<Stop>) -> io::Result<Self> {
        Ok(Self {
            file: File::open(path)?,
            wake_reader: None,
            stop: Arc::clone(stop),
        })
    }

    /// Wait until a read does not block; return `false` after a request to stop.
    #[cfg(unix)]
    fn wait(&self) -> io::Result<bool> {
        use rustix::event::{PollFd, PollFlags, poll};

        let Some(wake_reader) = &self.wake_reader else {
            return Ok(true);
        };
        let mut both = [
            PollFd::new(&self.file, PollFlags::IN),
            PollFd::new(wake_reader, PollFlags::IN),
        ];
        while let Err(error) = poll(&mut both, None) {
            if error != rustix::io::Errno::INTR {
                return Err(error.into());
            }
        }
        Ok(both[1].revents().is_empty() && !self.stop.is_requested())
    }

    #[cfg(not(unix))]
    fn wait(&self) -> io::Result<bool> {
        Ok(!self.stop.is_requested())
    }
}

impl Read for Raw {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.wait()? {
                return Ok(0);
            }
            match self.file.read(buffer) {
                Err(error)
                    if error.kind() == io::ErrorKind::Interrupted
                        || error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if self.wake_reader.is_some() {
            self.stop.set_wake_writer(None);
        }
    }
}

/// A file from its first byte on, with the bytes that were already read.
pub(super) type Rewound = Chain<Cursor<Vec<u8>>, Raw>;

/// An open file that is read as plain bytes or as gzip.
#[derive(Debug)]
pub(super) enum Input {
    Plain { file: Rewound, is_pipe: bool },
    Gzip(Box<Gunzip>),
}

impl Input {
    /// Open a file and read its first bytes to recognise gzip.
    pub(super) fn open(path: &Path, stop: &Arc<Stop>) -> io::Result<Self> {
        let mut raw = Raw::open(path, stop)?;
        // One byte at a time: a pipe may not have a second byte yet.
        let mut head = Vec::with_capacity(MAGIC.len());
        while head == MAGIC[..head.len()] && head.len() < MAGIC.len() {
            let mut byte = [0];
            if raw.read(&mut byte)? == 0 {
                break;
            }
            head.extend(byte);
        }
        let is_gzip = head == MAGIC;
        let is_pipe = raw.wake_reader.is_some();
        let file = Cursor::new(head).chain(raw);
        Ok(if is_gzip {
            Self::Gzip(Box::new(Gunzip::new(file)))
        } else {
            Self::Plain { file, is_pipe }
        })
    }

    /// Return whether the next read may block, so that available lines must be delivered first.
    pub(super) fn is_pipe(&self) -> bool {
        matches!(self, Self::Plain { is_pipe: true, .. })
    }

    pub(super) fn is_gzip(&self) -> bool {
        matches!(self, Self::Gzip(_))
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain { file, .. } => file.read(buffer),
            Self::Gzip(gunzip) => gunzip.read(buffer),
        }
    }
}

/// Any number of consecutive gzip members, each followed by any number of zeros.
#[derive(Debug)]
pub(super) struct Gunzip {
    /// `None` at the end of the file.
    member: Option<GzDecoder<BufReader<Rewound>>>,
}

impl Gunzip {
    fn new(file: Rewound) -> Self {
        let buffered = BufReader::with_capacity(1 << 16, file);
        Self {
            member: Some(GzDecoder::new(buffered)),
        }
    }
}

impl Read for Gunzip {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let count = member.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let Some(member) = self.member.take() else {
                break;
            };
            let mut rest = member.into_inner();
            self.member = find_member(&mut rest)?.then(|| GzDecoder::new(rest));
        }
        Ok(0)
    }
}

/// Skip zeros; return whether another member follows.
fn find_member(rest: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let bytes = rest.fill_buf()?;
        let (count, zeros) = (bytes.len(), bytes.iter().take_while(|b| **b == 0).count());
        let next = bytes.get(zeros).copied();
        rest.consume(zeros);
        match next {
            None if count == 0 => return Ok(false),
            None => {}
            Some(byte) if byte == MAGIC[0] => return Ok(true),
            Some(_) => {
                let message = "the bytes after the end of the gzip stream are not another one";
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
        }
    }
}
