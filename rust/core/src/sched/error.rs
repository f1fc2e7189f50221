use super::NodeId;
use std::error::Error;
use std::fmt;

/// The cost is above a limit on its path, so it could never be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AboveLimit {
    /// The node with that limit: the nearest, if there are several.
    pub node: NodeId,
    /// Its limit.
    pub limit: u64,
}

impl fmt::Display for AboveLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the cost is above a limit of {} on its path", self.limit)
    }
}

impl Error for AboveLimit {}
