//! Returning an item to a stream that `drain_to` drains into a sink. `headrace/push/_drain.py` calls it.

use pyo3::prelude::*;

use crate::pull::link::PyPullLink;

/// Return a delivered item to its stream. The next pull delivers it again.
#[pyfunction]
pub(crate) fn return_item(stream: &Bound<'_, PyPullLink>, item: Bound<'_, PyAny>) {
    PyPullLink::hand_back(stream, vec![item.unbind()]);
}
