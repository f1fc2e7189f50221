//! Worker processes: the parts of `headrace/pool/executor/process/` and `headrace/pool/executor/ray/` that are native.
//!
//! | file | contents |
//! |---|---|
//! | [`channel`] | frames through a socket |
//! | [`cells`] | the memory that a driver shares with its workers |
//! | [`lifeline`] | the end of a worker when a process that it depends on has died |
//! | [`host_lease`] | the lease of a host, for its driver |
//! | [`watchdog`] | the process that ends the work of a host |
//! | [`groups`] | the process groups that a watchdog ends |
//! | [`words`] | the numbers that a watchdog and a driver exchange |
//! | [`clock`] | the clock of leases |
//!
//! `headrace_core::worker` has the handshake, the format of the frames and the lease of a host.

mod cells;
mod channel;
mod clock;
#[cfg(target_os = "linux")]
mod groups;
mod host_lease;
mod lifeline;
#[cfg(target_os = "linux")]
mod watchdog;
mod words;

use pyo3::prelude::*;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<cells::PyWorkerCells>()?;
    module.add_class::<channel::PyFrameChannel>()?;
    module.add_class::<host_lease::PyHostLease>()?;
    #[cfg(target_os = "linux")]
    {
        module.add_function(wrap_pyfunction!(watchdog::open_lease_timer, module)?)?;
        module.add_function(wrap_pyfunction!(watchdog::run_watchdog, module)?)?;
    }
    module.add_function(wrap_pyfunction!(lifeline::end_with_driver, module)?)
}
