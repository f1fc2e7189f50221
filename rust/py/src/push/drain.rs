//! What `drain_to` needs of both drivers.

use pyo3::prelude::*;

use crate::pull::link::PullLink;

/// Gives a stream back an item that it gave: the next pull gets it.
#[pyfunction]
pub(crate) fn hand_back(stream: &Bound<'_, PullLink>, item: Bound<'_, PyAny>) {
    PullLink::hand_back(stream, vec![item.unbind()]);
}
