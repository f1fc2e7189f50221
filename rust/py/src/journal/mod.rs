//! `headrace_core::journal` for Python: `JournalFile`, an open journal, and `JournalReader`, its records. `headrace/journal/` uses both,
//! and the engine of the pool writes to the first.

mod file;
mod key;
mod reader;
mod sync;
mod value;

use pyo3::prelude::*;

use crate::coroutine::Native;
use crate::coroutine::operation::Ready;

pub(crate) use file::{PyJournalFile, Replay, key_of};
pub(crate) use value::Stored;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyJournalFile>()?;
    module.add_class::<reader::PyJournalReader>()?;
    module.add_function(wrap_pyfunction!(value::decode_stored, module)?)?;
    Native::<Ready<sync::Sync>>::register(module.py())
}
