//! The partial batch of `window` and `buffer_until`.

use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::object::gc::traverse;
use crate::object::gil_cell::GilCell;

/// The most items for which memory is allocated in advance.
const LARGE: usize = 1024;

/// Items that wait for their batch to be complete.
#[derive(Debug)]
pub(crate) struct Batch {
    items: GilCell<Vec<Py<PyAny>>>,
    /// Whether a partial batch is emitted at the end.
    keeps_partial: bool,
}

impl Batch {
    pub(crate) fn new(keeps_partial: bool) -> Self {
        Self {
            items: GilCell::new(Vec::new()),
            keeps_partial,
        }
    }

    pub(crate) fn len(&self, py: Python<'_>) -> usize {
        self.items.borrow(py).len()
    }

    /// Adds an item. Returns the new number of items.
    pub(crate) fn push(&self, item: &Bound<'_, PyAny>) -> usize {
        let mut items = self.items.borrow(item.py());
        items.push(item.clone().unbind());
        items.len()
    }

    /// Takes the batch as a list. Allocates the next one for as many items.
    pub(crate) fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let items = {
            let mut items = self.items.borrow(py);
            let next = Vec::with_capacity(items.len().min(LARGE));
            std::mem::replace(&mut *items, next)
        };
        PyList::new(py, items).map(Bound::into_any)
    }

    /// Takes the partial batch at the end.
    pub(crate) fn flush<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        if self.len(py) == 0 || !self.keeps_partial {
            self.clear(py);
            return None;
        }
        self.take(py).ok()
    }

    pub(crate) fn clear(&self, py: Python<'_>) {
        let items = std::mem::take(&mut *self.items.borrow(py));
        drop(items);
    }
}

traverse!(Batch { items });
