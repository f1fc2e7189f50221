//! `Record`: the records of a journal and their encoding. `file.rs` appends them, and `scan.rs` decodes them.

/// A record of a journal. Times are seconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Record<'a> {
    /// A driver has opened the journal for calls of this version of a function.
    Run {
        /// The time of the opening.
        time: f64,
        /// Whether the user has stated the version.
        is_explicit: bool,
        /// The version.
        version: &'a str,
    },
    /// A call is about to begin.
    Start {
        /// The time before the call.
        time: f64,
        /// The identity of the call.
        identity: Identity<'a>,
    },
    /// A call has ended, after its last attempt.
    End(End<'a>),
    /// All bytes before this length were on disk when this record was written.
    Synced(u64),
}

/// The identity of a call: its key, and the number of earlier calls with the same key.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Identity<'a> {
    /// The encoded key.
    pub key: &'a [u8],
    /// 0 for the first call with the key.
    pub occurrence: u32,
}

/// The end of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct End<'a> {
    /// The time of the end.
    pub time: f64,
    /// The identity of the call.
    pub identity: Identity<'a>,
    /// How it ended.
    pub status: Status,
    /// The number of attempts.
    pub attempts: u32,
    /// The encoding of `value`: a number of the caller.
    pub format: u8,
    /// The result, or the description of the error.
    pub value: &'a [u8],
    /// The amounts that were charged to budgets, encoded by [`append_spend`].
    pub spend: &'a [u8],
}

/// How a call ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Status {
    /// With a result.
    Returned,
    /// With an error.
    Failed,
    /// With a result that could not be stored.
    Unstored,
}

const RUN: u8 = 1;
const START: u8 = 2;
const END: u8 = 3;
const SYNCED: u8 = 4;

impl<'a> Record<'a> {
    /// Append the encoded record to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Run {
                time,
                is_explicit,
                version,
            } => {
                out.push(RUN);
                out.extend_from_slice(&time.to_le_bytes());
                out.push(u8::from(*is_explicit));
                out.extend_from_slice(version.as_bytes());
            }
            Self::Start { time, identity } => {
                out.push(START);
                out.extend_from_slice(&time.to_le_bytes());
                out.extend_from_slice(&identity.occurrence.to_le_bytes());
                out.extend_from_slice(identity.key);
            }
            Self::End(end) => {
                out.push(END);
                out.extend_from_slice(&end.time.to_le_bytes());
                out.extend_from_slice(&end.identity.occurrence.to_le_bytes());
                out.push(end.status as u8);
                out.extend_from_slice(&end.attempts.to_le_bytes());
                out.push(end.format);
                append_sized(out, end.identity.key);
                append_sized(out, end.spend);
                out.extend_from_slice(end.value);
            }
            Self::Synced(length) => {
                out.push(SYNCED);
                out.extend_from_slice(&length.to_le_bytes());
            }
        }
    }

    /// Decode a payload. `None` for a kind of record that this version does not know, or a payload that is too short.
    pub fn decode(payload: &'a [u8]) -> Option<Self> {
        let mut rest = Rest(payload);
        Some(match rest.byte()? {
            RUN => Self::Run {
                time: rest.float()?,
                is_explicit: rest.byte()? != 0,
                version: std::str::from_utf8(rest.0).ok()?,
            },
            START => Self::Start {
                time: rest.float()?,
                identity: Identity {
                    occurrence: rest.int()?,
                    key: rest.0,
                },
            },
            END => {
                let time = rest.float()?;
                let occurrence = rest.int()?;
                let status = match rest.byte()? {
                    0 => Status::Returned,
                    1 => Status::Failed,
                    2 => Status::Unstored,
                    _ => return None,
                };
                let attempts = rest.int()?;
                let format = rest.byte()?;
                let key = rest.sized()?;
                let spend = rest.sized()?;
                Self::End(End {
                    time,
                    identity: Identity { key, occurrence },
                    status,
                    attempts,
                    format,
                    value: rest.0,
                    spend,
                })
            }
            SYNCED => Self::Synced(u64::from_le_bytes(rest.array()?)),
            _ => return None,
        })
    }

    /// The identity of the call that the record is about.
    pub fn identity(&self) -> Option<Identity<'a>> {
        match self {
            Self::Start { identity, .. } => Some(*identity),
            Self::End(end) => Some(end.identity),
            Self::Run { .. } | Self::Synced(_) => None,
        }
    }
}

/// Append an amount that was charged to a budget to the encoded amounts of a call.
pub fn append_spend(out: &mut Vec<u8>, resource: &str, amount: f64) {
    append_sized(out, resource.as_bytes());
    out.extend_from_slice(&amount.to_le_bytes());
}

/// Decode the amounts that [`append_spend`] has encoded.
pub fn spends(encoded: &[u8]) -> impl Iterator<Item = (&str, f64)> {
    let mut rest = Rest(encoded);
    std::iter::from_fn(move || {
        let name = std::str::from_utf8(rest.sized()?).ok()?;
        Some((name, rest.float()?))
    })
}

/// Append bytes behind their number. Longer ones do not fit in a frame, whose length has as many bits.
fn append_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// The part of a payload that is not decoded yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, number: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(number)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn int(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn float(&mut self) -> Option<f64> {
        self.array().map(f64::from_le_bytes)
    }

    fn sized(&mut self) -> Option<&'a [u8]> {
        let number = self.int()?;
        self.take(number as usize)
    }
}
