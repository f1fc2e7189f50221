//! What is kept of a plain task from its call to its end.

use pyo3::prelude::*;

use crate::capacity::TaskPermit;
use crate::object::gc::{Traverse, VisitError, Visitor};

/// Everything that the lane has to know when it ends.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) id: u64,
    pub(super) key: Option<Py<PyAny>>,
    pub(super) grant: TaskPermit,
    /// When it was taken up.
    pub(super) queued: f64,
    pub(super) called: f64,
}

impl Traverse for Ticket {
    fn traverse(&self, visit: Visitor<'_>) -> Result<(), VisitError> {
        if let Some(key) = &self.key {
            visit(key)?;
        }
        self.grant.lease().map_or(Ok(()), visit)
    }
}
