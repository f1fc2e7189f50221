//! Frames: the messages between a driver and a worker.
//!
//! | bytes | contents |
//! |---|---|
//! | 1 | the kind |
//! | 3 | zero |
//! | 4 | the number of parts |
//! | 8 | the position, or another number that the kind defines |
//! | 8 for each part | the length of the part |
//! | the rest | the parts |
//!
//! Numbers are little-endian. Both ends run the same version of headrace, so the format has no version of its own.

use std::collections::VecDeque;
use std::fmt;

/// The bytes of a frame without parts.
pub const HEAD: usize = 16;

/// The most parts of a frame. More are a sign of damage.
pub const MAX_PARTS: usize = 1 << 20;

/// A part that lacks at least so many bytes is read into its own memory.
const DIRECT: usize = 1 << 16;

/// A whole frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The kind; the users of the format define its meaning.
    pub kind: u8,
    /// The position of the task that the frame is about, or another number.
    pub position: u64,
    /// The parts.
    pub parts: Vec<Vec<u8>>,
}

/// The reason why bytes are not frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// A frame has more parts than [`MAX_PARTS`].
    TooManyParts(usize),
    /// There is no memory for a part of this length.
    TooLong(u64),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyParts(parts) => write!(f, "a frame of {parts} parts"),
            Self::TooLong(length) => write!(f, "no memory for a part of {length} bytes"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Append the head of a frame to `buffer`: all of it but the parts.
///
/// # Panics
///
/// There are more than [`MAX_PARTS`] lengths.
pub fn write_head(
    buffer: &mut Vec<u8>,
    kind: u8,
    position: u64,
    lengths: impl ExactSizeIterator<Item = usize>,
) {
    let parts = lengths.len();
    assert!(parts <= MAX_PARTS, "a frame of {parts} parts");
    buffer.reserve(HEAD + 8 * parts);
    buffer.extend([kind, 0, 0, 0]);
    buffer.extend(u32::try_from(parts).unwrap_or(u32::MAX).to_le_bytes());
    buffer.extend(position.to_le_bytes());
    for length in lengths {
        buffer.extend((length as u64).to_le_bytes());
    }
}

/// A frame that is being read.
#[derive(Debug)]
struct Partial {
    frame: Frame,
    /// The lengths of all parts. The last of `frame.parts` is being filled.
    lengths: Vec<usize>,
}

impl Partial {
    /// Return the part that is being filled and the number of its missing bytes; `None` if the frame is whole.
    fn open_part(&mut self) -> Option<(&mut Vec<u8>, usize)> {
        let index = self.frame.parts.len().checked_sub(1)?;
        let part = &mut self.frame.parts[index];
        let missing = self.lengths[index] - part.len();
        (missing > 0).then_some((part, missing))
    }

    /// Allocate the parts that follow, up to one that has missing bytes. Return whether the frame is whole.
    fn advance(&mut self) -> Result<bool, FrameError> {
        while self.open_part().is_none() {
            let Some(&length) = self.lengths.get(self.frame.parts.len()) else {
                return Ok(true);
            };
            let mut part = Vec::new();
            part.try_reserve_exact(length)
                .map_err(|_| FrameError::TooLong(length as u64))?;
            self.frame.parts.push(part);
        }
        Ok(false)
    }
}

/// A decoder of a stream of bytes. It can be fed pieces of any size.
///
/// After an error it must not be used any more.
///
/// *Bound*: one frame that is not whole, and the whole frames that were not taken.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The head of the next frame, as far as it was read.
    head: Vec<u8>,
    partial: Option<Partial>,
    frames: VecDeque<Frame>,
}

impl Decoder {
    /// Take the next whole frame.
    pub fn take(&mut self) -> Option<Frame> {
        self.frames.pop_front()
    }

    /// Return whether there is a whole frame to take.
    pub fn has_frame(&self) -> bool {
        !self.frames.is_empty()
    }

    /// Return whether the last frame is not whole.
    pub fn is_amid_frame(&self) -> bool {
        self.partial.is_some() || !self.head.is_empty()
    }

    /// Return the memory of a large part, and the number of its missing bytes; `None` if no such part is being read.
    ///
    /// The caller appends at most so many bytes to it, and then calls [`filled`](Self::filled).
    pub fn large_part(&mut self) -> Option<(&mut Vec<u8>, usize)> {
        (self.partial.as_mut()?.open_part()).filter(|&(_, missing)| missing >= DIRECT)
    }

    /// Note that bytes were appended to the [`large_part`](Self::large_part).
    ///
    /// # Errors
    ///
    /// There is no memory for the next part.
    pub fn filled(&mut self) -> Result<(), FrameError> {
        let Some(mut partial) = self.partial.take() else {
            return Ok(());
        };
        if partial.advance()? {
            self.frames.push_back(partial.frame);
        } else {
            self.partial = Some(partial);
        }
        Ok(())
    }

    /// Read bytes.
    ///
    /// # Errors
    ///
    /// The bytes are no frames, or there is no memory for a part.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), FrameError> {
        while !bytes.is_empty() {
            let rest = if let Some(partial) = &mut self.partial {
                let Some((part, missing)) = partial.open_part() else {
                    unreachable!("a whole frame is moved to `frames` at once")
                };
                let (taken, rest) = bytes.split_at(missing.min(bytes.len()));
                part.extend_from_slice(taken);
                rest
            } else {
                let missing = self.head_length()? - self.head.len();
                let (taken, rest) = bytes.split_at(missing.min(bytes.len()));
                self.head.extend_from_slice(taken);
                if self.head.len() == self.head_length()? {
                    self.partial = Some(self.parse_head()?);
                }
                rest
            };
            self.filled()?;
            bytes = rest;
        }
        Ok(())
    }

    /// Return the length of the head that is being read, as far as that is known.
    fn head_length(&self) -> Result<usize, FrameError> {
        if self.head.len() < HEAD {
            return Ok(HEAD);
        }
        let parts = u32::from_le_bytes(array(&self.head[4..8])) as usize;
        if parts > MAX_PARTS {
            return Err(FrameError::TooManyParts(parts));
        }
        Ok(HEAD + 8 * parts)
    }

    /// Take the whole head, and return the frame without its parts.
    fn parse_head(&mut self) -> Result<Partial, FrameError> {
        let lengths = self.head[HEAD..]
            .chunks_exact(8)
            .map(|bytes| {
                let length = u64::from_le_bytes(array(bytes));
                usize::try_from(length).map_err(|_| FrameError::TooLong(length))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let frame = Frame {
            kind: self.head[0],
            position: u64::from_le_bytes(array(&self.head[8..HEAD])),
            parts: Vec::with_capacity(lengths.len()),
        };
        self.head.clear();
        Ok(Partial { frame, lengths })
    }
}

/// Return bytes as an array of their length.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}
