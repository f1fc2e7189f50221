//! Parses the `order` and `overflow` parameters, and compares items. `buffer.rs` and `queue.rs` use it.

use headrace_core::buffer::{Fault, Order, Overflow, Rank};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors;

/// Parse `overflow`.
pub(super) fn parse_overflow(overflow: &Bound<'_, PyAny>) -> PyResult<Overflow> {
    const NAMES: [(&str, Overflow); 4] = [
        ("block", Overflow::Block),
        ("drop_oldest", Overflow::DropOldest),
        ("drop_newest", Overflow::DropNewest),
        ("error", Overflow::Error),
    ];
    parse_name("overflow", overflow, &NAMES)
}

/// Parse `order`.
pub(super) fn parse_order(order: &Bound<'_, PyAny>, keyed: bool) -> PyResult<Order<Py<PyAny>>> {
    type Make = fn(bool) -> Order<Py<PyAny>>;
    const NAMES: [(&str, Make); 3] = [
        ("fifo", |_| Order::Fifo),
        ("lifo", |_| Order::Lifo),
        ("priority", by_priority),
    ];
    Ok(parse_name("order", order, &NAMES)?(keyed))
}

/// Order by `<` of the items, or of their keys.
pub(super) fn by_priority(keyed: bool) -> Order<Py<PyAny>> {
    Order::Sorted(Box::new(ByValue { keyed }))
}

fn parse_name<T: Copy>(
    parameter: &str,
    value: &Bound<'_, PyAny>,
    names: &[(&str, T)],
) -> PyResult<T> {
    let text = value.extract::<String>().ok();
    let known = names.iter().find(|(name, _)| text.as_deref() == Some(name));
    known.map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<_> = names.iter().map(|(name, _)| format!("'{name}'")).collect();
        let expected = format!("one of {}", names.join(", "));
        if text.is_none() {
            return errors::wrong_type(parameter, &expected, value);
        }
        errors::wrong_value(parameter, &format!("be {expected}"), value)
    })
}

/// The comparison by `<`.
#[derive(Debug)]
struct ByValue {
    /// Whether the stored objects are tuples of a key and an item.
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

/// Return the error of a failed comparison, with a note.
pub(super) fn incomparable(py: Python<'_>, fault: Fault) -> PyErr {
    match fault.downcast::<PyErr>() {
        Ok(error) => {
            // The error is raised even if it accepts no note.
            let _ = errors::note(
                py,
                &error,
                "raised while an item was compared with another to find its position; it was not accepted",
            );
            *error
        }
        Err(fault) => PyValueError::new_err(fault.to_string()),
    }
}
