//! `Reader`: reads batches of whole lines. The jobs of `pipe.rs` call it.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use super::codec::Charset;
use super::input::{Input, Stop};
use crate::runtime::blocking_pool;

/// The number of bytes to read at a time. A longer line becomes a batch of its own.
pub(super) const BATCH: usize = 1 << 17;

/// The byte order mark of UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// How the lines of a batch become text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Script {
    /// All of it is ASCII.
    Ascii,
    /// All of it is valid UTF-8.
    Utf8,
    /// The codec must decode each line.
    #[default]
    Coded,
}

/// Whole lines, each with its `\n`; only the last line of a file may lack it.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The buffer, which is usually longer than the lines.
    pub(super) bytes: Vec<u8>,
    /// The offset at which the lines end.
    pub(super) end: usize,
    pub(super) script: Script,
}

/// The reason that reading failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// An error of the operating system.
    System(io::Error),
    /// The gzip file is truncated.
    Truncated,
    /// The gzip file is corrupt.
    Corrupt(io::Error),
    /// The reading thread panicked or never ran.
    Died,
}

/// Reads one file, on any thread.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    charset: Charset,
    stop: Arc<Stop>,
    phase: Phase,
    /// The start of a line whose end has not been read yet.
    carry: Vec<u8>,
    /// Whether the last byte was a `\r`, to which a following `\n` belongs.
    after_return: bool,
}

#[derive(Debug)]
enum Phase {
    Unopened,
    Open {
        input: Input,
        /// Whether the file may still start with a byte order mark to skip.
        is_fresh: bool,
    },
    /// Reading failed behind the lines of the last batch.
    Failed(Failure),
    Ended,
}

impl Reader {
    /// Make a reader, which opens the file for its first batch.
    pub(super) fn new(path: PathBuf, charset: Charset, stop: Arc<Stop>) -> Self {
        Self {
            path,
            charset,
            stop,
            phase: Phase::Unopened,
            carry: Vec::new(),
            after_return: false,
        }
    }

    /// Read the next batch into the buffer of an earlier one. Return `None` at the end of the file, after a request to stop, and when the
    /// interpreter exits. The file is closed at the end or at an error.
    pub(super) fn next(&mut self, mut bytes: Vec<u8>) -> Result<Option<Batch>, Failure> {
        if matches!(self.phase, Phase::Unopened) {
            let input = Input::open(&self.path, &self.stop).map_err(Failure::System)?;
            self.phase = Phase::Open {
                input,
                is_fresh: self.charset.has_mark,
            };
        }
        let mut filled = self.carry.len();
        if bytes.len() < filled + BATCH / 2 {
            bytes.resize(filled + BATCH, 0);
        }
        bytes[..filled].copy_from_slice(&self.carry);
        self.carry.clear();
        // The offset at which the last whole line ends.
        let mut end = 0;
        while let Phase::Open { input, is_fresh } = &mut self.phase {
            if self.stop.is_requested() || blocking_pool::is_over() {
                self.phase = Phase::Ended;
                return Ok(None);
            }
            if filled == bytes.len() {
                if end > 0 {
                    break;
                }
                bytes.resize(filled * 2, 0);
            }
            match input.read(&mut bytes[filled..]) {
                Ok(0) => {
                    self.phase = Phase::Ended;
                    end = filled;
                }
                Ok(count) => {
                    let mut from = filled;
                    let may_wait = input.is_pipe();
                    filled += count;
                    if *is_fresh {
                        if MARK.starts_with(&bytes[..filled]) && filled < MARK.len() {
                            continue;
                        }
                        *is_fresh = false;
                        from = 0;
                        if bytes[..filled].starts_with(MARK) {
                            bytes.copy_within(MARK.len()..filled, 0);
                            filled -= MARK.len();
                        }
                    }
                    filled = from + translate(&mut bytes[from..filled], &mut self.after_return);
                    if let Some(index) = memchr::memrchr(b'\n', &bytes[from..filled]) {
                        end = from + index + 1;
                        if may_wait {
                            break;
                        }
                    }
                }
                Err(error) => {
                    let failure = match error.kind() {
                        _ if error.raw_os_error().is_some() || !input.is_gzip() => {
                            Failure::System(error)
                        }
                        io::ErrorKind::UnexpectedEof => Failure::Truncated,
                        _ => Failure::Corrupt(error),
                    };
                    // The part of the line that was read before the failure is dropped.
                    filled = end;
                    self.phase = Phase::Failed(failure);
                }
            }
        }
        self.carry.extend_from_slice(&bytes[end..filled]);
        if end > 0 {
            let script = self.charset.script(&bytes[..end]);
            return Ok(Some(Batch { bytes, end, script }));
        }
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Failed(failure) => Err(failure),
            _ => Ok(None),
        }
    }
}

/// Replace each `\r` and `\r\n` by `\n`, in place. Returns the new length.
fn translate(bytes: &mut [u8], after_return: &mut bool) -> usize {
    let Some(mut from) = (if *after_return {
        Some(0)
    } else {
        memchr::memchr(b'\r', bytes)
    }) else {
        return bytes.len();
    };
    let mut to = from;
    while from < bytes.len() {
        if std::mem::take(after_return) && bytes[from] == b'\n' {
            from += 1;
        }
        let rest = &bytes[from..];
        let count = memchr::memchr(b'\r', rest).unwrap_or(rest.len());
        bytes.copy_within(from..from + count, to);
        from += count;
        to += count;
        if from < bytes.len() {
            bytes[to] = b'\n';
            *after_return = true;
            from += 1;
            to += 1;
        }
    }
    to
}
