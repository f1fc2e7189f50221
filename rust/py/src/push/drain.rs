//! What `drain_to` needs of both drivers.

use pyo3::prelude::*;

use crate::pull::link::PyPullLink;

/// Gives a stream back an item that it gave: the next pull gets it.
#[pyfunction]
pub(crate) fn hand_back(stream: &Bound<'_, PyPullLink>, item: Bound<'_, PyAny>) {
    PyPullLink::hand_back(stream, vec![item.unbind()]);
}
