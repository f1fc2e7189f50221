//! The source that drains a `deque`, to which items may be added meanwhile. `headrace/pull/source.py` makes it.

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::SourcePoll;
use crate::errors;
use crate::object::gc::{self, Traverse, traverse};

/// Takes items from the left end of a `collections.deque`, or from its right end.
#[pyclass(frozen, name = "DequeSource", module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyDequeSource {
    items: Py<PyAny>,
    /// `items.popleft` or `items.pop`, bound once.
    pop: Py<PyAny>,
}

traverse!(PyDequeSource { items, pop });

#[pymethods]
impl PyDequeSource {
    #[new]
    #[pyo3(signature = (items, *, from_right = false))]
    fn new(items: &Bound<'_, PyAny>, from_right: bool) -> PyResult<Self> {
        let py = items.py();
        if !items
            .get_type()
            .is(&py.import("collections")?.getattr("deque")?)
        {
            return Err(errors::wrong_type("items", "a collections.deque", items));
        }
        let pop = if from_right {
            intern!(py, "pop")
        } else {
            intern!(py, "popleft")
        };
        Ok(Self {
            items: items.clone().unbind(),
            pop: items.getattr(pop)?.unbind(),
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| self.traverse(visit))
    }
}

impl PyDequeSource {
    #[inline(never)]
    pub(crate) fn ready<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        // SAFETY: a live deque, whose length cannot fail.
        if unsafe { ffi::PyObject_Size(self.items.as_ptr()) } == 0 {
            return None;
        }
        self.pop.bind(py).call0().ok()
    }

    pub(crate) fn poll_next<'py>(&self, py: Python<'py>) -> SourcePoll<'py> {
        self.ready(py).map_or(SourcePoll::End, SourcePoll::Item)
    }
}
