//! `Claim`: a call that a pass has taken from its journal. The methods of [`Journal`] that claim calls.

use std::io;

use super::file::{Journal, payload_at};
use super::index::Entry;
use super::record::{Identity, Record};

/// A call that was claimed from a journal: no other call of this pass has its identity.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claim {
    pub(super) key: Box<[u8]>,
    pub(super) occurrence: u32,
    pub(super) hash: u64,
    /// The offset of its last record; 0 if it has none.
    pub(super) offset: u64,
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

impl Journal {
    /// Claim the next call with a key, in the order of the source. Return it with the payload of its end, if it has ended.
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
}
