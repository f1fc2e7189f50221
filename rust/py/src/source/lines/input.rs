//! The bytes of a file, plain or gzipped.
//!
//! A read of a regular file ends by itself. One of a pipe or a terminal may last for ever, and the
//! thread that is in it cannot be called back. So there the thread waits for two things at once,
//! the file and a [`Stop`].

use std::fs::File;
use std::io::{self, BufRead, BufReader, Chain, Cursor, PipeReader, PipeWriter, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::bufread::GzDecoder;

/// What a gzipped file begins with.
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Asks a thread that reads to stop.
#[derive(Debug, Default)]
pub(super) struct Stop {
    asked: AtomicBool,
    /// Closing it wakes the thread. Held for a swap only.
    bell: Mutex<Option<PipeWriter>>,
}

impl Stop {
    pub(super) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        self.set_bell(None);
    }

    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    fn set_bell(&self, bell: Option<PipeWriter>) {
        let mut place = self.bell.lock().unwrap_or_else(PoisonError::into_inner);
        let old = if self.is_asked() && bell.is_some() {
            bell
        } else {
            std::mem::replace(&mut *place, bell)
        };
        drop(place);
        drop(old);
    }
}

/// A file, and how to wait for it.
#[derive(Debug)]
pub(super) struct Raw {
    file: File,
    /// Its end is what a thread that waits for a pipe is woken by.
    bell: Option<PipeReader>,
    stop: Arc<Stop>,
}

impl Raw {
    #[cfg(unix)]
    fn open(path: &Path, stop: &Arc<Stop>) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;

        // Opening a pipe would wait for its other end, where nobody could call the thread back.
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = File::options()
            .read(true)
            .custom_flags(nonblocking)
            .open(path)?;
        let kind = file.metadata()?.file_type();
        let bell = if kind.is_file() || kind.is_dir() {
            None
        } else {
            let (reader, writer) = io::pipe()?;
            stop.set_bell(Some(writer));
            Some(reader)
        };
        Ok(Self {
            file,
            bell,
            stop: Arc::clone(stop),
        })
    }

    #[cfg(not(unix))]
    fn open(path: &Path, stop: &Arc<Stop>) -> io::Result<Self> {
        Ok(Self {
            file: File::open(path)?,
            bell: None,
            stop: Arc::clone(stop),
        })
    }

    /// Waits until a read does not block; `false` if it is asked to stop instead.
    #[cfg(unix)]
    fn wait(&self) -> io::Result<bool> {
        use rustix::event::{PollFd, PollFlags, poll};

        let Some(bell) = &self.bell else {
            return Ok(true);
        };
        let mut both = [
            PollFd::new(&self.file, PollFlags::IN),
            PollFd::new(bell, PollFlags::IN),
        ];
        while let Err(error) = poll(&mut both, None) {
            if error != rustix::io::Errno::INTR {
                return Err(error.into());
            }
        }
        Ok(both[1].revents().is_empty() && !self.stop.is_asked())
    }

    #[cfg(not(unix))]
    fn wait(&self) -> io::Result<bool> {
        Ok(!self.stop.is_asked())
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
        if self.bell.is_some() {
            self.stop.set_bell(None);
        }
    }
}

/// A file from its first byte on, some of which were looked at already.
pub(super) type Whole = Chain<Cursor<Vec<u8>>, Raw>;

/// See the top of this file.
#[derive(Debug)]
pub(super) enum Input {
    Plain { whole: Whole, is_pipe: bool },
    Gzip(Box<Gunzip>),
}

impl Input {
    /// Opens a file and looks at its first bytes.
    pub(super) fn open(path: &Path, stop: &Arc<Stop>) -> io::Result<Self> {
        let mut raw = Raw::open(path, stop)?;
        // One byte at a time: a pipe may not have a second one yet.
        let mut head = Vec::with_capacity(MAGIC.len());
        while head == MAGIC[..head.len()] && head.len() < MAGIC.len() {
            let mut byte = [0];
            if raw.read(&mut byte)? == 0 {
                break;
            }
            head.extend(byte);
        }
        let is_gzip = head == MAGIC;
        let is_pipe = raw.bell.is_some();
        let whole = Cursor::new(head).chain(raw);
        Ok(if is_gzip {
            Self::Gzip(Box::new(Gunzip::new(whole)))
        } else {
            Self::Plain { whole, is_pipe }
        })
    }

    /// Whether what is there should be handed over before more is asked for.
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
            Self::Plain { whole, .. } => whole.read(buffer),
            Self::Gzip(gunzip) => gunzip.read(buffer),
        }
    }
}

/// Any number of gzip members one behind the other, with any number of zeros behind each.
#[derive(Debug)]
pub(super) struct Gunzip {
    /// `None` once the file is at its end.
    member: Option<GzDecoder<BufReader<Whole>>>,
}

impl Gunzip {
    fn new(whole: Whole) -> Self {
        let buffered = BufReader::with_capacity(1 << 16, whole);
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

/// Whether another member comes behind the zeros.
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
                let message = "what follows the end of the gzip stream is no other one";
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
        }
    }
}
