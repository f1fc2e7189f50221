//! One way to show references to the collector, for `PyO3`'s classes and for our own heap types.

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::coroutine::{Seen, Stopped};

/// Lets `traverse` show what it holds to the visitor of a `PyO3` class.
pub(crate) fn show(
    visit: &PyVisit<'_>,
    traverse: impl FnOnce(Seen<'_>) -> Result<(), Stopped>,
) -> Result<(), PyTraverseError> {
    let mut stopped = None;
    let mut see = |reference: &Py<PyAny>| {
        visit.call(reference).map_err(|error| {
            stopped = Some(error);
            Stopped(1)
        })
    };
    // Its error is the one that was kept here.
    let _ = traverse(&mut see);
    stopped.map_or(Ok(()), Err)
}
