//! Makes batches of whole lines of a file.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use super::codec::Charset;
use super::input::{Input, Stop};
use crate::runtime::blocking_pool;

/// How many bytes are read at a time. A longer line makes a batch of its own.
pub(super) const BATCH: usize = 1 << 17;

const MARK: &[u8] = b"\xef\xbb\xbf";

/// How the lines of a batch become text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Script {
    /// All of it is ASCII.
    Ascii,
    /// All of it is valid UTF-8.
    Utf8,
    /// Each line is for the codec to look at.
    #[default]
    Coded,
}

/// Some whole lines, each with its `\n`; only the last one of a file may lack it.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Initialised, and longer than the lines as a rule.
    pub(super) bytes: Vec<u8>,
    /// Where the lines end.
    pub(super) end: usize,
    pub(super) script: Script,
}

/// Why there is no more.
#[derive(Debug)]
pub(super) enum Failure {
    /// Of the operating system.
    System(io::Error),
    /// A gzipped file that is cut off.
    Truncated,
    /// A gzipped file that is none.
    Corrupt(io::Error),
    /// The reader did not come to its end.
    Died,
}

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    charset: Charset,
    stop: Arc<Stop>,
    stage: Stage,
    /// The beginning of a line whose end is not read yet.
    carry: Vec<u8>,
    /// The last byte was a `\r`, so that a `\n` would belong to it.
    after_return: bool,
}

#[derive(Debug)]
enum Stage {
    Unopened,
    Open {
        input: Input,
        /// Nothing was looked at yet: there may be a byte order mark to leave out.
        is_fresh: bool,
    },
    /// It failed behind the lines that it gave last.
    Failed(Failure),
    Ended,
}

impl Reader {
    /// A reader that opens the file when the first batch is wanted.
    pub(super) fn new(path: PathBuf, charset: Charset, stop: Arc<Stop>) -> Self {
        Self {
            path,
            charset,
            stop,
            stage: Stage::Unopened,
            carry: Vec::new(),
            after_return: false,
        }
    }

    /// The next batch, in a buffer of an earlier one; `None` at the end of the file, and if it is
    /// asked to stop. The file is closed when the end or an error is met.
    pub(super) fn next(&mut self, mut bytes: Vec<u8>) -> Result<Option<Batch>, Failure> {
        if matches!(self.stage, Stage::Unopened) {
            let input = Input::open(&self.path, &self.stop).map_err(Failure::System)?;
            self.stage = Stage::Open {
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
        // Where the last whole line ends.
        let mut end = 0;
        while let Stage::Open { input, is_fresh } = &mut self.stage {
            if self.stop.is_asked() || blocking_pool::is_over() {
                self.stage = Stage::Ended;
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
                    self.stage = Stage::Ended;
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
                    if let Some(place) = memchr::memrchr(b'\n', &bytes[from..filled]) {
                        end = from + place + 1;
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
                    // What it has of the line in which it failed is not a line.
                    filled = end;
                    self.stage = Stage::Failed(failure);
                }
            }
        }
        self.carry.extend_from_slice(&bytes[end..filled]);
        if end > 0 {
            let script = self.charset.script(&bytes[..end]);
            return Ok(Some(Batch { bytes, end, script }));
        }
        match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Failed(failure) => Err(failure),
            _ => Ok(None),
        }
    }
}

/// Makes each `\r` and `\r\n` a `\n`, in place; gives the new length.
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
