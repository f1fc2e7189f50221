//! `Words`: the numbers of 8 bytes, little-endian, that a watchdog and a driver exchange.

const SIZE: usize = size_of::<u64>();

/// Splits a stream of bytes into words.
#[derive(Debug, Default)]
pub(super) struct Words {
    rest: Vec<u8>,
}

impl Words {
    /// Return the words that these bytes complete.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<u64> {
        self.rest.extend_from_slice(bytes);
        let (whole, rest) = self.rest.as_chunks::<SIZE>();
        let words = whole.iter().map(|word| u64::from_le_bytes(*word)).collect();
        self.rest = rest.to_vec();
        words
    }
}
