//! What is kept of a plain task from its call to its end.

use pyo3::prelude::*;

use crate::capacity::Grant;
use crate::coroutine::{Seen, Stopped};

/// Everything that the lane has to know when it ends.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) id: u64,
    pub(super) key: Option<Py<PyAny>>,
    pub(super) grant: Grant,
    /// When it was taken up.
    pub(super) queued: f64,
    pub(super) called: f64,
}

impl Ticket {
    pub(super) fn traverse(&self, see: Seen<'_>) -> Result<(), Stopped> {
        if let Some(key) = &self.key {
            see(key)?;
        }
        self.grant.lease().map_or(Ok(()), see)
    }
}
