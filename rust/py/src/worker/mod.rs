//! Worker processes: the parts of `headrace/pool/executor/process/` that are native.
//!
//! | file | contents |
//! |---|---|
//! | [`channel`] | frames through a socket |
//! | [`cells`] | the memory that a driver shares with its workers |
//! | [`lifeline`] | the end of a worker when its driver has died |
//!
//! `headrace_core::worker` has the handshake and the format of the frames.

mod cells;
mod channel;
mod lifeline;

use pyo3::prelude::*;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<cells::PyWorkerCells>()?;
    module.add_class::<channel::PyFrameChannel>()?;
    module.add_function(wrap_pyfunction!(lifeline::end_with_driver, module)?)
}
