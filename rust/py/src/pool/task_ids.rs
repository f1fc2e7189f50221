//! `TaskIds`: the ids of the tasks of a runner.
//! `headrace/pool/config.py` makes it, and `Engine` takes an id for each task.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pyo3::prelude::*;

/// An infinite iterator over the integers from 1, safe to share between threads.
#[pyclass(name = "TaskIds", frozen, module = "headrace._core")]
#[derive(Debug, Default)]
pub(crate) struct PyTaskIds(AtomicU64);

#[pymethods]
impl PyTaskIds {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(name = "__next__")]
    pub(super) fn next(&self) -> u64 {
        // The GIL is held between the load and the store, so no atomic addition is needed, which takes several times as long.
        let id = self.0.load(Relaxed) + 1;
        self.0.store(id, Relaxed);
        id
    }
}
