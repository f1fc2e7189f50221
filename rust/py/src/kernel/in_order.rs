//! `in_order`: emits items in the order of their index. `headrace/pull/transform.py` uses it.

use std::collections::BTreeMap;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt, PyList};

use super::{Callable, Kernel, Output, live_kernel};
use crate::errors::{self, RaisedError};
use crate::object::gc::traverse;
use crate::object::gil_cell::GilCell;
use crate::object::int_setting::IntSetting;

/// Emits items in the order of `index(item)`, awaited if it is awaitable. Each index from `start` on occurs once. An item that is
/// too early is held until the missing items have been emitted, or until the end.
#[pyclass(name = "InOrderKernel", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyInOrderKernel {
    index: Callable,
    start: i64,
    maxsize: IntSetting,
    state: GilCell<State>,
}

#[derive(Debug)]
struct State {
    /// The next index to emit. Wider than an index, which gives the largest index a successor.
    next: i128,
    held: BTreeMap<i128, Py<PyAny>>,
}

impl State {
    fn at(start: i64) -> Self {
        Self {
            next: i128::from(start),
            held: BTreeMap::new(),
        }
    }
}

live_kernel! {
    impl PyInOrderKernel {
        live { index: set_index, maxsize: set_maxsize }

        #[new]
        fn new(
            index: &Bound<'_, PyAny>,
            start: &Bound<'_, PyAny>,
            maxsize: &Bound<'_, PyAny>,
        ) -> PyResult<Self> {
            let index = Callable::new("index", index)?;
            if !is_integer(start) {
                return Err(errors::wrong_type("start", "an integer", start));
            }
            let start = start.extract().map_err(|_| {
                pyo3::exceptions::PyValueError::new_err(format!(
                    "start must be from -2**63 and below 2**63, got {}",
                    errors::describe(start)
                ))
            })?;
            Ok(Self {
                index,
                start,
                maxsize: IntSetting::new("maxsize", 1, maxsize)?,
                state: GilCell::new(State::at(start)),
            })
        }

        /// Return the number of items that wait for a missing one.
        #[getter]
        fn waiting(&self, py: Python<'_>) -> usize {
            self.state.borrow(py).held.len()
        }
    }
}

/// Return whether this is an integer and not a `bool`, as for an integer parameter.
fn is_integer(value: &Bound<'_, PyAny>) -> bool {
    value.is_instance_of::<PyInt>() && !value.is_instance_of::<PyBool>()
}

impl PyInOrderKernel {
    /// Return the reason that an item with this index can be neither emitted nor held.
    fn refusal(&self, py: Python<'_>, index: i128) -> Option<String> {
        let state = self.state.borrow(py);
        let maxsize = self.maxsize.get(py);
        let (next, held) = (state.next, state.held.len());
        if index < i128::from(self.start) {
            Some(format!("is below the first one, {}", self.start))
        } else if index < next || state.held.contains_key(&index) {
            Some("was given to an item before".to_owned())
        } else if index > next && held as u64 >= maxsize {
            Some(format!(
                "is too early: {held} items wait for {next} already, and maxsize is {maxsize}"
            ))
        } else {
            None
        }
    }
}

impl Kernel for PyInOrderKernel {
    const PARAMETER: &'static str = "index";

    #[inline(never)]
    fn process<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Output<'py>, RaisedError> {
        self.resume_or_await(item, self.index.call(item)?)
    }

    fn resume<'py>(
        &self,
        item: &Bound<'py, PyAny>,
        result: Bound<'py, PyAny>,
    ) -> PyResult<Output<'py>> {
        let py = item.py();
        let refuse = |name: &str, reason: &str| {
            let message = format!("index {} {reason}", errors::describe(&result));
            Err(errors::refused(py, name, &message, item.clone()))
        };
        if !is_integer(&result) {
            return refuse("OrderTypeError", "is no integer");
        }
        let Ok(index) = result.extract::<i64>().map(i128::from) else {
            return refuse("OrderError", "is not between -2**63 and 2**63");
        };
        if let Some(reason) = self.refusal(py, index) {
            return refuse("OrderError", &reason);
        }
        let mut run = Vec::new();
        {
            let mut state = self.state.borrow(py);
            if index > state.next {
                state.held.insert(index, item.clone().unbind());
                return Ok(Output::Skip);
            }
            state.next += 1;
            while let Some(held) = {
                let next = state.next;
                state.held.remove(&next)
            } {
                run.push(held);
                state.next += 1;
            }
        }
        if run.is_empty() {
            return Ok(Output::Emit(item.clone()));
        }
        run.insert(0, item.clone().unbind());
        Output::many(PyList::new(py, run)?.as_any())
    }

    fn flush<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let mut state = self.state.borrow(py);
        let (index, item) = state.held.pop_first()?;
        state.next = index + 1;
        Some(item.into_bound(py))
    }

    fn restart(&self, py: Python<'_>) {
        self.state.set(py, State::at(self.start));
    }
}

traverse!(State { held });
traverse!(PyInOrderKernel { index, state });
