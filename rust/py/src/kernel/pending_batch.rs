//! The list that `batch` (`batch.rs`) and `batch_until` (`batch_until.rs`) gather.

use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::object::gc::traverse;
use crate::object::gil_cell::GilCell;

/// The most items for which memory is allocated in advance.
const LARGE: usize = 1024;

/// Items that wait for their list to be full.
///
/// A condition that decides when the list is full gets it as a *preview*: a Python list of its own, so
/// that no change to it reaches the items. To build one for each item would cost O(n^2) a list.
/// Instead the last preview is extended in place, if
///
/// 1. nothing else refers to it: a list that the condition kept must not grow behind its back, and
/// 2. it holds as many items as there are, and the last one is the same. Items are only appended, and
///    whatever removes them drops the preview, so these are then the same items unless the condition
///    itself changed them. An item whose condition failed or was cancelled leaves the preview one too long.
#[derive(Debug)]
pub(crate) struct Batch {
    items: GilCell<Vec<Py<PyAny>>>,
    /// Whether a partial batch is emitted at the end.
    keeps_partial: bool,
    preview: GilCell<Option<Py<PyList>>>,
}

impl Batch {
    pub(crate) fn new(keeps_partial: bool) -> Self {
        Self {
            items: GilCell::new(Vec::new()),
            keeps_partial,
            preview: GilCell::new(None),
        }
    }

    pub(crate) fn len(&self, py: Python<'_>) -> usize {
        self.items.borrow(py).len()
    }

    /// Add an item. Returns the new number of items.
    pub(crate) fn push(&self, item: &Bound<'_, PyAny>) -> usize {
        let mut items = self.items.borrow(item.py());
        items.push(item.clone().unbind());
        items.len()
    }

    /// Return the items so far and `item`, as a list for a condition. Nothing is added to the items.
    pub(crate) fn preview<'py>(&self, item: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        let py = item.py();
        let last = self.preview.take(py);
        if let Some(list) = last.map(|list| list.into_bound(py))
            && self.can_extend(&list)
        {
            list.append(item)?;
            *self.preview.borrow(py) = Some(list.clone().unbind());
            return Ok(list);
        }
        let items: Vec<_> = {
            let items = self.items.borrow(py);
            let items = items.iter().map(|item| item.clone_ref(py));
            items.chain([item.clone().unbind()]).collect()
        };
        let list = PyList::new(py, items)?;
        // Stored before the condition runs: a nested push that completes the list drops it too.
        self.preview.set(py, Some(list.clone().unbind()));
        Ok(list)
    }

    fn can_extend(&self, list: &Bound<'_, PyList>) -> bool {
        // SAFETY: the pointer is that of a live object, and this thread is attached.
        if unsafe { pyo3::ffi::Py_REFCNT(list.as_ptr()) } != 1 {
            return false;
        }
        let items = self.items.borrow(list.py());
        let Some(last) = items.last() else {
            return false;
        };
        list.len() == items.len()
            && list
                .get_item(items.len() - 1)
                .is_ok_and(|item| item.is(last))
    }

    /// Return the list, full; a new one begins, and may well become as long.
    pub(crate) fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.preview.set(py, None);
        let items = {
            let mut items = self.items.borrow(py);
            let next = Vec::with_capacity(items.len().min(LARGE));
            std::mem::replace(&mut *items, next)
        };
        PyList::new(py, items).map(Bound::into_any)
    }

    /// Take the partial batch at the end.
    pub(crate) fn flush<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        if self.len(py) == 0 || !self.keeps_partial {
            self.clear(py);
            return None;
        }
        self.take(py).ok()
    }

    pub(crate) fn clear(&self, py: Python<'_>) {
        self.preview.set(py, None);
        self.items.set(py, Vec::new());
    }
}

traverse!(Batch { items, preview });
