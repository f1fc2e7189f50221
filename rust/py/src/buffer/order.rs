//! What a buffer is told by name: its order, and what becomes of an item that finds it full.

use headrace_core::buffer::{Fault, Order, Overflow, Rank};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors;

/// What a full buffer does, by its name.
pub(super) fn overflow_of(overflow: &Bound<'_, PyAny>) -> PyResult<Overflow> {
    const NAMES: [(&str, Overflow); 4] = [
        ("block", Overflow::Block),
        ("drop_oldest", Overflow::DropOldest),
        ("drop_newest", Overflow::DropNewest),
        ("error", Overflow::Error),
    ];
    named("overflow", overflow, &NAMES)
}

/// An order, by its name.
pub(super) fn order_of(order: &Bound<'_, PyAny>, keyed: bool) -> PyResult<Order<Py<PyAny>>> {
    type Make = fn(bool) -> Order<Py<PyAny>>;
    const NAMES: [(&str, Make); 3] = [
        ("fifo", |_| Order::Fifo),
        ("lifo", |_| Order::Lifo),
        ("priority", by_priority),
    ];
    Ok(named("order", order, &NAMES)?(keyed))
}

/// The order of `<`: of the items, or of the keys that come with them.
pub(crate) fn by_priority(keyed: bool) -> Order<Py<PyAny>> {
    Order::Sorted(Box::new(ByValue { keyed }))
}

fn named<T: Copy>(parameter: &str, value: &Bound<'_, PyAny>, names: &[(&str, T)]) -> PyResult<T> {
    let given = value.extract::<String>().ok();
    let known = names
        .iter()
        .find(|(name, _)| given.as_deref() == Some(name));
    known.map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<_> = names.iter().map(|(name, _)| format!("'{name}'")).collect();
        let what = format!("one of {}", names.join(", "));
        if given.is_none() {
            return errors::wrong_type(parameter, &what, value);
        }
        let shown = errors::describe(value);
        PyValueError::new_err(format!("{parameter} must be {what}, got {shown}"))
    })
}

/// Compares by `<`.
#[derive(Debug)]
struct ByValue {
    /// The items are tuples of a key and an item.
    keyed: bool,
}

impl ByValue {
    fn key<'py>(&self, item: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if self.keyed {
            item.get_item(0)
        } else {
            Ok(item.clone())
        }
    }
}

impl Rank<Py<PyAny>> for ByValue {
    fn share(&self, item: &Py<PyAny>) -> Py<PyAny> {
        Python::attach(|py| item.clone_ref(py))
    }

    fn before(&self, item: &Py<PyAny>, other: &Py<PyAny>) -> Result<bool, Fault> {
        Python::attach(|py| self.key(item.bind(py))?.lt(self.key(other.bind(py))?))
            .map_err(|error: PyErr| Box::new(error) as Fault)
    }
}

/// The error of a comparison that failed.
pub(crate) fn incomparable(py: Python<'_>, fault: Fault) -> PyErr {
    match fault.downcast::<PyErr>() {
        Ok(error) => {
            // An exception that takes no note still has to arrive.
            let _ = errors::note(
                py,
                &error,
                "raised when an item was compared with another, to find its place in order of priority; \
                 it was not accepted",
            );
            *error
        }
        Err(fault) => PyValueError::new_err(fault.to_string()),
    }
}
