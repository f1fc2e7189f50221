//! `take_while` and `skip_while`: split a stream at the first item for which the predicate is false.
//! `headrace/pull/slicing.py` uses it.

use pyo3::prelude::*;

use super::{Callable, Kernel, Output, live_kernel};
use crate::errors::RaisedError;
use crate::object::gc::traverse;
use crate::object::gil_cell::GilCell;

/// Calls `predicate(item)`, awaited if it is awaitable, until it is false for the first time. If `takes`, the items before that
/// are emitted; otherwise that item and the items after it.
#[pyclass(name = "WhileKernel", frozen, module = "headrace._core")]
#[derive(Debug)]
pub(crate) struct PyWhileKernel {
    predicate: Callable,
    takes: bool,
    /// Whether the predicate was false once.
    is_past: GilCell<bool>,
}

live_kernel! {
    impl PyWhileKernel {
        live { predicate: set_predicate }

        #[new]
        fn new(predicate: &Bound<'_, PyAny>, takes: bool) -> PyResult<Self> {
            Ok(Self {
                predicate: Callable::new("predicate", predicate)?,
                takes,
                is_past: GilCell::new(false),
            })
        }
    }
}

impl PyWhileKernel {
    /// Return the output for an item before the split, or for one past it.
    fn output<'py>(&self, item: &Bound<'py, PyAny>, is_past: bool) -> Output<'py> {
        match (self.takes, is_past) {
            (true, false) | (false, true) => Output::Emit(item.clone()),
            (true, true) => Output::Stop,
            (false, false) => Output::Skip,
        }
    }
}

impl Kernel for PyWhileKernel {
    const PARAMETER: &'static str = "predicate";

    #[inline(never)]
    fn process<'py>(&self, item: &Bound<'py, PyAny>) -> Result<Output<'py>, RaisedError> {
        let py = item.py();
        if *self.is_past.borrow(py) {
            return Ok(self.output(item, true));
        }
        self.resume_or_await(item, self.predicate.call(item)?)
    }

    fn resume<'py>(
        &self,
        item: &Bound<'py, PyAny>,
        result: Bound<'py, PyAny>,
    ) -> PyResult<Output<'py>> {
        let is_past = !result.is_truthy()?;
        if is_past {
            *self.is_past.borrow(item.py()) = true;
        }
        Ok(self.output(item, is_past))
    }

    fn is_done(&self, py: Python<'_>) -> bool {
        self.takes && *self.is_past.borrow(py)
    }

    fn restart(&self, py: Python<'_>) {
        *self.is_past.borrow(py) = false;
    }
}

traverse!(PyWhileKernel { predicate });
