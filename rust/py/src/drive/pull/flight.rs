//! A pull that is suspended, and where.

use pyo3::prelude::*;

use super::feed::Wait;
use crate::asyncio::Cancels;
use crate::awaitable::{Inner, Seen, Stopped};

/// Where it is suspended.
#[derive(Debug)]
pub(crate) enum Place {
    /// It lets the loop have a turn.
    Rest,
    /// It waits for the source.
    Draw(Wait),
    /// It awaits what the callable of stage number `stage` returned for `item`.
    Stage {
        inner: Inner,
        item: Py<PyAny>,
        stage: usize,
    },
}

/// A suspended pull. It is kept in the link rather than in the awaitable, so that closing the link
/// reaches it.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) place: Place,
    /// What was handed up to the task: closing cancels it, which makes the task go on.
    pub(crate) awaiting: Py<PyAny>,
    /// How often the task had been asked to cancel when the pull was suspended first.
    pub(crate) cancels: Cancels,
    /// Closing has cancelled it already; what it still does is its clean-up.
    pub(crate) interrupted: bool,
}

impl Flight {
    /// Shows the collector what this holds.
    pub(crate) fn traverse(&self, see: Seen<'_>) -> Result<(), Stopped> {
        see(&self.awaiting)?;
        match &self.place {
            Place::Rest => Ok(()),
            Place::Draw(wait) => wait.traverse(see),
            Place::Stage { inner, item, .. } => {
                see(inner.object())?;
                see(item)
            }
        }
    }
}
