//! `IntHasher`: a fast hash for tables whose keys are addresses or counters.
//! `capacity/model/permit_record.rs` and the tables of the bindings use it.
//!
//! Users do not choose these keys, so the hash needs no protection against chosen collisions. Add [`BuildIntHasher`] to the type
//! of a `HashMap`.

use std::hash::{BuildHasherDefault, Hasher};

/// Builds an [`IntHasher`] for each key.
pub type BuildIntHasher = BuildHasherDefault<IntHasher>;

/// Fibonacci hashing: multiply by the golden ratio, then fold the high bits onto the low ones, as a hash table uses both.
#[derive(Debug, Default)]
pub struct IntHasher(u64);

impl Hasher for IntHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    #[inline]
    fn write_u64(&mut self, key: u64) {
        let mixed = (self.0 ^ key).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }

    #[inline]
    fn write_usize(&mut self, key: usize) {
        self.write_u64(key as u64);
    }
}
