//! `Keys`: the `partition_by` of a concurrent `map`, and the number of each key in use, by which `partitions.rs` keeps its record.
//! `calls.rs` holds it; `start.rs` calls it.

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::coroutine::delegate::is_awaitable;
use crate::errors;
use crate::kernel::Callable;
use crate::object::gc::traverse;

const PARAMETER: &str = "partition_by";

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) partition_by: Callable,
    /// The name of the callable, in messages.
    pub(super) name: Py<PyString>,
    /// The number of each key in use. A Python dict, because Python hashes and compares the keys; no borrow is open meanwhile.
    numbers: Py<PyDict>,
}

impl Keys {
    pub(super) fn new(operator: &str, partition_by: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = partition_by.py();
        Ok(Self {
            partition_by: Callable::new(PARAMETER, partition_by)?,
            name: PyString::new(py, &format!("{PARAMETER} of {operator}")).unbind(),
            numbers: PyDict::new(py).unbind(),
        })
    }

    /// Return the key of an item.
    pub(super) fn of<'py>(&self, item: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = item.py();
        let key = self.partition_by.call(item);
        let key = key.map_err(|raised| raised.fetch(py))?;
        if !is_awaitable(&key) {
            return Ok(key);
        }
        let message = format!(
            "{PARAMETER} must return a key, got the awaitable {}; use a function that is not async",
            errors::describe(&key)
        );
        // Otherwise a coroutine would warn that it was never awaited.
        let _ = key.call_method0(intern!(py, "close"));
        Err(PyTypeError::new_err(message))
    }

    /// Return the number of a key: `next` for a key that is not in use.
    pub(super) fn number(&self, key: &Bound<'_, PyAny>, next: u64) -> PyResult<u64> {
        let py = key.py();
        let numbers = self.numbers.bind(py);
        match numbers.call_method1(intern!(py, "setdefault"), (key, next)) {
            Ok(number) => number.extract(),
            Err(error) if error.is_instance_of::<PyTypeError>(py) && key.hash().is_err() => {
                let refused = PyTypeError::new_err(format!(
                    "{PARAMETER} must return a hashable key, got {}",
                    errors::describe(key)
                ));
                refused.set_cause(py, Some(error));
                Err(refused)
            }
            Err(error) => Err(error),
        }
    }

    /// Forget a key that is no longer in use.
    pub(super) fn forget(&self, key: &Bound<'_, PyAny>) {
        // The key stays if its own `__hash__` or `__eq__` fails, or it was changed. Its number is then used again.
        if let Err(error) = self.numbers.bind(key.py()).del_item(key) {
            error.write_unraisable(key.py(), Some(key));
        }
    }

    /// Forget all keys.
    pub(super) fn clear(&self, py: Python<'_>) {
        self.numbers.bind(py).clear();
    }
}

traverse!(Keys {
    partition_by,
    numbers
});
