//! The frame of a record: its length and checksums. `file.rs` writes frames, and `scan.rs` reads them.
//!
//! ```text
//! length u32 | CRC-32 of the payload u32 | CRC-32 of these eight bytes u32 | payload
//! ```
//!
//! All numbers are little-endian. The third field tells the start of a frame from other bytes, so the intact records behind a
//! damaged one can be found.

/// The number of bytes in front of the payload.
pub const HEADER: usize = 12;

/// The header of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    length: u32,
    checksum: u32,
}

impl Header {
    /// Decode a header. `None` if it is not one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, check) = bytes.get(..HEADER)?.split_at(8);
        if crc32fast::hash(head) != read_u32(check) {
            return None;
        }
        let (length, checksum) = head.split_at(4);
        Some(Self {
            length: read_u32(length),
            checksum: read_u32(checksum),
        })
    }

    /// The number of bytes of the payload.
    pub fn length(self) -> usize {
        self.length as usize
    }

    /// Return whether this is the payload of the frame.
    pub fn matches(self, payload: &[u8]) -> bool {
        payload.len() == self.length() && crc32fast::hash(payload) == self.checksum
    }
}

/// Append a frame to `out`. `write` appends the payload. Return false, and append nothing, if that is too long.
pub fn append(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> bool {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    write(out);
    let payload = &out[start + HEADER..];
    let Ok(length) = u32::try_from(payload.len()) else {
        out.truncate(start);
        return false;
    };
    let checksum = crc32fast::hash(payload);
    let header = &mut out[start..start + HEADER];
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4..8].copy_from_slice(&checksum.to_le_bytes());
    let check = crc32fast::hash(&header[..8]);
    header[8..].copy_from_slice(&check.to_le_bytes());
    true
}

fn read_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
