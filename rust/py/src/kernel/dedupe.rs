//! `dedupe`: drops repeated items.
//! The `dedupe` classes in `headrace/pull/transform.py` and `headrace/push/transform.py` use it.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3::{PyTraverseError, PyVisit};

use super::{Callable, Kernel, Output};
use crate::errors::RaisedError;
use crate::object::gc::{self, Traverse, traverse};
use crate::object::gil_cell::GilCell;
use crate::object::int_setting::check_int;

/// Emits an item unless `key(item)`, awaited if it is awaitable, is remembered.
#[pyclass(name = "DedupeKernel", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyDedupeKernel {
    /// `None` where the item is its own key.
    key: Option<Callable>,
    maxsize: Option<u64>,
    memory: Memory,
}

/// The remembered keys.
#[derive(Debug)]
enum Memory {
    /// All keys, least recently seen first. A Python dict, because Python hashes and compares the keys; no borrow is open
    /// meanwhile.
    All(Py<PyDict>),
    /// The key of the last item.
    Last(GilCell<Option<Py<PyAny>>>),
}

#[pymethods]
impl PyDedupeKernel {
    #[new]
    fn new(
        py: Python<'_>,
        key: Option<&Bound<'_, PyAny>>,
        maxsize: Option<&Bound<'_, PyAny>>,
        consecutive: bool,
    ) -> PyResult<Self> {
        let memory = if consecutive {
            Memory::Last(GilCell::new(None))
        } else {
            Memory::All(PyDict::new(py).unbind())
        };
        Ok(Self {
            key: key.map(|key| Callable::new("key", key)).transpose()?,
            maxsize: maxsize
                .map(|maxsize| check_int("maxsize", 1, maxsize))
                .transpose()?,
            memory,
        })
    }

    /// Return the number of remembered keys.
    #[getter]
    fn remembered(&self, py: Python<'_>) -> usize {
        match &self.memory {
            Memory::All(seen) => seen.bind(py).len(),
            Memory::Last(last) => usize::from(last.borrow(py).is_some()),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        gc::visit(&visit, |visit| self.traverse(visit))
    }

    fn __clear__(&self, py: Python<'_>) {
        if let Some(key) = &self.key {
            key.clear(py);
        }
        self.restart(py);
    }
}

impl PyDedupeKernel {
    /// Return whether this key is new. Remembers it.
    fn is_new(&self, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = key.py();
        match &self.memory {
            Memory::Last(last) => {
                if let Some(before) = last.get(py)
                    && before.eq(key)?
                {
                    return Ok(false);
                }
                last.set(py, Some(key.clone().unbind()));
                Ok(true)
            }
            Memory::All(seen) => {
                let seen = seen.bind(py);
                let is_new = !seen.contains(key)?;
                let Some(maxsize) = self.maxsize else {
                    if is_new {
                        seen.set_item(key, py.None())?;
                    }
                    return Ok(is_new);
                };
                // A key that is seen again becomes the most recent.
                if !is_new {
                    seen.del_item(key)?;
                }
                seen.set_item(key, py.None())?;
                if seen.len() as u64 > maxsize
                    && let Some(oldest) = seen.try_iter()?.next()
                {
                    seen.del_item(oldest?)?;
                }
                Ok(is_new)
            }
        }
    }
}

impl Kernel for PyDedupeKernel {
    const PARAMETER: &'static str = "key";

    #[inline(never)]
    fn process<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Output<'py>, RaisedError> {
        match &self.key {
            None => RaisedError::set_from(item.py(), self.resume(item, item.clone())),
            Some(key) => self.resume_or_await(item, key.call(item)?),
        }
    }

    fn resume<'py>(
        &self,
        item: &Bound<'py, PyAny>,
        result: Bound<'py, PyAny>,
    ) -> PyResult<Output<'py>> {
        Ok(if self.is_new(&result)? {
            Output::Emit(item.clone())
        } else {
            Output::Skip
        })
    }

    fn restart(&self, py: Python<'_>) {
        match &self.memory {
            Memory::All(seen) => seen.bind(py).clear(),
            Memory::Last(last) => last.set(py, None),
        }
    }
}

traverse!(
    enum Memory {
        All(seen),
        Last(last),
    }
);
traverse!(PyDedupeKernel { key, memory });
